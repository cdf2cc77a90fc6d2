"""Large payloads in a folder or a bucket: durable before they are referred to, read back, removed, never believed."""

from __future__ import annotations

import io
import os
import socket
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from minio.deleteobjects import DeleteObject
from sqlalchemy import text

from audit.entries import entry, open_test_ledger
from holdfast.audit.export import BlobLine, read_export, write_export
from holdfast.audit.keys import KeyFolder
from holdfast.audit.objects import PARALLEL, ObjectPieces, open_pieces
from holdfast.audit.payload import PIECE_BYTES
from holdfast.audit.store import AuditStore
from holdfast.audit.store.calls import ALTERED, MISSING
from holdfast.audit.store.export import export_lines
from holdfast.audit.verify import Anchoring, Report, verify_lines
from holdfast.certificates import make_authority
from holdfast.errors import ConfigurationError, NotFound, Unavailable
from holdfast.settings.audit import Payloads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holdfast.database import Database
    from services.s3 import S3Server

DAY = "2026-03-01"
LARGE = os.urandom(3 << 20)
INLINE = 1000
DEADLINE = 5.0
SOME = {sha256(content).hexdigest(): content for content in (b"one", b"two")}


def bucket_settings(server: S3Server, bucket: str, folder: Path, /, **more: object) -> Payloads:
    """Settings for a bucket, the keys in files."""
    access, secret = folder / "access.key", folder / "secret.key"
    access.write_text(f"{server.access_key}\n")
    secret.write_text(f"{server.secret_key}\n")
    usual = Payloads(
        bucket=bucket,
        prefix="holdfast",
        endpoint=server.endpoint,
        access_key_file=access,
        secret_key_file=secret,
        inline_bytes=INLINE,
    )
    return usual.model_copy(update=more)


def open_place(settings: Payloads, deadline: float = DEADLINE) -> ObjectPieces:
    opened = open_pieces(settings, deadline)
    assert opened is not None
    return opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "payloads"


@pytest.fixture
def in_folder(folder: Path) -> Iterator[ObjectPieces]:
    opened = open_place(Payloads(folder=folder, inline_bytes=INLINE))
    yield opened
    opened.close()


@pytest.fixture
def in_bucket(s3: S3Server, s3_bucket: str, tmp_path: Path) -> Iterator[ObjectPieces]:
    opened = open_place(bucket_settings(s3, s3_bucket, tmp_path))
    yield opened
    opened.close()


@pytest.fixture(params=["in_folder", "in_bucket"])
def pieces(request: pytest.FixtureRequest) -> ObjectPieces:
    """A place of each kind."""
    place = request.getfixturevalue(request.param)
    assert isinstance(place, ObjectPieces)
    return place


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def verify(database: Database, folder: Path, pieces: ObjectPieces) -> Report:
    """The verdict on an export that went through a file."""
    file = io.BytesIO()
    write_export(export_lines(database, "test", "2026-03-02T00:00:00.000000Z", pieces=pieces), file)
    file.seek(0)
    root = KeyFolder(folder / "audit-keys").root_verifier()
    return verify_lines(read_export(file), root, Anchoring(()))


def test_without_a_place_payloads_stay_in_the_database() -> None:
    assert open_pieces(Payloads(), DEADLINE) is None


def test_a_folder_and_a_bucket_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        Payloads(folder=Path("x"), bucket="y")


@pytest.mark.parametrize("key", ["access_key_file", "secret_key_file"])
def test_one_key_of_the_two_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="accessKeyFile and secretKeyFile go together: give both or neither"):
        Payloads.model_validate({"bucket": "y", key: "file"})


def test_a_piece_is_read_back_and_removed(pieces: ObjectPieces) -> None:
    pieces.put(DAY, SOME)
    assert {name: pieces.get(DAY, name) for name in SOME} == SOME
    pieces.delete(DAY, list(SOME))
    pieces.delete(DAY, list(SOME))
    for name in SOME:
        with pytest.raises(NotFound, match="not in the object store"):
            pieces.get(DAY, name)


def test_a_piece_may_be_kept_again(pieces: ObjectPieces) -> None:
    for _ in range(2):
        pieces.put(DAY, SOME)
    assert {name: pieces.get(DAY, name) for name in SOME} == SOME


