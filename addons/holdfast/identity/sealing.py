"""What a browser carries for us from one request to the next, so that any replica can take the next one.

It is compressed and sealed as a Fernet token (AES-128-CBC and HMAC-SHA256), under a key that is derived (HKDF, RFC
5869) from a secret that the replicas share, and for one purpose: nobody else reads it, changes it, or has it taken
for something else. It is closed under the first secret, and opened with any.
"""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY_BYTES = 32


def seal(content: bytes, secrets: Iterable[bytes], purpose: str, *, now: float) -> str:
    """Close `content`, at a time in seconds since the epoch. The text is base64url."""
    return _box(secrets, purpose).encrypt_at_time(zlib.compress(content), int(now)).decode("ascii")


def unseal(sealed: str, secrets: Iterable[bytes], purpose: str, *, now: float, seconds: int) -> bytes:
    """What was closed for this purpose, not longer ago than so many seconds. Raises ValueError."""
    try:
        return zlib.decompress(_box(secrets, purpose).decrypt_at_time(sealed, seconds, int(now)))
    except (InvalidToken, ValueError) as error:
        raise ValueError("not sealed here, or too long ago") from error


def _box(secrets: Iterable[bytes], purpose: str) -> MultiFernet:
    return MultiFernet([Fernet(base64.urlsafe_b64encode(_derive(secret, purpose))) for secret in secrets])


def _derive(secret: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(secret)
