from __future__ import annotations

import os
import sys

import pytest

from holdfast.audit.verify.workers import MOST_WORKERS, default_sharing


@pytest.mark.parametrize(("cores", "workers"), [(3, 2), (1, 0), (None, 0), (1000, MOST_WORKERS)])
def test_where_a_process_cannot_tell_its_cores_it_has_all_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, cores: int | None, workers: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 12))
        patch.delattr(os, "sched_getaffinity", raising=False)
        patch.setattr(os, "cpu_count", lambda: cores)
        sharing = default_sharing()
    assert sharing.workers == workers


def test_a_process_that_may_use_some_cores_makes_no_more_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 12))
        patch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
        sharing = default_sharing()
    assert sharing.workers == 2
