"""The strict wrapper around the signature engine: a bearer token becomes an Identity, or is refused.

python-jose is used for one thing, `jws.verify(token, prebuilt_key, [algorithm])`; everything a verifier must
decide itself is decided here (RFC 7515, RFC 7519, RFC 8725, RFC 9068; claims as in Kubernetes'
`apiserver/plugin/pkg/authenticator/token/oidc`). `parse_token` reads and believes nothing; `verify_token` is the
only maker of an Identity.

A refusal's `why`, for the record:

    malformed           not three canonical segments of strict JSON objects, or a header value of the wrong type
    too_large           longer than 16 KiB
    header_not_allowed  a header parameter beside alg, kid, typ, x5t and x5t#S256
    wrong_type          a typ other than JWT or at+jwt, or JWT or JOSE of SPIFFE's
    unknown_issuer      an iss that is not configured, letter for letter
    alg_not_allowed     an algorithm that is not configured for the issuer
    unknown_key         no key of the issuer has this kid and algorithm, or without a kid more than one might
    bad_signature       the key did not sign these bytes
    expired             exp has come; no leeway
    not_yet_valid       iat or nbf is more than 30 s ahead
    lifetime_too_long   from iat (else from now) to exp is longer than the issuer may grant
    wrong_audience      aud is missing or holds no configured audience
    proof_required      cnf binds the token to a key whose proof is not checked here
    bad_claim           a claim is missing, of the wrong type, or a name that cannot be shown
    email_not_verified  the username claim is email and email_verified is there but not true
    expression_failed   an expression of the issuer's mappings or rules has no value for these claims
    groups_overage      the groups were too many to be in the token
    reserved_name       the user or a group would be called `system:...`
    claim_rule          a claimValidationRule does not hold
    user_rule           a userValidationRule does not hold

The caller is told the category where that helps an honest one; what a forger could learn from is one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from jose import jws
from jose.exceptions import JOSEError

from holdfast.errors import Unauthorized
from holdfast.identity.serialization import decode_base64url, parse_object, read_strings
from holdfast.settings.identity import SPIFFE

if TYPE_CHECKING:
    from holdfast.exchange import Identity
    from holdfast.identity.keys import KeySet
    from holdfast.settings.identity import Issuer

MAX_TOKEN_BYTES = 16 << 10
LEEWAY_SECONDS = 30
HEADER_PARAMETERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})
TOKEN_TYPES = frozenset({"jwt", "at+jwt"})
SVID_TYPES = frozenset({"jwt", "jose"})

NOT_VALID = "the token is not valid; get a new one"


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """What a token says about itself. Nothing in it is true until `verify_token` has seen the signature."""

    text: str = field(repr=False)
    algorithm: str
    key_id: str | None
    issuer: str
    claims: Mapping[str, Any]


def parse_token(text: str) -> UnverifiedToken:
    """Read a compact JWS without believing it; one spelling only. Raises Unauthorized."""
    if len(text) > MAX_TOKEN_BYTES:
        raise Unauthorized("the token is too large: at most 16 KiB are read", "too_large")
    header, claims = _read_segments(text)
    _check_header(header)
    issuer = _read_issuer(claims)
    _check_type(header, issuer)
    return UnverifiedToken(text, header["alg"], header.get("kid"), issuer, claims)


class Mapper(Protocol):
    """What is made of the verified claims of an issuer."""

    issuer: Issuer

    def identify(self, claims: Mapping[str, Any], expires_at: float) -> Identity:
        """The identity that they describe. Raises Unauthorized."""


def verify_token(token: UnverifiedToken, mapper: Mapper, keys: KeySet, now: float) -> Identity:
    """Believe `token` as far as the issuer of `mapper` may be believed: its keys, its audiences, its names.

    `now` is in seconds since the epoch. Raises Unauthorized. The signature is checked before any claim, so that
    what a refusal says about a claim is only ever said to somebody the issuer gave a token to.
    """
    issuer = mapper.issuer
    if token.issuer != issuer.url:
        raise unknown_issuer(token.issuer)
    _verify_signature(token, issuer, keys)
    _check_trust_domain(token.claims, issuer)
    expires_at = _check_times(token.claims, issuer.max_lifetime_seconds, now)
    _check_audience(token.claims, issuer)
    _check_unbound(token.claims)
    return mapper.identify(token.claims, float(expires_at))


def unknown_issuer(issuer: str) -> Unauthorized:
    """The refusal of a token whose issuer is not configured."""
    return Unauthorized("the token's issuer is not trusted here", "unknown_issuer", f"iss: {issuer!r}")


def _read_segments(text: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    try:
        header, claims, signature = (decode_base64url(segment) for segment in text.split("."))
        if not signature:
            raise ValueError("empty signature")
        return parse_object(header), parse_object(claims)
    except ValueError as error:
        raise Unauthorized(NOT_VALID, "malformed") from error


def _check_header(header: Mapping[str, Any]) -> None:
    if not header.keys() <= HEADER_PARAMETERS:
        raise Unauthorized(NOT_VALID, "header_not_allowed")
    if not all(isinstance(value, str) and value for value in header.values()) or "alg" not in header:
        raise Unauthorized(NOT_VALID, "malformed")


def _check_type(header: Mapping[str, Any], issuer: str) -> None:
    accepted = SVID_TYPES if issuer.startswith(SPIFFE) else TOKEN_TYPES
    if header.get("typ", "JWT").lower() not in accepted:
        raise Unauthorized("the token is of a type that is not accepted; send an ID or access token", "wrong_type")


def _read_issuer(claims: Mapping[str, Any]) -> str:
    """The issuer; of a JWT-SVID that names none, its trust domain (SPIFFE JWT-SVID section 3)."""
    issuer, subject = claims.get("iss"), claims.get("sub")
    if "iss" not in claims and isinstance(subject, str) and subject.startswith(SPIFFE):
        return SPIFFE + subject.removeprefix(SPIFFE).partition("/")[0]
    if not isinstance(issuer, str):
        found = "is no text" if "iss" in claims else "none"
        raise Unauthorized("the token names no issuer", "unknown_issuer", f"iss: {found}")
    return issuer


def _check_trust_domain(claims: Mapping[str, Any], issuer: Issuer) -> None:
    subject = claims.get("sub")
    if issuer.url.startswith(SPIFFE) and not (isinstance(subject, str) and subject.startswith(f"{issuer.url}/")):
        raise Unauthorized("the token's sub is not of its trust domain", "bad_claim")


def _verify_signature(token: UnverifiedToken, issuer: Issuer, keys: KeySet) -> None:
    if token.algorithm not in issuer.algorithms:
        raise Unauthorized(NOT_VALID, "alg_not_allowed", f"alg: {token.algorithm!r}")
    key = keys.find(token.algorithm, token.key_id)
    if key is None:
        named = "none" if token.key_id is None else repr(token.key_id)
        raise Unauthorized(NOT_VALID, "unknown_key", f"alg: {token.algorithm}; kid: {named}")
    try:
        jws.verify(token.text, key, [token.algorithm])
    except JOSEError as error:
        raise Unauthorized(NOT_VALID, "bad_signature") from error


def _check_times(claims: Mapping[str, Any], max_lifetime: int, now: float) -> int:
    expires_at = _read_time(claims, "exp")
    if expires_at is None:
        raise Unauthorized("the token never expires (it has no exp); such a token is not accepted", "bad_claim")
    if now >= expires_at:
        raise Unauthorized("the token has expired; get a new one", "expired")
    issued_at, not_before = _read_time(claims, "iat"), _read_time(claims, "nbf")
    if max(issued_at or 0, not_before or 0) > now + LEEWAY_SECONDS:
        raise Unauthorized("the token is not valid yet; check the clocks", "not_yet_valid")
    if expires_at - (now if issued_at is None else issued_at) > max_lifetime:
        raise Unauthorized("the token lives too long; get one with a shorter lifetime", "lifetime_too_long")
    return expires_at


def _read_time(claims: Mapping[str, Any], name: str) -> int | None:
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not int:
        raise Unauthorized(f"the token's {name} is not a whole number of seconds", "bad_claim")
    return value


def _check_audience(claims: Mapping[str, Any], issuer: Issuer) -> None:
    audiences = read_strings(claims, "aud")
    if audiences is None:
        raise Unauthorized("the token's aud is neither a string nor a list of strings", "bad_claim")
    if set(issuer.audiences).isdisjoint(audiences):
        found = f"aud: {', '.join(map(repr, audiences)) or 'none'}"
        raise Unauthorized("the token is for another audience; get one for this gateway", "wrong_audience", found)


def _check_unbound(claims: Mapping[str, Any]) -> None:
    # RFC 7800: whoever holds such a token must also prove possession of a key, and nothing here asks for it.
    if "cnf" in claims:
        raise Unauthorized("the token is bound to a key (cnf); send a plain bearer token", "proof_required")
