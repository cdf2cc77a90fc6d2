"""Who may sign a log: an offline root key certifies the keys that gateways sign with.

The auditor pins one public key, the root's. It signs certificates, which are notes (see `note`) with this text:

    holdfast/certificate/v1
    cluster CLUSTER
    replica NAME NAME ...         the replicas that may sign with the key, separated by one space
    key BASE64(PUBLIC KEY)        Ed25519, 32 bytes
    not-before RFC 3339           UTC, whole seconds, as 2026-01-31T12:00:00Z
    not-after RFC 3339

A log named `holdfast/CLUSTER/REPLICA/EPOCH` is signed well when its certificate is the root's, names its cluster
and replica, and was valid at every time that the log's leaves tell. The log's verifier is the certified key under
the log's origin as key name.

On disk, in one folder (0700, files 0600): `root.pub`, the root's public key; `root.key`, its private key, which
belongs off the machine once it has signed; `epoch.key`, the private key in use on the first line and its
certificate after it, in one file so that the two always fit. Keys never enter the database.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.audit.note import (
    BadNote,
    Signer,
    Verifier,
    decode_base64,
    encode_base64,
    find_signature,
    is_signed_by,
    key_name,
    parse_note,
    parse_signer,
    parse_verifier,
    sign_note,
)
from holdfast.certificates import write_private
from holdfast.errors import ConfigurationError
from holdfast.settings.section import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from holdfast.audit.checkpoint import Origin

HEADER = "holdfast/certificate/v1"
CONSOLE = ".console"
MAINTENANCE = ".maintenance"
ROLES = ("", CONSOLE, MAINTENANCE)
"""What a replica's name ends with in the logs of the gateway, of its approvals API, and of commands that erase."""

