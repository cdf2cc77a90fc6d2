"""`holdfast witness` as others meet it: over HTTP, attacked, killed, started again."""

from __future__ import annotations

import json
import signal
import ssl
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING

import aics_tlog
import httpx
import psutil
import pytest

from holdfast.audit.anchors.submission import LARGEST_SUBMISSION, MOST_HASHES, Submission, write_submission
from holdfast.audit.checkpoint import Checkpoint, Origin, sign_checkpoint
from holdfast.audit.note import KeyName, encode_base64
from holdfast.audit.tree import LeafHash, frontier_of, hash_leaf
from holdfast.certificates import make_authority, write_private
from witness.witnessing import (
    COMMAND,
    OTHER_ROOT,
    ROOT,
    SECONDS,
    Log,
    RunningWitness,
    cosigned_in,
    is_cosigned,
    make_signer,
    read_key,
    running_witness,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG = Log()
NOW = datetime.now(UTC)
CERTIFICATE = LOG.certificate(now=NOW)


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWitness]:
    with running_witness(tmp_path_factory.mktemp("module") / "witness") as running:
        yield running


def make_log(number: int) -> Log:
    return Log(Origin(KeyName(f"holdfast/test/replica/{number}")))


numbers = count(1)


@pytest.fixture
def log(witness: RunningWitness) -> Log:
    """A log that the witness knows, cosigned at size 10."""
    log = make_log(next(numbers))
    log.signer = make_signer(log.origin, LOG.seed)
    assert witness.post("add-certificate", CERTIFICATE).status_code == 200
    assert witness.post("add-checkpoint", log.submission(0, 10)).status_code == 200
    return log


def test_the_answers_are_those_of_the_specification(witness: RunningWitness, log: Log) -> None:
    grown = witness.post("add-checkpoint", log.submission(10, 12))
    assert (grown.status_code, is_cosigned(log.checkpoint(12), grown.text, witness.verifier)) == (200, True)
    for old_size in (0, 9, 11):
        differs = witness.post("add-checkpoint", log.submission(old_size, 13))
        assert (differs.status_code, differs.text) == (409, "12\n")
        assert differs.headers["Content-Type"] == "text/x.tlog.size"
    fork = witness.post("add-checkpoint", log.submission(12, 12, fork=True))
    assert (fork.status_code, fork.headers["Content-Type"]) == (409, "text/plain; charset=utf-8")
    assert witness.post("add-checkpoint", log.submission(12, 14, fork=True)).status_code == 422
    assert witness.post("add-checkpoint", log.submission(13, 12)).status_code == 400
    assert witness.post("add-checkpoint", Log(Origin(KeyName("elsewhere"))).submission(0, 1)).status_code == 404
    impostor = Log(log.origin, "impostor")
    assert witness.post("add-checkpoint", impostor.submission(12, 14)).status_code == 403
    assert [one.size for one in cosigned_in(witness.folder, witness.verifier) if one.origin == log.origin] == [10, 12]


def test_another_implementation_verifies_the_cosignature(witness: RunningWitness, log: Log) -> None:
    answer = witness.post("add-checkpoint", log.submission(10, 11)).text
    note = aics_tlog.parse_note(log.note(11) + answer)
    keys = [aics_tlog.parse_vkey(str(key)) for key in (log.signer.verifier, witness.verifier)]
    now = int(time.time())
    result = aics_tlog.verify_checkpoint(note, keys[0], keys[1:], quorum=1, max_age_seconds=SECONDS, now=now)
    assert result.ok, result.error


