"""Who was given no token: why is put on record each time, and into the log of the process at most once a second.

Strangers choose how often they are refused, so a line in the log also says how many it stands for.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from holdfast.audit.record import Entry, Kind, Record, describe_refusal, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from holdfast.console.decisions import Appender
    from holdfast.errors import Unauthorized

SECONDS_BETWEEN_LINES = 1.0

logger = logging.getLogger(__name__)


class Refusals:
    """Where refusals are told. Lives on one event loop; `monotonic` gives seconds."""

    def __init__(self, writer: Appender, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._writer = writer
        self._monotonic = monotonic
        self._told_at = -math.inf
        self._left_out = 0

    async def tell(self, what: str, refusal: Unauthorized, now: datetime) -> None:
        """Tell of one; `what` was refused goes into the log only. Raises Unavailable when it is not on record."""
        self._log(what, refusal.why)
        await self._writer.append(Entry(Record(kind=Kind.ISSUE, at=timestamp(now), refusal=describe_refusal(refusal))))

    def _log(self, what: str, why: str) -> None:
        now = self._monotonic()
        if now < self._told_at + SECONDS_BETWEEN_LINES:
            self._left_out += 1
            return
        more = f"; {self._left_out} more since the line before" if self._left_out else ""
        logger.warning("refused: %s, %s%s; `holdfast identity log` tells more", what, why, more)
        self._told_at, self._left_out = now, 0
