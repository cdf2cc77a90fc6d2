"""What python-jose lacks as a signature engine: keys for RSA-PSS (RFC 7518 section 3.5) and Ed25519 (RFC 8037).

Only keys that `construct_key` made are ever given to it, with the one algorithm that each was made for.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jose import jwk
from jose.backends.base import Key

_HASHES: dict[str, type[HashAlgorithm]] = {"PS256": SHA256, "PS384": SHA384, "PS512": SHA512}


class PSSKey(Key):
    """An RSA public key that verifies with PSS: MGF1 with the same hash, a salt as long as the hash."""

    def __init__(self, key: bytes, algorithm: str) -> None:
        """`key` is PEM."""
        super().__init__(key, algorithm)
        public = load_pem_public_key(key)
        if not isinstance(public, rsa.RSAPublicKey):
            raise ValueError("is not RSA")
        self._public = public
        self._hash = _HASHES[algorithm]()
        self._padding = padding.PSS(padding.MGF1(self._hash), self._hash.digest_size)

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """Whether the key signed this message."""
        try:
            self._public.verify(sig, msg, self._padding, self._hash)
        except InvalidSignature:
            return False
        return True


class Ed25519Key(Key):
    """An Ed25519 public key."""

    def __init__(self, key: bytes, algorithm: str) -> None:
        """`key` is PEM."""
        super().__init__(key, algorithm)
        public = load_pem_public_key(key)
        if not isinstance(public, ed25519.Ed25519PublicKey):
            raise ValueError("is not Ed25519")
        self._public = public

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """Whether the key signed this message."""
        try:
            self._public.verify(sig, msg)
        except InvalidSignature:
            return False
        return True


for _name in _HASHES:
    jwk.register_key(_name, PSSKey)
jwk.register_key("EdDSA", Ed25519Key)


def construct_key(pem: bytes, algorithm: str) -> Key:
    """The key that `jws.verify` takes, bound to one algorithm."""
    return jwk.construct(pem, algorithm)