def test_many_large_pieces_are_kept_at_once_and_listed_by_day(pieces: ObjectPieces) -> None:
    many = {sha256(bytes([n])).hexdigest(): bytes([n]) * PIECE_BYTES for n in range(3 * PARALLEL)}
    pieces.put(DAY, many)
    pieces.put("2026-03-02", SOME)
    assert pieces.days() == [DAY, "2026-03-02"]
    assert sorted(name for page in pieces.digests(DAY) for name in page) == sorted(many)
    assert all(pieces.get(DAY, name) == content for name, content in many.items())


@pytest.mark.parametrize(
    ("day", "name"),
    [("..", "a" * 64), ("2026-03-01/..", "a" * 64), ("", "a" * 64), (DAY, "../../secret"), (DAY, "A" * 64), (DAY, "")],
)
def test_a_name_out_of_a_database_that_was_changed_leads_nowhere(pieces: ObjectPieces, day: str, name: str) -> None:
    with pytest.raises(NotFound, match="no payload is called"):
        pieces.get(day, name)
    pieces.delete(day, [name])


def test_objects_are_called_by_day_and_digest(
    in_bucket: ObjectPieces, in_folder: ObjectPieces, s3: S3Server, s3_bucket: str, folder: Path
) -> None:
    names = sorted(f"{DAY}/{name[:2]}/{name}" for name in SOME)
    for place in (in_bucket, in_folder):
        place.put(DAY, SOME)
    listed = s3.client().list_objects(s3_bucket, recursive=True)
    assert sorted(str(found.object_name) for found in listed) == [f"holdfast/{name}" for name in names]
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sorted(str(file.relative_to(folder)) for file in files) == names
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_only_large_pieces_leave_the_database(pieces: ObjectPieces, database: Database, tmp_path: Path) -> None:
    ledger = open_test_ledger(tmp_path, database, pieces=pieces)
    small, large = entry(b"small"), entry(LARGE)
    ledger.write([small, large])
    with database.reading() as connection:
        kept = connection.execute(text("SELECT size, body IS NULL FROM blobs ORDER BY size")).all()
    assert [tuple(row) for row in kept] == [(5, 0), (1 << 20, 1), (1 << 20, 1), (1 << 20, 1)]
    assert sum(len(page) for day in pieces.days() for page in pieces.digests(day)) == 3
    store = AuditStore(database, pieces)
    for written, content in ((small, b"small"), (large, LARGE)):
        story = store.load_call(written.record.call)
        assert story.body(story.records[0].response_body) == content
    with pytest.raises(ConfigurationError, match=r"set audit\.payloads"):
        AuditStore(database).load_call(large.record.call)


def test_an_export_fetches_what_is_kept_outside(pieces: ObjectPieces, database: Database, tmp_path: Path) -> None:
    open_test_ledger(tmp_path, database, pieces=pieces).write([entry(LARGE)])
    lines = export_lines(database, "test", "2026-03-02T00:00:00.000000Z", pieces=pieces)
    assert sum(len(line.body or b"") for line in lines if isinstance(line, BlobLine)) >= len(LARGE)
    report = verify(database, tmp_path, pieces)
    assert (report.payloads, set(report.counts)) == (3, {"no-anchor"})


@pytest.mark.parametrize(
    ("replacement", "told", "shown"),
    [
        (b"something else", "cannot be read|has other bytes", ALTERED),
        (b"", "cannot be read|has other bytes", ALTERED),
        (bytes(PIECE_BYTES + 1), "is not in the object store", MISSING),
        (None, "is not in the object store", MISSING),
    ],
)
def test_an_object_that_was_altered_or_deleted_is_found(
    in_bucket: ObjectPieces,
    database: Database,
    tmp_path: Path,
    s3: S3Server,
    s3_bucket: str,
    replacement: bytes | None,
    told: str,
    shown: str,
) -> None:
    written = entry(LARGE)
    open_test_ledger(tmp_path, database, pieces=in_bucket).write([written])
    client = s3.client()
    victim = next(str(found.object_name) for found in client.list_objects(s3_bucket, recursive=True))
    if replacement is None:
        assert not list(client.remove_objects(s3_bucket, [DeleteObject(victim)]))
    else:
        client.put_object(s3_bucket, victim, io.BytesIO(replacement), len(replacement))
    report = verify(database, tmp_path, in_bucket)
    assert set(report.counts) == {"no-anchor", "blob-altered"}
    (finding,) = (finding for finding in report.findings if finding.code.name == "blob-altered")
    assert victim.rpartition("/")[2] in finding.what
    assert any(reason in finding.what for reason in told.split("|"))
    story = AuditStore(database, in_bucket).load_call(written.record.call)
    assert story.payloads == {}
    assert list(story.faults.values()) == [shown]


