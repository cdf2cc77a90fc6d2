"""The proof that one record is in a log, in a file that says it all by itself (C2SP tlog-proof).

    c2sp.org/tlog-proof@v1
    extra BASE64(EXTRA)
    index SEQ
    BASE64(HASH)                 the inclusion proof of RFC 6962 section 2.1.1, from the leaf's sibling upwards
    ...
                                 an empty line, then a checkpoint of the log, the whole signed note
    ORIGIN
    SIZE
    BASE64(ROOT HASH)

    — ORIGIN BASE64(SIGNATURE)

EXTRA is the JSON object {"certificate":NOTE,"leaf":LEAF}: the root's note for the log's key (see `keys`), and the
leaf itself (see `record`), both as text. Nothing in it is believed: the certificate must be signed by the root key
that the reader pins, and the leaf's hash, SHA-256(0x00 || leaf), must be the one that the inclusion proof leads from.

Any tool that reads such proofs checks the rest, with the leaf hash and the log's key under the log's origin as name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from holdfast.audit.checkpoint import Checkpoint, decode_hash, open_checkpoint, parse_checkpoint
from holdfast.audit.keys import parse_certificate
from holdfast.audit.note import BadNote, decode_base64, encode_base64
from holdfast.audit.record import Leaf, decode, timestamp
from holdfast.audit.tree import hash_leaf, inclusion_path, proves_inclusion
from holdfast.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.audit.note import Verifier
    from holdfast.audit.tree import LeafHash

HEADER = "c2sp.org/tlog-proof@v1"
EXTRA = "extra "
LONGEST_PROOF = 16 << 20
_INDEX = re.compile(r"index (0|[1-9][0-9]{0,15})")


class _Extra(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    certificate: str
    leaf: str


@dataclass(frozen=True, slots=True)
class Proof:
    """One record's leaf, its place, the way from it to a signed root, and who certified the signer."""

    leaf: bytes
    index: int
    path: tuple[bytes, ...]
    note: str
    certificate: str


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows: this leaf stands in the log of this checkpoint."""

    leaf: Leaf
    checkpoint: Checkpoint


def make_proof(leaf: bytes, index: int, leaf_hashes: Sequence[LeafHash], note: str, certificate: str) -> Proof:
    """Prove the leaf at `index` of the log whose checkpoint is in `note`; `leaf_hashes` are all of its leaves'.

    Raises BadNote when these are not the leaves that were signed.
    """
    checkpoint = parse_checkpoint(note)[0]
    path = tuple(inclusion_path(leaf_hashes, index)) if index < len(leaf_hashes) else ()
    if not proves_inclusion(hash_leaf(leaf), index, checkpoint.size, path, checkpoint.root):
        raise BadNote(f"the log {checkpoint.origin} is not what its checkpoint says; run `holdfast audit verify`")
    return Proof(leaf, index, path, note, certificate)


def write_proof(proof: Proof) -> str:
    """Return a proof as text."""
    extra = msgspec.json.encode(_Extra(proof.certificate, proof.leaf.decode()))
    lines = (HEADER, f"{EXTRA}{encode_base64(extra)}", f"index {proof.index}", *map(encode_base64, proof.path))
    return "".join(f"{line}\n" for line in lines) + f"\n{proof.note}"


def parse_proof(text: str) -> Proof:
    """Read a proof; nothing in it is verified. Raises BadNote."""
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")
    index = _INDEX.fullmatch(lines[2]) if len(lines) >= 3 else None
    if index is None or lines[0] != HEADER or len(text) > LONGEST_PROOF:
        raise BadNote(f"this is not a proof: expected {HEADER}, an extra line, an index and the hashes of its path")
    extra = _parse_extra(lines[1])
    path = tuple(decode_hash(line) for line in lines[3:])
    return Proof(extra.leaf.encode(), int(index[1]), path, note, extra.certificate)


def check_proof(proof: Proof, root: Verifier) -> Proven:
    """Verify a proof with nothing but the root's public key. Raises BadNote, which says what does not hold."""
    certificate = parse_certificate(proof.certificate, root)
    named = parse_checkpoint(proof.note)[0]
    checkpoint = open_checkpoint(proof.note, certificate.verifier_for(named.origin))
    leaf_hash = hash_leaf(proof.leaf)
    if not proves_inclusion(leaf_hash, proof.index, checkpoint.size, proof.path, checkpoint.root):
        raise BadNote(f"the proof does not lead from the record to the checkpoint of {checkpoint.origin}")
    leaf = _read_leaf(proof.leaf)
    if (leaf.log, leaf.seq) != (checkpoint.origin, proof.index):
        raise BadNote(f"the record says that it is record {leaf.seq} of {leaf.log}, and stands in another place")
    if not timestamp(certificate.not_before) <= leaf.time <= timestamp(certificate.not_after):
        raise BadNote(f"the record is of {leaf.time}, when the key of {checkpoint.origin} was not certified")
    return Proven(leaf, checkpoint)


def _parse_extra(line: str) -> _Extra:
    encoded = decode_base64(line[len(EXTRA) :]) if line.startswith(EXTRA) else b""
    try:
        found = msgspec.json.decode(encoded, type=_Extra)
        found.leaf.encode()
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise BadNote("the proof does not bring the record and the certificate in its extra line") from error
    return found


def _read_leaf(leaf: bytes) -> Leaf:
    try:
        return decode(leaf)
    except Internal as error:
        raise BadNote(f"what is proven is no record: {error}") from error
