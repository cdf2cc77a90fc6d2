"""An export examined by several processes: the same outcome, and an error where one of them ends before its work."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.audit.export import (
    FORMAT,
    TABLES,
    ContentLine,
    Header,
    LogLine,
    RecordLine,
    encode_line,
    read_export,
    write_export,
)
from holdfast.audit.note import KeyName, Signer
from holdfast.audit.payload import zstd
from holdfast.audit.store.export import export_lines
from holdfast.audit.verify import Anchoring, examined_lines, verify_lines
from holdfast.audit.verify.workers import Sharing, default_sharing
from holdfast.errors import ConfigurationError, HoldfastError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from audit.tampering import Site
    from holdfast.audit.export import Line

NOW = "2026-01-01T00:00:00.000000Z"
ROOT = Signer(KeyName("root"), Ed25519PrivateKey.from_private_bytes(b"r" * 32)).verifier
ALONE = Sharing(workers=0, block_bytes=4096)
SHARINGS = [
    Sharing(workers=1, block_bytes=4096, alone_lines=0, own_bytes=0),
    Sharing(workers=3, block_bytes=4096, alone_lines=0, own_bytes=0),
    Sharing(workers=2, block_bytes=1000, alone_lines=0, own_bytes=2000),
    Sharing(workers=2, block_bytes=4096, alone_lines=50),
]
TOLD_ENOUGH = 60
"""Seconds after which a process that has not ended is taken for one that does not."""


def beginning(payloads: bool = True) -> list[Line]:
    return [
        Header(FORMAT, "test", NOW, dict.fromkeys(TABLES, "table"), payloads),
        LogLine(1, "holdfast/test/gw/1", "gw", 1, "2026-01-01", "", 1, "00" * 32, NOW),
        ContentLine(1),
    ]


def records(count: int) -> Iterator[RecordLine]:
    """Records that are none, each of 300 bytes, which do not become much less when they are compressed."""
    leaves = random.Random(1)  # noqa: S311  the same ones each time
    return (RecordLine(seq, ("2026-01-01", "", "outcome", NOW), leaves.randbytes(150)) for seq in range(count))


def compressed(lines: list[bytes]) -> io.BytesIO:
    return io.BytesIO(zstd.compress(b"".join(line + b"\n" for line in lines)))


def lines_of(count: int) -> list[bytes]:
    return [encode_line(line) for line in (*beginning(), *records(count))]


def refusal(file: io.BytesIO, sharing: Sharing) -> tuple[str, int]:
    """Why the lines are none of an export, and how many of them were told before."""
    file.seek(0)
    told = 0
    with pytest.raises(ConfigurationError) as error:  # noqa: PT012
        for _ in examined_lines(file, ROOT, sharing):
            told += 1
    return str(error.value), told


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "holdfast.audit.verify.worker" in child.cmdline()]


def have_ended(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=TOLD_ENOUGH)
    return not alive


# -- the same outcome --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", SHARINGS)
def test_what_is_found_does_not_depend_on_who_examines(site: Site, sharing: Sharing) -> None:
    site.execute("UPDATE calls SET username = 'mallory' WHERE seq % 3 = 0")
    site.execute("UPDATE blobs SET body = x'00' WHERE size % 2 = 0")
    lines = list(export_lines(site.database, "test", NOW))
    file = io.BytesIO()
    write_export(lines, file)
    file.seek(0)
    alone = verify_lines(lines, site.root, Anchoring())
    with closing(examined_lines(file, site.root, sharing)) as examined:
        assert verify_lines(examined, site.root, Anchoring()) == alone
    assert {"call-altered", "blob-altered"} <= set(alone.counts)
    assert workers() == []


@pytest.mark.parametrize("sharing", SHARINGS)
def test_lines_keep_their_order(sharing: Sharing) -> None:
    told = list(examined_lines(compressed(lines_of(2000)), ROOT, sharing))
    assert [line.seq for line in told[3:]] == list(range(2000))  # type: ignore[union-attr]  # records


@pytest.mark.parametrize("sharing", SHARINGS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines[:1500], b'{"line":"record"}', *lines[1500:]],
        lambda lines: [*lines[:1500], b"\xff", *lines[1500:]],
        lambda lines: [*lines[:1500], b'{"claims":' + b"[" * 100_000, *lines[1500:]],
        lambda lines: [*lines[:1500], b"{", *lines[1500:1600], b"{", *lines[1600:]],
    ],
)
def test_damage_deep_in_a_file_is_told_as_in_one_process(
    sharing: Sharing, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    file = compressed(damage(lines_of(2000)))
    alone = refusal(file, Sharing(0, sharing.block_bytes))
    assert alone[0].startswith("this is not an export, or it was damaged: ")
    assert alone[1] > 1000
    assert refusal(file, sharing) == alone
    assert workers() == []


@pytest.mark.parametrize("sharing", SHARINGS)
def test_damage_that_is_found_here_is_told_after_what_workers_have_yet_to_tell(
    sharing: Sharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.audit.verify.workers.LARGEST_SENT", 50_000)
    lines = lines_of(2000)
    file = compressed([*lines[:1500], b"{" + b"x" * 60_000, *lines[1500:]])
    assert refusal(file, sharing) == refusal(file, Sharing(0, sharing.block_bytes))


@pytest.mark.parametrize("sharing", SHARINGS)
def test_damage_before_the_place_where_a_file_was_cut_is_what_is_told(sharing: Sharing) -> None:
    lines = lines_of(2000)
    whole = compressed([*lines[:1990], b"{", *lines[1990:]]).getvalue()
    for file in (whole, whole + b"x"):
        alone = refusal(io.BytesIO(file), Sharing(0, sharing.block_bytes))
        assert "damaged" in alone[0]
        assert refusal(io.BytesIO(file), sharing) == alone
    cut = compressed(lines).getvalue()[:-5]
    assert refusal(io.BytesIO(cut), sharing) == refusal(io.BytesIO(cut), Sharing(0, sharing.block_bytes))


def test_a_line_longer_than_what_is_sent_is_examined_here() -> None:
    """As long as a body from before bodies were cut."""
    lines = lines_of(100)
    lines.insert(50, encode_line(RecordLine(47, ("", "", "", ""), b"x" * (9 << 20))))
    told = list(examined_lines(compressed(lines), ROOT, SHARINGS[0]))
    assert len(told) == len(list(read_export(compressed(lines)))) == 104


# -- processes ---------------------------------------------------------------------------------------------------


def test_a_short_export_starts_no_process() -> None:
    for number, _ in enumerate(examined_lines(compressed(lines_of(400)), ROOT, Sharing(workers=2))):
        assert number % 100 or workers() == []


def test_a_long_one_starts_as_many_as_it_was_told_to() -> None:
    with closing(examined_lines(compressed(lines_of(20_000)), ROOT, Sharing(workers=2, alone_lines=5000))) as lines:
        most = max(len(workers()) for number, _ in enumerate(lines) if number % 100 == 0)
    assert most == 2


@pytest.mark.parametrize("sharing", SHARINGS[:3])
def test_to_close_early_ends_the_workers(sharing: Sharing) -> None:
    lines = examined_lines(compressed(lines_of(5000)), ROOT, sharing)
    next(lines)
    started = workers()
    assert len(started) == sharing.workers
    lines.close()
    assert workers() == []
    assert have_ended(started)


@pytest.mark.parametrize("number", [0, 1])
def test_a_worker_that_is_killed_is_an_error(number: int) -> None:
    sharing = Sharing(workers=2, block_bytes=4096, alone_lines=0, own_bytes=0)
    lines = examined_lines(compressed(lines_of(5000)), ROOT, sharing)
    next(lines)
    workers()[number].kill()
    with pytest.raises(HoldfastError, match="has ended before its work, so nothing is verified"):
        list(lines)
    assert workers() == []


def test_a_worker_that_is_killed_over_the_last_block_is_an_error() -> None:
    lines = examined_lines(compressed(lines_of(40)), ROOT, SHARINGS[0])
    told = [next(lines)]  # of the first of four blocks; the worker has the others
    (worker,) = workers()
    worker.suspend()
    timer = threading.Timer(0.5, worker.kill)
    timer.start()
    with pytest.raises(HoldfastError, match="has ended before its work"):
        told += lines
    timer.join()
    assert len(told) < len(lines_of(40))


def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(HoldfastError, match="has ended before its work"):
        list(examined_lines(compressed(lines_of(100)), ROOT, SHARINGS[1]))


def test_a_worker_imports_nothing_from_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "msgspec.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert len(list(examined_lines(compressed(lines_of(100)), ROOT, SHARINGS[0]))) == 103


FOR_EVER = """
import sys
from holdfast.audit.note import parse_verifier
from holdfast.audit.verify import examined_lines
from holdfast.audit.verify.workers import Sharing
for _ in examined_lines(sys.stdin.buffer, parse_verifier(sys.argv[1]), Sharing(2, 4096, 0, 0)):
    pass
