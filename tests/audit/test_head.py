"""Head files: what is read of them whatever happened to them, and what a database may lack of them."""

from __future__ import annotations

import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from audit.entries import entry
from holdfast.audit.checkpoint import Checkpoint, Origin, parse_checkpoint
from holdfast.audit.head import FILE_BYTES, HeadFile, find_heads, find_lack
from holdfast.audit.logs import describe_gap, names_in_gap
from holdfast.audit.note import KeyName
from holdfast.audit.store import LedgerStore
from holdfast.audit.tree import EMPTY_ROOT, RootHash, hash_leaf, root_of
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.audit.ledger import Ledger
    from holdfast.database import Database

ORIGIN = Origin(KeyName("holdfast/test/gw/1"))
ROOT = root_of([hash_leaf(b"a leaf")])
CHECKPOINT = Checkpoint(ORIGIN, 5, ROOT)
TEXT = CHECKPOINT.text()
LONGEST = Checkpoint(
    Origin(KeyName(f"holdfast/{'c' * 64}/{'r' * 64}.maintenance/999999999")), 10**16 - 1, RootHash(b"\xff" * 32)
)
"""Names of clusters and replicas have 64 characters at most."""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def head(tmp_path: Path) -> HeadFile:
    return HeadFile(tmp_path / "audit.head")


# -- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", [CHECKPOINT, Checkpoint(ORIGIN, 0, EMPTY_ROOT), LONGEST])
def test_what_is_saved_is_read_and_fills_one_sector(head: HeadFile, checkpoint: Checkpoint) -> None:
    head.save(checkpoint)
    assert head.read() == checkpoint
    assert head.file.stat().st_size == FILE_BYTES
    assert stat.S_IMODE(head.file.stat().st_mode) == 0o600
    head.close()
    again = HeadFile(head.file)
    assert again.load() == checkpoint
    again.close()


def test_nothing_stays_of_what_was_saved_before(head: HeadFile) -> None:
    for checkpoint in (CHECKPOINT, LONGEST, CHECKPOINT):
        head.save(checkpoint)
        assert head.read() == checkpoint
    assert head.file.read_text("ascii") == TEXT.ljust(FILE_BYTES)
    head.close()


def test_a_file_that_was_cut_tells_all_or_that_it_is_damaged(head: HeadFile) -> None:
    whole = TEXT.ljust(FILE_BYTES).encode()
    for end in range(len(whole) + 1):
        head.file.write_bytes(whole[:end])
        if 0 < end < len(TEXT):
            with pytest.raises(ConfigurationError, match=r"audit\.head: is damaged"):
                head.read()
        else:
            assert head.read() == (CHECKPOINT if end else None)


@pytest.mark.parametrize("content", [b"", b" ", b" " * FILE_BYTES])
def test_a_file_without_content_remembers_nothing(head: HeadFile, content: bytes) -> None:
    assert head.read() is None
    head.file.write_bytes(content)
    assert head.read() is None


@pytest.mark.parametrize(
    "content",
    [
        "nonsense",
        "\n",
        "\n\n\n",
        f"\n{TEXT}",
        f" {TEXT}",
        f"{TEXT}\n",
        f"{TEXT}{TEXT}",
        f"{TEXT}an extension\n",
        f"holdfast/head/v2\n{TEXT}",
        f"{TEXT}{' ' * 100}\n",
        f"{TEXT}\t",
        f"{TEXT}\x00",
        "\x00" * FILE_BYTES,
        TEXT.replace("\n5\n", "\n05\n"),
        TEXT.replace("\n5\n", "\n-5\n"),
        TEXT.replace("\n5\n", "\n5.0\n"),
        TEXT.replace("\n5\n", "\n\n"),
        TEXT.replace("\n5\n", f"\n{'9' * 17}\n"),
        TEXT.replace("\n5\n", f"\n{'9' * 5000}\n"),
        TEXT.replace("=\n", "\n"),
        TEXT.replace("=\n", "A\n"),
        TEXT.replace(TEXT.split("\n")[2], "AAAA"),
        TEXT.replace(TEXT.split("\n")[2], ROOT.hex()),
        TEXT.replace(ORIGIN, ""),
        TEXT.replace(ORIGIN, "a log"),
        TEXT.replace(ORIGIN, "a+log"),
    ],
)
def test_a_file_with_other_content_is_damaged(head: HeadFile, content: str) -> None:
    head.file.write_text(content)
    for read in (head.read, head.load):
        with pytest.raises(ConfigurationError, match=r"audit\.head: is damaged.*see `holdfast audit accept --help`"):
            read()
    head.close()


@pytest.mark.parametrize("content", [b"\xff" * FILE_BYTES, TEXT.encode("utf-16"), TEXT.replace("gw", "gö").encode()])
def test_a_file_that_is_no_text_cannot_be_read(head: HeadFile, content: bytes) -> None:
    head.file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"audit\.head: cannot be read"):
        head.read()


def test_a_folder_in_its_place_cannot_be_read(head: HeadFile) -> None:
    head.file.mkdir()
    with pytest.raises(ConfigurationError, match=r"audit\.head: cannot be read"):
        head.read()


# -- the lock ----------------------------------------------------------------------------------------------------


