"""A writer that is killed loses nothing that it acknowledged, the next one goes on, and the record verifies."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from audit.crashing import find_incomplete, find_losses, run_and_kill, verify_after
from holdfast.audit.record import Kind
from holdfast.audit.verify import Class

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 5
LONGEST_LIFE = 0.6


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    url = f"sqlite:///{tmp_path / 'audit.db'}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    chance = random.Random(4)  # noqa: S311  no secret hangs on it
    acknowledged = []
    for _ in range(ROUNDS):
        acknowledged += run_and_kill(url, tmp_path, chance.uniform(0.0, LONGEST_LIFE))
        assert find_losses(url, acknowledged) == []
    ended = {told.call for told in acknowledged if told.kind == Kind.OUTCOME}
    incomplete = find_incomplete(url)
    assert not ended & incomplete
    report = verify_after(url, tmp_path)
    assert set(report.counts) <= {"no-anchor", "outcome-missing"}
    assert report.counts["outcome-missing"] == len(incomplete)
    assert Class.ALTERED not in report.classes
