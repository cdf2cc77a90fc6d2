"""A log that can be told in two ways, the root that certifies its key, and a witness that really runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.audit.anchors.file import read_notes
from holdfast.audit.anchors.submission import Submission, write_submission
from holdfast.audit.checkpoint import Checkpoint, Origin, cosigned_at, parse_checkpoint, sign_checkpoint
from holdfast.audit.keys import Certificate
from holdfast.audit.note import KeyName, Note, Signer, Verifier, parse_signature, parse_verifier, sign_note
from holdfast.audit.tree import LeafHash, consistency_path, hash_leaf, root_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECONDS = 60
COMMAND = [sys.executable, "-m", "holdfast.cli", "witness"]
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def make_signer(name: str, seed: str) -> Signer:
    """A key that is the same in every run."""
    return Signer(KeyName(name), Ed25519PrivateKey.from_private_bytes(seed.ljust(32).encode()))


ROOT = make_signer("holdfast-root/test", "root")
OTHER_ROOT = make_signer("holdfast-root/test", "another root")


@dataclass
class Log:
    """A log of 70 leaves, and a fork that differs from it from leaf `differs_from` on."""

    origin: Origin = Origin(KeyName("holdfast/test/replica/1"))  # noqa: RUF009 - a name, not a call that matters
    seed: str = "epoch"
    differs_from: int = 3
    leaves: list[LeafHash] = field(init=False)
    forked: list[LeafHash] = field(init=False)

    def __post_init__(self) -> None:
        self.signer = make_signer(self.origin, self.seed)
        self.leaves = [hash_leaf(b"leaf %d" % number) for number in range(70)]
        changed = [hash_leaf(b"fork %d" % number) for number in range(70)]
        self.forked = self.leaves[: self.differs_from] + changed[self.differs_from :]

    def checkpoint(self, size: int, *, fork: bool = False) -> Checkpoint:
        """The log's state, or the fork's, at a size."""
        return Checkpoint(self.origin, size, root_of((self.forked if fork else self.leaves)[:size]))

    def note(self, size: int, *, fork: bool = False, signer: Signer | None = None) -> str:
        """The signed checkpoint."""
        return sign_checkpoint(self.checkpoint(size, fork=fork), signer or self.signer)

    def proof(self, old_size: int, size: int, *, fork: bool = False) -> list[bytes]:
        """The consistency path."""
        return consistency_path((self.forked if fork else self.leaves)[:size], old_size)

    def submission(self, old_size: int, size: int, *, fork: bool = False) -> str:
        """What an honest client sends, or one that tells the fork as if nothing was."""
        path = tuple(self.proof(old_size, size, fork=fork)) if 0 < old_size <= size else ()
        return write_submission(Submission(old_size, path, self.note(size, fork=fork)))

    def certificate(
        self, root: Signer = ROOT, *, now: datetime = NOW, replicas: Sequence[str] = ("replica",), days: int = 30
    ) -> str:
        """The root's note that certifies the log's key."""
        key = self.signer.verifier.public_key
        start, end = now - timedelta(days=1), now + timedelta(days=days)
        return sign_note(Certificate("test", tuple(replicas), key, start, end).text(), root)


@dataclass
class RunningWitness:
    """One `holdfast witness serve`."""

    folder: Path
    process: subprocess.Popen[str]
    url: str
    output: list[str]

    @cached_property
    def verifier(self) -> Verifier:
        """The witness's public key, as `holdfast witness keys` prints it."""
        return read_key(self.folder)

    def post(self, call: str, text: str | bytes) -> httpx.Response:
        """One request, on a connection of its own."""
        content = text.encode() if isinstance(text, str) else text
        return httpx.post(f"{self.url}/{call}", content=content, timeout=SECONDS, trust_env=False)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(SECONDS)


def read_key(folder: Path) -> Verifier:
    """Run `holdfast witness keys`."""
    command = [*COMMAND, "keys", "--state-dir", str(folder)]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout
    return parse_verifier(printed)


@contextmanager
def running_witness(folder: Path, *options: str) -> Iterator[RunningWitness]:
    """Start a witness that trusts `ROOT`, or what `options` say; end it afterwards."""
    if not options:
        root_file = folder.parent / "root.pub"
        root_file.write_text(f"{ROOT.verifier}\n")
        options = ("--root", str(root_file))
    command = [*COMMAND, "serve", "--state-dir", str(folder), "--listen", "127.0.0.1:0", *options]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        output: list[str] = []
        reader = threading.Thread(target=output.extend, args=(process.stderr,), daemon=True)
        reader.start()
        try:
            words = process.stdout.readline().split()
            assert words[:1] == ["ready"], process.wait(SECONDS) or output
            yield RunningWitness(folder, process, words[1], output)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(SECONDS)
            reader.join(SECONDS)


def cosigned_in(folder: Path, witness: Verifier) -> list[Checkpoint]:
    """What the folder says that the witness cosigned, every signature checked, oldest first."""
    found = []
    for text in chain.from_iterable(map(read_notes, sorted(folder.glob("cosigned*.notes")))):
        checkpoint, note = parse_checkpoint(text)
        assert cosigned_at(note, witness) is not None
        found.append(checkpoint)
    return found


def is_cosigned(checkpoint: Checkpoint, answer: str, witness: Verifier) -> bool:
    """Whether the answer is the witness's cosignature of this checkpoint."""
    return cosigned_at(Note(checkpoint.text(), (parse_signature(answer.removesuffix("\n")),)), witness) is not None
