"""Logging in, renewing, and which of the two `holdfast get-token` may do.

Whatever gets new tokens does so under the cache's lock and looks at the cache again first: of processes that find a
token old at the same time, the first asks the provider and the others take what it got.
"""

from __future__ import annotations

import asyncio
import enum
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.identity.discovery import IssuerDown
from holdfast.login.authorization import authorization_url, begin_attempt, read_callback, token_form
from holdfast.login.browser import open_in_background
from holdfast.login.cache import NotTrusted, TokenCache
from holdfast.login.callback import await_callback
from holdfast.login.device import await_device, begin_device_flow
from holdfast.login.provider import LoginFailed, open_provider, target_parameters
from holdfast.login.request import LoginRequest, request_options
from holdfast.login.tokens import read_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.identity.keys import KeySet
    from holdfast.login.cache import Tokens
    from holdfast.login.callback import Callback
    from holdfast.login.device import DeviceCode
    from holdfast.login.provider import Provider

type SendAway = Callable[[str, asyncio.Future[str]], Awaitable[bool]]
"""Sends the person to an address; whether that worked. The future is done when they are back."""

LOGIN_SECONDS = 300.0
"""How long a browser may be away."""


class Way(enum.Enum):
    """How a person is asked."""

    BROWSER = "browser"
    """One is opened here; where that fails, as HEADLESS."""
    ADDRESS = "address"
    """The person opens an address in a browser on this machine."""
    DEVICE = "device"
    """The person enters a code in a browser anywhere."""
    HEADLESS = "headless"
    """DEVICE where the provider knows it, else ADDRESS."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a login does to the world around it. Times are in seconds, `clock`'s since the epoch.

    `tell` says something to the person, `open_browser` returns whether it could.
    """

    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    random_bytes: Callable[[int], bytes]
    open_browser: Callable[[str], bool]
    tell: Callable[[str], None]
    login_seconds: float = LOGIN_SECONDS


