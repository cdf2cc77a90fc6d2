"""Tokens of our own, over HTTP: the token endpoint of an OAuth authorization server without clients.

    GET  /.well-known/oauth-authorization-server   what there is (RFC 8414), also as openid-configuration
    GET  /jwks                                     the keys (RFC 7517)
    POST /token                                    another token for one of ours (RFC 8693)

The exchange takes a token of a trusted issuer (`subject_token`, of the type jwt, id_token or access_token) and gives
one of ours that says the same, lives at most `lifetimeSeconds`, and never longer than the one it was made from. That
it was given is on record first, and so is why one was not. Errors are OAuth's (RFC 6749 section 5.2).
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from holdfast.audit.record import Entry, Issued, Kind, Record, describe_caller, timestamp
from holdfast.errors import BadRequest, ConfigurationError, HoldfastError, TooLarge, Unauthorized, Unavailable
from holdfast.identity.own_tokens import MintedToken, mint
from holdfast.serving import read_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from starlette.requests import Request

    from holdfast.console.decisions import Appender
    from holdfast.console.refusals import Refusals
    from holdfast.console.saml import SAMLService
    from holdfast.exchange import Identity
    from holdfast.identity.authenticator import Authenticator
    from holdfast.identity.own_tokens import SigningKey
    from holdfast.identity.token_keys import TokenKeys
    from holdfast.settings.identity import OwnTokens

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  a name
_TYPE = "urn:ietf:params:oauth:token-type:"
SUBJECT_TYPES = frozenset(_TYPE + name for name in ("jwt", "id_token", "access_token"))
GIVEN_TYPES = frozenset(_TYPE + name for name in ("jwt", "access_token"))
PREPARE_SECONDS = 3600
"""How often it is seen to whether a key is to be followed by the next."""
LARGEST_BODY = 64 << 10
FORM = "application/x-www-form-urlencoded"
_NO_LOGIN: dict[str, Any] = {"response_types_supported": []}
_LOGIN_METADATA: dict[str, Any] = {
    "response_types_supported": ["code"],
    "code_challenge_methods_supported": ["S256"],
    "authorization_response_iss_parameter_supported": True,
}
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}

logger = logging.getLogger(__name__)

type Grant = Callable[[Mapping[str, str]], Awaitable[tuple[Identity, str]]]
"""Takes the parameters of a request; tells who it is for, and the grant's name for the record. Raises OAuthError."""


