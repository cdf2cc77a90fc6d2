"""What a provider's answer must be like to be kept.

OpenID Connect Core 1.0 sections 3.1.3.7 and 12.2, RFC 6749 section 5.1, RFC 9068 for access tokens. The gateway will
judge the token again; here it is judged so that a login fails at once and says why, and so that nobody is logged in
as somebody else: the signature with the provider's keys, iss, aud, exp, and of an ID token azp and nonce.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from holdfast.errors import Unauthorized
from holdfast.identity.mapping import UserMapper
from holdfast.identity.token import parse_token, verify_token
from holdfast.login.cache import Tokens
from holdfast.login.cached import is_bearer
from holdfast.login.provider import LoginFailed
from holdfast.login.request import ACCESS, ID
from holdfast.settings.identity import ClaimMappings, JWTAuthenticator, PrefixedClaimOrExpression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast.exchange import Identity
    from holdfast.identity.keys import KeySet
    from holdfast.login.request import LoginRequest
    from holdfast.settings.identity import Issuer

NAMES = {ID: "ID token", ACCESS: "access token"}
_MEMBERS = {ID: "id_token", ACCESS: "access_token"}
_BY_SUBJECT = ClaimMappings(username=PrefixedClaimOrExpression(claim="sub", prefix=""))


def read_tokens(
    answer: Mapping[str, Any],
    request: LoginRequest,
    issuer: Issuer,
    keys: KeySet,
    *,
    now: float,
    nonce: str | None = None,
    before: Tokens | None = None,
) -> Tokens:
    """The tokens of a token endpoint's answer; `now` is in seconds since the epoch.

    `nonce` is what the ID token of an authorization code must hold; `before` is the login that is renewed, whose
    person must stay the same and whose refresh token goes on where there is no new one. Raises LoginFailed.
    """
    if str(answer.get("token_type", "")).lower() != "bearer":
        raise LoginFailed("the provider's answer holds no bearer token.")
    token = answer.get(_MEMBERS[request.kind])
    if token is None:
        raise LoginFailed(_explain_missing(request.kind, before))
    identity = _verify(token, request, issuer, keys, now)
    if request.kind == ID:
        _check_for_client(identity.claims, request.client_id, nonce)
    if before is not None and identity.username != before.subject:
        raise LoginFailed("the provider renewed the login in another person's name; log in again.")
    return Tokens(identity.username, token, int(identity.expires_at), _read_refresh_token(answer, before))


def _verify(token: object, request: LoginRequest, issuer: Issuer, keys: KeySet, now: float) -> Identity:
    mapper = UserMapper(JWTAuthenticator(issuer=issuer, claim_mappings=_BY_SUBJECT))
    try:
        if not isinstance(token, str):
            raise Unauthorized("the token is no text", "malformed")
        return verify_token(parse_token(token), mapper, keys, now)
    except Unauthorized as fault:
        raise LoginFailed(f"the provider's {NAMES[request.kind]} cannot be used ({fault.why}): {fault}.") from fault


def _check_for_client(claims: Mapping[str, Any], client_id: str, nonce: str | None) -> None:
    if claims.get("azp", client_id) != client_id:
        raise LoginFailed("the provider's ID token was given to another client (azp); nothing was kept.")
    found = claims.get("nonce")
    if nonce is not None and not (isinstance(found, str) and secrets.compare_digest(found.encode(), nonce.encode())):
        raise LoginFailed("the provider's ID token belongs to another login (nonce); nothing was kept.")


def _read_refresh_token(answer: Mapping[str, Any], before: Tokens | None) -> str:
    """RFC 6749 section 6: where the answer holds none, the one before stays good."""
    refresh_token = answer.get("refresh_token", before.refresh_token if before else "")
    if refresh_token != "" and not (isinstance(refresh_token, str) and is_bearer(refresh_token)):
        raise LoginFailed("the provider's refresh token cannot be used.")
    return str(refresh_token)


def _explain_missing(kind: str, before: Tokens | None) -> str:
    if before is not None and kind == ID:
        return "the provider renews access tokens only: use --token-type access with --audience, or log in each time."
    return f"the provider's answer holds no {NAMES[kind]}."