def as_pipe(piece: Path) -> None:
    piece.unlink()
    os.mkfifo(piece)


def as_link(piece: Path) -> None:
    """To the same bytes elsewhere, which the folder would not be rid of when the piece is removed."""
    piece.rename(piece.with_name("elsewhere"))
    piece.symlink_to(piece.with_name("elsewhere"))


def as_link_to_itself(piece: Path) -> None:
    piece.unlink()
    piece.symlink_to(piece)


def as_endless_link(piece: Path) -> None:
    piece.unlink()
    piece.symlink_to("/dev/zero")


def as_folder(piece: Path) -> None:
    piece.unlink()
    piece.mkdir()


def as_socket(piece: Path) -> None:
    piece.unlink()
    here = Path.cwd()
    os.chdir(piece.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(piece.name)
    finally:
        os.chdir(here)


def as_too_long(piece: Path) -> None:
    piece.write_bytes(bytes(PIECE_BYTES + 1))


def under_a_file(piece: Path) -> None:
    """The folder that it is in is a file."""
    for sibling in piece.parent.iterdir():
        sibling.unlink()
    piece.parent.rmdir()
    piece.parent.write_text("a file in the place of the folder")


@pytest.mark.parametrize(
    "replace",
    [as_pipe, as_link, as_link_to_itself, as_endless_link, as_folder, as_socket, as_too_long, under_a_file],
    ids=lambda replace: replace.__name__,
)
def test_what_is_no_file_in_a_piece_s_place_is_no_piece(
    in_folder: ObjectPieces, folder: Path, database: Database, tmp_path: Path, replace: Callable[[Path], None]
) -> None:
    open_test_ledger(tmp_path, database, pieces=in_folder).write([entry(os.urandom(5000))])
    (piece,) = (file for file in folder.rglob("*") if file.is_file())
    replace(piece)
    assert set(verify(database, tmp_path, in_folder).counts) == {"no-anchor", "blob-altered"}


def test_a_folder_that_fails_fails_the_commit_and_comes_back(
    in_folder: ObjectPieces, folder: Path, database: Database, tmp_path: Path
) -> None:
    ledger = open_test_ledger(tmp_path, database, pieces=in_folder)
    before = ledger.row.size
    folder.rmdir()
    folder.write_text("a file in the place of the folder")
    with pytest.raises(Unavailable, match="payloads cannot be kept"):
        ledger.write([entry(LARGE)])
    assert ledger.row.size == before
    folder.unlink()
    folder.mkdir()
    ledger.write([entry(LARGE)])
    assert ledger.row.size == before + 1


def test_a_server_that_is_down_fails_the_commit_and_comes_back(
    make_s3: Callable[[], S3Server], database: Database, tmp_path: Path
) -> None:
    server = make_s3()
    place = open_place(bucket_settings(server, server.create_bucket(), tmp_path))
    ledger = open_test_ledger(tmp_path, database, pieces=place)
    ledger.write([entry(LARGE)])
    before = ledger.row.size
    server.stop()
    with pytest.raises(Unavailable, match=r"kept in the object store: the server cannot be reached$"):
        ledger.write([entry(LARGE)])
    ledger.write([entry(b"small")])
    with pytest.raises(Unavailable, match=r"read in the object store: the server cannot be reached$"):
        verify(database, tmp_path, place)
    server.start()
    ledger.write([entry(LARGE)])
    assert ledger.row.size == before + 2
    assert set(verify(database, tmp_path, place).counts) == {"no-anchor"}
    place.close()


def test_a_server_that_says_nothing_is_given_up_in_time_and_not_asked_again(
    s3: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=10 * PARALLEL) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        place = open_place(bucket_settings(s3, s3_bucket, tmp_path, endpoint=endpoint), deadline=0.5)
        with pytest.raises(Unavailable, match=r"the server does not answer in time$"):
            place.put(DAY, {f"{number:064x}": b"" for number in range(5 * PARALLEL)})
        place.close()
        silent.setblocking(False)
        asked = 0
        while True:
            try:
                silent.accept()[0].close()
            except BlockingIOError:
                break
            asked += 1
    assert asked == PARALLEL


def test_a_place_is_tried_before_it_is_relied_on_and_left_as_it_was(pieces: ObjectPieces) -> None:
    pieces.check()
    assert pieces.days() == []


def test_a_folder_that_cannot_be_written_does_not_pass(in_folder: ObjectPieces, folder: Path) -> None:
    folder.rename(folder.with_name("gone"))
    folder.write_text("a file in the place of the folder")
    with pytest.raises(ConfigurationError, match=r"audit\.payloads: payloads cannot be kept"):
        in_folder.check()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("secret", "SignatureDoesNotMatch"),
        ("access", "XAdminUserNotFound"),  # this server's word
        ("bucket", "NoSuchBucket"),
        ("region", "AuthorizationHeaderMalformed"),
    ],
)
def test_what_is_wrong_with_a_bucket_is_told_without_a_secret(
    s3: S3Server, s3_bucket: str, tmp_path: Path, wrong: str, told: str
) -> None:
    file = tmp_path / "wrong.key"
    file.write_text("0123456789abcdef")
    change = {
        "secret": {"secret_key_file": file},
        "access": {"access_key_file": file},
        "bucket": {"bucket": "not-there"},
        "region": {"region": "eu-central-1"},
    }[wrong]
    place = open_place(bucket_settings(s3, s3_bucket, tmp_path, **change))
    with pytest.raises(ConfigurationError) as caught:
        place.check()
    assert str(caught.value) == (
        f"audit.payloads: payloads cannot be kept in the object store: the server answers {told}; expected a bucket "
        "that is there, and a key that may GetObject, PutObject, DeleteObject and ListBucket."
    )
    with pytest.raises(Unavailable):
        place.get(DAY, "a" * 64)
    place.close()


