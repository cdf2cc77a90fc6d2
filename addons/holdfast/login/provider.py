"""The OpenID provider, as a public client sees it: its metadata, its token endpoint, its keys.

OpenID Connect Discovery 1.0 section 3, RFC 8414 section 2, RFC 6749 sections 5.1 and 5.2. Everything is HTTPS, and
answers are bounded and read strictly, as the gateway reads its issuers' documents.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import httpx
from pydantic import ValidationError

from holdfast.errors import ConfigurationError, HoldfastError
from holdfast.identity.discovery import (
    TIMEOUT_SECONDS,
    Advice,
    fetch_document,
    fetch_metadata,
    open_client,
    read_bounded,
    require_able,
    telling_faults,
)
from holdfast.identity.keys import KeySet, parse_key_set
from holdfast.identity.serialization import parse_object
from holdfast.login.request import ACCESS, ID
from holdfast.settings.identity import ALGORITHMS, Issuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from holdfast.login.request import LoginRequest

OFFLINE_ACCESS = "offline_access"
OPTIONS = Advice("give its CA with --issuer-ca", "--issuer")
MAX_TOLD_CHARACTERS = 300
MIN_SECRET_CHARACTERS = 16
"""What is shorter is a word, as a grant type or a scope."""

MAX_LIFETIME_SECONDS = 10 * 365 * 86400
"""How long tokens may live is the gateway's to say."""


class LoginFailed(HoldfastError):
    """Nobody is logged in; the message says why, and what to do."""

    code = 401
    reason = "Unauthorized"


class Refused(LoginFailed):
    """The provider's own no; `error` is its code (RFC 6749 section 5.2, RFC 8628 section 3.5)."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is needed of a provider's metadata. Every endpoint is an https:// address."""

    token_endpoint: str
    jwks_uri: str
    authorization_endpoint: str | None
    device_authorization_endpoint: str | None
    revocation_endpoint: str | None = None
    scopes_supported: tuple[str, ...] = ()
    names_issuer_in_callback: bool = False
    """Whether the callback carries `iss` (RFC 9207 section 3)."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider, its metadata, and the client that it is asked with. Lives on one event loop."""

    issuer: Issuer
    metadata: Metadata
    client: httpx.AsyncClient

    async def post(self, url: str, form: Mapping[str, str]) -> Mapping[str, Any]:
        """POST a form; the JSON object of a good answer.

        Raises Refused, IssuerDown, ConfigurationError. What was sent is never told, even if the provider repeats it.
        """
        with telling_faults(self.issuer.url, OPTIONS):
            status, document = await self._send(url, form)
            answer = _read_answer(document, url, status)
        if status != httpx.codes.OK:
            raise _refuse(answer, form)
        return answer

    async def revoke(self, url: str, form: Mapping[str, str]) -> None:
        """POST a token that is to be good no more (RFC 7009 section 2). Raises as `post`."""
        with telling_faults(self.issuer.url, OPTIONS):
            status, document = await self._send(url, form)
            if status == httpx.codes.OK:
                return
            answer = _read_answer(document, url, status)
        raise _refuse(answer, form)

    async def _send(self, url: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            self.client.stream("POST", url, data=dict(form), follow_redirects=False) as response,
        ):
            require_able(response)
            return response.status_code, await read_bounded(response)

    async def fetch_keys(self) -> KeySet:
        """The provider's keys as they are now. Raises IssuerDown, ConfigurationError."""
        with telling_faults(self.issuer.url, OPTIONS):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                document = await fetch_document(self.client, self.metadata.jwks_uri)
            return parse_key_set(document, ALGORITHMS)

    def scope(self, request: LoginRequest) -> str:
        """`openid`, what the request asks for, and a refresh token where the provider knows how to ask for one."""
        offline = [OFFLINE_ACCESS] if OFFLINE_ACCESS in self.metadata.scopes_supported else []
        return " ".join(dict.fromkeys(["openid", *request.scopes, *offline]))