"""


def children_of(process: subprocess.Popen[bytes], count: int) -> list[psutil.Process]:
    """Its workers, once there are so many."""
    deadline = time.monotonic() + TOLD_ENOUGH
    while time.monotonic() < deadline and process.poll() is None:
        children = psutil.Process(process.pid).children()
        if len(children) == count:
            return children
        time.sleep(0.01)
    raise AssertionError("it started no workers")


def write_on_and_on(process: subprocess.Popen[bytes], lines: int) -> None:
    """An export without an end: what reads it waits for more."""
    assert process.stdin is not None
    compressor = zstd.ZstdCompressor()
    content = b"".join(line + b"\n" for line in lines_of(lines))
    process.stdin.write(compressor.compress(content, mode=zstd.ZstdCompressor.FLUSH_BLOCK))
    process.stdin.flush()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", FOR_EVER, str(ROOT)], stdin=subprocess.PIPE) as process:
        write_on_and_on(process, 5000)
        started = children_of(process, 2)
        process.send_signal(number)
        process.wait()
        assert have_ended(started)


@pytest.mark.skipif(not default_sharing().workers, reason="on one core there are no workers")
def test_ctrl_c_ends_the_command_and_its_workers(tmp_path: Path) -> None:
    (tmp_path / "root.pub").write_text(f"{ROOT}\n")
    command = [sys.executable, "-m", "holdfast.cli", "audit", "verify", "-", "--root", str(tmp_path / "root.pub")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]  # bytes
        write_on_and_on(process, 20_000)
        started = children_of(process, default_sharing().workers)
        assert process.pid not in {os.getpgid(worker.pid) for worker in started}
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate()
        assert have_ended(started)
    assert process.returncode != 0
    assert output == b""
    assert b"Traceback" not in errors
