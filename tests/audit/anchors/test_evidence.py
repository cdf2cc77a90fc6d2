"""What an auditor was given is read whole or refused; nothing in it is believed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audit.anchors.authority import TimestampAuthority
from audit.anchors.notes import ORIGIN, checkpoint, note, signer
from holdfast.audit.anchors.evidence import Evidence, Kind, read_evidence, read_some_evidence
from holdfast.audit.anchors.file import FileAnchor
from holdfast.audit.anchors.layout import checkpoint_path
from holdfast.audit.anchors.timestamp import open_timestamp, verify_reply
from holdfast.audit.checkpoint import Checkpoint, Origin, open_checkpoint
from holdfast.audit.note import KeyName
from holdfast.audit.receipt import Receipt
from holdfast.audit.tree import RootHash, hash_leaf
from holdfast.errors import ConfigurationError
from holdfast.settings.audit import Timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimestampAuthority]:
    running = TimestampAuthority(tmp_path_factory.mktemp("tsa") / "authority")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty, as an auditor has it before anything was fetched."""
    made = tmp_path / "anchors"
    made.mkdir()
    return made


def read(folder: Path) -> list[Evidence]:
    return list(read_evidence(folder))


def put(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_an_empty_folder_tells_nothing(folder: Path) -> None:
    assert read(folder) == []


def test_a_folder_that_is_to_tell_something_and_does_not_is_refused(folder: Path) -> None:
    for name in ("README.txt", "torn.notes", "whole.checkpoint"):
        with pytest.raises(ConfigurationError, match=r"no \*\.notes, \*\.checkpoint, \*\.tsr, \*\.receipt with"):
            list(read_some_evidence(folder))
        put(folder, name, note(7) if name == "whole.checkpoint" else '"torn')
    assert len(list(read_some_evidence(folder))) == 1


def test_a_folder_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"a.notes: is a file; give its folder"):
        read(put(folder, "a.notes", ""))
    with pytest.raises(ConfigurationError, match="absent: there is no such folder"):
        read(folder / "absent")


def test_files_of_notes_and_single_checkpoints_are_read_wherever_they_stand(folder: Path) -> None:
    notes = FileAnchor(folder / "elsewhere.notes")
    for size in (1, 2):
        notes.publish(note(size))
    put(folder, f"deep/below/{checkpoint_path(checkpoint(3))}", note(3))
    put(folder, "README.txt", "fetched on Monday")
    found = read(folder)
    assert [(piece.kind, piece.note) for piece in found] == [
        (Kind.CHECKPOINT, note(3)),
        (Kind.NOTE, note(1)),
        (Kind.NOTE, note(2)),
    ]
    assert found[0].checkpoint == checkpoint(3)
    assert open_checkpoint(found[0].note, signer().verifier) == checkpoint(3)
    assert found[1].path == notes.file


def test_a_torn_last_line_is_no_fault(folder: Path) -> None:
    anchor = FileAnchor(folder / "elsewhere.notes")
    anchor.publish(note(1))
    anchor.publish(note(2))
    anchor.file.write_bytes(anchor.file.read_bytes()[:-20])
    assert [piece.note for piece in read(folder)] == [note(1)]


def test_a_token_is_read_with_the_note_beside_it(authority: TimestampAuthority, folder: Path) -> None:
    settings = Timestamp(url=authority.url, certificate_authority=authority.root_file, folder=folder)
    open_timestamp(settings).publish(note(7))
    single, stamped = read(folder)
    assert (single.kind, single.at) == (Kind.CHECKPOINT, None)
    assert (stamped.kind, stamped.note) == (Kind.TIMESTAMP, note(7))
    assert stamped.at == verify_reply(stamped.reply, stamped.note, [authority.root.certificate])
    assert stamped.at is not None
    assert abs(stamped.at - datetime.now(UTC)) < timedelta(hours=1)
    single.path.unlink()
    with pytest.raises(ConfigurationError, match=r"checkpoint: cannot be read: No such file"):
        read(folder)


def test_a_receipt_is_read(folder: Path) -> None:
    receipt = Receipt(ORIGIN, 4, hash_leaf(b"leaf"), note(5))
    put(folder, "mine.receipt", f"{receipt.header()}\n")
    (found,) = read(folder)
    assert (found.kind, found.note, found.checkpoint, found.receipt) == (
        Kind.RECEIPT,
        note(5),
        checkpoint(5),
        receipt,
    )


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.checkpoint", "", "this is not a signed note"),
        ("a.checkpoint", note(7)[:-30], "this is not a signed note|not written as it must be"),
        ("a.checkpoint", note(7).replace("\n7\n", "\n07\n"), "not written as it must be"),
        ("a.tsr", "", "cannot be read"),
        ("a.receipt", "log=nothing", "this is not a receipt"),
        ("a.notes", '\n"a whole line that is no note"', "this is not a signed note"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(folder: Path, name: str, text: str, fault: str) -> None:
    put(folder, name, text)
    with pytest.raises(ConfigurationError, match=rf"{name}: .*({fault}).*; fetch it again from where it was kept"):
        read(folder)


def test_bytes_that_are_no_text_are_refused_by_name(folder: Path) -> None:
    (folder / "a.checkpoint").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"a.checkpoint: is not UTF-8 text"):
        read(folder)


def test_the_name_sorts_by_size_and_tells_histories_apart() -> None:
    names = [str(checkpoint_path(checkpoint(size))) for size in (9, 10, 1234567)]
    assert names == sorted(names)
    assert names[0].startswith("holdfast/test/gw-1:8443/1/0000000000000009-")
    assert checkpoint_path(checkpoint(9)) != checkpoint_path(checkpoint(9, history="forked"))


@given(st.text(min_size=1, max_size=40))
@example("../../etc")
@example("/etc")
@example("..")
@example("a/./b")
@example("a//b")
@example(".hidden/x")
def test_no_log_s_name_leads_out_of_the_folder(origin: str) -> None:
    path = checkpoint_path(Checkpoint(Origin(KeyName(origin)), 1, RootHash(b"\0" * 32)))
    assert not path.is_absolute()
    assert not any(part.startswith(".") for part in path.parts)
    assert re.fullmatch(r"[A-Za-z0-9._:%/~-]+", str(path))
    assert path.suffix == ".checkpoint"
