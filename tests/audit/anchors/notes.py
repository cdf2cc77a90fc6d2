"""Signed checkpoints to anchor."""

from __future__ import annotations

from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.audit.checkpoint import Checkpoint, Origin, sign_checkpoint
from holdfast.audit.note import Signer, key_name
from holdfast.audit.tree import RootHash

ORIGIN = Origin(key_name("holdfast/test/gw-1:8443/1"))


@cache
def signer(origin: Origin = ORIGIN) -> Signer:
    """The key of this log, the same in every run."""
    return Signer(origin, Ed25519PrivateKey.from_private_bytes(sha256(origin.encode()).digest()))


def checkpoint(size: int, origin: Origin = ORIGIN, history: str = "") -> Checkpoint:
    """A checkpoint of this size; `history` makes another root of it."""
    return Checkpoint(origin, size, RootHash(sha256(f"{origin} {size} {history}".encode()).digest()))


def note(size: int, origin: Origin = ORIGIN, history: str = "") -> str:
    """The signed note of `checkpoint`."""
    return sign_checkpoint(checkpoint(size, origin, history), signer(origin))
