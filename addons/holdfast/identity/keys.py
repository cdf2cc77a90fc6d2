"""A JWKS document becomes public keys, each prebuilt for one key ID and one algorithm.

A key that could be read for two algorithms, or that a token could talk a verifier into, is the classic fault of
JWT (RFC 8725 sections 2.1 and 3.1). So every key is checked once, when its document is read (RFC 7517; RFC 7518
section 6; RFC 8037 section 2), and bound to the algorithm that it names. Where it names none, an EC key is for its
curve's algorithm, an Ed25519 key for EdDSA, an RSA key (2048 bits or more) for those of RS and PS that its issuer
may use: none of these lets one be taken for another kind. Symmetric and private keys are never taken. A key that
cannot be used is left out and the others stay: issuers publish encryption keys and newer algorithms beside the key
we need.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jose.backends.base import Key

from holdfast.identity.engine import construct_key
from holdfast.identity.serialization import decode_base64url, parse_object

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES: Mapping[str, tuple[str, ec.EllipticCurve]] = {
    "P-256": ("ES256", ec.SECP256R1()),
    "P-384": ("ES384", ec.SECP384R1()),
    "P-521": ("ES512", ec.SECP521R1()),
}
ED25519_BYTES = 32
SIGNING_USES = frozenset({"sig", "jwt-svid"})
"""RFC 7517 section 4.2, and what bundles of SPIFFE trust domains say instead (SPIFFE JWT-SVID section 4.2)."""
SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

type PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
type KeyName = tuple[str, str]
"""(kid, alg); kid is empty for a key that has none."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one issuer. Two sets are equal when they hold the same keys under the same names.

    `unusable` says of each key left out, in its order in the document, why.
    """

    fingerprint: str
    keys: Mapping[KeyName, Key] = field(compare=False, repr=False)
    unusable: tuple[str, ...] = field(default=(), compare=False)

    def find(self, algorithm: str, key_id: str | None) -> Key | None:
        """The one key for `algorithm` and `key_id`; without a key ID, the only key of that algorithm."""
        if key_id is not None:
            return self.keys.get((key_id, algorithm))
        candidates = [key for (_, name), key in self.keys.items() if name == algorithm]
        return candidates[0] if len(candidates) == 1 else None


def parse_key_set(document: bytes, algorithms: Collection[str]) -> KeySet:
    """Read a JWKS document (RFC 7517 section 5), taking the keys that are for one of `algorithms`.

    Raises ValueError when the document is not a JWKS; one key that cannot be used never does.
    """
    members = parse_object(document).get("keys")
    if not isinstance(members, tuple):
        raise ValueError('has no list "keys"')
    found: dict[KeyName, set[bytes]] = {}
    unusable = []
    for position, member in enumerate(members):
        try:
            names, pem = _read_key(member, algorithms)
            for name in names:
                found.setdefault(name, set()).add(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            unusable.append(f"key {position + 1}: {error}")
    return _build_key_set(found, unusable)


def _build_key_set(found: Mapping[KeyName, set[bytes]], unusable: list[str]) -> KeySet:
    certain = {name: next(iter(pems)) for name, pems in sorted(found.items()) if len(pems) == 1}
    unusable += [f"kid {name[0]!r}: names several keys" for name, pems in found.items() if len(pems) > 1]
    return KeySet(
        fingerprint=hashlib.sha256(repr(certain).encode()).hexdigest(),
        keys=MappingProxyType({name: construct_key(pem, name[1]) for name, pem in certain.items()}),
        unusable=tuple(unusable),
    )


def _read_key(member: object, algorithms: Collection[str]) -> tuple[list[KeyName], bytes]:
    if not isinstance(member, Mapping):
        raise ValueError("is not an object")
    _require_public(member)
    _require_for_signatures(member)
    possible, read = _reader(member)
    named = member.get("alg")
    key_id = _read_key_id(member)
    # Compared, not looked up in a set: what an issuer wrote there may be an object, which has no hash.
    names = [(key_id, name) for name in possible if name in algorithms and named in (None, name)]
    if not names:
        raise ValueError("is for an algorithm that is not accepted")
    return names, read(member).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _require_public(member: Mapping[str, Any]) -> None:
    if not SECRET_MEMBERS.isdisjoint(member):
        raise ValueError("is a symmetric or private key")


def _require_for_signatures(member: Mapping[str, Any]) -> None:
    use = member.get("use", "sig")
    if not isinstance(use, str) or use not in SIGNING_USES:
        raise ValueError("is not for signatures")
    operations = member.get("key_ops", ("verify",))
    if not isinstance(operations, tuple) or "verify" not in operations:
        raise ValueError("is not for verifying")


def _read_key_id(member: Mapping[str, Any]) -> str:
    key_id = member.get("kid", "")
    if not isinstance(key_id, str):
        raise ValueError("has a kid that is not a string")
    return key_id


def _reader(member: Mapping[str, Any]) -> tuple[Collection[str], Callable[[Mapping[str, Any]], PublicKey]]:
    """For which algorithms a key may be, and what reads it."""
    kind, curve = member.get("kty"), member.get("crv")
    if kind == "RSA":
        return RSA_ALGORITHMS, _read_rsa_key
    if kind == "EC" and isinstance(curve, str) and curve in CURVES:
        return (CURVES[curve][0],), _read_ec_key
    if kind == "OKP" and curve == "Ed25519":
        return ("EdDSA",), _read_ed25519_key
    raise ValueError(f"is neither RSA, nor EC on {', '.join(CURVES)}, nor Ed25519")


def _read_rsa_key(member: Mapping[str, Any]) -> rsa.RSAPublicKey:
    modulus = int.from_bytes(_read_bytes(member, "n"), "big")
    if not MIN_RSA_BITS <= modulus.bit_length() <= MAX_RSA_BITS:
        raise ValueError(f"is RSA of {modulus.bit_length()} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    exponent = int.from_bytes(_read_bytes(member, "e"), "big")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _read_ec_key(member: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    curve = CURVES[member["crv"]][1]
    length = (curve.key_size + 7) // 8
    x, y = (_read_bytes(member, name) for name in ("x", "y"))
    if len(x) != length or len(y) != length:
        raise ValueError(f"has a coordinate that is not of {length} bytes")
    return ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()


def _read_ed25519_key(member: Mapping[str, Any]) -> ed25519.Ed25519PublicKey:
    x = _read_bytes(member, "x")
    if len(x) != ED25519_BYTES:
        raise ValueError(f"has an x that is not of {ED25519_BYTES} bytes")
    return ed25519.Ed25519PublicKey.from_public_bytes(x)


def _read_bytes(member: Mapping[str, Any], name: str) -> bytes:
    value = member.get(name)
    if not isinstance(value, str):
        raise ValueError(f"has no {name}")
    return decode_base64url(value)