def test_the_attacks_on_a_log_of_size_10(witness: RunningWitness, log: Log) -> None:
    attacks = {
        "a fork": log.submission(10, 10, fork=True),
        "a fork that went on": log.submission(10, 20, fork=True),
        "a shrunk log": log.submission(9, 9),
        "a shrunk log, begun anew": log.submission(0, 9),
        "a shrunk fork": log.submission(0, 3, fork=True),
        "an old checkpoint again": write_submission(Submission(10, (), log.note(9))),
        "a proof for other sizes": write_submission(Submission(10, tuple(log.proof(9, 12)), log.note(12))),
        "a proof of other hashes": write_submission(Submission(10, tuple(log.proof(10, 12)), log.note(13))),
        "no proof": write_submission(Submission(10, (), log.note(12))),
        "an unknown log": Log(Origin(KeyName("holdfast/test/other/1"))).submission(0, 12),
        "another's key": Log(log.origin, "impostor").submission(10, 12),
        "a log's checkpoint under another's name": log.submission(10, 12).replace(log.origin, f"{log.origin}0", 1),
    }
    for name, submission in attacks.items():
        assert witness.post("add-checkpoint", submission).status_code in {400, 403, 404, 409, 422}, name
    assert [one.size for one in cosigned_in(witness.folder, witness.verifier) if one.origin == log.origin] == [10]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"\x00" * 1000,
        b"old 0\n\n",
        LOG.submission(0, 3).encode()[:-1],
        LOG.submission(0, 3).replace("\n", "\r\n").encode(),
        b"old 0\n" + f"{encode_base64(bytes(32))}\n".encode() * (MOST_HASHES + 1) + b"\n" + LOG.note(3).encode(),
    ],
    ids=range(7),
)
def test_bodies_that_are_none(witness: RunningWitness, body: bytes) -> None:
    assert witness.post("add-checkpoint", body).status_code == 400
    assert witness.post("add-certificate", body[:4]).status_code == 400


@pytest.mark.parametrize("call", ["add-checkpoint", "add-certificate"])
def test_a_huge_body_is_refused_before_it_is_read(witness: RunningWitness, call: str) -> None:
    assert witness.post(call, b"a" * (LARGEST_SUBMISSION + 1)).status_code == 413
    endless = (b"a" * (1 << 20) for _ in range(256))
    # A client that is still sending when it is refused may not get to hear it.
    with suppress(httpx.WriteError, httpx.ReadError):
        assert httpx.post(f"{witness.url}/{call}", content=endless, trust_env=False).status_code == 413
    assert psutil.Process(witness.process.pid).memory_info().rss < 300 << 20
    assert witness.post("add-certificate", CERTIFICATE).status_code == 200


def test_a_key_that_begins_too_many_logs_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "root.pub").write_text(f"{ROOT.verifier}\n")
    with running_witness(tmp_path / "witness", "--root", str(tmp_path / "root.pub"), "--new-logs", "2") as witness:
        assert witness.post("add-certificate", CERTIFICATE).status_code == 200
        answers = [witness.post("add-checkpoint", make_log(epoch).submission(0, 1)) for epoch in range(1, 9)]
        known = witness.post("add-checkpoint", make_log(1).submission(1, 2))
    assert [answer.status_code for answer in answers] == [200] * 2 + [429] * 6
    assert answers[-1].text.startswith("this witness has cosigned 2 new logs of one key today and takes no more before")
    assert known.status_code == 200


def test_other_calls_are_none(witness: RunningWitness) -> None:
    assert httpx.get(f"{witness.url}/add-checkpoint", trust_env=False).status_code == 405
    assert witness.post("add_checkpoint", LOG.submission(0, 3)).status_code == 404
    assert witness.post("", "").status_code == 404


def test_certificates_of_others_are_refused(witness: RunningWitness) -> None:
    assert witness.post("add-certificate", LOG.certificate(OTHER_ROOT, now=NOW)).status_code == 403
    assert witness.post("add-certificate", LOG.certificate(now=NOW, days=-1)).status_code == 403
    assert witness.post("add-certificate", LOG.note(3)).status_code == 403
    assert witness.post("add-certificate", CERTIFICATE + "\n").status_code == 400


def test_two_who_submit_at_once_get_one_history(witness: RunningWitness, log: Log) -> None:
    answered: list[Checkpoint] = []

    def submit(fork: bool) -> None:
        size = 10
        for _ in range(30):
            answer = witness.post("add-checkpoint", log.submission(size, size + 1, fork=fork))
            if answer.status_code == 200:
                answered.append(log.checkpoint(size + 1, fork=fork))
            size = int(answer.text) if "x.tlog.size" in answer.headers["Content-Type"] else min(size + 1, 60)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(submit, fork) for fork in (False, True, False, True)]:
            done.result()
    found = [one for one in cosigned_in(witness.folder, witness.verifier) if one.origin == log.origin]
    assert all(one == log.checkpoint(one.size) for one in found)
    assert set(answered) <= set(found)
    assert len(found) > 1


