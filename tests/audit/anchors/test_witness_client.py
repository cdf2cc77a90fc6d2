"""The client of a witness: against `holdfast witness`, and against one that lies."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import TYPE_CHECKING

import httpx
import pytest

from holdfast.audit.anchors.file import append_note, read_notes
from holdfast.audit.anchors.publisher import Contradicted, Publisher
from holdfast.audit.anchors.submission import SIZE_TYPE, parse_submission
from holdfast.audit.anchors.witness import (
    MOST_ATTEMPTS,
    Answer,
    WitnessAnchor,
    explain,
    find_cosignature,
    find_size,
    open_witness,
)
from holdfast.audit.checkpoint import Checkpoint, Origin, cosign, cosigned_at, parse_checkpoint
from holdfast.audit.note import (
    COSIGNATURE,
    LARGEST_NOTE,
    KeyName,
    Note,
    Signature,
    Signer,
    parse_note,
    write_signature,
)
from holdfast.certificates import make_authority, write_private
from holdfast.errors import ConfigurationError, NotFound, Unavailable
from holdfast.settings.audit import Witness
from witness.witnessing import SECONDS, Log, RunningWitness, cosigned_in, make_signer, running_witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

NOW = datetime.now(UTC)
LOG = Log()
KEY = Signer(KeyName("witness.example/w1"), make_signer("witness.example/w1", "witness").private_key, COSIGNATURE)
AT = int(NOW.timestamp())


@dataclass
class Logs:
    """A store with one log, which may tell its fork."""

    log: Log = field(default_factory=Log)
    size: int = 10
    fork: bool = False
    certified: bool = True
    asked: list[tuple[int, int]] = field(default_factory=list)

    def latest_checkpoints(self) -> Sequence[str]:
        return [self.log.note(self.size, fork=self.fork)]

    def consistency(self, origin: Origin, old_size: int, new_size: int) -> list[bytes]:
        if origin != self.log.origin:
            raise NotFound("there is no such log")
        self.asked.append((old_size, new_size))
        return self.log.proof(old_size, new_size, fork=self.fork)

    def certificate(self, origin: Origin) -> str:
        return self.log.certificate(now=NOW) if self.certified else ""


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWitness]:
    with running_witness(tmp_path_factory.mktemp("client") / "witness") as running:
        yield running


epochs = count(1)


@pytest.fixture
def log() -> Log:
    """A log that no other test uses, of the replica that is certified."""
    log = Log(Origin(KeyName(f"holdfast/test/replica/{next(epochs)}")))
    log.signer = make_signer(log.origin, LOG.seed)
    return log


def connect(
    witness: RunningWitness, logs: Logs, keep: Callable[[str], None] = lambda note: None, url: str = ""
) -> WitnessAnchor:
    settings = Witness(url=url or witness.url, public_key=str(witness.verifier))
    return open_witness(settings, logs, keep)


def is_cosigned(checkpoint: Checkpoint, signature: Signature, witness: RunningWitness) -> bool:
    return cosigned_at(Note(checkpoint.text(), (signature,)), witness.verifier) is not None


def test_a_log_that_grows_is_cosigned(witness: RunningWitness, log: Log) -> None:
    logs = Logs(log)
    anchor = connect(witness, logs)
    for size in (0, 1, 10, 10, 11, 64, 70):
        assert is_cosigned(log.checkpoint(size), anchor.submit(log.note(size)), witness)
    assert logs.asked == [(1, 10), (10, 11), (11, 64), (64, 70)]


def test_a_client_that_knows_nothing_asks_from_where_the_witness_is(witness: RunningWitness, log: Log) -> None:
    connect(witness, Logs(log)).submit(log.note(10))
    logs = Logs(log)
    assert is_cosigned(log.checkpoint(12), connect(witness, logs).submit(log.note(12)), witness)
    assert logs.asked == [(10, 12)]
    assert is_cosigned(log.checkpoint(12), connect(witness, Logs(log)).submit(log.note(12)), witness)


def test_two_clients_take_turns(witness: RunningWitness, log: Log) -> None:
    first, second = connect(witness, Logs(log)), connect(witness, Logs(log))
    for size in range(1, 20, 2):
        first.submit(log.note(size))
        second.submit(log.note(size + 1))


def test_the_certificate_is_shown_where_it_is_needed(tmp_path: Path, log: Log) -> None:
    folder = tmp_path / "witness"
    with running_witness(folder) as witness:
        anchor = connect(witness, Logs(log))
        anchor.submit(log.note(3))
    with running_witness(folder) as again:
        assert is_cosigned(log.checkpoint(4), connect(again, Logs(log)).submit(log.note(4)), again)
        stranger = Logs(Log(Origin(KeyName("holdfast/test/stranger/1"))))
        with pytest.raises(Unavailable, match="answers 404"):
            connect(again, stranger).submit(stranger.log.note(3))
        nobody = Logs(Log(Origin(KeyName("legacy/2026-01-01"))), certified=False)
        with pytest.raises(Unavailable, match="whose key nobody certified"):
            connect(again, nobody).submit(nobody.log.note(3))


def test_a_log_that_contradicts_is_an_alarm(witness: RunningWitness, log: Log) -> None:
    connect(witness, Logs(log)).submit(log.note(10))
    forked = Logs(log, fork=True)
    for size in (10, 12):
        with pytest.raises(Contradicted):
            connect(witness, forked).submit(log.note(size, fork=True))
    with pytest.raises(Contradicted, match="at size 10, which is 9 here"):
        connect(witness, Logs(log)).submit(log.note(9))
    assert [one.size for one in cosigned_in(witness.folder, witness.verifier) if one.origin == log.origin] == [10]


def test_what_was_signed_by_another_key_is_refused(witness: RunningWitness, log: Log) -> None:
    impostor = Log(log.origin, "impostor")
    with pytest.raises(Unavailable, match="answers 403"):
        connect(witness, Logs(log)).submit(impostor.note(3))


def test_the_publisher_s_notes_are_kept_cosigned(witness: RunningWitness, log: Log, tmp_path: Path) -> None:
    file = tmp_path / "cosigned.notes"
    logs = Logs(log)
    anchor = connect(witness, logs, lambda note: append_note(file, note))
    publisher = Publisher(logs.latest_checkpoints, [anchor], interval_seconds=SECONDS, alarm_seconds=SECONDS)
    publisher.start()
    publisher.stop()
    (state,) = publisher.states()
    assert (state.name, state.lag_seconds, state.last_error) == (f"witness {witness.verifier.name}", 0, "")
    (note,) = read_notes(file)
    checkpoint, signed = parse_checkpoint(note)
    assert checkpoint == log.checkpoint(10)
    assert [signature.name for signature in signed.signatures] == [log.origin, witness.verifier.name]
    assert cosigned_at(signed, witness.verifier) is not None


def test_a_witness_that_is_not_there(witness: RunningWitness, log: Log) -> None:
    with pytest.raises(Unavailable, match="does not answer") as refused:
        connect(witness, Logs(log), url="http://127.0.0.1:1").submit(log.note(3))
    assert isinstance(refused.value.__cause__, httpx.HTTPError)


@contextmanager
def lying_witness(answers: Sequence[tuple[int, str, bytes]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A witness that gives these answers, whatever it is asked, the last of them for good; what it was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            status, media_type, body = answers[min(len(asked), len(answers)) - 1]
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def line(checkpoint: Checkpoint, signer: Signer = KEY) -> bytes:
    return write_signature(cosign(checkpoint, signer, AT)).encode()


def anchor_at(url: str, logs: Logs | None = None) -> WitnessAnchor:
    return open_witness(Witness(url=url, public_key=str(KEY.verifier)), logs or Logs(), lambda note: None)


TEXT = "text/plain; charset=utf-8"
IMPOSTOR = Signer(KEY.name, make_signer(KEY.name, "impostor").private_key, COSIGNATURE)
LIES: dict[str, tuple[tuple[int, str, bytes], type[Exception], str]] = {
    "nothing": ((200, TEXT, b""), Unavailable, "does not answer with signatures"),
    "words": ((200, TEXT, b"cosigned, trust me\n"), Unavailable, "does not answer with signatures"),
    "a line without an end": (
        (200, TEXT, line(LOG.checkpoint(10))[:-1] + b"x"),
        Unavailable,
        "not answer with signatures",
    ),
    "another tree": ((200, TEXT, line(LOG.checkpoint(9))), Unavailable, "without a good cosignature"),
    "the fork": ((200, TEXT, line(LOG.checkpoint(10, fork=True))), Unavailable, "without a good cosignature"),
    "another key": ((200, TEXT, line(LOG.checkpoint(10), IMPOSTOR)), Unavailable, "without a good cosignature"),
    "the log's own signature": (
        (200, TEXT, LOG.note(10).rpartition("\n\n")[2].encode()),
        Unavailable,
        "without a good cosignature",
    ),
    "too much": ((200, TEXT, b"a" * (LARGEST_NOTE + 1)), Unavailable, "more than 65536 bytes"),
    "no text": ((200, TEXT, b"\xff\xfe\n"), Unavailable, "does not answer with signatures"),
    "elsewhere": ((307, TEXT, b""), Unavailable, "answers 307"),
    "a failure": ((500, TEXT, b"\x1b[2Jout of order\n"), Unavailable, r"answers 500: '\\x1b\[2Jout of order'"),
    "a larger tree": ((409, SIZE_TYPE, b"11\n"), Contradicted, "at size 11, which is 10 here"),
    "a size that is none": ((409, SIZE_TYPE, b"-1\n"), Contradicted, "answers 409"),
    "a size without its type": ((409, TEXT, b"3\n"), Contradicted, "answers 409"),
    "another root": ((409, TEXT, b"no\n"), Contradicted, "answers 409: no"),
    "no proof": ((422, TEXT, b"no\n"), Contradicted, "answers 422: no"),
    "the same size again and again": ((409, SIZE_TYPE, b"3\n"), Unavailable, "named a size 4 times"),
    "no key ever": ((403, TEXT, b"no\n"), Unavailable, "answers 403"),
}


@pytest.mark.parametrize(("answer", "error", "said"), LIES.values(), ids=LIES)
def test_lies_are_not_believed(answer: tuple[int, str, bytes], error: type[Exception], said: str) -> None:
    with lying_witness([answer]) as (url, asked), pytest.raises(error, match=said) as refused:
        anchor_at(url).submit(LOG.note(10))
    assert type(refused.value) is error
    assert 1 <= len(asked) <= MOST_ATTEMPTS
    assert all(path in {"/add-checkpoint", "/add-certificate"} for path, _ in asked)


def test_lines_of_keys_that_we_do_not_know_are_passed_over() -> None:
    body = line(LOG.checkpoint(10), IMPOSTOR) + "— other.example AAAAAAA=\n".encode() + line(LOG.checkpoint(10))
    with lying_witness([(200, TEXT, body)]) as (url, asked):
        signature = anchor_at(f"{url}/prefix/").submit(LOG.note(10))
    assert [path for path, _ in asked] == ["/prefix/add-checkpoint"]
    assert signature == cosign(LOG.checkpoint(10), KEY, AT)


def test_what_is_asked_follows_what_is_answered() -> None:
    answers = [(409, SIZE_TYPE, b"3\n"), (404, TEXT, b"no\n"), (200, TEXT, b""), (200, TEXT, line(LOG.checkpoint(10)))]
    with lying_witness(answers) as (url, asked):
        anchor_at(url).submit(LOG.note(10))
    assert [path for path, _ in asked] == ["/add-checkpoint", "/add-checkpoint", "/add-certificate", "/add-checkpoint"]
    submissions = [parse_submission(text) for path, text in asked if path == "/add-checkpoint"]
    assert [submission.old_size for submission in submissions] == [0, 3, 3]
    assert [list(submission.path) for submission in submissions] == [[], LOG.proof(3, 10), LOG.proof(3, 10)]
    assert asked[2][1] == LOG.certificate(now=NOW)


def test_what_was_cosigned_is_where_the_next_proof_begins() -> None:
    answers = [(200, TEXT, line(LOG.checkpoint(3))), (200, TEXT, line(LOG.checkpoint(10)))]
    with lying_witness(answers) as (url, asked):
        anchor = anchor_at(url)
        for size in (3, 10):
            anchor.submit(LOG.note(size))
    assert [parse_submission(text).old_size for _, text in asked] == [0, 3]


def test_a_certificate_that_is_refused_is_the_error() -> None:
    with lying_witness([(404, TEXT, b"who?\n"), (400, TEXT, b"not that root\n"), (404, TEXT, b"who?\n")]) as (
        url,
        asked,
    ):
        with pytest.raises(Unavailable, match="answers 400: not that root"):
            anchor_at(url).submit(LOG.note(10))
        assert len(asked) == 2


def test_a_lie_is_forgotten() -> None:
    """What a witness said, without a cosignature, is not what the next submission begins with."""
    answers = [(409, SIZE_TYPE, b"9\n"), (500, TEXT, b"no\n"), (200, TEXT, line(LOG.checkpoint(3)))]
    with lying_witness(answers) as (url, asked):
        anchor = anchor_at(url)
        with pytest.raises(Unavailable):
            anchor.submit(LOG.note(10))
        anchor.submit(LOG.note(3))
    assert [parse_submission(text).old_size for _, text in asked] == [0, 9, 0]


def test_a_store_that_fails_is_no_fault_of_the_witness() -> None:
    class Failing(Logs):
        def consistency(self, origin: Origin, old_size: int, new_size: int) -> list[bytes]:
            raise Unavailable("the store is gone")

    with lying_witness([(409, SIZE_TYPE, b"3\n")]) as (url, _), pytest.raises(Unavailable, match="the store is gone"):
        anchor_at(url, Failing()).submit(LOG.note(10))


@pytest.mark.parametrize("body", ["", "\n", "3\n\n", " 3\n", "3", "03\n", "+3\n", "3 \n", "three\n", "1" * 17])
def test_a_size_has_one_spelling(body: str) -> None:
    assert find_size(Answer(409, SIZE_TYPE, "3\n")) == 3
    assert find_size(Answer(409, SIZE_TYPE, body)) is None
    assert find_size(Answer(200, SIZE_TYPE, "3\n")) is None


def test_an_explanation_is_short_and_shows_no_control_characters() -> None:
    assert len(str(explain(Answer(500, TEXT, "a" * 100_000), "witness w"))) < 300
    assert "\x1b" not in str(explain(Answer(500, TEXT, "\x1b[31m"), "witness w"))


def test_a_cosignature_is_over_what_was_sent() -> None:
    signed = parse_note(LOG.note(10))
    answer = Answer(200, TEXT, line(LOG.checkpoint(10)).decode())
    assert find_cosignature(answer, signed, KEY.verifier) == cosign(LOG.checkpoint(10), KEY, AT)
    with pytest.raises(Unavailable):
        find_cosignature(answer, parse_note(LOG.note(11)), KEY.verifier)


@pytest.mark.parametrize("key", ["nonsense", str(LOG.signer.verifier)], ids=["nonsense", "a log's key"])
def test_what_is_no_witness_s_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^audit\.anchors\.witnesses\.publicKey: "):
        open_witness(Witness(url="http://127.0.0.1:1", public_key=key), Logs(), lambda note: None)


def test_a_ca_that_is_none_is_refused(tmp_path: Path) -> None:
    for file in (tmp_path / "missing.pem", tmp_path / "ca.pem"):
        (tmp_path / "ca.pem").write_text("nonsense")
        settings = Witness(url="https://127.0.0.1:1", public_key=str(KEY.verifier), certificate_authority=file)
        with pytest.raises(ConfigurationError, match=file.name):
            open_witness(settings, Logs(), lambda note: None)


def test_over_tls_only_the_witness_s_ca_is_believed(tmp_path: Path, log: Log) -> None:
    authority, other = make_authority("witness CA", now=NOW), make_authority("other CA", now=NOW)
    pair = authority.issue("witness", hosts=("127.0.0.1",), now=NOW)
    write_private(tmp_path / "tls.crt", pair.certificate_pem)
    write_private(tmp_path / "tls.key", pair.key_pem)
    (tmp_path / "ca.crt").write_bytes(authority.certificate_pem)
    (tmp_path / "other.crt").write_bytes(other.certificate_pem)
    options = ["--log", str(log.signer.verifier)]
    options += ["--certificate", str(tmp_path / "tls.crt"), "--private-key", str(tmp_path / "tls.key")]
    with running_witness(tmp_path / "witness", *options) as witness:
        settings = Witness(url=witness.url, public_key=str(witness.verifier), certificate_authority=tmp_path / "ca.crt")
        anchor = open_witness(settings, Logs(log), lambda note: None)
        assert is_cosigned(log.checkpoint(3), anchor.submit(log.note(3)), witness)
        for file in (tmp_path / "other.crt", None):
            wrong = settings.model_copy(update={"certificate_authority": file})
            with pytest.raises(Unavailable, match="does not answer"):
                open_witness(wrong, Logs(log), lambda note: None).submit(log.note(3))
