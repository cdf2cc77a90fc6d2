"""A file that only grows: what is appended can be read back, whatever a crash tore."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.anchors.notes import note
from holdfast.audit.anchors.file import FileAnchor, append_note, read_notes
from holdfast.errors import ConfigurationError, Unavailable

texts = st.text(st.characters(codec="utf-8"), max_size=200)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "holdfast.notes"


def test_what_is_published_is_read_back_in_order(file: Path) -> None:
    anchor = FileAnchor(file)
    notes = [note(size) for size in (1, 5, 5000)]
    for published in notes:
        anchor.publish(published)
    assert list(read_notes(file)) == notes


def test_only_its_owner_reads_the_file(file: Path) -> None:
    FileAnchor(file).publish(note(1))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@given(st.lists(texts))
def test_any_texts_are_read_back(notes: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "any.notes")
        file.touch()
        for text in notes:
            append_note(file, text)
        assert list(read_notes(file)) == notes


@given(st.binary(max_size=300))
def test_whatever_stands_in_a_file_is_read_without_a_fault(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "any.notes")
        file.write_bytes(content)
        list(read_notes(file))


def test_wherever_a_line_is_torn_only_that_note_is_lost(file: Path, tmp_path: Path) -> None:
    anchor = FileAnchor(file)
    anchor.publish(note(1))
    whole = file.read_bytes()
    anchor.publish(note(2))
    appended = file.read_bytes()[len(whole) :]
    for kept in range(len(appended)):
        torn = tmp_path / f"{kept}.notes"
        torn.write_bytes(whole + appended[:kept])
        assert list(read_notes(torn)) == [note(1)]
        append_note(torn, note(3))
        assert list(read_notes(torn)) == [note(1), note(3)]


def start(script: str, file: Path) -> subprocess.Popen[str]:
    """Run a script about a file in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(file)], stderr=subprocess.PIPE, text=True
    )


def test_several_processes_append_to_one_file(file: Path) -> None:
    script = """
        import os, sys
        from pathlib import Path
        from holdfast.audit.anchors.file import append_note
        for step in range(100):
            append_note(Path(sys.argv[1]), f"{os.getpid()} {step}")
    """
    writers = [start(script, file) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert sorted(read_notes(file)) == sorted(f"{writer.pid} {step}" for writer in writers for step in range(100))


def test_a_file_that_was_rotated_away_is_made_again(file: Path) -> None:
    anchor = FileAnchor(file)
    anchor.publish(note(1))
    file.rename(file.with_suffix(".1.notes"))
    anchor.publish(note(2))
    assert list(read_notes(file)) == [note(2)]


def test_a_place_that_is_gone_is_told_and_recovered_from(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    anchor = FileAnchor(mount / "holdfast.notes")
    with pytest.raises(Unavailable, match=r"holdfast.notes: cannot be appended to: No such file or directory"):
        anchor.publish(note(1))
    mount.mkdir()
    anchor.publish(note(1))
    assert list(read_notes(anchor.file)) == [note(1)]


def test_a_full_disk_is_told() -> None:
    with pytest.raises(Unavailable, match="cannot be appended to: No space left on device"):
        FileAnchor(Path("/dev/full")).publish(note(1))


def test_half_a_write_is_no_success(file: Path) -> None:
    append_note(file, note(1))
    # A limit on the size of files makes the system write a part only.
    script = """
        import resource, signal, sys
        from pathlib import Path
        from holdfast.audit.anchors.file import append_note
        file = Path(sys.argv[1])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 50, resource.RLIM_INFINITY))
        append_note(file, "x" * 100)
    """
    child = start(script, file)
    _, told = child.communicate()
    assert "Unavailable" in told
    assert "its disk is full" in told
    assert list(read_notes(file)) == [note(1)]


def test_a_file_that_cannot_be_read_is_told(file: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"holdfast.notes: cannot be read: No such file"):
        list(read_notes(file))
