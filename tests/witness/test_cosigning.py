"""What a witness cosigns, and what never: no two trees of one log of which one does not begin with the other."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.audit.anchors.evidence import read_evidence
from holdfast.audit.anchors.submission import Submission, write_submission
from holdfast.audit.checkpoint import Checkpoint, Origin, cosigned_at, parse_checkpoint, sign_checkpoint
from holdfast.audit.note import COSIGNATURE, KeyName, Note, Signature, Signer, parse_note, write_note, write_signature
from holdfast.audit.tree import EMPTY_ROOT, proves_consistency
from holdfast.errors import BadRequest, Conflict, Forbidden, HoldfastError, Internal, Invalid, NotFound, Unavailable
from holdfast.witness.cosigning import LARGEST_SIZE, REPEAT_SECONDS, Fork, OldSizeDiffers, TooManyLogs, Witness
from holdfast.witness.state import WitnessFolder
from holdfast.witness.trust import Trust
from witness.witnessing import NOW, ROOT, Log, cosigned_in, is_cosigned, make_signer

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

LOG = Log()
OTHER = Log(Origin(KeyName("holdfast/test/other/1")), "other")
NAME = KeyName("witness.example/w1")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class Desk:
    """A witness on a folder, with a clock to move."""

    def __init__(self, folder: Path, keep_days: int = 400) -> None:
        self.folder = WitnessFolder(folder, keep_days)
        self.clock = Clock()
        with self.folder.locked():
            self.key = self.folder.open_key(NAME)
        self.reopen()

    def reopen(self, *logs: Log) -> None:
        """Forget what is not in the folder."""
        trust = Trust([ROOT.verifier], [log.signer.verifier for log in (LOG, OTHER, *logs)])
        self.witness = Witness(self.key, trust, self.folder, self.clock)

    def add(self, log: Log, old_size: int, size: int, *, fork: bool = False) -> str:
        return self.witness.add_checkpoint(log.submission(old_size, size, fork=fork))

    @property
    def cosigned_file(self) -> Path:
        return self.folder.cosigned_file(self.clock.now)

    def cosigned(self) -> list[Checkpoint]:
        return cosigned_in(self.folder.folder, self.key.verifier)

    def state(self, log: Log = LOG) -> Checkpoint | None:
        return self.folder.latest(log.origin, self.key)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "witness")


def test_a_log_that_grows_is_cosigned(desk: Desk) -> None:
    sizes = [0, 1, 2, 3, 8, 9, 64, 70]
    for old_size, size in pairwise([0, *sizes]):
        assert is_cosigned(LOG.checkpoint(size), desk.add(LOG, old_size, size), desk.key.verifier)
        assert desk.state() == LOG.checkpoint(size)
    assert desk.cosigned() == [LOG.checkpoint(size) for size in sizes]


def test_logs_do_not_mix(desk: Desk) -> None:
    desk.add(LOG, 0, 9)
    desk.add(OTHER, 0, 4)
    assert (desk.state(LOG), desk.state(OTHER)) == (LOG.checkpoint(9), OTHER.checkpoint(4))


@pytest.mark.parametrize(
    ("old_size", "size", "fork", "error", "named"),
    [
        (10, 9, False, BadRequest, None),
        (11, 10, True, BadRequest, None),
        (0, 10, False, OldSizeDiffers, 10),
        (0, 12, False, OldSizeDiffers, 10),
        (9, 12, False, OldSizeDiffers, 10),
        (11, 12, False, OldSizeDiffers, 10),
        (0, 0, False, OldSizeDiffers, 10),
        (0, 9, False, OldSizeDiffers, 10),
        (9, 9, False, OldSizeDiffers, 10),
        (9, 9, True, OldSizeDiffers, 10),
        (0, 12, True, OldSizeDiffers, 10),
        (10, 10, True, Fork, None),
        (10, 12, True, Invalid, None),
        (10, 70, True, Invalid, None),
    ],
)
def test_what_does_not_grow_from_size_10_is_refused(
    desk: Desk, old_size: int, size: int, fork: bool, error: type[HoldfastError], named: int | None
) -> None:
    desk.add(LOG, 0, 10)
    with pytest.raises(error) as refused:
        desk.add(LOG, old_size, size, fork=fork)
    assert getattr(refused.value, "size", None) == named
    assert desk.state() == LOG.checkpoint(10)
    assert desk.cosigned() == [LOG.checkpoint(10)]


@pytest.mark.parametrize(
    "path",
    [
        (),
        tuple(LOG.proof(10, 11)),
        tuple(LOG.proof(9, 12)),
        tuple(LOG.proof(10, 12, fork=True)),
        tuple(LOG.proof(10, 12))[:-1],
        (*LOG.proof(10, 12), LOG.leaves[0]),
        tuple(reversed(LOG.proof(10, 12))),
    ],
)
def test_a_proof_for_something_else_is_refused(desk: Desk, path: tuple[bytes, ...]) -> None:
    desk.add(LOG, 0, 10)
    with pytest.raises(Invalid):
        desk.witness.add_checkpoint(write_submission(Submission(10, path, LOG.note(12))))
    assert desk.state() == LOG.checkpoint(10)


def test_a_proof_where_none_belongs_is_refused(desk: Desk) -> None:
    node = (bytes(LOG.leaves[0]),)
    with pytest.raises(Invalid):
        desk.witness.add_checkpoint(write_submission(Submission(0, node, LOG.note(10))))
    desk.add(LOG, 0, 10)
    with pytest.raises(Invalid):
        desk.witness.add_checkpoint(write_submission(Submission(10, node, LOG.note(10))))


def test_an_empty_log_has_one_root(desk: Desk) -> None:
    wrong = sign_checkpoint(Checkpoint(LOG.origin, 0, LOG.checkpoint(1).root), LOG.signer)
    with pytest.raises(Invalid):
        desk.witness.add_checkpoint(write_submission(Submission(0, (), wrong)))
    assert desk.state() is None
    assert LOG.checkpoint(0).root == EMPTY_ROOT
    desk.add(LOG, 0, 0)
    with pytest.raises(Fork):
        desk.witness.add_checkpoint(write_submission(Submission(0, (), wrong)))


def test_a_stranger_s_log_and_a_stranger_s_key(desk: Desk) -> None:
    stranger = Log(Origin(KeyName("holdfast/test/stranger/1")), "stranger")
    with pytest.raises(NotFound):
        desk.add(stranger, 0, 3)
    impostor = Log(LOG.origin, "stranger")
    with pytest.raises(Forbidden, match="no signature of a key that this witness trusts"):
        desk.add(impostor, 0, 3)
    unsigned = write_note(Note(LOG.checkpoint(3).text(), (OTHER.signer.sign(LOG.checkpoint(3).text().encode()),)))
    with pytest.raises(Forbidden):
        desk.witness.add_checkpoint(write_submission(Submission(0, (), unsigned)))
    assert desk.state() is None
    assert not desk.cosigned_file.exists()


def test_a_signature_of_a_trusted_key_must_be_good(desk: Desk) -> None:
    note = parse_note(LOG.note(3))
    good = note.signatures[0]
    bad = Signature(good.name, good.key_id, bytes(64))
    for signatures in ((bad,), (bad, good)):
        with pytest.raises(Forbidden, match="is not good"):
            desk.witness.add_checkpoint(write_submission(Submission(0, (), write_note(Note(note.text, signatures)))))
    other_size = Note(LOG.checkpoint(4).text(), (good,))
    with pytest.raises(Forbidden, match="is not good"):
        desk.witness.add_checkpoint(write_submission(Submission(0, (), write_note(other_size))))


def test_one_good_key_of_several_is_enough_unless_another_is_bad(desk: Desk) -> None:
    second = Log(seed="second")
    desk.reopen(second)
    text = LOG.checkpoint(3).text()
    ours, theirs = LOG.signer.sign(text.encode()), second.signer.sign(text.encode())
    bad = Signature(theirs.name, theirs.key_id, bytes(64))
    with pytest.raises(Forbidden):
        desk.witness.add_checkpoint(write_submission(Submission(0, (), write_note(Note(text, (ours, bad))))))
    desk.witness.add_checkpoint(write_submission(Submission(0, (), write_note(Note(text, (theirs,))))))
    assert desk.state() == LOG.checkpoint(3)


def test_only_verified_signatures_are_kept(desk: Desk) -> None:
    """What strangers write under a note takes no room on the disk."""
    note = parse_note(LOG.note(3))
    junk = tuple(Signature(KeyName(f"junk{number}"), b"junk", bytes(600)) for number in range(60))
    desk.witness.add_checkpoint(
        write_submission(Submission(0, (), write_note(Note(note.text, (*junk, *note.signatures)))))
    )
    (evidence,) = [one for one in read_evidence(desk.folder.folder) if one.path == desk.cosigned_file]
    assert [signature.name for signature in parse_note(evidence.note).signatures] == [LOG.origin, NAME]


def test_a_key_that_is_trusted_twice_signs_once(desk: Desk) -> None:
    desk.witness.add_certificate(LOG.certificate())
    desk.add(LOG, 0, 3)
    state = (desk.folder.folder / "logs").iterdir()
    assert [signature.name for signature in parse_note(next(state).read_text()).signatures] == [LOG.origin, NAME]


def test_the_time_is_the_clock_s_and_a_repeat_gets_the_same(desk: Desk) -> None:
    first = desk.add(LOG, 0, 3)
    line = Note(LOG.checkpoint(3).text(), parse_note(f"x\n\n{first}").signatures)
    assert cosigned_at(line, desk.key.verifier) == int(NOW.timestamp())
    desk.clock.now += timedelta(seconds=REPEAT_SECONDS - 1)
    assert desk.add(LOG, 3, 3) == first
    assert len(desk.cosigned()) == 1
    desk.clock.now += timedelta(seconds=1)
    assert desk.add(LOG, 3, 3) != first
    assert len(desk.cosigned()) == 2
    desk.clock.now -= timedelta(days=1)
    desk.add(LOG, 3, 3)
    assert len(desk.cosigned()) == 3


def test_the_notes_of_a_day_are_one_file_of_which_the_latest_are_kept(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "witness", keep_days=3)
    (tmp_path / "witness" / "cosigned.notes").touch()  # as it was called before
    for size in range(1, 6):
        desk.add(LOG, size - 1, size)
        desk.add(OTHER, size - 1, size)
        desk.clock.now += timedelta(days=1)
    names = [file.name for file in sorted((tmp_path / "witness").glob("*.notes"))]
    assert names == [*(f"cosigned-2026-11-{day}.notes" for day in (27, 28, 29)), "cosigned.notes"]
    told = [(one.path.parent.name, one.checkpoint.size) for one in read_evidence(desk.folder.folder)]
    assert sorted(told) == [("logs", 5)] * 2 + [("witness", size) for size in (3, 3, 4, 4, 5, 5)]
    desk.clock.now += timedelta(days=10_000)
    desk.add(LOG, 5, 6)
    assert {one.size for one in desk.cosigned()} == {4, 5, 6}


def test_certificates_are_kept_private_and_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "witness")
    certificate = parse_note(LOG.certificate())
    for junk in (b"one", b"two"):
        signatures = (*certificate.signatures, Signature(KeyName("junk"), b"junk", junk * 100))
        desk.witness.add_certificate(write_note(Note(certificate.text, signatures)))
    assert list(desk.folder.certificates()) == [LOG.certificate()]
    (file,) = (tmp_path / "witness" / "certificates").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_certificate_that_cannot_be_kept_is_not_answered_for(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "witness")
    (tmp_path / "witness" / "certificates").rmdir()
    with pytest.raises(Unavailable):
        desk.witness.add_certificate(LOG.certificate())
    (tmp_path / "witness" / "certificates").mkdir()
    desk.witness.add_certificate(LOG.certificate())
    assert list(desk.folder.certificates()) == [LOG.certificate()]


def test_an_expired_certificate_signs_nothing_more(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "witness")
    desk.witness = Witness(desk.key, Trust([ROOT.verifier], []), desk.folder, desk.clock)
    with pytest.raises(NotFound):
        desk.add(LOG, 0, 3)
    desk.witness.add_certificate(LOG.certificate())
    desk.add(LOG, 0, 3)
    desk.clock.now += timedelta(days=31)
    with pytest.raises(Forbidden):
        desk.add(LOG, 3, 4)
    with pytest.raises(Forbidden):
        desk.witness.add_certificate(LOG.certificate())


class Spree:
    """A key that was certified for a replica, and begins log after log of it; `most` is how many a day it may."""

    def __init__(self, desk: Desk, most: int) -> None:
        self._desk = desk
        desk.witness = Witness(desk.key, Trust([ROOT.verifier], []), desk.folder, desk.clock, most)
        desk.witness.add_certificate(LOG.certificate())

    def begin(self, epoch: int, size: int = 1) -> None:
        self._desk.add(Log(Origin(KeyName(f"holdfast/test/replica/{epoch}"))), 0, size)

    def count(self) -> int:
        """How many logs the folder knows."""
        return len(list((self._desk.folder.folder / "logs").iterdir()))


def test_a_key_begins_no_more_logs_a_day_than_it_may(desk: Desk) -> None:
    spree = Spree(desk, 3)
    for epoch in (1, 70_000, 999_999_999):
        spree.begin(epoch)
    for epoch in (2, 3):
        with pytest.raises(TooManyLogs, match="has cosigned 3 new logs of one key today"):
            spree.begin(epoch, size=0)
    assert spree.count() == 3
    desk.add(LOG, 1, 5)  # holdfast/test/replica/1
    other = Log(Origin(KeyName("holdfast/test/another/1")), "another key")
    desk.witness.add_certificate(other.certificate(replicas=("another",)))
    desk.add(other, 0, 1)
    desk.clock.now += timedelta(hours=12)
    spree.begin(2)


def test_a_log_that_was_not_kept_does_not_count(desk: Desk) -> None:
    spree = Spree(desk, 2)
    logs = desk.folder.folder / "logs"
    logs.rename(logs.with_name("moved"))
    for _ in range(3):
        with pytest.raises(Unavailable):
            spree.begin(1)
    logs.with_name("moved").rename(logs)
    spree.begin(1)
    spree.begin(2)


def test_answers_are_remembered_no_longer_than_they_are_given_again(desk: Desk) -> None:
    spree = Spree(desk, 100)
    for epoch in range(1, 21):
        spree.begin(epoch)
        desk.clock.now += timedelta(seconds=1)
    assert len(desk.witness._answered) == REPEAT_SECONDS
    desk.clock.now -= timedelta(seconds=3600)
    spree.begin(21)
    assert len(desk.witness._answered) == 1


def test_a_size_that_no_log_has_is_refused(desk: Desk) -> None:
    def submit(size: int) -> None:
        note = sign_checkpoint(Checkpoint(LOG.origin, size, LOG.checkpoint(1).root), LOG.signer)
        desk.witness.add_checkpoint(write_submission(Submission(0, (), note)))

    for size in (LARGEST_SIZE + 1, 10**16 - 1):
        with pytest.raises(BadRequest, match="at most 9007199254740991"):
            submit(size)
    submit(LARGEST_SIZE)


def test_a_fork_is_kept_as_evidence_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.add(LOG, 0, 10)
    for differs_from in (3, 5):
        with pytest.raises(Fork):
            desk.add(Log(differs_from=differs_from), 10, 10, fork=True)
    forks = [one for one in read_evidence(desk.folder.folder) if one.path.parent.name == "forks"]
    assert [one.checkpoint for one in forks] == [LOG.checkpoint(10, fork=True)]
    assert parse_note(forks[0].note) == parse_note(LOG.note(10, fork=True))
    assert "has signed two roots for size 10" in caplog.text


def test_a_refusal_leaves_no_evidence_but_a_fork_s(desk: Desk) -> None:
    desk.add(LOG, 0, 10)
    for old_size, size in ((10, 12), (9, 9), (0, 12)):
        with pytest.raises((Invalid, Conflict)):
            desk.add(LOG, old_size, size, fork=True)
    assert not list((desk.folder.folder / "forks").iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "old 0\n\n",
        LOG.note(3),
        f"old 0\n\n{LOG.note(3).removesuffix('\n')}",
        f"old 0\n\n{LOG.checkpoint(3).text()}",
        LOG.submission(0, 3).replace("old 0", "old 00"),
        LOG.submission(0, 3) + "\n",
        LOG.submission(0, 3).replace("\n3\n", "\n3\nan extension\n"),
        LOG.submission(0, 3).replace("old 0\n", "old 0\n" + "AAAA\n"),
    ],
)
def test_what_is_not_written_as_it_must_be(desk: Desk, text: str) -> None:
    with pytest.raises(BadRequest):
        desk.witness.add_checkpoint(text)


steps = st.tuples(st.integers(0, 14), st.integers(0, 14), st.booleans(), st.sampled_from(["add", "reopen", "late"]))


@settings(max_examples=60)
@given(st.lists(steps, max_size=30))
def test_whatever_is_sent_no_two_cosigned_trees_contradict(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[int, int, bool, str]]
) -> None:
    desk = Desk(tmp_path_factory.mktemp("witness"))
    answered: list[Checkpoint] = []
    for old_size, size, fork, what in sent:
        if what == "reopen":
            desk.reopen()
        if what == "late":
            desk.clock.now += timedelta(seconds=REPEAT_SECONDS)
        state = desk.state()
        for start in (old_size, state.size if state else 0):
            with suppress(HoldfastError):
                desk.add(LOG, start, size, fork=fork)
                answered.append(LOG.checkpoint(size, fork=fork))
    found = desk.cosigned() if desk.cosigned_file.exists() else []
    assert set(answered) == set(found)
    for older, newer in pairwise(found):
        assert older.size <= newer.size
        assert any(
            proves_consistency(
                older.size, older.root, newer.size, newer.root, LOG.proof(older.size, newer.size, fork=fork)
            )
            for fork in (False, True)
        )


def test_two_who_submit_at_once_get_one_history(desk: Desk) -> None:
    answered: list[Checkpoint] = []
    start = threading.Barrier(6)

    def submit(fork: bool) -> None:
        start.wait()
        for size in range(1, 20):
            for _ in range(3):
                state = desk.state()
                with suppress(HoldfastError):
                    desk.add(LOG, state.size if state else 0, size, fork=fork)
                    answered.append(LOG.checkpoint(size, fork=fork))

    threads = [threading.Thread(target=submit, args=(number % 2 == 0,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = desk.cosigned()
    assert [checkpoint.size for checkpoint in found] == sorted({checkpoint.size for checkpoint in found})
    assert set(answered) == set(found)
    assert len({fork for fork in (True, False) if LOG.checkpoint(found[-1].size, fork=fork) == found[-1]}) == 1


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def put_another_log(file: Path) -> None:
    file.write_text(file.parent.joinpath("other").read_text())


def roll_back(file: Path) -> None:
    """A checkpoint of the log itself, which this witness never cosigned."""
    file.write_text(LOG.note(2))


def spoil(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"\n10\n", b"\n11\n"))


def not_text(file: Path) -> None:
    file.write_bytes(b"\xff" + file.read_bytes())


@pytest.mark.parametrize("damage", [cut, empty, put_another_log, roll_back, spoil, not_text])
def test_damaged_state_cosigns_nothing(desk: Desk, damage: Any) -> None:
    desk.add(LOG, 0, 10)
    (file,) = (desk.folder.folder / "logs").iterdir()
    desk.add(OTHER, 0, 4)
    (other,) = (path for path in (desk.folder.folder / "logs").iterdir() if path != file)
    other.rename(other.with_name("other"))
    before = len(desk.cosigned())
    damage(file)
    for old_size, size in ((0, 3), (0, 12), (10, 12), (10, 10), (2, 12)):
        with pytest.raises(Internal):
            desk.add(LOG, old_size, size)
    assert len(desk.cosigned()) == before
    desk.add(OTHER, 0, 4)


def test_a_folder_of_another_key_cosigns_nothing(desk: Desk) -> None:
    desk.add(LOG, 0, 10)
    desk.key = Signer(NAME, make_signer(NAME, "another key").private_key, COSIGNATURE)
    desk.reopen()
    with pytest.raises(Internal):
        desk.add(LOG, 10, 12)


def test_what_cannot_be_made_durable_is_not_answered(desk: Desk) -> None:
    desk.add(LOG, 0, 10)
    desk.cosigned_file.rename(desk.folder.folder / "moved")
    desk.cosigned_file.mkdir()
    with pytest.raises(Unavailable):
        desk.add(LOG, 10, 12)
    assert desk.state() == LOG.checkpoint(12)
    with pytest.raises(Unavailable):
        desk.add(LOG, 12, 12)
    with pytest.raises(Fork):
        desk.add(LOG, 12, 12, fork=True)
    desk.cosigned_file.rmdir()
    assert is_cosigned(LOG.checkpoint(12), desk.add(LOG, 12, 12), desk.key.verifier)
    assert desk.cosigned() == [LOG.checkpoint(12)]


def test_a_folder_that_is_gone_cosigns_nothing(desk: Desk) -> None:
    desk.folder.folder.rename(desk.folder.folder.with_name("gone"))
    with pytest.raises(Unavailable):
        desk.add(LOG, 0, 10)


def test_the_answer_is_a_line(desk: Desk) -> None:
    answer = desk.add(LOG, 0, 3)
    note = parse_checkpoint(LOG.note(3) + answer)[1]
    assert answer == write_signature(note.signatures[1])
