"""SAML over HTTP: people log in at their provider, and jobs exchange an assertion.

    GET  /authorize       the browser of `holdfast login` begins here (RFC 6749 section 4.1, RFC 7636, RFC 8252)
    POST /saml/acs        the provider's answer comes in here, and the browser goes back to `holdfast login`
    GET  /saml/metadata   what the provider must know of us; `?idp=ENTITY-ID` where there are several
    POST /token           the code that the browser took along, or an assertion (RFC 7522), becomes a token of ours

There is one client, `holdfast`, which has no secret: what it proves is the PKCE verifier, and codes go to the
path `/callback` on the loopback interface of the machine where the login began, and to nothing else: what else listens
there, as `kubectl proxy`, might pass it on. Nothing of a login is kept here while somebody is away: it goes with their
browser, sealed, in a cookie and as the code, so that another process may go on with it, and a stranger who begins many
takes nobody's place. A code is good for a minute, once.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from holdfast.console.tokens import NO_STORE, OAuthError, read_form, read_proof
from holdfast.errors import BadRequest, Unauthorized
from holdfast.exchange import Identity
from holdfast.identity.own_tokens import read_identity, tell_identity
from holdfast.identity.saml.document import decode_post
from holdfast.identity.saml.mapping import map_identity
from holdfast.identity.saml.metadata import MEDIA_TYPE, build_metadata
from holdfast.identity.saml.replay import require_first_use
from holdfast.identity.saml.request import post_form, redirect_url
from holdfast.identity.saml.response import verify_assertion, verify_response
from holdfast.identity.sealing import seal, unseal
from holdfast.identity.serialization import decode_base64url, encode_base64url, parse_object, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request

    from holdfast.console.refusals import Refusals
    from holdfast.console.tokens import Grant
    from holdfast.identity.saml.replay import UsedAssertions
    from holdfast.identity.saml.request import Form
    from holdfast.identity.token_keys import TokenKeys
    from holdfast.settings.saml import SAMLProvider

CLIENT_ID = "holdfast"
SAML_BEARER = "urn:ietf:params:oauth:grant-type:saml2-bearer"
AUTHORIZATION_CODE = "authorization_code"
LOGIN_SECONDS = 600
CODE_SECONDS = 60
SLOTS = "01234567"
"""Each is for one of the logins under way in a browser; of more than there are, one goes."""
LONGEST_COOKIE = 1200
"""In every slot one, and the browser's requests still have heads that HTTP servers take: 16 KiB, here."""
LOGIN = "holdfast.dev/saml-login"
CODE = "holdfast.dev/saml-code"
LARGEST_RESPONSE = 512 << 10
MAX_PORT = 65535

_REDIRECT_URI = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost):([0-9]{1,5})/callback")


@dataclass(frozen=True, slots=True)
class _Login:
    """A login that is under way at a provider: what its browser carries meanwhile."""

    idp: str
    request_id: str
    redirect_uri: str
    state: str
    challenge: str


@dataclass(frozen=True, slots=True)
class _Code:
    """Somebody who has logged in: what a code is. `id` is how it is known that it was used."""

    id: str
    redirect_uri: str
    challenge: str
    identity: Identity