def test_one_process_has_the_file_until_it_closes_it(head: HeadFile) -> None:
    head.save(CHECKPOINT)
    other = HeadFile(head.file)
    for taking in (other.load, other.lock, lambda: other.save(LONGEST)):
        with pytest.raises(ConfigurationError, match=r"audit\.head: another Holdfast process writes the log"):
            taking()
    assert other.read() == CHECKPOINT
    other.close()
    assert head.lock() == head.lock()
    head.close()
    head.close()
    assert other.load() == CHECKPOINT
    other.close()


# -- the gap -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["the disk failed", "  zurückgespielt\n", "two\nlines", "x" * 5000])
def test_a_reason_is_kept_beside_the_file_until_it_is_on_record(head: HeadFile, reason: str) -> None:
    assert head.read_gap() == ""
    head.write_gap(reason)
    assert head.gap_file == head.file.with_name("audit.head.gap")
    assert stat.S_IMODE(head.gap_file.stat().st_mode) == 0o600
    assert HeadFile(head.file).read_gap() == reason.strip()
    head.forget_gap()
    head.forget_gap()
    assert head.read_gap() == ""


@pytest.mark.parametrize("content", ["", " ", "\n\n"])
def test_a_gap_without_a_reason_is_none(head: HeadFile, content: str) -> None:
    head.gap_file.write_text(content)
    assert head.read_gap() == ""


@pytest.mark.parametrize("content", [b"\xff\xfe", "zurück".encode("latin-1")])
def test_a_reason_that_is_no_text_is_told(head: HeadFile, content: bytes) -> None:
    head.gap_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"audit\.head\.gap: is not UTF-8 text"):
        head.read_gap()


# -- what it is held against -------------------------------------------------------------------------------------


def test_the_heads_of_a_folder_are_the_gateway_s_and_its_approvals_api_s(tmp_path: Path) -> None:
    assert find_heads(tmp_path) == []
    for name in ("audit.console.head", "audit.head.gap", "audit.maintenance.head", "other.head"):
        (tmp_path / name).touch()
    assert [head.file.name for head in find_heads(tmp_path)] == ["audit.console.head"]
    (tmp_path / "audit.head").touch()
    assert [head.file.name for head in find_heads(tmp_path)] == ["audit.head", "audit.console.head"]


def checkpoints(ledger: Ledger, database: Database) -> tuple[Checkpoint, Checkpoint]:
    """What was remembered before two more records were written, and what is now."""
    store = LedgerStore(database)
    before = parse_checkpoint(store.latest_note(ledger.row))[0]
    ledger.write([entry(), entry()])
    return before, parse_checkpoint(store.latest_note(ledger.row))[0]


def test_a_database_that_has_all_that_is_remembered_lacks_nothing(ledger: Ledger, database: Database) -> None:
    for remembered in checkpoints(ledger, database):
        assert find_lack(LedgerStore(database), remembered) == ""
    assert find_lack(LedgerStore(database), Checkpoint(ledger.row.origin, 0, EMPTY_ROOT)) == ""


def test_what_a_database_lacks_is_said(ledger: Ledger, database: Database) -> None:
    _, now = checkpoints(ledger, database)
    store, origin = LedgerStore(database), now.origin
    longer = replace(now, size=now.size + 4)
    longest = replace(now, size=10**16 - 1)
    told = f"the gateway wrote {{}} records of {origin}, the database has {now.size}"
    assert find_lack(store, longer) == told.format(now.size + 4)
    assert find_lack(store, longest) == told.format(10**16 - 1)
    assert find_lack(store, replace(now, root=ROOT)) == f"{told.format(now.size)}, other ones"
    shorter = f"the gateway wrote 1 records of {origin}, the database has 1, other ones"
    assert find_lack(store, replace(now, size=1)) == shorter
    elsewhere = Origin(KeyName("holdfast/test/other/1"))
    assert (
        find_lack(store, replace(now, origin=elsewhere))
        == f"the gateway wrote {now.size} records of {elsewhere}, the database lacks that log"
    )


def test_a_log_that_was_dropped_lacks_nothing(ledger: Ledger, database: Database) -> None:
    _, now = checkpoints(ledger, database)
    ledger.close()
    with database.writing() as connection:
        connection.execute(text("DELETE FROM records"))
        connection.execute(text("UPDATE logs SET dropped_at = '2026-03-02T00:00:00.000000Z'"))
    assert find_lack(LedgerStore(database), replace(now, root=ROOT)) == ""


@pytest.mark.parametrize("reason", ["restored", "restored again (before: holdfast/test/gw/9, 1 records)", ORIGIN])
def test_a_gap_names_the_log_that_was_written_last(reason: str) -> None:
    gap = describe_gap(reason, CHECKPOINT)
    assert gap == f"{reason} (before: holdfast/test/gw/1, 5 records)"
    assert names_in_gap(gap, ORIGIN)
    assert not any(names_in_gap(gap, origin) for origin in (f"{ORIGIN}0", "holdfast/test/gw/9", "restored"))


def test_a_gap_after_a_damaged_head_names_none() -> None:
    gap = describe_gap("the head file was damaged", None)
    assert (gap, names_in_gap(gap, ORIGIN)) == ("the head file was damaged", False)