@asynccontextmanager
async def open_provider(request: LoginRequest, authority: Path | None) -> AsyncIterator[Provider]:
    """Discover the provider of a request; `authority` is the CA of its HTTPS, PEM, else the system's are trusted.

    Raises IssuerDown, ConfigurationError.
    """
    issuer = _describe_issuer(request, authority)
    with telling_faults(issuer.url, OPTIONS):
        client = await open_client(issuer)
    async with client:
        with telling_faults(issuer.url, OPTIONS):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                metadata = _read_metadata(await fetch_metadata(client, issuer))
        yield Provider(issuer, metadata, client)


def target_parameters(request: LoginRequest) -> dict[str, str]:
    """How providers are told whom the access token is for: `audience`, and for a URI also `resource` (RFC 8707)."""
    if not request.audience:
        return {}
    is_uri = "://" in request.audience or request.audience.startswith("urn:")
    return {"audience": request.audience} | ({"resource": request.audience} if is_uri else {})


def _describe_issuer(request: LoginRequest, authority: Path | None) -> Issuer:
    """The issuer as the gateway's settings would have it."""
    if request.kind == ACCESS and not request.audience:
        raise ConfigurationError("--token-type access: needs --audience, which the gateway's settings name.")
    try:
        return Issuer(
            url=request.issuer,
            audiences=(request.client_id if request.kind == ID else request.audience,),
            certificate_authority_file=authority,
            max_lifetime_seconds=MAX_LIFETIME_SECONDS,
        )
    except ValidationError as error:
        raise ConfigurationError(f"--issuer: found {request.issuer!r:.200}; expected an https:// address.") from error


def _read_metadata(metadata: Mapping[str, Any]) -> Metadata:
    scopes = metadata.get("scopes_supported", ())
    token_endpoint = _read_endpoint(metadata, "token_endpoint")
    if token_endpoint is None:
        raise ValueError("its discovery document names no token_endpoint")
    return Metadata(
        token_endpoint=token_endpoint,
        jwks_uri=metadata["jwks_uri"],
        authorization_endpoint=_read_endpoint(metadata, "authorization_endpoint"),
        device_authorization_endpoint=_read_endpoint(metadata, "device_authorization_endpoint"),
        revocation_endpoint=_read_endpoint(metadata, "revocation_endpoint"),
        scopes_supported=tuple(filter(_is_text, scopes)) if isinstance(scopes, tuple) else (),
        names_issuer_in_callback=metadata.get("authorization_response_iss_parameter_supported") is True,
    )


def _read_endpoint(metadata: Mapping[str, Any], name: str) -> str | None:
    endpoint = metadata.get(name)
    if endpoint is not None and not (_is_text(endpoint) and endpoint.startswith("https://")):
        raise ValueError(f"its discovery document names the {name} {endpoint!r:.200}, expected https://")
    return endpoint


def _read_answer(document: bytes, url: str, status: int) -> Mapping[str, Any]:
    try:
        return parse_object(document)
    except ValueError as error:
        raise ValueError(f"{url} answered {status} without readable JSON") from error


def _refuse(answer: Mapping[str, Any], sent: Mapping[str, str]) -> Refused:
    error, description = answer.get("error"), answer.get("error_description", "")
    if not _is_text(error):
        return Refused("", "the provider refused without saying why.")
    return Refused(error, f"the provider refused: {describe_error(error, description, sent.values())}.")


def describe_error(error: str, description: object, secrets: Iterable[str]) -> str:
    """An error code and its description, bounded, unless either repeats what was sent in confidence."""
    told = f"{error} ({description})" if _is_text(description) and description else error
    if any(len(secret) >= MIN_SECRET_CHARACTERS and secret in told for secret in secrets):
        return "for a reason that repeats what was sent"
    return told[:MAX_TOLD_CHARACTERS].rstrip(".")


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)