class SAMLService:
    """The endpoints. Lives on one event loop; `clock` gives seconds since the epoch, `used` and `keys` are blocking."""

    def __init__(
        self,
        url: str,
        providers: Sequence[SAMLProvider],
        used: UsedAssertions,
        keys: TokenKeys,
        refusals: Refusals,
        *,
        clock: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._url = url
        self._providers = {provider.entity_id: provider for provider in providers}
        self._used = used
        self._keys = keys
        self._refusals = refusals
        self._clock = clock
        self._random_bytes = random_bytes

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
        if query.get("client_id") != CLIENT_ID or not _is_callback(redirect_uri):
            # Nothing goes to an address that is not ours to trust (RFC 6749 section 4.1.2.1).
            raise BadRequest(f"expected client_id {CLIENT_ID} and redirect_uri http://127.0.0.1:PORT/callback")
        state = query.get("state", "")
        try:
            login = self._begin(query, redirect_uri, state, self._new_request_id(request.cookies))
            cookie = await asyncio.to_thread(self._seal, asdict(login), LOGIN)
            if len(cookie) > LONGEST_COOKIE:
                raise OAuthError("invalid_request", "state, redirect_uri: expected shorter ones")
        except OAuthError as error:
            return self._send_back(redirect_uri, error=error.code, error_description=str(error), state=state)
        answer = self._send_away(login)
        _set_cookie(answer, login.request_id, cookie, LOGIN_SECONDS)
        return answer

    def _begin(self, query: Mapping[str, str], redirect_uri: str, state: str, request_id: str) -> _Login:
        challenge = query.get("code_challenge", "")
        if query.get("response_type") != "code":
            raise OAuthError("unsupported_response_type", "response_type: expected code")
        if query.get("code_challenge_method") != "S256" or not _is_challenge(challenge):
            raise OAuthError("invalid_request", "code_challenge: expected PKCE with S256")
        return _Login(
            idp=self._choose(query.get("idp", "")).entity_id,
            request_id=request_id,
            redirect_uri=redirect_uri,
            state=state,
            challenge=challenge,
        )

    def _send_away(self, login: _Login) -> Response:
        """To the provider. The RelayState says which of the browser's logins an answer is for, and is no secret."""
        provider = self._providers[login.idp]
        if provider.binding == "HTTP-POST":
            return _render_form(post_form(provider, login.request_id, self._clock(), login.request_id))
        url = redirect_url(provider, login.request_id, self._clock(), login.request_id)
        return RedirectResponse(url, status_code=303, headers=NO_STORE)

    def _new_request_id(self, cookies: Mapping[str, str]) -> str:
        """One whose cookie has a slot that is free in this browser, if there is any.

        Any page can have a browser begin logins: were there a cookie for each, its requests would soon be too long.
        """
        slots = [slot for slot in SLOTS if _cookie_name(slot) not in cookies] or SLOTS
        drawn = self._random_bytes(20)
        return f"_{drawn.hex()}{slots[drawn[0] % len(slots)]}"

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
        login = await asyncio.to_thread(self._find_login, request.cookies, form.get("RelayState", ""))
        if login is None:
            raise BadRequest(
                "no login is under way in this browser that this answers, or it took too long; "
                "run `holdfast login` again"
            )
        answer = await self._answer(login, form.get("SAMLResponse", ""))
        _set_cookie(answer, login.request_id, "", 0)
        return answer

    def _find_login(self, cookies: Mapping[str, str], relay_state: str) -> _Login | None:
        """The login whose cookie the browser brings. A provider that is trusted no more has none under way."""
        try:
            login = _Login(**self._unseal(cookies.get(_cookie_name(relay_state), ""), LOGIN, LOGIN_SECONDS))
        except ValueError:
            return None
        return login if login.request_id == relay_state and login.idp in self._providers else None

    async def _answer(self, login: _Login, posted: str) -> Response:
        try:
            identity = await asyncio.to_thread(self._verify_response, posted, login)
        except Unauthorized as refusal:
            await self._refusals.tell("saml-login", refusal, datetime.fromtimestamp(self._clock(), UTC))
            told = {"error": "access_denied", "error_description": str(refusal), "state": login.state}
            return self._send_back(login.redirect_uri, **told)
        code = _Code(self._random_bytes(16).hex(), login.redirect_uri, login.challenge, identity)
        sealed = await asyncio.to_thread(self._seal, _tell_code(code), CODE)
        return self._send_back(login.redirect_uri, code=sealed, state=login.state)

    def _verify_response(self, posted: str, login: _Login) -> Identity:
        provider = self._providers[login.idp]
        found = verify_response(decode_post(posted), provider, login.request_id, self._clock())
        require_first_use(found, self._used)
        return map_identity(found, provider)

    def _send_back(self, redirect_uri: str, **told: str) -> Response:
        """To `holdfast login`, with who says so (RFC 9207)."""
        query = urlencode({name: value for name, value in {**told, "iss": self._url}.items() if value})
        return RedirectResponse(f"{redirect_uri}?{query}", status_code=303, headers=NO_STORE)

    # -- the token endpoint ------------------------------------------------------------------------------------------

    async def _take_code(self, form: Mapping[str, str]) -> tuple[Identity, str]:
        code = await asyncio.to_thread(self._use_code, form.get("code", ""))
        proven = encode_base64url(sha256(form.get("code_verifier", "").encode()).digest())
        if code is None or not hmac.compare_digest(proven, code.challenge):
            raise OAuthError("invalid_grant", "code: it is not known, was used, is over a minute old, or not yours")
        if form.get("client_id") != CLIENT_ID or form.get("redirect_uri") != code.redirect_uri:
            raise OAuthError("invalid_grant", "client_id, redirect_uri: expected those of the login")
        return code.identity, "saml-login"

    def _use_code(self, text: str) -> _Code | None:
        """Who has logged in; None when it is no code, or not for the first time."""
        try:
            code = _read_code(self._unseal(text, CODE, CODE_SECONDS))
        except ValueError:
            return None
        return code if self._used.remember(code.id, self._url, self._clock() + CODE_SECONDS) else None

    def _seal(self, content: Mapping[str, Any], purpose: str) -> str:
        now = self._clock()
        return seal(write_json(content), self._keys.secrets(now), purpose, now=now)

    def _unseal(self, text: str, purpose: str, seconds: int) -> Mapping[str, Any]:
        now = self._clock()
        return parse_object(unseal(text, self._keys.secrets(now), purpose, now=now, seconds=seconds))

    async def _take_assertion(self, form: Mapping[str, str]) -> tuple[Identity, str]:
        assertion = read_proof(form, "assertion")
        try:
            return await asyncio.to_thread(self._verify_assertion, assertion), "saml2-bearer"
        except Unauthorized as refusal:
            raise OAuthError("invalid_grant", f"assertion: {refusal}", refusal) from refusal

    def _verify_assertion(self, encoded: str) -> Identity:
        try:
            document = decode_base64url(encoded)
        except ValueError as error:
            raise Unauthorized("it is not base64url without padding (RFC 7522 section 2.1)", "malformed") from error
        found = verify_assertion(document, self._providers, self._clock())
        require_first_use(found, self._used)
        return map_identity(found, self._providers[found.issuer])

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


def _is_callback(redirect_uri: str) -> bool:
    """RFC 8252 section 7.3: the one redirect URI of the client, with any port (RFC 9700 section 2.1)."""
    match = _REDIRECT_URI.fullmatch(redirect_uri)
    return match is not None and int(match[1]) <= MAX_PORT


def _cookie_name(request_id: str) -> str:
    """A request's ID ends in its slot, so that several logins may be under way in a browser."""
    return f"__Host-holdfast_{request_id[-1:]}"


def _set_cookie(answer: Response, request_id: str, value: str, seconds: int) -> None:
    # SameSite=None, since the provider's page posts what it answers from another site.
    name = _cookie_name(request_id)
    answer.set_cookie(name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="none")


def _tell_code(code: _Code) -> dict[str, Any]:
    told = {"id": code.id, "redirect_uri": code.redirect_uri, "challenge": code.challenge}
    return {**told, "exp": code.identity.expires_at, **tell_identity(code.identity)}


def _read_code(told: Mapping[str, Any]) -> _Code:
    return _Code(told["id"], told["redirect_uri"], told["challenge"], read_identity(told, told["exp"]))


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
