"""The witness's folder (0700, files 0600).

    witness.key             the witness's private key, made at first start
    logs/HASH.checkpoint    the latest checkpoint that was cosigned of a log; HASH is SHA-256 of the origin, in hex
    cosigned-DAY.notes      every note that was cosigned on a day (see `holdfast.audit.anchors.file`)
    forks/HASH.checkpoint   the first checkpoint of a log that contradicts the one cosigned at its size
    certificates/HASH.certificate   a certificate that was learned; HASH is SHA-256 of the file, in hex
    lock                    held by the one process that cosigns

What is kept of a note is its text and the signatures that were verified. Of the files of notes only the latest are
kept, so many as `keep_days` says: what a log was like before is also shown by the latest checkpoint of it, which
stays, since it was only cosigned when the log had grown from there. They are counted, for a clock that jumps ahead
must not remove them all.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import contextmanager
from datetime import UTC
from hashlib import sha256
from socket import gethostname
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.audit.anchors.file import append_note, make_name_durable
from holdfast.audit.anchors.layout import CHECKPOINT, NOTES
from holdfast.audit.checkpoint import Checkpoint, cosigned_at, parse_checkpoint
from holdfast.audit.note import COSIGNATURE, BadNote, Signer, key_name, parse_signer
from holdfast.certificates import write_private
from holdfast.errors import ConfigurationError, Internal, Unavailable
from holdfast.settings.section import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from holdfast.audit.checkpoint import Origin
    from holdfast.audit.note import KeyName


KEEP_DAYS = 400
CERTIFICATE = ".certificate"

log = logging.getLogger(__name__)


class WitnessFolder:
    """The folder, with notes of the latest `keep_days` days. Blocking; not safe to use from several threads at once."""

    def __init__(self, folder: Path, keep_days: int = KEEP_DAYS) -> None:
        self.folder = folder
        self.key_file = folder / "witness.key"
        self._keep_days = keep_days

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process out, making the folder where it is missing. Raises ConfigurationError."""
        for folder in (self.folder, self._logs, self._forks, self._certificates):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_name_durable(folder)
        descriptor = os.open(self.folder / "lock", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def open_key(self, name: KeyName | None) -> Signer:
        """The witness's key, made where there is none: under `name`, else `holdfast-witness/HOST`.

        Raises ConfigurationError, also when there is one of another name.
        """
        if not self.key_file.exists():
            made = Signer(
                name or key_name(f"holdfast-witness/{gethostname()}"), Ed25519PrivateKey.generate(), COSIGNATURE
            )
            write_private(self.key_file, f"{made.secret_text()}\n".encode())
            make_name_durable(self.key_file)
        signer = self._load_key()
        if name not in {None, signer.name}:
            raise ConfigurationError(
                f"{self.key_file}: is called {signer.name}, not {name}; a witness of another name needs another folder."
            )
        return signer

    def latest(self, origin: Origin, witness: Signer) -> Checkpoint | None:
        """The latest checkpoint that was cosigned of a log; None when there is none.

        Raises Internal when what is kept is not what this witness cosigned of this log: nobody can say then how far
        the log had got.
        """
        file = self._logs / _file_name(origin)
        try:
            checkpoint, note = parse_checkpoint(file.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, BadNote) as error:
            raise Internal(f"the witness cannot read what it cosigned of {origin}") from error
        if checkpoint.origin != origin or cosigned_at(note, witness.verifier) is None:
            raise Internal(f"what the witness kept of {origin} is not what it cosigned")
        return checkpoint

    def cosigned_file(self, now: datetime) -> Path:
        """The file for what is cosigned at this time."""
        return self.folder / f"cosigned-{now.astimezone(UTC):%Y-%m-%d}{NOTES}"

    def keep(self, origin: Origin, note: str, now: datetime) -> None:
        """Make a cosigned note durable, as the latest of its log and among all. Raises Unavailable."""
        self._write(self._logs / _file_name(origin), note)
        file = self.cosigned_file(now)
        is_new = not file.exists()
        append_note(file, note)
        if is_new:
            self._remove_early_notes()

    def certificates(self) -> Iterator[str]:
        """Yield the certificates that were kept, unverified. Raises ConfigurationError."""
        for file in sorted(self._certificates.glob(f"*{CERTIFICATE}")):
            yield read_file(file).decode("utf-8", "replace")

    def keep_certificate(self, note: str) -> None:
        """Make a certificate durable. Raises Unavailable."""
        file = self._certificates / f"{sha256(note.encode()).hexdigest()}{CERTIFICATE}"
        if not file.exists():
            self._write(file, note)

    def keep_fork(self, origin: Origin, note: str) -> None:
        """Keep the first note that contradicts what was cosigned of a log. Raises Unavailable."""
        file = self._forks / _file_name(origin)
        if not file.exists():
            self._write(file, note)

    @property
    def _logs(self) -> Path:
        return self.folder / "logs"

    @property
    def _forks(self) -> Path:
        return self.folder / "forks"

    @property
    def _certificates(self) -> Path:
        return self.folder / "certificates"

    def _remove_early_notes(self) -> None:
        for file in sorted(self.folder.glob(f"cosigned-*{NOTES}"))[: -self._keep_days]:
            try:
                file.unlink()
            except OSError as error:
                log.warning("%s: cannot be removed: %s", file, error.strerror)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(f"{self.folder}: another witness runs in this folder; stop it first.") from error

    def _load_key(self) -> Signer:
        try:
            signer = parse_signer(read_file(self.key_file).decode("utf-8", "replace"))
        except BadNote as error:
            raise ConfigurationError(f"{self.key_file}: {error}.") from error
        if signer.key_type != COSIGNATURE:
            raise ConfigurationError(f"{self.key_file}: is not a witness's key.")
        return signer

    def _write(self, file: Path, note: str) -> None:
        try:
            write_private(file, note.encode())
            make_name_durable(file)
        except OSError as error:
            raise Unavailable(f"the witness cannot write to its folder: {error.strerror}") from error


def _file_name(origin: Origin) -> str:
    return f"{sha256(origin.encode()).hexdigest()}{CHECKPOINT}"
