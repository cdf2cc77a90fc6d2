"""The export: what its docstring says, read by a program of its own; and whatever a database may hold."""

from __future__ import annotations

import base64
import io
import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import aics_tlog
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from audit.entries import entry, new_id, open_test_ledger, record, request
from audit.tampering import Site, codes
from holdfast.audit import export
from holdfast.audit.export import FORMAT, BlobLine, EndLine, Header, RecordLine, read_export, write_export
from holdfast.audit.keys import KeyFolder
from holdfast.audit.note import KeyName, Signer
from holdfast.audit.objects import open_pieces
from holdfast.audit.payload import zstd
from holdfast.audit.record import Caller, Entry, Kind
from holdfast.audit.store.export import export_lines
from holdfast.audit.verify import Anchoring, Class, verify_lines
from holdfast.database import Database, metadata
from holdfast.errors import ConfigurationError
from holdfast.settings.audit import Payloads

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.audit.export import Line
    from holdfast.audit.verify import Report

KINDS = dict.fromkeys(export.TABLES, "table")
NOW = "2026-01-01T00:00:00.000000Z"


@pytest.fixture
def site(tmp_path: Path, database: Database) -> Site:
    """Two replicas with a log each; one call is in two pieces, one has no outcome."""
    site = Site(tmp_path, database)
    site.ledgers["gw"].write([entry(bytes(range(256)) * 5000), Entry(record(kind=Kind.INTENT), request(b"asked"))])
    site.anchor()
    return site


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A small record in SQLite that is over, to be copied; one call is by a caller with claims."""
    folder = tmp_path_factory.mktemp("intact")
    database = Database.open(f"sqlite:///{folder / 'audit.db'}")
    site = Site(folder, database)
    caller = Caller(issuer="https://issuer", username="ci", claims={"team": "a"})
    site.ledgers["gw"].write([entry(identity=caller)])
    for ledger in site.ledgers.values():
        ledger.close("shut down")
    database.close()
    return site


@pytest.fixture(scope="module")
def file(intact: Site) -> bytes:
    """Its export."""
    return exported(intact.database)


def exported(database: Database, **options: Any) -> bytes:
    stream = io.BytesIO()
    write_export(export_lines(database, "test", NOW, **options), stream)
    return stream.getvalue()


def lines_of(file: bytes) -> list[bytes]:
    return zstd.decompress(file).split(b"\n")


def compressed(lines: list[bytes]) -> bytes:
    return zstd.compress(b"\n".join(lines))


def verified(file: bytes, site: Site) -> Report:
    return verify_lines(read_export(io.BytesIO(file)), site.root, Anchoring())


# -- the format --------------------------------------------------------------------------------------------------


@dataclass
class OtherReader:
    """An export as read with nothing but the docstring of `export`: JSON, SHA-256, and another Merkle tree."""

    header: dict[str, Any] = field(default_factory=dict)
    logs: dict[int, dict[str, Any]] = field(default_factory=dict)
    leaves: dict[int, list[bytes]] = field(default_factory=dict)
    notes: dict[int, list[str]] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    bodies: list[tuple[str, list[Any]]] = field(default_factory=list)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def read(self, lines: list[bytes]) -> None:
        current = 0
        for raw in lines:
            line = json.loads(raw)
            match line["line"]:
                case "header":
                    self.header = line
                case "log":
                    self.rows["logs"] += 1
                    self.logs[line["id"]] = line
                case "content":
                    current = line["log"]
                    self.leaves[current], self.notes[current] = [], []
                case "checkpoint":
                    self.rows["checkpoints"] += 1
                    self.notes[current].append(line["note"])
                case "record":
                    self._read_record(line, current)
                case "caller":
                    self.rows["callers"] += 1
                    self.rows["caller_claims"] += len(line.get("claims", []))
                    assert line["id"] == sha256(line["caller"].encode()).hexdigest()[:32]
                case "blob":
                    self.rows["blobs"] += 1
                    body = base64.b64decode(line["body"], validate=True)
                    content = zstd.decompress(body) if line["codec"] == "zstd" else body
                    assert (sha256(content).hexdigest(), len(content)) == (line["sha256"], line["size"])
                    self.blobs[line["day"], line["sha256"]] = content
                case "end":
                    self.counts = line["rows"]

    def _read_record(self, line: dict[str, Any], log: int) -> None:
        assert line["seq"] == len(self.leaves[log])
        leaf = base64.b64decode(line["leaf"], validate=True)
        told = json.loads(leaf)["record"]
        self.rows["records"] += 1
        self.leaves[log].append(leaf)
        day = self.logs[log]["day"]
        assert line["columns"] == [day, told.get("call", ""), told["kind"], told["at"]]
        self.rows["bodies"] += len(line.get("bodies", []))
        self.bodies += ((day, body) for body in line.get("bodies", []))
        if "call" in line:
            self.rows["calls"] += 1
            assert line["call"]["audit_id"] == told["call"]
            assert line["callPlace"][0] == line["call"]["received_at"][:10]


def test_another_program_reads_and_verifies_an_export(site: Site) -> None:
    other = OtherReader()
    lines = lines_of(exported(site.database))
    assert lines.pop() == b""
    other.read(lines)
    assert (other.header["format"], other.header["cluster"], other.header["exportedAt"]) == (FORMAT, "test", NOW)
    assert set(other.header["tables"].values()) == {"table"}
    assert {table: other.rows[table] for table in other.counts} == other.counts
    assert set(other.counts) == set(export.TABLES)
    for number, leaves in other.leaves.items():
        tree = aics_tlog.MerkleTree(leaves)
        assert (tree.size, tree.root().hex()) == (other.logs[number]["size"], other.logs[number]["root"])
        for note in other.notes[number]:
            checkpoint = aics_tlog.parse_checkpoint(aics_tlog.parse_note(note).text)
            assert checkpoint.root == tree.root(checkpoint.size)
    assert {(day, digest) for day, (_, _, _, digest) in other.bodies} == set(other.blobs)
    assert [part for _, (_, part, _, _) in other.bodies].count(1) == 1


def test_every_line_is_canonical_json(site: Site) -> None:
    for line in lines_of(exported(site.database))[:-1]:
        assert json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == line


def test_a_record_says_where_its_call_is_listed(site: Site) -> None:
    call = new_id()
    site.ledgers["gw"].write([Entry(record(call, Kind.INTENT))])
    site.ledgers["gw"].write([entry(call=call)])
    told = [json.loads(line) for line in lines_of(exported(site.database))[:-1]]
    intent, outcome = (line for line in told if line["line"] == "record" and line["columns"][1] == call)
    assert intent["callElsewhere"] == [site.log.id, outcome["seq"], True]
    assert "call" not in intent
    assert outcome["call"]["complete"] is True


def test_what_is_written_is_read_and_verified_as_the_database_is(site: Site) -> None:
    live = verify_lines(export_lines(site.database, "test", NOW), site.root, Anchoring())
    file = verified(exported(site.database), site)
    assert live == file
    assert codes(live) == {"no-anchor", "outcome-missing"}


def test_an_empty_database_is_an_export_without_logs(database: Database, tmp_path: Path) -> None:
    file = exported(database)
    assert [json.loads(line)["line"] for line in lines_of(file)[:-1]] == ["header", "end"]
    root = Signer(KeyName("root"), Ed25519PrivateKey.generate()).verifier
    report = verify_lines(read_export(io.BytesIO(file)), root, Anchoring())
    assert (report.verdict(), report.logs) == (Class.INTACT, [])


def test_payloads_can_be_left_out(site: Site) -> None:
    whole, bare = exported(site.database), exported(site.database, payloads=False)
    assert [line for line in read_export(io.BytesIO(bare)) if isinstance(line, BlobLine)] == []
    assert len(bare) < len(whole)
    report = verified(bare, site)
    assert codes(report) == {"no-anchor", "outcome-missing", "payloads-left-out"}
    assert report.payloads == 0


def test_pieces_come_from_where_they_are_kept(tmp_path: Path, database: Database) -> None:
    pieces = open_pieces(Payloads(folder=tmp_path / "pieces", inline_bytes=16), 5)
    assert pieces is not None
    ledger = open_test_ledger(tmp_path, database, pieces=pieces)
    ledger.write([entry(b"x" * 5000), entry(b"short")])
    root = KeyFolder(tmp_path / "audit-keys").root_verifier()
    lines = list(export_lines(database, "test", NOW, pieces=pieces))
    assert sorted(len(line.body or b"") > 0 for line in lines if isinstance(line, BlobLine)) == [True, True]
    assert codes(verify_lines(lines, root, Anchoring())) == {"no-anchor"}
    without = list(export_lines(database, "test", NOW))
    assert [line.body for line in without if isinstance(line, BlobLine)].count(None) == 1
    report = verify_lines(without, root, Anchoring())
    assert report.counts["blob-altered"] == 1
    assert "not in the object store" in "".join(finding.what for finding in report.findings)


def test_the_export_is_of_one_moment(site: Site) -> None:
    lines = export_lines(site.database, "test", NOW)
    taken = [next(lines)]
    for number in range(3):
        site.record_call(site.ledgers["gw"], b"%d" % number)
        taken.append(next(lines))
    taken += lines
    report = verify_lines(taken, site.root, Anchoring())
    assert report.verdict() is not Class.ALTERED


# -- files that were damaged -------------------------------------------------------------------------------------


def test_a_file_that_was_cut_is_refused(intact: Site, file: bytes) -> None:
    for end in [*range(0, len(file), max(1, len(file) // 50)), len(file) - 1]:
        with pytest.raises(ConfigurationError):
            list(read_export(io.BytesIO(file[:end])))


def test_lines_that_were_cut_are_refused(intact: Site, file: bytes) -> None:
    lines = lines_of(file)
    for end in range(len(lines) - 1):
        with pytest.raises(ConfigurationError, match=r"cut|not an export"):
            verified(compressed([*lines[:end], b""]), intact)
    with pytest.raises(ConfigurationError, match="last line of the export was cut"):
        verified(compressed([*lines[:-2], lines[-2][:-1]]), intact)


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"no export",
        zstd.compress(b""),
        zstd.compress(b"no export\n"),
        zstd.compress(b'{"line":"header"}\n'),
        zstd.compress(b'{"line":"unknown"}\n'),
        zstd.compress(b'{"line":"end","rows":{}}\n'),
        zstd.compress(msgspec.json.encode(Header("holdfast/export/2", "test", NOW, KINDS, True)) + b"\n"),
        zstd.compress(b"\xff\n"),
        zstd.compress(b"[" * 100_000 + b"\n"),
    ],
)
def test_other_files_are_refused(other: bytes, intact: Site) -> None:
    with pytest.raises(ConfigurationError):
        verified(other, intact)


def test_an_export_that_does_not_speak_of_every_table_is_refused(intact: Site, file: bytes) -> None:
    lines = lines_of(file)
    for table in export.TABLES:
        header = Header(FORMAT, "test", NOW, {name: "table" for name in KINDS if name != table}, True)
        with pytest.raises(ConfigurationError, match="not an export of the format"):
            verified(compressed([msgspec.json.encode(header), *lines[1:]]), intact)
        rows = json.loads(lines[-2])["rows"]
        del rows[table]
        with pytest.raises(ConfigurationError, match="does not speak of every table"):
            verified(compressed([*lines[:-2], msgspec.json.encode(EndLine(rows)), b""]), intact)


def test_payloads_in_an_export_that_says_it_has_none_are_refused(intact: Site, file: bytes) -> None:
    lines = lines_of(file)
    header = Header(FORMAT, "test", NOW, KINDS, payloads=False)
    with pytest.raises(ConfigurationError, match="says at its beginning that it has none"):
        verified(compressed([msgspec.json.encode(header), *lines[1:]]), intact)


def test_something_after_the_end_is_refused(intact: Site, file: bytes) -> None:
    for more in (b"x", file):
        with pytest.raises(ConfigurationError, match="something follows"):
            verified(file + more, intact)
    lines = lines_of(file)
    with pytest.raises(ConfigurationError, match="goes on after its end"):
        verified(compressed([*lines[:-1], lines[-2], b""]), intact)


@pytest.mark.parametrize("kind", ["header", "log", "content", "checkpoint", "record", "caller", "blob"])
def test_a_line_in_another_place_is_refused_or_told_or_changes_nothing(intact: Site, file: bytes, kind: str) -> None:
    lines = lines_of(file)
    moved = next(line for line in lines if f'"line":"{kind}"'.encode() in line)
    rest = [line for line in lines if line is not moved]
    whole = verified(compressed(lines), intact)
    for where in range(0, len(rest) - 1, 3):
        try:
            report = verified(compressed([*rest[:where], moved, *rest[where:]]), intact)
        except ConfigurationError:
            continue
        assert report.verdict() is Class.ALTERED or report.counts == whole.counts


def test_a_line_of_gigabytes_is_refused_before_it_is_whole(
    intact: Site, file: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "LONGEST_LINE", 1 << 20)
    header = lines_of(file)[0]
    bomb = zstd.compress(header + b"\n" + bytes(64 << 20))
    with pytest.raises(ConfigurationError, match="a line that is too long"):
        verified(bomb, intact)


@given(st.data())
def test_a_changed_byte_of_a_line_is_never_a_crash(data: st.DataObject) -> None:
    """Whatever an export says, the verifier ends in a report, or says that it is none."""
    line = data.draw(st.sampled_from(SAMPLE[:-1]))
    at = data.draw(st.integers(0, len(line) - 1))
    changed = line[:at] + data.draw(st.binary(min_size=0, max_size=3)) + line[at + 1 :]
    lines = [changed if found is line else found for found in SAMPLE]
    root = Signer(KeyName("root"), Ed25519PrivateKey.from_private_bytes(b"r" * 32)).verifier
    try:
        report = verify_lines(read_export(io.BytesIO(compressed(lines))), root, Anchoring())
    except ConfigurationError:
        return
    assert report.verdict() is Class.ALTERED


def sample() -> list[bytes]:
    """The lines of a small export, without a key that anybody pins."""
    lines: list[Line] = [
        Header(FORMAT, "test", NOW, KINDS, True),
        export.LogLine(1, "holdfast/test/gw/1", "gw", 1, "2026-01-01", "", 1, "00" * 32, NOW),
        export.ContentLine(1),
        export.CheckpointLine(1, "holdfast/test/gw/1\n1\n\n"),
        RecordLine(
            0,
            ("2026-01-01", "", "outcome", NOW),
            b'{"at":"2026-01-01T00:00:00.000000Z","kind":"outcome","version":1}',
            bodies=(export.BodyLine("request", 0, b"salt", "00" * 32),),
            call=msgspec.Raw(b'{"audit_id":""}'),
            call_place=("2026-01-01", ""),
        ),
        RecordLine(1, ("2026-01-01", "", "outcome", NOW), b"{}", "str", call_elsewhere=(1, 0, True)),
        export.CallerLine("00" * 16, '{"issuer":"i","username":"u"}', (("a", "b"),)),
        BlobLine("2026-01-01", "00" * 32, 1, "zstd", zstd.compress(b"x")),
        EndLine(dict.fromkeys(export.TABLES, 2)),
    ]
    stream = io.BytesIO()
    write_export(lines, stream)
    return lines_of(stream.getvalue())


SAMPLE = sample()


# -- databases that were tampered with ---------------------------------------------------------------------------


ODD_VALUES = ("x'ff00'", "1.5", "'text'", "CAST(x'ff' AS TEXT)")
COLUMNS = [(table, column.name) for table in export.TABLES for column in metadata.tables[table].c]


@pytest.mark.parametrize("odd", ODD_VALUES)
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_value_of_any_type_in_any_column_is_told(
    intact: Site, tmp_path: Path, table: str, column: str, odd: str
) -> None:
    """SQLite keeps whatever it is given: in one row, a value that its column is not for."""
    shutil.copy(intact.folder / "audit.db", tmp_path / "audit.db")
    if not put_odd_value(tmp_path / "audit.db", table, column, odd):
        return
    with closing(Database.open(f"sqlite:///{tmp_path / 'audit.db'}")) as database:
        live = verify_lines(export_lines(database, "test", NOW), intact.root, Anchoring())
        assert verified(exported(database), intact) == live
    assert live.verdict() is Class.ALTERED


def put_odd_value(file: Path, table: str, column: str, odd: str) -> bool:
    """Whether the table takes the value, and has another one then."""
    told = f"SELECT {column}, typeof({column}) FROM {table} ORDER BY {column}"  # noqa: S608
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.text_factory = bytes
        if table == "leaf_hashes":
            connection.execute("INSERT INTO leaf_hashes VALUES (1, 0, x'00')")
        before = connection.execute(told).fetchall()
        least = f"(SELECT {column} FROM {table} ORDER BY {column} DESC LIMIT 1)"  # noqa: S608
        with suppress(sqlite3.IntegrityError):
            connection.execute(f"UPDATE {table} SET {column} = {odd} WHERE {column} IS {least}")  # noqa: S608
        return connection.execute(told).fetchall() != before


def test_values_of_another_type_are_told_as_such(intact: Site, tmp_path: Path) -> None:
    shutil.copy(intact.folder / "audit.db", tmp_path / "audit.db")
    for table, column, odd in (
        ("records", "at", "x'ff00'"),
        ("calls", "code", "1.5"),
        ("calls", "complete", "'text'"),
        ("checkpoints", "size", "'text'"),
        ("bodies", "salt", "'text'"),
    ):
        assert put_odd_value(tmp_path / "audit.db", table, column, odd)
    with closing(Database.open(f"sqlite:///{tmp_path / 'audit.db'}")) as database:
        lines = list(export_lines(database, "test", NOW))
    records = [line for line in lines if isinstance(line, RecordLine)]
    calls = [msgspec.json.decode(line.call) for line in records if line.call_place]
    assert "(bytes) b'\\xff\\x00'" in {line.columns[3] for line in records}
    assert {"(float) 1.5"} == {call["code"] for call in calls}
    assert {"(str) text"} == {call["complete"] for call in calls}
    assert -1 in {line.size for line in lines if isinstance(line, export.CheckpointLine)}
    assert b"(str) text" in {body.salt for line in records for body in line.bodies}
