"""What an anchor needs of the logs that it anchors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.audit.checkpoint import Origin


class TreeSource(Protocol):
    """The logs of one replica. Blocking; called from any thread; every method raises Unavailable."""

    def latest_checkpoints(self) -> Sequence[str]:
        """The latest signed note of every log."""

    def consistency(self, origin: Origin, old_size: int, new_size: int) -> list[bytes]:
        """The proof that the log of `new_size` begins with the log of `old_size` (RFC 6962 section 2.1.2).

        Raises NotFound when there is no such log, or it has never been so large.
        """

    def certificate(self, origin: Origin) -> str:
        """The note that certifies the log's key; empty for a log that nobody signed."""