class OAuthError(Exception):
    """What RFC 6749 section 5.2 answers: an error code, and a sentence.

    `refusal` is why somebody is not who they claim to be; it goes into the record.
    """

    def __init__(self, code: str, sentence: str, refusal: Unauthorized | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.refusal = refusal


class TokenService:
    """The endpoints. Lives on one event loop; `clock` gives the time, aware."""

    def __init__(
        self,
        settings: OwnTokens,
        keys: TokenKeys,
        authenticator: Authenticator,
        writer: Appender,
        refusals: Refusals,
        clock: Callable[[], datetime],
        saml: SAMLService | None = None,
    ) -> None:
        self._saml = saml
        self._grants: dict[str, Grant] = {TOKEN_EXCHANGE: self._take_token}
        if saml is not None:
            self._grants |= saml.grants()
        self._settings = settings
        self._keys = keys
        self._authenticator = authenticator
        self._writer = writer
        self._refusals = refusals
        self._clock = clock
        self._prepared_at = -math.inf

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/.well-known/oauth-authorization-server", self._get_metadata),
            Route("/.well-known/openid-configuration", self._get_metadata),
            Route("/jwks", self._get_jwks),
            Route("/token", self._post_token, methods=["POST"]),
            *(self._saml.routes() if self._saml is not None else ()),
        ]

    async def exchange(self, form: Mapping[str, str]) -> MintedToken:
        """Give a token of ours for what the form has. Raises OAuthError, and HoldfastError when nothing is recorded."""
        grant = self._grants.get(form.get("grant_type", ""))
        if grant is None:
            raise OAuthError("unsupported_grant_type", f"grant_type: expected {' or '.join(self._grants)}")
        if {form.get(name, self._settings.url) for name in ("audience", "resource")} != {self._settings.url}:
            raise OAuthError("invalid_target", f"audience, resource: tokens are for {self._settings.url} only")
        try:
            identity, name = await grant(form)
            return await self.issue(identity, name)
        except OAuthError as error:
            if error.refusal is not None:
                await self._refusals.tell(_name(form["grant_type"]), error.refusal, self._clock())
            raise

    async def _take_token(self, form: Mapping[str, str]) -> tuple[Identity, str]:
        if form.get("subject_token_type") not in SUBJECT_TYPES:
            known = ", ".join(sorted(SUBJECT_TYPES))
            raise OAuthError("invalid_request", f"subject_token_type: expected one of {known}")
        if form.get("requested_token_type", _TYPE + "access_token") not in GIVEN_TYPES:
            raise OAuthError("invalid_request", f"requested_token_type: expected {_TYPE}access_token")
        if "actor_token" in form:
            raise OAuthError("invalid_request", "actor_token: nobody acts for somebody else here")
        subject_token = read_proof(form, "subject_token")
        try:
            return await self._authenticator.identify(subject_token), "token-exchange"
        except Unauthorized as error:
            raise OAuthError("invalid_request", f"subject_token: {error}", error) from error

    async def issue(self, identity: Identity, grant: str) -> MintedToken:
        """Give a token of ours to somebody who is known. Raises OAuthError, Unavailable."""
        now = self._clock()
        try:
            self._authenticator.require_allowed(identity)
        except Unauthorized as error:
            raise OAuthError("invalid_grant", str(error), error) from error
        try:
            key = await asyncio.to_thread(self._signing_key, now.timestamp())
        except ConfigurationError as fault:
            logger.error("no token can be signed: %s", fault)
            raise Unavailable("the gateway cannot sign a token now; its operators find the cause in its log") from fault
        try:
            token = mint(identity, self._settings, key, now=now.timestamp(), token_id=secrets.token_urlsafe(16))
        except BadRequest as error:
            raise OAuthError("invalid_request", str(error)) from error
        issued = Issued(id=token.id, grant=grant, expires_at=token.expires_at)
        record = Record(kind=Kind.ISSUE, at=timestamp(now), identity=describe_caller(identity), issue=issued)
        await self._writer.append(Entry(record))
        return token

    def _signing_key(self, now: float) -> SigningKey:
        if now >= self._prepared_at + PREPARE_SECONDS:
            self._keys.prepare(now, self._settings.lifetime_seconds)
            self._prepared_at = now
        return self._keys.signing_key(now)

    async def _get_metadata(self, request: Request) -> JSONResponse:
        url = self._settings.url
        return JSONResponse(
            {
                "issuer": url,
                "jwks_uri": f"{url}/jwks",
                "token_endpoint": f"{url}/token",
                "grant_types_supported": list(self._grants),
                "token_endpoint_auth_methods_supported": ["none"],
                **(_LOGIN_METADATA | {"authorization_endpoint": f"{url}/authorize"} if self._saml else _NO_LOGIN),
            }
        )

    async def _get_jwks(self, request: Request) -> Response:
        document = await asyncio.to_thread(self._keys.jwks_file.read_bytes)
        return Response(document, media_type="application/jwk-set+json")

    async def _post_token(self, request: Request) -> JSONResponse:
        try:
            token = await self.exchange(await read_form(request))
        except OAuthError as error:
            answer: dict[str, Any] = {"error": error.code, "error_description": str(error)}
            return JSONResponse(answer, status_code=400, headers=NO_STORE)
        except HoldfastError as error:
            answer = {"error": "temporarily_unavailable", "error_description": str(error)}
            return JSONResponse(answer, status_code=error.code, headers=NO_STORE)
        answer = {
            "access_token": token.text,
            "issued_token_type": _TYPE + "access_token",
            "token_type": "Bearer",
            "expires_in": token.expires_at - int(self._clock().timestamp()),
        }
        return JSONResponse(answer, headers=NO_STORE)


def _name(grant_type: str) -> str:
    """The last word of a URN."""
    return grant_type.rpartition(":")[2]


def read_proof(form: Mapping[str, str], name: str) -> str:
    """The parameter that shows who asks, without the line end that a file has. Raises OAuthError without one."""
    proof = form.get(name, "").strip()
    if not proof:
        raise OAuthError("invalid_request", f"{name}: is missing")
    return proof


async def read_form(request: Request, largest: int = LARGEST_BODY) -> Mapping[str, str]:
    """The parameters, each once (RFC 6749 section 3.2), of at most so many bytes. Raises OAuthError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise OAuthError("invalid_request", f"expected a body of the type {FORM}")
    try:
        body = (await read_body(request, largest)).decode("ascii")
        pairs = parse_qsl(body, keep_blank_values=True, strict_parsing=bool(body), errors="strict", max_num_fields=50)
    except TooLarge as error:
        raise OAuthError("invalid_request", str(error)) from error
    except ValueError as error:
        raise OAuthError("invalid_request", "the body is not a form") from error
    form = dict(pairs)
    if len(form) < len(pairs):
        raise OAuthError("invalid_request", "a parameter is given twice")
    return {name: value for name, value in form.items() if value}
