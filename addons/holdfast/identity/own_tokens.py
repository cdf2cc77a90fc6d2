"""Short tokens that Holdfast itself signs, for somebody whom another proof has identified (RFC 9068, RFC 8693).

What they say is the identity as it was found: issuer, names, uid, extra and claims of whom it was exchanged for, so
policies, records and revocations see the same caller whichever token is shown:

    {"iss": URL, "aud": URL, "sub": USERNAME, "iat": N, "exp": N, "jti": ID,
     "identity": {"issuer": URL, "groups": [...], "uid": "...", "extra": {...}, "claims": {...}}}

signed with ES256, `typ` at+jwt. They live as long as `lifetimeSeconds` says, and never longer than
the token that was shown, or than the session of a SAML login where the provider states its end.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jose import jws

from holdfast.errors import BadRequest, Unauthorized
from holdfast.exchange import CREDENTIAL_ID, CREDENTIAL_PREFIX, Identity
from holdfast.identity.serialization import parse_object, write_json
from holdfast.identity.token import MAX_TOKEN_BYTES
from holdfast.settings.identity import Issuer

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.settings.identity import OwnTokens

ALGORITHM = "ES256"
TOKEN_TYPE = "at+jwt"  # noqa: S105  the media type of RFC 9068


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, PEM, and the key ID under which its public half is published."""

    key_id: str
    pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class MintedToken:
    """A token, its jti, and when it ends, in seconds since the epoch."""

    text: str = field(repr=False)
    id: str
    expires_at: int


def mint(identity: Identity, settings: OwnTokens, key: SigningKey, *, now: float, token_id: str) -> MintedToken:
    """Sign a token for `identity`, from `now` on. Raises BadRequest when its claims are too many, or too deep."""
    issued_at = int(now)
    expires_at = min(issued_at + settings.lifetime_seconds, int(identity.expires_at))
    claims = {
        "iss": settings.url,
        "aud": settings.url,
        "iat": issued_at,
        "exp": expires_at,
        "jti": token_id,
        **tell_identity(identity),
    }
    payload = write_json(claims)
    headers = {"kid": key.key_id, "typ": TOKEN_TYPE}
    text = jws.sign(payload, key.pem, headers=headers, algorithm=ALGORITHM)
    if len(text) > MAX_TOKEN_BYTES or not _is_readable(payload):
        raise BadRequest("what your token says of you is too much for a token of the gateway; use it as it is")
    return MintedToken(text, token_id, expires_at)


def _is_readable(payload: bytes) -> bool:
    """Whether the gateway will read it again: claims as deep as a token may have them are two levels deeper here."""
    try:
        parse_object(payload)
    except ValueError:
        return False
    return True


def tell_identity(identity: Identity) -> dict[str, Any]:
    """An identity as members of a JSON object; `read_identity` reads them. When it ends is not told."""
    told = {name: getattr(identity, name) for name in ("issuer", "groups", "uid", "extra", "claims")}
    return {"sub": identity.username, "identity": told}


def read_identity(members: Mapping[str, Any], expires_at: float) -> Identity:
    """What `tell_identity` told, to those who know that we did. Raises Unauthorized when it tells nobody."""
    told = members.get("identity")
    username = members.get("sub")
    if not isinstance(told, Mapping) or not isinstance(username, str):
        raise Unauthorized("the token says nobody's name", "bad_claim")
    return Identity(
        issuer=told["issuer"],
        username=username,
        groups=told["groups"],
        uid=told["uid"],
        extra=told["extra"],
        claims=MappingProxyType(dict(told["claims"])),
        expires_at=expires_at,
    )


class OwnTokenMapper:
    """What the gateway needs to trust the tokens that Holdfast signs, in the place of a `UserMapper`.

    `trusted` are those whose word is taken now: who is struck off the settings takes along what was made of it.
    """

    def __init__(self, settings: OwnTokens, jwks_file: Path, trusted: Collection[str]) -> None:
        self._trusted = frozenset(trusted)
        self.issuer = Issuer(
            url=settings.url,
            audiences=(settings.url,),
            jwks_file=jwks_file,
            algorithms=(ALGORITHM,),
            max_lifetime_seconds=settings.lifetime_seconds,
        )

    def identify(self, claims: Mapping[str, Any], expires_at: float) -> Identity:
        """The identity that a verified token of ours tells, with the token's own ID beside that of its proof.

        Raises Unauthorized when it tells none.
        """
        identity = read_identity(claims, expires_at)
        if identity.issuer not in self._trusted:
            raise Unauthorized(
                "the token was made of one whose issuer is not trusted here",
                "unknown_issuer",
                f"issuer: {identity.issuer!r}",
            )
        token_id = claims.get("jti")
        if not isinstance(token_id, str):
            raise Unauthorized("the token has no ID", "bad_claim")
        used = (*identity.extra.get(CREDENTIAL_ID, ()), CREDENTIAL_PREFIX + token_id)
        return replace(identity, extra=MappingProxyType({**identity.extra, CREDENTIAL_ID: used}))
