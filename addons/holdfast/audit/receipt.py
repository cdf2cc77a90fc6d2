"""The receipt of a record: what its caller can keep, and hold against the log later.

Sent as the header `Audit-Receipt`, an RFC 9651 dictionary:

    log="ORIGIN", seq=N, leaf=:BASE64(LEAF HASH):, checkpoint=:BASE64(SIGNED NOTE):

The signed note is the checkpoint of the commit that made the record durable, so its size is above `seq`. A log
that later lacks the leaf, or does not begin with the checkpoint's tree, contradicts a signature of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.audit.checkpoint import Origin
from holdfast.audit.note import BadNote, KeyName, decode_base64, encode_base64
from holdfast.audit.tree import HASH_BYTES, LeafHash

HEADER = "Audit-Receipt"
_RECEIPT = re.compile(
    r'log="([!#-\[\]-~]+)", seq=(0|[1-9][0-9]{0,15}), leaf=:([A-Za-z0-9+/=]+):, checkpoint=:([A-Za-z0-9+/=]+):'
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """A record's place, its leaf hash, and the signed note of the commit that made it durable."""

    origin: Origin
    seq: int
    leaf_hash: LeafHash
    note: str

    def header(self) -> str:
        """The value of the header."""
        leaf, note = encode_base64(self.leaf_hash), encode_base64(self.note.encode())
        return f'log="{self.origin}", seq={self.seq}, leaf=:{leaf}:, checkpoint=:{note}:'


def parse_receipt(text: str) -> Receipt:
    """Read a header's value; nothing in it is verified. Raises BadNote."""
    match = _RECEIPT.fullmatch(text.strip())
    leaf_hash = decode_base64(match[3]) if match else b""
    note = _decode_text(match[4]) if match else ""
    if match is None or len(leaf_hash) != HASH_BYTES or not note:
        raise BadNote(f"this is not a receipt: expected the value of an {HEADER} header")
    return Receipt(Origin(KeyName(match[1])), int(match[2]), LeafHash(leaf_hash), note)


def _decode_text(encoded: str) -> str:
    """Read base64 of UTF-8; anything else becomes no text."""
    try:
        return decode_base64(encoded).decode("utf-8")
    except UnicodeDecodeError:
        return ""