def test_keys_are_read_again_when_they_rotate(in_bucket: ObjectPieces, s3: S3Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret.key"
    in_bucket.put(DAY, SOME)
    for content, failure in (("rotated too", "its keys cannot be read from their"), ("rotated", "DoesNotMatch")):
        secret.write_text(content)
        told = ""
        while failure not in told:
            told = why_not(in_bucket)
        assert content not in told
    secret.write_text(s3.secret_key)
    while why_not(in_bucket):
        pass
    assert {name: in_bucket.get(DAY, name) for name in SOME} == SOME


def why_not(place: ObjectPieces) -> str:
    """Why nothing can be put there now; empty when it can."""
    try:
        place.put(DAY, SOME)
    except Unavailable as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bucket": "Not A Bucket"}, "bucket: expected the name of a bucket"),
        ({"bucket": "a/../b"}, "bucket: expected the name of a bucket"),
        ({"endpoint": "https://key:secret@host"}, "endpoint: expected https://HOST:PORT"),
        ({"endpoint": "https://ho st"}, "endpoint: expected https://HOST:PORT"),
        ({"prefix": "a//b"}, "empty path segment"),
        ({"access_key_file": Path(os.devnull)}, "holds no key"),
        ({"access_key_file": Path("not-there")}, "cannot be read"),
        ({"certificate_authority": Path(os.devnull)}, "No certificates found"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    s3: S3Server, s3_bucket: str, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_pieces(bucket_settings(s3, s3_bucket, tmp_path, **change), DEADLINE)
    assert told in str(caught.value)
    assert "secret@" not in str(caught.value)


def test_a_server_with_a_certificate_of_ones_own(make_s3: Callable[[], S3Server], tmp_path: Path) -> None:
    server = make_s3()
    bucket = server.create_bucket()
    server.stop()
    authority = make_authority("S3", now=datetime.now(UTC))
    pair = authority.issue("s3", hosts=("127.0.0.1",), now=datetime.now(UTC))
    certificate, key, ca = (tmp_path / name for name in ("s3.crt", "s3.key", "ca.crt"))
    for file, content in ((certificate, pair.certificate_pem), (key, pair.key_pem), (ca, authority.certificate_pem)):
        file.write_bytes(content)
    server.tls = (certificate, key)
    server.start()
    trusting = open_place(bucket_settings(server, bucket, tmp_path, certificate_authority=ca))
    trusting.check()
    trusting.close()
    wary = open_place(bucket_settings(server, bucket, tmp_path))
    with pytest.raises(ConfigurationError, match=r"certificate is not trusted \(UnknownIssuer\)"):
        wary.check()
    wary.close()
