"""The authorization code flow of a native app: what goes out with the browser, and what may come back.

OpenID Connect Core 1.0 section 3.1, RFC 8252 (loopback redirect, public client), RFC 7636 (PKCE, S256 only), RFC 9207
(the issuer in the answer) and RFC 9700 section 2.1. `state` binds the answer to this login, the verifier binds the
code to this process, `nonce` binds the ID token to both.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from holdfast.identity.serialization import encode_base64url
from holdfast.login.provider import OFFLINE_ACCESS, LoginFailed, describe_error, target_parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.login.provider import Provider
    from holdfast.login.request import LoginRequest

SECRET_BYTES = 32
MAX_PARAMETERS = 32


@dataclass(frozen=True, slots=True)
class Attempt:
    """The secrets of one login, each of 256 random bits."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)

    @property
    def challenge(self) -> str:
        """RFC 7636 section 4.2, S256."""
        return encode_base64url(hashlib.sha256(self.verifier.encode("ascii")).digest())


def begin_attempt(random_bytes: Callable[[int], bytes]) -> Attempt:
    """New secrets."""
    return Attempt(*(encode_base64url(random_bytes(SECRET_BYTES)) for _ in range(3)))


def authorization_url(
    endpoint: str, provider: Provider, request: LoginRequest, attempt: Attempt, redirect_uri: str
) -> str:
    """Where the browser is sent; parameters that `endpoint` has already are kept (RFC 6749 section 3.1)."""
    scope = provider.scope(request)
    parameters = {
        "response_type": "code",
        "client_id": request.client_id,
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": attempt.challenge,
        "code_challenge_method": "S256",
        # OpenID Connect Core 1.0 section 11: without consent a provider ignores offline_access.
        **({"prompt": "consent"} if OFFLINE_ACCESS in scope.split() else {}),
        **target_parameters(request),
        **({"idp": request.idp} if request.idp else {}),
    }
    parts = urlsplit(endpoint)
    query = "&".join(filter(None, [parts.query, urlencode(parameters)]))
    return urlunsplit((*parts[:3], query, ""))


def token_form(request: LoginRequest, attempt: Attempt, redirect_uri: str, code: str) -> dict[str, str]:
    """What is exchanged for tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "client_id": request.client_id,
        "code_verifier": attempt.verifier,
        **target_parameters(request),
    }


def read_callback(query: str, attempt: Attempt, provider: Provider) -> str:
    """The authorization code in the query of a callback.

    Raises LoginFailed: another state or issuer, a parameter twice, no code, or the provider's own no. The state goes
    first, so that nothing is believed, an error neither, of an answer that does not belong to this login.
    """
    answer = _read_parameters(query)
    if not secrets.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
        raise LoginFailed("the browser came back with another login's state; nothing was taken from it, log in again.")
    issuer = answer.get("iss")
    if issuer != provider.issuer.url and (issuer is not None or provider.metadata.names_issuer_in_callback):
        raise LoginFailed("the browser came back from another issuer; nothing was taken from it, log in again.")
    if "error" in answer:
        told = describe_error(answer["error"], answer.get("error_description"), (attempt.state,))
        raise LoginFailed(f"the provider refused: {told}.")
    if not answer.get("code"):
        raise LoginFailed("the browser came back without a code; log in again.")
    return answer["code"]


def _read_parameters(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise LoginFailed("the browser came back with an answer that cannot be read; log in again.") from error
    answer = dict(pairs)
    if len(answer) != len(pairs):
        raise LoginFailed("the browser came back with a parameter twice; nothing was taken from it, log in again.")
    return answer
