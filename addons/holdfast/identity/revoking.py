"""The denylist as it is in the database, read every two seconds by whoever lets callers in.

What was read last counts while the database is away: no new call gets past the gateway then, since nothing can be
recorded. A session that is open needs no record to go on; so when nothing could be read for `BLIND_SECONDS`, those
that are under way are ended: nobody can tell any more who is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from holdfast.errors import HoldfastError
from holdfast.identity.denylist import Denylist

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holdfast.identity.denylist import Revocation

    type LoadRevocations = Callable[[], Iterable[Revocation]]

SECONDS_BETWEEN_READS = 2.0
BLIND_SECONDS = 30.0
BLIND = f"the database has been away for {BLIND_SECONDS:g} seconds, and whether the caller was revoked cannot be told"

logger = logging.getLogger(__name__)


class RevocationWatch:
    """Reads the denylist again and again; lives on one event loop. `load` is blocking and runs on a thread of its own.

    On the threads that all share, whoever is to be shut out could keep it waiting, with answers that take long to mask.
    """

    def __init__(
        self,
        load: LoadRevocations,
        take: Callable[[Denylist], None],
        *,
        lose_sight: Callable[[], None] = lambda: None,
        seconds: float = SECONDS_BETWEEN_READS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` is monotonic, in seconds.

        On the event loop, `take` is called with what each reading found, and `lose_sight` when none succeeds any more.
        """
        self._load = load
        self._take = take
        self._lose_sight = lose_sight
        self._seconds = seconds
        self._clock = clock
        self._read_at = clock()
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "holdfast-revocations")

    async def start(self) -> None:
        """Read it once, then go on reading. Raises Unavailable."""
        await self.read()
        self._task = asyncio.create_task(self._keep_reading())

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False)

    async def read(self) -> None:
        """Read it now. Raises Unavailable."""
        asked_at = self._clock()
        self._take(Denylist(await asyncio.get_running_loop().run_in_executor(self._thread, self._load)))
        self._read_at = asked_at

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.read()
            except HoldfastError as error:
                logger.warning("Keeping the revocations from before: %s", error)
            except Exception as fault:  # noqa: BLE001  nobody else would notice that revocations count no more
                # Without its message, which may quote what callers sent.
                logger.error("Keeping the revocations from before: %s, a fault of ours.", type(fault).__name__)
            if self._clock() - self._read_at >= BLIND_SECONDS:
                self._lose_sight()
