"""When an issuer's keys are read again, and how long they are believed while the issuer is down.

Keys are read every five minutes, and at once for a key ID that is not known yet, so that a rotation is noticed;
but at most every 30 seconds, since anyone can send a token with a made-up key ID. However many calls wait for
keys, one read is under way. A read that fails leaves the last good keys in place for a day; after that nothing
can be verified and every token of the issuer is refused. A read that succeeds counts, even if it takes all keys
away: that is how an issuer withdraws them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import TYPE_CHECKING

from holdfast.errors import ConfigurationError
from holdfast.identity.discovery import IssuerDown
from holdfast.identity.keys import KeySet, parse_key_set

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.identity.discovery import LoadDocument
    from holdfast.settings.identity import Issuer

REFRESH_SECONDS = 300.0
MIN_SECONDS_BETWEEN_REFRESHES = 30.0
MAX_AGE_SECONDS = 24 * 3600.0

logger = logging.getLogger(__name__)


class KeySource:
    """The keys of one issuer, kept fresh. Lives on one event loop; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        issuer: Issuer,
        load: LoadDocument,
        *,
        clock: Callable[[], float],
        refresh_seconds: float = REFRESH_SECONDS,
        retry_seconds: float = MIN_SECONDS_BETWEEN_REFRESHES,
    ) -> None:
        self.issuer = issuer
        self._load = load
        self._clock = clock
        self._refresh_seconds = refresh_seconds
        self._retry_seconds = retry_seconds
        self._keys: KeySet | None = None
        self._loaded_at = -math.inf
        self._attempted_at = -math.inf
        self._attempt: asyncio.Task[None] | None = None
        self._background: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys for the first time, then keep reading.

        Raises IssuerDown, and goes on trying, when the issuer does not answer; ConfigurationError without a usable key.
        """
        try:
            keys = await self._read()
        except IssuerDown:
            self._background = asyncio.create_task(self._keep_reading())
            raise
        if not keys.keys:
            found = "; ".join(keys.unusable) or "it publishes none"
            raise ConfigurationError(f"issuer {self.issuer.url}: has no usable key: {found}.")
        self._background = asyncio.create_task(self._keep_reading())

    async def close(self) -> None:
        """Stop reading."""
        for task in (self._background, self._attempt):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def current(self) -> KeySet | None:
        """The keys to verify with now; None when the last good ones are too old to be believed."""
        return self._keys if self._clock() - self._loaded_at <= MAX_AGE_SECONDS else None

    async def refresh(self) -> None:
        """Read the keys again, or join the read that is under way; a failure is logged and changes nothing."""
        if self._attempt is None or self._attempt.done():
            self._attempt = asyncio.create_task(self._try_to_read())
        await asyncio.shield(self._attempt)

    async def refresh_for_unknown_key(self) -> None:
        """Read the keys again unless they were read just now."""
        under_way = self._attempt is not None and not self._attempt.done()
        if under_way or not 0 <= self._clock() - self._attempted_at < MIN_SECONDS_BETWEEN_REFRESHES:
            await self.refresh()

    async def _keep_reading(self) -> None:
        while True:
            has_keys = self._keys is not None
            await asyncio.sleep(self._refresh_seconds if has_keys else min(self._refresh_seconds, self._retry_seconds))
            await self.refresh()

    async def _try_to_read(self) -> None:
        kept = "Keeping the keys of %s from before: %s" if self._keys else "Still without the keys of %s: %s"
        try:
            await self._read()
        except ConfigurationError as error:
            logger.warning(kept, self.issuer.url, error)
        except Exception as fault:  # noqa: BLE001  nobody else would notice that keys are read no more
            logger.error(kept, self.issuer.url, f"{type(fault).__name__}, a fault of ours.")

    async def _read(self) -> KeySet:
        self._attempted_at = self._clock()
        document = await self._load()
        try:
            keys = await asyncio.to_thread(parse_key_set, document, self.issuer.algorithms)
        except ValueError as error:
            raise ConfigurationError(f"issuer {self.issuer.url}: its key set cannot be read: {error}.") from error
        self._loaded_at = self._clock()
        if keys != self._keys:
            self._keys = keys
        return keys