EPOCH_KEY_DAYS = 400
_LABELS = ("cluster", "replica", "key", "not-before", "not-after")
_ORIGIN = re.compile(r"holdfast/([A-Za-z0-9._:-]+)/([A-Za-z0-9._:-]+)/([1-9][0-9]{0,8})")
_MOMENT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the root says: these replicas of this cluster sign with this key, in this time."""

    cluster: str
    replicas: tuple[str, ...]
    key: bytes
    not_before: datetime
    not_after: datetime

    def text(self) -> str:
        """The text that the root signs."""
        values = (
            self.cluster,
            " ".join(self.replicas),
            encode_base64(self.key),
            self.not_before.strftime(_MOMENT),
            self.not_after.strftime(_MOMENT),
        )
        lines = (f"{label} {value}\n" for label, value in zip(_LABELS, values, strict=True))
        return f"{HEADER}\n{''.join(lines)}"

    def covers(self, origin: Origin) -> bool:
        """Whether the log of this name belongs to a certified replica."""
        match = _ORIGIN.fullmatch(origin)
        return match is not None and match[1] == self.cluster and match[2] in self.replicas

    def verifier_for(self, origin: Origin) -> Verifier:
        """What verifies the checkpoints of this log. Raises BadNote when the certificate does not cover it."""
        if not self.covers(origin):
            raise BadNote(f"the certificate of {', '.join(self.replicas)} does not cover the log {origin}")
        return Verifier(origin, self.key)

    def is_valid_at(self, moment: datetime) -> bool:
        """Whether the key may sign at this time."""
        return self.not_before <= moment <= self.not_after


@dataclass(frozen=True, slots=True)
class EpochKey:
    """The key a gateway signs with, and the root's note that certifies it.

    `changed_at` is when its file was put in its place; see `KeyFolder.changed_at`.
    """

    signer: Signer
    certificate_note: str
    certificate: Certificate
    changed_at: int

    def signer_for(self, origin: Origin) -> Signer:
        """What signs the checkpoints of this log. Raises BadNote when the certificate does not cover it."""
        self.certificate.verifier_for(origin)
        return Signer(origin, self.signer.private_key)


class KeyFolder:
    """The folder of one gateway's keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root_key = folder / "root.key"
        self.root_pub = folder / "root.pub"
        self.epoch_key = folder / "epoch.key"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from making keys here; makes the folder where it is missing."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def changed_at(self) -> int:
        """When the key in use was put in its place, in nanoseconds; 0 when there is none."""
        return self.epoch_key.stat().st_mtime_ns if self.epoch_key.exists() else 0

    def make_root(self, cluster: str, private_key: Ed25519PrivateKey, file: Path | None = None) -> Signer:
        """Keep a new root, its private key in `file` or here. Raises ConfigurationError when there is one already."""
        if self.root_pub.exists() or self.root_key.exists():
            raise ConfigurationError(
                f"{self.folder}: there is a root key already; `holdfast audit keys rotate` goes on with it. To keep it "
                f"elsewhere, move {self.root_key.name} there, and rotate with --root FILE."
            )
        root = Signer(key_name(f"holdfast-root/{cluster}"), private_key)
        _write_new(file or self.root_key, f"{root.secret_text()}\n".encode())
        write_private(self.root_pub, f"{root.verifier}\n".encode())
        return root

    def load_root(self, file: Path | None = None) -> Signer:
        """Read the root's private key, from `file` or from the folder, and check it against `root.pub`.

        Raises ConfigurationError.
        """
        source = file or self.root_key
        root = _explain(source, parse_signer, read_file(source))
        if self.root_pub.exists() and self.root_verifier() != root.verifier:
            raise ConfigurationError(f"{source}: is not the private half of {self.root_pub}.")
        return root

    def root_verifier(self) -> Verifier:
        """Read the root's public key. Raises ConfigurationError."""
        return load_verifier(self.root_pub)

    def make_epoch_key(
        self, root: Signer, cluster: str, replicas: Sequence[str], private_key: Ed25519PrivateKey, now: datetime
    ) -> EpochKey:
        """Certify a new key and put it in the place of the one before; the next epoch is signed with it."""
        certificate = Certificate(
            cluster=cluster,
            replicas=tuple(replicas),
            key=private_key.public_key().public_bytes_raw(),
            not_before=now.replace(microsecond=0) - timedelta(minutes=5),
            not_after=now.replace(microsecond=0) + timedelta(days=EPOCH_KEY_DAYS),
        )
        signer = Signer(key_name(f"holdfast/{cluster}/{replicas[0]}"), private_key)
        note = sign_note(certificate.text(), root)
        write_private(self.epoch_key, f"{signer.secret_text()}\n{note}".encode())
        return EpochKey(signer, note, certificate, self.changed_at())

    def load_epoch_key(self) -> EpochKey:
        """Read the key in use. Raises ConfigurationError when it is not the one that the root certified."""
        changed_at = self.changed_at()
        secret, _, note = read_file(self.epoch_key).decode("utf-8", "replace").partition("\n")
        signer = _explain(self.epoch_key, parse_signer, secret.encode())
        try:
            certificate = parse_certificate(note, self.root_verifier())
        except BadNote as error:
            raise ConfigurationError(f"{self.epoch_key}: {error}.") from error
        if certificate.key != signer.verifier.public_key:
            raise ConfigurationError(f"{self.epoch_key}: the certificate is another key's.")
        return EpochKey(signer, note, certificate, changed_at)


