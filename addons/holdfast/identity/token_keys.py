"""The keys that sign our own tokens: a folder of private keys, and beside them what is published of them.

    KID.pem     a P-256 private key, PKCS #8, 0600; KID is its thumbprint (RFC 7638)
    jwks.json   their public halves (RFC 7517), which is all that verifying needs

The newest key signs, once it is a minute old, so that everybody has read it before the first token comes. A key that
is older than `ROTATE_SECONDS` gets a successor, and goes when no token that it signed can be good any more.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from holdfast.certificates import write_private
from holdfast.errors import ConfigurationError
from holdfast.identity.own_tokens import ALGORITHM, SigningKey
from holdfast.identity.serialization import encode_base64url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JWKS_FILE = "jwks.json"
ROTATE_SECONDS = 30 * 86_400
SETTLE_SECONDS = 60
COORDINATE_BYTES = 32


class TokenKeys:
    """The folder. Blocking; methods raise ConfigurationError. Times are in seconds since the epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def jwks_file(self) -> Path:
        """Where the public halves are published."""
        return self.folder / JWKS_FILE

    def prepare(self, now: float, lifetime_seconds: int) -> None:
        """Make the first key, the next one, or remove those that are over, as far as it is time for that."""
        with self._telling_faults():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self.folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._rotate(now, lifetime_seconds)

    def signing_key(self, now: float) -> SigningKey:
        """The newest key that everybody has had the time to read, or else the oldest."""
        with self._telling_faults():
            made = self._made()
            settled = [path for path, at in made if now - at >= SETTLE_SECONDS]
            if not made:
                raise ConfigurationError(f"{self.folder}: has no key; start the gateway once.")
            path = settled[-1] if settled else made[0][0]
            return SigningKey(path.stem, path.read_bytes())

    def check(self) -> None:
        """Read every key, which is what the gateway does before it starts."""
        with self._telling_faults():
            for path, _ in self._made():
                _read_key(path)

    @contextmanager
    def _telling_faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(f"{error.filename or self.folder}: {error.strerror}.") from error

    def secrets(self, now: float) -> tuple[bytes, ...]:
        """What sealing derives its keys from: the key that signs first, then the others."""
        signing = self.signing_key(now)
        with self._telling_faults():
            return (signing.pem, *(path.read_bytes() for path, _ in self._made() if path.stem != signing.key_id))

    def _made(self) -> list[tuple[Path, float]]:
        """The private keys and when each was made, the oldest first."""
        return sorted(((path, path.stat().st_mtime) for path in self.folder.glob("*.pem")), key=lambda each: each[1])

    def _rotate(self, now: float, lifetime_seconds: int) -> None:
        made = self._made()
        if not made or now - made[-1][1] >= ROTATE_SECONDS:
            self._make_key(now)
        for (path, _), (_, succeeded_at) in pairwise(made):
            if now - succeeded_at > SETTLE_SECONDS + lifetime_seconds:
                path.unlink()
        self._publish()

    def _make_key(self, now: float) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file = self.folder / f"{describe_public(key)['kid']}.pem"
        write_private(file, pem)
        os.utime(file, (now, now))

    def _publish(self) -> None:
        keys = [describe_public(_read_key(path)) for path, _ in self._made()]
        write_private(self.jwks_file, json.dumps({"keys": keys}).encode())


def describe_public(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """The public half as a JWK (RFC 7518 section 6.2.1), under its thumbprint."""
    numbers = key.public_key().public_numbers()
    x, y = (encode_base64url(number.to_bytes(COORDINATE_BYTES, "big")) for number in (numbers.x, numbers.y))
    required = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    thumbprint = sha256(json.dumps(required, separators=(",", ":"), sort_keys=True).encode()).digest()
    return {**required, "kid": encode_base64url(thumbprint), "alg": ALGORITHM, "use": "sig"}


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{path}: is no private key in PEM; remove it.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigurationError(f"{path}: is no key on P-256; remove it.")
    return key
