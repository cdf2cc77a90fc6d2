"""Signed notes: a text and the Ed25519 signatures under it (C2SP signed-note, as in Go's golang.org/x/mod/sumdb/note).

    text line
    ...
                                            an empty line ends the text
    — KEYNAME BASE64(KEYID || SIGNATURE)    an em dash; one line a signature

The text is UTF-8, ends with a new line and holds no control character but new lines; the signature is over all of
it. A key name has no white space and no `+`. A key's ID is the first four bytes of SHA-256(KEYNAME || 0x0A ||
TYPE || PUBLIC KEY); type 0x01 is Ed25519, and 0x04 the timestamped Ed25519 of a witness (see `checkpoint`).
Keys are written as

    KEYNAME+HEX(KEYID)+BASE64(TYPE || PUBLIC KEY)                  to verify with
    PRIVATE+KEY+KEYNAME+HEX(KEYID)+BASE64(TYPE || SEED)            to sign with, 32 bytes of seed

There is one spelling of everything: what is not written so is refused, not repaired.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import NewType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.errors import ConfigurationError, HoldfastError

KeyName = NewType("KeyName", str)
"""Who signs: for a log's checkpoints, the log's origin."""

ED25519 = 1
COSIGNATURE = 4
KEY_TYPES = (ED25519, COSIGNATURE)
KEY_ID_BYTES = 4
LARGEST_NOTE = 64 << 10
MOST_SIGNATURES = 64
_NAME = re.compile(r"[^\s+\x00-\x1f\ud800-\udfff]+")
_FORBIDDEN = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
"""Control characters but the new line, and what is no character at all and has no UTF-8."""

_SIGNATURE_PREFIX = "— "


class BadNote(HoldfastError):
    """A note, a signature line or a key is not written as it must be."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: who signed, by which key, and the signature's bytes."""

    name: KeyName
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text, ending with a new line, and the signatures under it, unverified."""

    text: str
    signatures: tuple[Signature, ...] = ()


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key under its name."""

    name: KeyName
    public_key: bytes
    key_type: int = ED25519

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell the keys of one name apart."""
        return derive_key_id(self.name, self.key_type, self.public_key)

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.key_type]) + self.public_key)}"

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `message`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """A private key under its name; its text form is a secret."""

    name: KeyName
    private_key: Ed25519PrivateKey
    key_type: int = ED25519

    @cached_property
    def verifier(self) -> Verifier:
        """The public half."""
        raw = self.private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return Verifier(self.name, raw, self.key_type)

    def sign(self, message: bytes) -> Signature:
        """Sign the bytes themselves."""
        return Signature(self.name, self.verifier.key_id, self.private_key.sign(message))

    def secret_text(self) -> str:
        """The private key in its text form."""
        seed = self.private_key.private_bytes_raw()
        secret = encode_base64(bytes([self.key_type]) + seed)
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_id.hex()}+{secret}"


def derive_key_id(name: str, key_type: int, public_key: bytes) -> bytes:
    """The key ID of a public key under a name (C2SP signed-note)."""
    return sha256(name.encode() + b"\n" + bytes([key_type]) + public_key).digest()[:KEY_ID_BYTES]


def is_key_name(text: str) -> bool:
    """Whether a key may be called so."""
    return _NAME.fullmatch(text) is not None


def key_name(text: str) -> KeyName:
    """Check what a key shall be called. Raises ConfigurationError."""
    if not is_key_name(text) or not text.isprintable():
        raise ConfigurationError(f"{text!r} cannot name a key or a log: expected no white space and no '+'.")
    return KeyName(text)


def parse_verifier(text: str) -> Verifier:
    """Read a public key, which may end its line. Raises BadNote."""
    name, _, rest = text.removesuffix("\n").partition("+")
    key_id, _, encoded = rest.partition("+")
    key = decode_base64(encoded)
    if not is_key_name(name) or len(key) != 33 or key[0] not in KEY_TYPES:
        raise BadNote("this is not a public key: expected NAME+ID+KEY, as `holdfast audit keys show` prints it")
    verifier = Verifier(KeyName(name), key[1:], key[0])
    if verifier.key_id.hex() != key_id:
        raise BadNote(f"the key ID of public key {name} does not fit the key; it was not copied whole")
    return verifier


def parse_signer(text: str) -> Signer:
    """Read a private key, which may end its line. Raises BadNote, whose message holds nothing of the key."""
    parts = text.removesuffix("\n").split("+", 4)
    if len(parts) != 5 or parts[:2] != ["PRIVATE", "KEY"] or not is_key_name(parts[2]):
        raise BadNote("this is not a private key: expected PRIVATE+KEY+NAME+ID+SEED")
    seed = decode_base64(parts[4])
    if len(seed) != 33 or seed[0] not in KEY_TYPES:
        raise BadNote(f"private key {parts[2]} is not an Ed25519 key of 32 bytes")
    signer = Signer(KeyName(parts[2]), Ed25519PrivateKey.from_private_bytes(seed[1:]), seed[0])
    if signer.verifier.key_id.hex() != parts[3]:
        raise BadNote(f"the key ID of private key {parts[2]} does not fit the key; it was not copied whole")
    return signer


def sign_note(text: str, *signers: Signer) -> str:
    """Return the note of `text` signed by all of `signers`. Raises BadNote when text or key are not for that."""
    if not _is_signable(text):
        raise BadNote("a note's text must end with a new line and hold no other control character")
    if any(signer.key_type != ED25519 for signer in signers):
        raise BadNote("a witness's key signs no notes; it cosigns checkpoints")
    return write_note(Note(text, tuple(signer.sign(text.encode()) for signer in signers)))


def write_note(note: Note) -> str:
    """Return a note as text."""
    return f"{note.text}\n" + "".join(write_signature(signature) for signature in note.signatures)


def write_signature(signature: Signature) -> str:
    """Return one signature line."""
    return f"{_SIGNATURE_PREFIX}{signature.name} {encode_base64(signature.key_id + signature.value)}\n"


def parse_note(text: str) -> Note:
    """Read a note without verifying it. Raises BadNote."""
    if len(text) > LARGEST_NOTE:
        raise BadNote(f"a note is longer than {LARGEST_NOTE} characters")
    body, mark, lines = text.rpartition("\n\n")
    signed = f"{body}\n"
    if not mark or not _is_signable(text):
        raise BadNote("this is not a signed note: expected a text, an empty line, and signature lines")
    signatures = tuple(parse_signature(line) for line in lines[:-1].split("\n"))
    if len(signatures) > MOST_SIGNATURES:
        raise BadNote(f"a note has more than {MOST_SIGNATURES} signatures")
    return Note(signed, signatures)


def parse_signature(line: str) -> Signature:
    """Read one signature line, without the new line at its end. Raises BadNote."""
    name, _, encoded = line.removeprefix(_SIGNATURE_PREFIX).partition(" ")
    value = decode_base64(encoded)
    if not line.startswith(_SIGNATURE_PREFIX) or not is_key_name(name) or len(value) <= KEY_ID_BYTES:
        raise BadNote("a signature line of a note is not written as it must be")
    return Signature(KeyName(name), value[:KEY_ID_BYTES], value[KEY_ID_BYTES:])


def find_signature(note: Note, verifier: Verifier) -> Signature | None:
    """The first signature line that names this key; not verified."""
    for signature in note.signatures:
        if signature.name == verifier.name and signature.key_id == verifier.key_id:
            return signature
    return None


def is_signed_by(note: Note, verifier: Verifier) -> bool:
    """Whether the note carries a good signature of this key over its text."""
    if verifier.key_type != ED25519:
        return False
    signature = find_signature(note, verifier)
    return signature is not None and verifier.verifies(note.text.encode(), signature.value)


def _is_signable(text: str) -> bool:
    return text.endswith("\n") and _FORBIDDEN.search(text) is None


def encode_base64(raw: bytes) -> str:
    """Padded base64 (RFC 4648 section 4)."""
    return base64.b64encode(raw).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Read canonical, padded base64; anything else becomes no bytes, which nothing accepts."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if encode_base64(raw) == text else b""