@dataclass(frozen=True, slots=True)
class Session:
    """One request's login: where it is kept, how its provider is trusted, how its person is asked."""

    request: LoginRequest
    cache: TokenCache
    authority: Path | None
    way: Way
    around: Surroundings

    async def log_in(self) -> Tokens:
        """Ask the person, whatever is kept, and keep what comes of it.

        Raises LoginFailed, IssuerDown, ConfigurationError, NotTrusted.
        """
        with self.cache.locked(self.request):
            return await self._log_in()

    async def get_tokens(self, *, may_ask: bool) -> Tokens:
        """The tokens that are kept, renewed when they are old; with `may_ask`, of a new login where it takes one.

        Raises LoginFailed, IssuerDown, ConfigurationError, NotTrusted.
        """
        if not may_ask:
            tokens = self._read()
            if tokens is None or not tokens.refresh_token:
                return self._make_do(tokens)
        with self.cache.locked(self.request):
            tokens = self._read()
            if tokens is not None and tokens.is_fresh(self.around.clock()):
                return tokens
            if tokens is not None and tokens.refresh_token:
                return await self._renew_or_log_in(tokens, may_ask=may_ask)
            return await self._log_in() if may_ask else self._make_do(tokens)

    async def log_out(self) -> bool:
        """Forget the tokens, and have the provider end what would renew them; whether there were any.

        Raises LoginFailed, when they are forgotten here and the provider could not be told, and NotTrusted of the
        folder.
        """
        with self.cache.locked(self.request):
            try:
                tokens = self.cache.read(self.request)
            except NotTrusted as fault:
                self.cache.remove(self.request)
                raise self._tell_not_ended(fault) from fault
            was_there = self.cache.remove(self.request)
        if tokens is not None and tokens.refresh_token:
            try:
                await self._end(tokens.refresh_token)
            except HoldfastError as failure:
                raise self._tell_not_ended(failure) from failure
        return was_there

    def _tell_not_ended(self, why: Exception) -> LoginFailed:
        return LoginFailed(
            f"the tokens are forgotten here, but a copy could still be renewed: {str(why).rstrip('.')}; "
            f"end the session at {self.request.issuer} itself."
        )

    async def _end(self, refresh_token: str) -> None:
        """RFC 7009 section 2.1."""
        form = {"token": refresh_token, "token_type_hint": "refresh_token", "client_id": self.request.client_id}
        async with open_provider(self.request, self.authority) as provider:
            endpoint = provider.metadata.revocation_endpoint
            if endpoint is not None:
                await provider.revoke(endpoint, form)
                return
        self.around.tell(f"{self.request.issuer} has no way to end a login: a copy of the tokens can still be renewed.")

    def _make_do(self, tokens: Tokens | None) -> Tokens:
        """What is kept, to its last second: there is nothing to renew it with, and nobody to ask."""
        if tokens is not None and tokens.expires_at > self.around.clock():
            return tokens
        raise LoginFailed(f"nobody is logged in at {self.request.issuer}; {self._advice()}.")

    def _read(self) -> Tokens | None:
        try:
            return self.cache.read(self.request)
        except NotTrusted as fault:
            self.around.tell(f"The tokens that were kept are not used. {fault}.")
            return None

    async def _renew_or_log_in(self, tokens: Tokens, *, may_ask: bool) -> Tokens:
        try:
            return await self._renew(tokens)
        except ConfigurationError as fault:
            if tokens.expires_at <= self.around.clock():
                raise
            if not isinstance(fault, IssuerDown):  # which passes by itself
                self.around.tell(f"The token is still good, but could not be renewed: {fault}")
            return tokens  # while it is good, somebody may get on with work
        except LoginFailed as failure:
            if not may_ask:
                raise LoginFailed(
                    f"the login at {self.request.issuer} is over: {str(failure).rstrip('.')}; {self._advice()}."
                ) from failure
            self.around.tell(f"The login at {self.request.issuer} is over: {failure}")
        return await self._log_in()

    async def _renew(self, tokens: Tokens) -> Tokens:
        """RFC 6749 section 6."""
        form = {
            "grant_type": "refresh_token",
            "refresh_token": tokens.refresh_token,
            "client_id": self.request.client_id,
            **target_parameters(self.request),
        }
        async with open_provider(self.request, self.authority) as provider:
            # First, since a refresh token that is good once must not be spent on an answer that cannot be checked.
            keys = await provider.fetch_keys()
            answer = await provider.post(provider.metadata.token_endpoint, form)
            return self._keep(provider, keys, answer, before=tokens)

    async def _log_in(self) -> Tokens:
        async with open_provider(self.request, self.authority) as provider:
            tokens = await self._ask(provider, self.way)
            if tokens is None:
                self.around.tell("No browser could be opened.")
                tokens = await self._ask(provider, Way.HEADLESS)
        if tokens is None:
            raise LoginFailed("nobody could be asked; log in with --device or --no-browser.")
        return tokens

    async def _ask(self, provider: Provider, way: Way) -> Tokens | None:
        """The tokens of a new login; None where no browser could be opened."""
        endpoint = provider.metadata.device_authorization_endpoint
        if way is Way.DEVICE and endpoint is None:
            raise ConfigurationError(f"issuer {self.request.issuer}: knows no device flow; log in without --device.")
        if way in {Way.DEVICE, Way.HEADLESS} and endpoint is not None:
            return await self._ask_by_device(provider, endpoint)
        return await self._ask_by_browser(provider, self._open if way is Way.BROWSER else self._show)

    async def _ask_by_device(self, provider: Provider, endpoint: str) -> Tokens:
        code = await begin_device_flow(provider, self.request, endpoint)
        self.around.tell(_invite(code))
        answer = await await_device(provider, self.request, code, clock=self.around.clock, sleep=self.around.sleep)
        return self._keep(provider, await provider.fetch_keys(), answer)

    async def _ask_by_browser(self, provider: Provider, send_away: SendAway) -> Tokens | None:
        endpoint = provider.metadata.authorization_endpoint
        if endpoint is None:
            raise ConfigurationError(f"issuer {self.request.issuer}: knows no login by browser; try --device.")
        attempt = begin_attempt(self.around.random_bytes)
        async with await_callback(partial(read_callback, attempt=attempt, provider=provider)) as callback:
            url = authorization_url(endpoint, provider, self.request, attempt, callback.redirect_uri)
            code = await self._await_code(callback, url, send_away)
        if code is None:
            return None
        form = token_form(self.request, attempt, callback.redirect_uri, code)
        answer = await provider.post(provider.metadata.token_endpoint, form)
        return self._keep(provider, await provider.fetch_keys(), answer, nonce=attempt.nonce)

    async def _await_code(self, callback: Callback, url: str, send_away: SendAway) -> str | None:
        """The code that the browser brings; None when there is no browser."""
        try:
            async with asyncio.timeout(self.around.login_seconds):
                if not await send_away(url, callback.code):
                    return None
                return await callback.code
        except TimeoutError as error:
            seconds = f"{self.around.login_seconds:g}"
            raise LoginFailed(
                f"the browser did not come back within {seconds} s; log in again, and where the provider's page shows "
                f"an error, see whether it knows the client {self.request.client_id}."
            ) from error

    async def _open(self, url: str, code: asyncio.Future[str]) -> bool:
        self.around.tell(f"A browser opens to log you in. If it does not, open this address in one:\n{url}")
        opened = open_in_background(self.around.open_browser, url)
        waited: set[asyncio.Future[Any]] = {opened, code}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        return code.done() or opened.result()

    async def _show(self, url: str, code: asyncio.Future[str]) -> bool:
        self.around.tell(f"Open this address in a browser on this machine:\n{url}")
        return True

    def _keep(
        self,
        provider: Provider,
        keys: KeySet,
        answer: Mapping[str, Any],
        *,
        nonce: str | None = None,
        before: Tokens | None = None,
    ) -> Tokens:
        now = self.around.clock()
        tokens = read_tokens(answer, self.request, provider.issuer, keys, now=now, nonce=nonce, before=before)
        self.cache.write(self.request, tokens)
        return tokens

    def _advice(self) -> str:
        trust = [] if self.authority is None else [f"--issuer-ca={self.authority}"]
        return f"run `holdfast login {shlex.join([*request_options(self.request), *trust])}`"


def choose_way(*, device: bool, no_browser: bool, desktop: bool) -> Way:
    """How a person is asked, by what they want and whether a browser would appear before them."""
    if device:
        return Way.DEVICE
    if no_browser:
        return Way.ADDRESS
    return Way.BROWSER if desktop else Way.HEADLESS


def _invite(code: DeviceCode) -> str:
    minutes = max(code.expires_in // 60, 1)
    whole = (
        f" (or {code.verification_uri_complete}, which has the code in it)" if code.verification_uri_complete else ""
    )
    return (
        f"Open {code.verification_uri} in any browser{whole}\n"
        f"and enter the code {code.user_code} within {minutes} min. Enter it only if it was you who asked for it."
    )
