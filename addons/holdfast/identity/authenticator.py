"""What the gateway calls: an Authorization header becomes an Identity.

A verified token is remembered by its SHA-256 for five minutes at most, never past its expiry, and only as long
as the very key set that verified it is the issuer's current one: a rotated or withdrawn key takes its tokens
with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import Unauthorized
from holdfast.exchange import Identity
from holdfast.identity.denylist import Denylist
from holdfast.identity.discovery import IssuerDown, choose_loader
from holdfast.identity.key_source import KeySource
from holdfast.identity.keys import KeySet
from holdfast.identity.mapping import UserMapper
from holdfast.identity.token import Mapper, UnverifiedToken, parse_token, unknown_issuer, verify_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.identity.own_tokens import OwnTokenMapper
    from holdfast.settings.identity import IdentitySection

SCHEME = "Bearer "
MAX_REMEMBERED = 10_000
REMEMBER_SECONDS = 300.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A verified token's identity, who issued it, the keys that verified it, and when to look again (epoch seconds)."""

    identity: Identity
    issuer: str
    keys: KeySet
    until: float


class Authenticator:
    """Every trusted issuer, its keys, and the tokens verified of late. Lives on one event loop."""

    def __init__(
        self, section: IdentitySection, own: OwnTokenMapper | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        """`own` lets tokens of our own in; `clock` gives seconds since the epoch.

        Raises ConfigurationError when an expression of an issuer is not right.
        """
        self._clock = clock
        self._mappers: dict[str, Mapper] = {trusted.issuer.url: UserMapper(trusted) for trusted in section.jwt}
        self._own_url = own.issuer.url if own is not None else ""
        self._takes_assertions = bool(section.saml)
        if own is not None:
            self._mappers[own.issuer.url] = own
        self._sources = {
            url: KeySource(mapper.issuer, choose_loader(mapper.issuer), clock=clock)
            for url, mapper in self._mappers.items()
        }
        self.denylist = Denylist()
        self._turn = asyncio.Lock()
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def start(self) -> None:
        """Fetch the keys of every issuer. One that is down is tried again, as long as somebody can be let in.

        Raises ConfigurationError for the first, in order, that is not configured as it must be, or when all are down
        and there is no SAML provider.
        """
        results = await asyncio.gather(*(source.start() for source in self._sources.values()), return_exceptions=True)
        failures = [result for result in results if result is not None]
        faults = [failure for failure in failures if not isinstance(failure, IssuerDown)]
        others = self._sources.keys() - {self._own_url}
        if faults or (others and len(failures) == len(others) and not self._takes_assertions):
            await self.close()
            raise (faults or failures)[0]
        for failure in failures:
            logger.warning("Its tokens are refused until it answers: %s", failure)

    async def close(self) -> None:
        """Stop refreshing keys and forget every token."""
        await asyncio.gather(*(source.close() for source in self._sources.values()))
        self._remembered.clear()

    def cached(self, authorization: str | None) -> Identity | None:
        """The identity of a token verified of late, at once; None means ask `authenticate`."""
        token = _read_bearer(authorization)
        found = None if token is None else self._recall(token)
        return None if found is None or self.is_revoked(found) else found

    async def identify(self, text: str) -> Identity:
        """Verify a token that is to be exchanged for one of our own.

        Raises Unauthorized as `authenticate` does, and with `own_token` for one that is our own already.
        """
        if parse_token(text).issuer == self._own_url:
            raise Unauthorized("the token is one of the gateway's own already", "own_token")
        return await self.authenticate(SCHEME + text)

    def require_allowed(self, identity: Identity) -> None:
        """Raise Unauthorized when the identity, whose token is good, is let in no more."""
        self.denylist.require_allowed(identity, self._clock())

    def is_revoked(self, identity: Identity) -> bool:
        """Whether the identity, whose token is good, is let in no more."""
        return self.denylist.find(identity, self._clock()) is not None

    async def authenticate(self, authorization: str | None) -> Identity:
        """Verify the token in `Bearer TOKEN`; waits for a key fetch only when the token's key is not known.

        Raises Unauthorized, with the reason codes of `holdfast.identity.token` and `no_token`, `not_bearer`,
        `keys_unavailable` and `revoked`.
        """
        token = _read_bearer(authorization)
        if token is None:
            raise self._refuse_missing(authorization)
        identity = self._recall(token) or await self._verify(token)
        self.require_allowed(identity)
        return identity

    async def _verify(self, text: str) -> Identity:
        token = await self._in_turn(lambda: parse_token(text))
        source = self._sources.get(token.issuer)
        if source is None:
            raise unknown_issuer(token.issuer)
        keys = await self._find_keys(source, token)
        mapper = self._mappers[token.issuer]
        identity = await self._in_turn(lambda: verify_token(token, mapper, keys, self._clock()))
        self._remember(text, identity, token.issuer, keys)
        return identity

    async def _in_turn[T](self, work: Callable[[], T]) -> T:
        """Do one such work in one turn of the loop, however many new tokens come at once."""
        async with self._turn:
            await asyncio.sleep(0)
            return work()

    async def _find_keys(self, source: KeySource, token: UnverifiedToken) -> KeySet:
        keys = source.current()
        if keys is None or keys.find(token.algorithm, token.key_id) is None:
            await source.refresh_for_unknown_key()
            keys = source.current()
        if keys is None:
            raise Unauthorized(
                "the token cannot be checked: its issuer does not answer the gateway", "keys_unavailable"
            )
        return keys

    def _recall(self, text: str) -> Identity | None:
        name = _digest(text)
        found = self._remembered.get(name)
        if found is None:
            return None
        if self._clock() >= found.until or self._sources[found.issuer].current() is not found.keys:
            del self._remembered[name]
            return None
        self._remembered.move_to_end(name)
        return found.identity

    def _remember(self, text: str, identity: Identity, issuer: str, keys: KeySet) -> None:
        until = min(identity.expires_at, self._clock() + REMEMBER_SECONDS)
        self._remembered[_digest(text)] = _Remembered(identity, issuer, keys, until)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _refuse_missing(self, authorization: str | None) -> Unauthorized:
        if authorization is None:
            issuers = " or ".join(self._sources)
            return Unauthorized(f"no token; send `Authorization: Bearer TOKEN` with a token from {issuers}", "no_token")
        return Unauthorized("the Authorization header must be exactly `Bearer TOKEN`", "not_bearer")


def _read_bearer(authorization: str | None) -> str | None:
    """The token in exactly `Bearer TOKEN`: one space, visible ASCII (RFC 6750 section 2.1)."""
    if authorization is None or not authorization.startswith(SCHEME):
        return None
    token = authorization[len(SCHEME) :]
    is_visible = token.isascii() and token.isprintable() and " " not in token
    return token if token and is_visible else None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("ascii")).digest()
