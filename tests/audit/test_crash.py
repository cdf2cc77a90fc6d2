"""A writer that is killed loses nothing that it acknowledged, and the next one goes on."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from audit.crashing import find_incomplete, find_losses, run_and_kill
from holdfast.audit.record import Kind

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 5
LONGEST_LIFE = 0.6


def test_kills_at_random_moments_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    chance = random.Random(4)  # noqa: S311  no secret hangs on it
    acknowledged = []
    for _ in range(ROUNDS):
        acknowledged += run_and_kill(url, tmp_path, chance.uniform(0.0, LONGEST_LIFE))
        assert find_losses(url, acknowledged) == []
    ended = {told.call for told in acknowledged if told.kind == Kind.OUTCOME}
    assert not ended & find_incomplete(url)
