"""Checkpoints: a signed note that says how large a log is and what its root hash is (C2SP tlog-checkpoint).

    ORIGIN
    TREE SIZE            decimal
    BASE64(ROOT HASH)

The log signs under its origin as key name. A witness that has checked that the log only grew adds a cosignature
(C2SP tlog-cosignature, `cosignature/v1`): over "cosignature/v1\\ntime UNIX SECONDS\\n" and the checkpoint's text,
with the eight big-endian bytes of that time before the 64 bytes of the signature.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from holdfast.audit.note import (
    COSIGNATURE,
    BadNote,
    KeyName,
    Note,
    Signature,
    Signer,
    Verifier,
    decode_base64,
    encode_base64,
    find_signature,
    is_key_name,
    is_signed_by,
    parse_note,
    sign_note,
)
from holdfast.audit.tree import HASH_BYTES, RootHash

Origin = NewType("Origin", KeyName)
"""Names one log: `holdfast/CLUSTER/REPLICA/EPOCH`."""

_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
TIMESTAMP_BYTES = 8
SIGNATURE_BYTES = 64
LAST_SECOND = 253_402_300_799
"""The end of the year 9999, in Unix seconds: no cosignature tells a later time, nor does a datetime."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One state of one log."""

    origin: Origin
    size: int
    root: RootHash

    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> str:
    """Return the signed note of a checkpoint. The signer's name must be the origin."""
    if signer.name != checkpoint.origin:
        raise BadNote(f"{signer.name} cannot sign for the log {checkpoint.origin}")
    return sign_note(checkpoint.text(), signer)


def parse_checkpoint(text: str) -> tuple[Checkpoint, Note]:
    """Read a checkpoint and the note it stands in, unverified. Raises BadNote; lines after the third are refused."""
    note = parse_note(text)
    return parse_checkpoint_text(note.text), note


def parse_checkpoint_text(text: str) -> Checkpoint:
    """Read the three lines that are signed. Raises BadNote."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3] or not is_key_name(lines[0]):
        raise BadNote("a checkpoint is not written as it must be: expected an origin, a size and a root hash")
    return Checkpoint(Origin(KeyName(lines[0])), parse_size(lines[1]), RootHash(decode_hash(lines[2])))


def parse_size(text: str) -> int:
    """Read the size of a tree. Raises BadNote."""
    if not _SIZE.fullmatch(text):
        raise BadNote("the size of a tree is not written as it must be: expected decimal digits, none of them needless")
    return int(text)


def decode_hash(text: str) -> bytes:
    """Read a hash of a tree. Raises BadNote."""
    raw = decode_base64(text)
    if len(raw) != HASH_BYTES:
        raise BadNote("a hash of a tree is not 32 bytes in base64")
    return raw


def open_checkpoint(text: str, verifier: Verifier) -> Checkpoint:
    """Read a checkpoint that must be signed by `verifier` under its own origin. Raises BadNote."""
    checkpoint, note = parse_checkpoint(text)
    if checkpoint.origin != verifier.name or not is_signed_by(note, verifier):
        raise BadNote(f"the checkpoint of {checkpoint.origin} carries no good signature of {verifier.name}")
    return checkpoint


def cosign(checkpoint: Checkpoint, witness: Signer, unix_seconds: int) -> Signature:
    """Return a witness's cosignature at this time. The witness's key must be of type COSIGNATURE."""
    if witness.key_type != COSIGNATURE:
        raise BadNote(f"the key of {witness.name} is not a witness's")
    signed = witness.private_key.sign(_cosigned(checkpoint.text(), unix_seconds))
    stamp = unix_seconds.to_bytes(TIMESTAMP_BYTES, "big")
    return Signature(witness.name, witness.verifier.key_id, stamp + signed)


def is_cosignature(signature: Signature) -> bool:
    """Whether a signature line is as long as a witness's, which a log's is not; not verified."""
    return len(signature.value) == TIMESTAMP_BYTES + SIGNATURE_BYTES


def cosigned_at(note: Note, witness: Verifier) -> int | None:
    """When this witness cosigned the checkpoint in `note`, in Unix seconds; None when it did not."""
    signature = find_signature(note, witness)
    if signature is None or witness.key_type != COSIGNATURE:
        return None
    unix_seconds = int.from_bytes(signature.value[:TIMESTAMP_BYTES], "big")
    message = _cosigned(note.text, unix_seconds)
    is_good = unix_seconds <= LAST_SECOND and witness.verifies(message, signature.value[TIMESTAMP_BYTES:])
    return unix_seconds if is_good else None


def _cosigned(text: str, unix_seconds: int) -> bytes:
    return f"cosignature/v1\ntime {unix_seconds}\n{text}".encode()
