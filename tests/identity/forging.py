"""Tokens of every kind, good and hostile, made byte by byte so that no library's opinion is in them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.identity.keys import parse_key_set
from holdfast.identity.mapping import UserMapper
from holdfast.settings.identity import Issuer, JWTAuthenticator

NOW = 1_800_000_000
ALGORITHMS = ("RS256", "ES256")

type PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

RSA_1 = rsa.generate_private_key(65537, 2048)
RSA_2 = rsa.generate_private_key(65537, 2048)
EC_1 = ec.generate_private_key(ec.SECP256R1())
STRANGER_RSA = rsa.generate_private_key(65537, 2048)
STRANGER_EC = ec.generate_private_key(ec.SECP256R1())


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode_integer(value: int, length: int | None = None) -> str:
    return encode(value.to_bytes(length or (value.bit_length() + 7) // 8, "big"))


def public_jwk(key: PrivateKey, **members: Any) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        return {"kty": "RSA", "n": encode_integer(numbers.n), "e": encode_integer(numbers.e), **members}
    curve = {"secp256r1": ("P-256", 32), "secp384r1": ("P-384", 48), "secp521r1": ("P-521", 66)}[numbers.curve.name]
    x, y = encode_integer(numbers.x, curve[1]), encode_integer(numbers.y, curve[1])
    return {"kty": "EC", "crv": curve[0], "x": x, "y": y, **members}


def okp_jwk(key: ed25519.Ed25519PrivateKey, **members: Any) -> dict[str, Any]:
    return {"kty": "OKP", "crv": "Ed25519", "x": encode(key.public_key().public_bytes_raw()), **members}


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign(message: bytes, key: PrivateKey | bytes) -> bytes:
    if isinstance(key, bytes):
        return hmac.digest(key, message, hashlib.sha256)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), SHA256())
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def seal(header: bytes | str, payload: bytes | str, key: PrivateKey | bytes = EC_1) -> str:
    """Sign two documents as they are; a str is taken as the encoded segment itself."""
    segments = ".".join(part if isinstance(part, str) else encode(part) for part in (header, payload))
    return f"{segments}.{encode(sign(segments.encode(), key))}"


DROPPED = object()
"""A header parameter or claim with this value is left out."""


def header_with(**parameters: Any) -> bytes:
    return dump({"alg": "ES256", "typ": "JWT", "kid": "ec-1", **parameters})


def claims_with(**claims: Any) -> bytes:
    base = {"iss": ISSUER.url, "sub": "ada", "aud": "holdfast", "iat": NOW, "exp": NOW + 600, "groups": ["dev"]}
    return dump({**base, **claims})


def dump(value: dict[str, Any]) -> bytes:
    return json.dumps({name: item for name, item in value.items() if item is not DROPPED}).encode()


def claiming(**claims: Any) -> str:
    """A well signed token with these claims."""
    return seal(header_with(), claims_with(**claims))


def heading(key: PrivateKey | bytes = EC_1, **parameters: Any) -> str:
    """A token with these header parameters, signed by `key`."""
    return seal(header_with(**parameters), claims_with(), key)


ISSUER = Issuer(
    url="https://issuer.example",
    audiences=("holdfast", "holdfast-ci"),
    audience_match_policy="MatchAny",
    algorithms=ALGORITHMS,
    max_lifetime_seconds=3600,
)
MAPPINGS = {"username": {"claim": "sub", "prefix": ""}, "groups": {"claim": "groups", "prefix": ""}}


def trusting(issuer: Issuer = ISSUER, mappings: dict[str, Any] | None = None, **rules: Any) -> UserMapper:
    """What maps the users of an issuer; mappings and rules are written as in a settings file."""
    parts = {"issuer": issuer, "claimMappings": {**MAPPINGS, **(mappings or {})}, **rules}
    return UserMapper(JWTAuthenticator.model_validate(parts))


JWKS = {
    "keys": [
        public_jwk(EC_1, kid="ec-1", alg="ES256", use="sig"),
        public_jwk(RSA_1, kid="rsa-1", alg="RS256", use="sig"),
        public_jwk(RSA_2, kid="rsa-2", key_ops=["verify"]),
    ]
}
KEYS = parse_key_set(json.dumps(JWKS).encode(), ALGORITHMS)
