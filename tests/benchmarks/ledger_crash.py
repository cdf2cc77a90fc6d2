"""A writer that is killed again and again: what it had acknowledged must be there, and the rest must be told."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING

from audit.crashing import Acknowledged, find_incomplete, find_losses, run_and_kill, verify_after
from holdfast.audit.verify import Class

if TYPE_CHECKING:
    from benchmarks.databases import Databases, Place
    from benchmarks.ledger import Report

LONGEST_LIFE = 0.6
KILLS_A_DATABASE = 20
"""Every start reads the record again, so one database for all kills would measure little but that."""


@dataclass
class _Tally:
    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    incomplete: int = 0
    incomplete_told: int = 0
    other_findings: int = 0
    verdict: Class = Class.INTACT


def measure_crash(databases: Databases, report: Report, rounds: int) -> dict[str, int | str]:
    """Records acknowledged and lost over `rounds` kills; calls without an outcome, in the database and as verified.

    The verdict is the gravest of all databases, for who accepts that nothing is anchored.
    """
    chance = random.Random(7)  # noqa: S311  no secret hangs on it
    tally = _Tally()
    for lives in batched((chance.uniform(0.0, LONGEST_LIFE) for _ in range(rounds)), KILLS_A_DATABASE):
        with databases.make() as place:
            told: list[Acknowledged] = []
            for life in lives:
                told += run_and_kill(place.url, place.folder, life)
                tally.kills += 1
                report(f"killing: {tally.kills} of {rounds}, {tally.acknowledged + len(told)} records acknowledged")
            _look(place, told, tally)
    return {
        "kills": tally.kills,
        "acknowledged": tally.acknowledged,
        "lost": tally.lost,
        "incomplete": tally.incomplete,
        "incomplete_told": tally.incomplete_told,
        "other_findings": tally.other_findings,
        "verdict": tally.verdict.name,
    }


def _look(place: Place, told: list[Acknowledged], tally: _Tally) -> None:
    found = verify_after(place.url, place.folder)
    tally.acknowledged += len(told)
    tally.lost += len(find_losses(place.url, told))
    tally.incomplete += len(find_incomplete(place.url))
    tally.incomplete_told += found.counts["outcome-missing"]
    tally.other_findings += found.counts.total() - found.counts["outcome-missing"] - found.counts["no-anchor"]
    verdict = found.verdict(frozenset({Class.UNANCHORED}))
    tally.verdict = min(tally.verdict, verdict, key=_gravity)


def _gravity(verdict: Class) -> int:
    return int(verdict) or 100