def test_a_witness_goes_on_where_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "witness"
    with running_witness(folder) as first:
        key = first.verifier
        first.post("add-certificate", CERTIFICATE)
        assert first.post("add-checkpoint", LOG.submission(0, 10)).status_code == 200
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(SECONDS) == 0
    with running_witness(folder) as second:
        assert second.verifier == key
        assert second.post("add-checkpoint", LOG.submission(0, 12)).text == "10\n"
        assert second.post("add-checkpoint", LOG.submission(10, 12, fork=True)).status_code == 422
        assert second.post("add-checkpoint", LOG.submission(10, 12)).status_code == 200
    with running_witness(folder, "--log", str(OTHER_ROOT.verifier)) as third:
        assert third.post("add-checkpoint", LOG.submission(12, 13)).status_code == 404
    assert "a certificate of an earlier run is passed over: the certificate carries no good signat" in "".join(
        third.output
    )


class Grower(threading.Thread):
    """Lets one log grow a leaf at a time until the witness is gone; remembers what was answered."""

    def __init__(self, witness: RunningWitness, log: Log, size: int, length: int) -> None:
        super().__init__(daemon=True)
        self.witness, self.log, self.length = witness, log, length
        self.answered = size
        self.leaves = [LeafHash(hash_leaf(b"leaf %d" % number)) for number in range(length)]

    def run(self) -> None:
        with suppress(httpx.HTTPError), httpx.Client(timeout=SECONDS, trust_env=False) as client:
            old_size = self.answered
            for size in range(old_size + 1, self.length):
                path = frontier_of(self.leaves[:old_size]).consistency_path(self.leaves[old_size:size])
                note = self.note(size)
                answer = client.post(
                    f"{self.witness.url}/add-checkpoint",
                    content=write_submission(Submission(old_size, tuple(path), note)),
                )
                if answer.headers["Content-Type"] == "text/x.tlog.size":
                    old_size = int(answer.text)
                    continue
                assert answer.status_code == 200, answer.text
                self.answered = old_size = size

    def checkpoint(self, size: int, *, fork: bool = False) -> Checkpoint:
        tree = frontier_of(self.leaves[: size - 1])
        tree.add(hash_leaf(b"fork") if fork else self.leaves[size - 1])
        return Checkpoint(self.log.origin, size, tree.root())

    def note(self, size: int, *, fork: bool = False) -> str:
        return sign_checkpoint(self.checkpoint(size, fork=fork), self.log.signer)


def test_a_witness_that_is_killed_forgets_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "witness"
    logs = [make_log(number) for number in (1, 2, 3)]
    for log in logs:
        log.signer = make_signer(log.origin, LOG.seed)
    sizes = dict.fromkeys(range(3), 0)
    for answers in (1, 7, 20, 50, 3, 30):
        with running_witness(folder) as witness:
            assert witness.post("add-certificate", CERTIFICATE).status_code == 200
            growers = [Grower(witness, log, sizes[place], 2000) for place, log in enumerate(logs)]
            for grower in growers:
                grower.start()
            before = sum(sizes.values())
            while sum(grower.answered for grower in growers) < before + answers:
                assert witness.process.poll() is None
                time.sleep(0.001)
            witness.kill()
            for grower in growers:
                grower.join(SECONDS)
        key = read_key(folder)
        found = cosigned_in(folder, key)
        for place, grower in enumerate(growers):
            sizes[place] = grower.answered
            mine = [one for one in found if one.origin == grower.log.origin]
            assert {one.size for one in mine} >= ({grower.answered} if grower.answered else set())
            assert all(one == grower.checkpoint(one.size) for one in mine)
    assert sum(sizes.values()) >= 111
    with running_witness(folder) as witness:
        witness.post("add-certificate", CERTIFICATE)
        for grower in growers:
            differs = witness.post("add-checkpoint", f"old 0\n\n{grower.note(1)}")
            known = int(differs.text)
            assert known in {grower.answered, grower.answered + 1}
            assert witness.post("add-checkpoint", f"old {known}\n\n{grower.note(known, fork=True)}").status_code == 409
            assert witness.post("add-checkpoint", f"old {known}\n\n{grower.note(known)}").status_code == 200


