"""Logs as values: what a database tells of one, what a commit adds to it, and where its large pieces go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from holdfast.audit.checkpoint import Checkpoint, Origin
from holdfast.audit.payload import Body
from holdfast.audit.sequence import Placed

if TYPE_CHECKING:
    from collections.abc import Mapping

_BEFORE = " (before: "


@dataclass(frozen=True, slots=True)
class LogRow:
    """A log as the database tells it (see `store.tables`).

    `size` and `root`, in hexadecimal, are those of its last checkpoint; times are RFC 3339 text.
    """

    id: int
    origin: Origin
    replica: str
    epoch: int
    day: str
    certificate: str
    size: int
    root: str
    opened_at: str
    closed_at: str | None
    dropped_at: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction adds to a log: from one checkpoint to the next, whose signed note is `note`."""

    log: int
    day: str
    before: Checkpoint
    after: Checkpoint
    note: str
    placed: Sequence[Placed]
    bodies: Sequence[tuple[Body, ...]]
    closed_at: str | None = None


class PieceStore(Protocol):
    """Where large pieces are kept beside the database."""

    def takes(self, kept: bytes) -> bool:
        """Whether a piece that is kept as these bytes goes here."""

    def put(self, day: str, pieces: Mapping[str, bytes]) -> None:
        """Keep pieces by their SHA-256, durably, all of them or raise Unavailable."""

    def get(self, day: str, sha256: str) -> bytes:
        """Return a piece as it is kept. Raises NotFound, Unavailable."""

    def delete(self, day: str, digests: Sequence[str]) -> None:
        """Remove pieces; those that are not there are no error. Raises Unavailable."""


def describe_gap(reason: str, remembered: Checkpoint | None) -> str:
    """The reason as the record tells it, with what was written last, where that is known."""
    return reason if remembered is None else f"{reason}{_BEFORE}{remembered.origin}, {remembered.size} records)"


def names_in_gap(gap: str, origin: str) -> bool:
    """Whether this log is the one that was written last before a gap."""
    return gap.rpartition(_BEFORE)[2].partition(", ")[0] == origin