def open_epoch_key(folder: KeyFolder, cluster: str, replica: str, now: datetime) -> EpochKey:
    """The key to sign with; root and key are made where there are none.

    Raises ConfigurationError when the key is not certified for this cluster, this replica and this time.
    """
    replicas = tuple(replica + role for role in ROLES)
    with folder.locked():
        if not folder.epoch_key.exists():
            root = _open_root(folder, cluster)
            folder.make_epoch_key(root, cluster, replicas, Ed25519PrivateKey.generate(), now)
    key = folder.load_epoch_key()
    certificate = key.certificate
    if certificate.cluster != cluster or not set(replicas) <= set(certificate.replicas):
        raise ConfigurationError(
            f"{folder.epoch_key}: is certified for {certificate.cluster}/{', '.join(certificate.replicas)}, not for "
            f"{cluster}/{replica}; {advise_on_name(certificate, cluster)}, or run `holdfast audit keys rotate`."
        )
    if not certificate.is_valid_at(now):
        raise ConfigurationError(
            f"{folder.epoch_key}: its certificate is good from {certificate.not_before:{_MOMENT}} to "
            f"{certificate.not_after:{_MOMENT}}; run `holdfast audit keys rotate`."
        )
    return key


def advise_on_name(certificate: Certificate, cluster: str) -> str:
    """What to do first where a key has another's name: the same gateway is rather renamed than a new one.

    The host was called otherwise, or listened on another port; a further gateway has no business in its folder.
    """
    name = f"`replica: {certificate.replicas[0]}`"
    wanted = name if certificate.cluster == cluster else f"`cluster: {certificate.cluster}` and {name}"
    return f"set {wanted} to go on under that name, give a further gateway a stateDir of its own"


def _open_root(folder: KeyFolder, cluster: str) -> Signer:
    """The root in the folder; made where there is none, and finished where a first start broke off."""
    if folder.root_pub.exists():
        return folder.load_root()
    if not folder.root_key.exists():
        return folder.make_root(cluster, Ed25519PrivateKey.generate())
    root = folder.load_root()
    write_private(folder.root_pub, f"{root.verifier}\n".encode())
    return root


def _write_new(file: Path, content: bytes) -> None:
    """Write a private key where nothing is yet."""
    if file.exists():
        raise ConfigurationError(f"{file}: is there already; a key is not written over another.")
    try:
        write_private(file, content)
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be written: {error.strerror}.") from error


def load_verifier(file: Path) -> Verifier:
    """Read a public key from a file. Raises ConfigurationError."""
    return _explain(file, parse_verifier, read_file(file))


def parse_certificate(text: str, root: Verifier) -> Certificate:
    """Read a certificate that must be signed by `root`. Raises BadNote."""
    note = parse_note(text)
    if not is_signed_by(note, root):
        raise BadNote(
            f"the certificate carries no good signature of the root key {root.name} (ID {root.key_id.hex()}); it is "
            f"signed by the key with the ID {note.signatures[0].key_id.hex()}"
        )
    header, *lines = note.text[:-1].split("\n")
    pairs = [line.partition(" ") for line in lines]
    if header != HEADER or tuple(label for label, _, _ in pairs) != _LABELS:
        raise BadNote(f"a certificate is not written as it must be: expected {HEADER} and its five lines")
    cluster, replicas, key, not_before, not_after = (value for _, _, value in pairs)
    certificate = Certificate(
        cluster, tuple(replicas.split(" ")), decode_base64(key), _parse_moment(not_before), _parse_moment(not_after)
    )
    if certificate.text() != note.text or len(certificate.key) != 32:
        raise BadNote("a certificate is not written as it must be: its key or its times have another spelling")
    return certificate


def foreign_signer(text: str, root: Verifier) -> str:
    """The ID, as hex, of the key by which a certificate is signed where `root` is not among them; else empty."""
    try:
        note = parse_note(text)
    except BadNote:
        return ""
    return "" if find_signature(note, root) is not None else note.signatures[0].key_id.hex()


def _parse_moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC)
    except ValueError as error:
        raise BadNote(f"a certificate holds the time {text!r}; expected one as 2026-01-31T12:00:00Z") from error


def _explain[T](file: Path, parse: Callable[[str], T], content: bytes) -> T:
    try:
        return parse(content.decode("utf-8", "replace"))
    except BadNote as error:
        raise ConfigurationError(f"{file}: {error}.") from error
