"""SAML over HTTP: people log in at their provider, and jobs exchange an assertion.

    GET  /authorize       the browser of `holdfast login` begins here (RFC 6749 section 4.1, RFC 7636, RFC 8252)
    POST /saml/acs        the provider's answer comes in here, and the browser goes back to `holdfast login`
    GET  /saml/metadata   what the provider must know of us; `?idp=ENTITY-ID` where there are several
    POST /token           the code that the browser took along, or an assertion (RFC 7522), becomes a token of ours

There is one client, `holdfast`, which has no secret: what it proves is the PKCE verifier, and codes go to the
loopback interface of the machine where the login began, and to no other. A login that is under way is known to the
process in which it began; codes are good for a minute, once.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from holdfast.console.tokens import NO_STORE, OAuthError, read_form, refusal_entry
from holdfast.errors import BadRequest, Unauthorized
from holdfast.exchange import Identity
from holdfast.identity.saml.document import decode_post
from holdfast.identity.saml.mapping import map_identity
from holdfast.identity.saml.metadata import MEDIA_TYPE, build_metadata
from holdfast.identity.saml.replay import require_first_use
from holdfast.identity.saml.request import post_form, redirect_url
from holdfast.identity.saml.response import Expectation, read_issuer, verify_assertion, verify_response
from holdfast.identity.serialization import decode_base64url, encode_base64url
from holdfast.settings.identity import SAMLProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request

    from holdfast.console.decisions import Appender
    from holdfast.console.tokens import Grant
    from holdfast.identity.saml.replay import UsedAssertions
    from holdfast.identity.saml.request import Form

CLIENT_ID = "holdfast"
SAML_BEARER = "urn:ietf:params:oauth:grant-type:saml2-bearer"
AUTHORIZATION_CODE = "authorization_code"
LOGIN_SECONDS = 600.0
CODE_SECONDS = 60.0
MOST_UNDER_WAY = 1000
LONGEST_STATE = 512
"""Together they bound what strangers can have kept here."""
LARGEST_RESPONSE = 512 << 10
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class _Login:
    """A login that is under way at a provider."""

    provider: SAMLProvider
    request_id: str
    redirect_uri: str
    state: str
    challenge: str
    until: float


@dataclass(frozen=True, slots=True)
class _Code:
    """Somebody who has logged in, and whose code was not used yet."""

    identity: Identity
    redirect_uri: str
    challenge: str
    until: float


class SAMLService:
    """The endpoints. Lives on one event loop; `clock` gives seconds since the epoch, `used` is blocking."""

    def __init__(
        self,
        url: str,
        providers: Sequence[SAMLProvider],
        used: UsedAssertions,
        writer: Appender,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._providers = {provider.entity_id: provider for provider in providers}
        self._used = used
        self._writer = writer
        self._clock = clock
        self._logins: OrderedDict[str, _Login] = OrderedDict()
        self._codes: OrderedDict[str, _Code] = OrderedDict()

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/authorize", self._get_authorize),
            Route("/saml/acs", self._post_response, methods=["POST"]),
            Route("/saml/metadata", self._get_metadata),
        ]

    def grants(self) -> dict[str, Grant]:
        """What the token endpoint takes besides."""
        return {SAML_BEARER: self._take_assertion, AUTHORIZATION_CODE: self._take_code}

    # -- a login -----------------------------------------------------------------------------------------------------

    async def _get_authorize(self, request: Request) -> Response:
        query = request.query_params
        redirect_uri = query.get("redirect_uri", "")
        if query.get("client_id") != CLIENT_ID or not _is_loopback(redirect_uri):
            # Nothing goes to an address that is not ours to trust (RFC 6749 section 4.1.2.1).
            raise BadRequest(f"expected client_id {CLIENT_ID} and a redirect_uri on the loopback interface")
        state = query.get("state", "")
        try:
            login = self._begin(query, redirect_uri, state)
        except OAuthError as error:
            return self._send_back(redirect_uri, error=error.code, error_description=str(error), state=state)
        relay_state = secrets.token_urlsafe(32)
        _keep(self._logins, relay_state, login, self._clock())
        if login.provider.binding == "HTTP-POST":
            return _render_form(post_form(login.provider, login.request_id, self._clock(), relay_state))
        url = redirect_url(login.provider, login.request_id, self._clock(), relay_state)
        return RedirectResponse(url, status_code=303, headers=NO_STORE)

    def _begin(self, query: Mapping[str, str], redirect_uri: str, state: str) -> _Login:
        challenge = query.get("code_challenge", "")
        if query.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type: expected code")
        if len(state) > LONGEST_STATE:
            raise OAuthError("invalid_request", f"state: expected at most {LONGEST_STATE} characters")
        if query.get("code_challenge_method") != "S256" or not _is_challenge(challenge):
            raise OAuthError("invalid_request", "code_challenge: expected PKCE with S256")
        return _Login(
            provider=self._choose(query.get("idp", "")),
            request_id=f"_{secrets.token_hex(20)}",
            redirect_uri=redirect_uri,
            state=state,
            challenge=challenge,
            until=self._clock() + LOGIN_SECONDS,
        )

    def _choose(self, entity_id: str) -> SAMLProvider:
        if not entity_id and len(self._providers) == 1:
            return next(iter(self._providers.values()))
        provider = self._providers.get(entity_id)
        if provider is None:
            raise OAuthError("invalid_request", f"idp: expected one of {', '.join(self._providers)}")
        return provider

    async def _post_response(self, request: Request) -> Response:
        try:
            form = await read_form(request, LARGEST_RESPONSE)
        except OAuthError as error:
            raise BadRequest(str(error)) from error
        login = _take(self._logins, form.get("RelayState", ""), self._clock())
        if login is None:
            raise BadRequest("no login is under way that this answers, or it took too long; run `holdfast login` again")
        try:
            identity = await asyncio.to_thread(self._verify_response, form.get("SAMLResponse", ""), login)
        except Unauthorized as refusal:
            await self._writer.append(refusal_entry(refusal, datetime.fromtimestamp(self._clock(), UTC)))
            told = {"error": "access_denied", "error_description": str(refusal), "state": login.state}
            return self._send_back(login.redirect_uri, **told)
        code = secrets.token_urlsafe(32)
        kept = _Code(identity, login.redirect_uri, login.challenge, self._clock() + CODE_SECONDS)
        _keep(self._codes, code, kept, self._clock())
        return self._send_back(login.redirect_uri, code=code, state=login.state)

    def _verify_response(self, posted: str, login: _Login) -> Identity:
        expectation = Expectation(in_response_to=login.request_id)
        found = verify_response(decode_post(posted), login.provider, expectation, self._clock())
        require_first_use(found, self._used)
        return map_identity(found, login.provider)

    def _send_back(self, redirect_uri: str, **told: str) -> Response:
        """To `holdfast login`, with who says so (RFC 9207)."""
        query = urlencode({name: value for name, value in {**told, "iss": self._url}.items() if value})
        return RedirectResponse(f"{redirect_uri}?{query}", status_code=303, headers=NO_STORE)

    # -- the token endpoint ------------------------------------------------------------------------------------------

    async def _take_code(self, form: Mapping[str, str]) -> tuple[Identity, str]:
        code = _take(self._codes, form.get("code", ""), self._clock())
        proven = encode_base64url(sha256(form.get("code_verifier", "").encode()).digest())
        if code is None or not hmac.compare_digest(proven, code.challenge):
            raise OAuthError("invalid_grant", "code: it is not known, was used, is over a minute old, or not yours")
        if form.get("client_id") != CLIENT_ID or form.get("redirect_uri") != code.redirect_uri:
            raise OAuthError("invalid_grant", "client_id, redirect_uri: expected those of the login")
        return code.identity, "saml-login"

    async def _take_assertion(self, form: Mapping[str, str]) -> tuple[Identity, str]:
        try:
            return await asyncio.to_thread(self._verify_assertion, form.get("assertion", "")), "saml2-bearer"
        except Unauthorized as refusal:
            raise OAuthError("invalid_grant", f"assertion: {refusal}", refusal) from refusal

    def _verify_assertion(self, encoded: str) -> Identity:
        try:
            document = decode_base64url(encoded)
        except ValueError as error:
            raise Unauthorized("it is not base64url without padding (RFC 7522 section 2.1)", "malformed") from error
        provider = self._providers.get(read_issuer(document))
        if provider is None:
            raise Unauthorized("its issuer is not trusted here", "unknown_issuer")
        found = verify_assertion(document, provider, self._clock())
        require_first_use(found, self._used)
        return map_identity(found, provider)

    async def _get_metadata(self, request: Request) -> Response:
        try:
            provider = self._choose(request.query_params.get("idp", ""))
        except OAuthError as error:
            raise BadRequest(str(error)) from error
        return Response(build_metadata(provider), media_type=MEDIA_TYPE)


def _is_challenge(text: str) -> bool:
    """RFC 7636 section 4.2: a SHA-256 digest in base64url."""
    try:
        return len(decode_base64url(text)) == sha256().digest_size
    except ValueError:
        return False


def _is_loopback(redirect_uri: str) -> bool:
    """RFC 8252 section 7.3: http, the loopback interface, any port, and nothing that could carry something else."""
    try:
        parts = urlsplit(redirect_uri)
        has_port = parts.port is not None
    except ValueError:
        return False
    is_plain = not (parts.query or parts.fragment or parts.username or parts.password) and redirect_uri.isprintable()
    return parts.scheme == "http" and parts.hostname in LOOPBACK and has_port and is_plain


def _keep[T: (_Login, _Code)](kept: OrderedDict[str, T], name: str, value: T, now: float) -> None:
    """Keep what is under way; what is over goes, and the oldest when there is too much."""
    while kept and (len(kept) >= MOST_UNDER_WAY or next(iter(kept.values())).until <= now):
        kept.popitem(last=False)
    kept[name] = value


def _take[T: (_Login, _Code)](kept: OrderedDict[str, T], name: str, now: float) -> T | None:
    """Use up what is kept under this name; None when there is none, or its time is over."""
    found = kept.pop(name, None)
    return found if found is not None and now < found.until else None


def _render_form(form: Form) -> Response:
    """A page that posts the form by itself, and by a button where scripts do not run."""
    nonce = secrets.token_urlsafe(16)
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in form.fields.items()
    )
    page = (
        f'<!doctype html><title>Log in</title><form method="post" action="{escape(form.action)}">{fields}'
        f'<button>Go on to log in</button></form><script nonce="{nonce}">document.forms[0].submit()</script>'
    )
    policy = f"default-src 'none'; script-src 'nonce-{nonce}'; base-uri 'none'; frame-ancestors 'none'"
    return HTMLResponse(page, headers={**NO_STORE, "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})