def test_a_second_witness_in_one_folder_does_not_start(witness: RunningWitness) -> None:
    command = [*COMMAND, "serve", "--state-dir", str(witness.folder), "--log", str(ROOT.verifier), "--listen"]
    done = subprocess.run([*command, "127.0.0.1:0"], capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"holdfast: {witness.folder}: another witness runs in this folder; stop it first.\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "the witness trusts nobody: give --root or --log."),
        (["--log", "nonsense"], "--log: this is not a public key"),
        (["--root", "missing.pub"], "missing.pub: cannot be read"),
        (
            ["--log", str(ROOT.verifier), "--listen", "0.0.0.0:0"],
            "the witness has no certificate, so it listens on loop",
        ),
        (["--log", str(ROOT.verifier), "--listen", "here"], "--listen: found 'here'; expected HOST:PORT"),
        (["--log", str(ROOT.verifier), "--certificate", "a.pem"], "--certificate and --private-key go together"),
        (["--log", str(ROOT.verifier), "--name", "a b"], "'a b' cannot name a key or a log"),
        (
            [
                "--log",
                str(ROOT.verifier),
                "--certificate",
                "a.pem",
                "--private-key",
                "b.pem",
                "--listen",
                "127.0.0.1:0",
            ],
            "the witness cannot use a.pem with b.pem: No such file or directory.",
        ),
    ],
    ids=range(8),
)
def test_what_is_not_as_it_must_be_is_one_sentence(tmp_path: Path, options: list[str], said: str) -> None:
    done = subprocess.run([*COMMAND, "serve", *options], capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"holdfast: {said}")
    assert done.stderr.count("\n") == 1


def test_keys_makes_a_key_and_prints_its_public_half(tmp_path: Path) -> None:
    command = [*COMMAND, "keys", "--state-dir", str(tmp_path / "witness"), "--name", "witness.example/w1"]
    first, second = (subprocess.run(command, capture_output=True, text=True, timeout=SECONDS) for _ in range(2))
    assert first.stdout == second.stdout == f"{read_key(tmp_path / 'witness')}\n"
    key_file = tmp_path / "witness" / "witness.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert key_file.read_text().startswith("PRIVATE+KEY+witness.example/w1+")
    assert aics_tlog.parse_vkey(first.stdout.strip()).key_type == 4
    other = subprocess.run([*command[:-1], "another"], capture_output=True, text=True, timeout=SECONDS)
    assert (other.returncode, other.stdout) == (2, "")


def test_with_a_certificate_it_is_tls(tmp_path: Path) -> None:
    authority = make_authority("witness CA", now=NOW)
    pair = authority.issue("witness", hosts=("127.0.0.1",), now=NOW)
    write_private(tmp_path / "tls.crt", pair.certificate_pem)
    write_private(tmp_path / "tls.key", pair.key_pem)
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    options = ["--log", str(LOG.signer.verifier)]
    options += ["--certificate", str(tmp_path / "tls.crt"), "--private-key", str(tmp_path / "tls.key")]
    with running_witness(tmp_path / "witness", *options) as witness:
        assert witness.url.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=tmp_path / "ca.crt")
        answer = httpx.post(
            f"{witness.url}/add-checkpoint", content=LOG.submission(0, 3).encode(), verify=trust, trust_env=False
        )
        assert is_cosigned(LOG.checkpoint(3), answer.text, witness.verifier)
        with pytest.raises(httpx.HTTPError):
            httpx.post(witness.url.replace("https", "http"), content=b"", trust_env=False)


def test_no_secret_is_told(tmp_path: Path) -> None:
    with running_witness(tmp_path / "witness", "--log", str(LOG.signer.verifier)) as witness:
        secret = (witness.folder / "witness.key").read_text().strip().rpartition("+")[2]
        answers = [
            witness.post("add-checkpoint", text).text for text in (LOG.submission(0, 3), "old 0\n\n", LOG.note(3))
        ]
        (witness.folder / "logs").rename(witness.folder / "moved")
        answers.append(witness.post("add-checkpoint", LOG.submission(3, 4)).text)
    assert secret not in json.dumps([*answers, witness.output])
    assert "Traceback" not in "".join(witness.output)
