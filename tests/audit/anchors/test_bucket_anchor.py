"""Object lock on a real S3 server: a checkpoint that is put there stays there."""

from __future__ import annotations

import io
import logging
import select
import socket
import socketserver
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import urllib3
from minio import Minio
from minio.commonconfig import COMPLIANCE, GOVERNANCE
from minio.error import S3Error
from minio.objectlockconfig import ObjectLockConfig
from minio.retention import Retention

from audit.anchors.notes import checkpoint, note
from audit.entries import NOON
from holdfast.audit.anchors.bucket import BucketAnchor, open_bucket
from holdfast.audit.anchors.evidence import Kind, read_evidence
from holdfast.audit.anchors.layout import checkpoint_path
from holdfast.certificates import make_authority
from holdfast.errors import ConfigurationError, HoldfastError, Unavailable
from holdfast.settings.audit import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from services.s3 import S3Server

type Open = Callable[..., BucketAnchor]

KEY = f"audit/{checkpoint_path(checkpoint(7))}"


@pytest.fixture
def client(s3: S3Server) -> Minio:
    """Somebody with the gateway's own credentials, who wants the checkpoints gone."""
    return s3.client()


@pytest.fixture
def open_anchor(s3: S3Server, s3_locked_bucket: str, tmp_path: Path) -> Open:
    (tmp_path / "access").write_text(f"{s3.access_key}\n")
    (tmp_path / "secret").write_text(f"{s3.secret_key}\n")

    def open_anchor(**changed: object) -> BucketAnchor:
        usual: dict[str, object] = {
            "endpoint": s3.endpoint,
            "region": s3.region,
            "bucket": s3_locked_bucket,
            "prefix": "audit/",
            "access_key_file": tmp_path / "access",
            "secret_key_file": tmp_path / "secret",
            "retain_days": 30,
        }
        return open_bucket(Bucket.model_validate({**usual, **changed}))

    return open_anchor


def versions(client: Minio, bucket: str) -> list[str | None]:
    """The versions of the one key, the latest first."""
    found = client.list_objects(bucket, recursive=True, include_version=True)
    return [item.version_id for item in found if item.object_name == KEY]


def read(client: Minio, bucket: str, version: str | None = None) -> str:
    response = client.get_object(bucket, KEY, version_id=version)
    try:
        return response.data.decode()
    finally:
        response.close()
        response.release_conn()


def test_a_checkpoint_is_kept_until_its_days_have_passed(
    open_anchor: Open, client: Minio, s3_locked_bucket: str
) -> None:
    anchor = open_anchor()
    anchor.check()
    anchor.publish(note(7))
    assert read(client, s3_locked_bucket) == note(7)
    retention = client.get_object_retention(s3_locked_bucket, KEY)
    assert retention is not None
    assert retention.mode == COMPLIANCE
    assert abs(retention.retain_until_date - datetime.now(UTC) - timedelta(days=30)) < timedelta(hours=1)


def test_what_is_put_cannot_be_removed_unlocked_or_overwritten(
    open_anchor: Open, client: Minio, s3_locked_bucket: str
) -> None:
    open_anchor().publish(note(7))
    (first,) = versions(client, s3_locked_bucket)
    soon = datetime.now(UTC) + timedelta(minutes=1)
    attacks: list[Callable[[], object]] = [
        lambda: client.remove_object(s3_locked_bucket, KEY, version_id=first),
        lambda: client.set_object_retention(s3_locked_bucket, KEY, Retention(COMPLIANCE, soon), version_id=first),
        lambda: client.set_object_retention(s3_locked_bucket, KEY, Retention(GOVERNANCE, soon), version_id=first),
        lambda: client.remove_bucket(s3_locked_bucket),
    ]
    for attack in attacks:
        with pytest.raises(S3Error):
            attack()
    forged = b"forged"
    client.put_object(s3_locked_bucket, KEY, io.BytesIO(forged), len(forged))
    assert len(versions(client, s3_locked_bucket)) == 2
    client.remove_object(s3_locked_bucket, KEY)
    assert read(client, s3_locked_bucket, first) == note(7)


def test_two_histories_stand_side_by_side(open_anchor: Open, client: Minio, s3_locked_bucket: str) -> None:
    anchor = open_anchor()
    anchor.publish(note(7))
    anchor.publish(note(7, history="forked"))
    assert len(list(client.list_objects(s3_locked_bucket, recursive=True))) == 2


def test_what_is_downloaded_is_evidence(
    open_anchor: Open, client: Minio, s3_locked_bucket: str, tmp_path: Path
) -> None:
    anchor = open_anchor()
    for size in (7, 12):
        anchor.publish(note(size))
    folder = tmp_path / "evidence"
    for item in client.list_objects(s3_locked_bucket, recursive=True):
        client.fget_object(s3_locked_bucket, str(item.object_name), str(folder / str(item.object_name)))
    found = list(read_evidence(folder))
    assert [(piece.kind, piece.note) for piece in found] == [(Kind.CHECKPOINT, note(7)), (Kind.CHECKPOINT, note(12))]


def test_a_bucket_without_object_lock_is_refused(open_anchor: Open, client: Minio, s3_bucket: str) -> None:
    anchor = open_anchor(bucket=s3_bucket)
    for step in (anchor.check, lambda: anchor.publish(note(7))):
        with pytest.raises(ConfigurationError, match=r"made without object lock.*--object-lock-enabled-for-bucket"):
            step()
    assert list(client.list_objects(s3_bucket)) == []


def test_a_bucket_that_only_says_it_has_a_lock_is_refused(
    open_anchor: Open, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Minio, "get_object_lock_config", lambda client, bucket: ObjectLockConfig(None, None, None))
    anchor = open_anchor(bucket=s3_bucket)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"missing ObjectLockConfiguration.* made with object lock"):
            anchor.publish(note(7))


LOCKED = b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>"
UNTIL = "2026-03-31T12:00:00Z"
"""NOON and the 30 days."""


def retention(mode: str = COMPLIANCE, until: str = UNTIL) -> tuple[int, bytes]:
    return 200, f"<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>".encode()


def refusal(code: str, status: int = 404) -> tuple[int, bytes]:
    return status, f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()


class Scripted(ThreadingHTTPServer):
    """A server that takes every object, and tells of bucket and object what a test says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.configuration: tuple[int, bytes] = (200, LOCKED)
        self.retention: tuple[int, bytes] = retention()
        self.asked: list[str] = []

    def answer(self, method: str, path: str) -> tuple[int, bytes]:
        url = urlsplit(path)
        asked = parse_qs(url.query, keep_blank_values=True)
        self.asked.append(" ".join([method, *sorted(asked)]))
        if "retention" in asked:
            assert (unquote(url.path), asked["versionId"]) == (f"/test-anchors/{KEY}", ["v1"])
            return self.retention
        return self.configuration if "object-lock" in asked else (200, b"")


class _Answering(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = self.server.answer(self.command, self.path)
        self.send_response(status)
        self.send_header("x-amz-version-id", "v1")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def scripted_anchor(scripted: Scripted) -> BucketAnchor:
    http = urllib3.PoolManager(retries=False)
    place = f"127.0.0.1:{scripted.server_port}"
    client = Minio(place, "key", "secret", secure=False, region="us-east-1", http_client=http)
    return BucketAnchor(client, "test-anchors", "audit/", 30, lambda: NOON)


def test_a_lock_is_proven_by_the_first_object_once(scripted: Scripted, scripted_anchor: BucketAnchor) -> None:
    for size in (7, 12, 13):
        scripted_anchor.publish(note(size))
    assert scripted.asked == ["GET object-lock", "PUT", "GET retention versionId", "PUT", "PUT"]


UNPROVEN: dict[str, tuple[tuple[int, bytes], type[HoldfastError], str]] = {
    "nothing is retained": (
        refusal("NoSuchObjectLockConfiguration"),
        ConfigurationError,
        "until 2026-03-31 12:00:00.* and is not retained",
    ),
    "its owner may remove it": (retention(GOVERNANCE), ConfigurationError, "and is retained in mode GOVERNANCE until"),
    "it is retained for less": (
        retention(until="2026-03-31T11:59:59Z"),
        ConfigurationError,
        r"COMPLIANCE until 2026-03-31 11:59:59.*--object-lock-enabled-for-bucket",
    ),
    "nobody may ask": (refusal("AccessDenied", 403), ConfigurationError, "AccessDenied: .* GetObjectRetention"),
    "the answer is no retention": ((200, b"<html/>"), Unavailable, "Mode"),
    "the answer is no XML": ((200, b"OK"), Unavailable, "syntax error"),
    "the server cannot say": (refusal("InternalError", 500), Unavailable, "InternalError"),
}


@pytest.mark.parametrize(
    "configuration",
    [LOCKED, b"<ObjectLockConfiguration/>", b"<ObjectLockConfiguration><Rule/></ObjectLockConfiguration>"],
    ids=["enabled", "unsaid", "empty rule"],
)
@pytest.mark.parametrize("unproven", UNPROVEN)
def test_a_bucket_whose_lock_is_not_proven_is_no_anchor(
    scripted: Scripted, scripted_anchor: BucketAnchor, configuration: bytes, unproven: str
) -> None:
    scripted.configuration = 200, configuration
    scripted.retention, error, message = UNPROVEN[unproven]
    for _ in range(2):
        with pytest.raises(error, match=message):
            scripted_anchor.publish(note(7))
    scripted.retention = retention()
    scripted_anchor.publish(note(7))


def test_a_bucket_that_is_not_there_is_refused(open_anchor: Open) -> None:
    with pytest.raises(ConfigurationError, match="absent-anchors: NoSuchBucket"):
        open_anchor(bucket="absent-anchors").check()


def test_a_wrong_key_is_refused_and_stays_unsaid(open_anchor: Open, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("not-the-secret")
    with pytest.raises(ConfigurationError, match="SignatureDoesNotMatch") as refused:
        open_anchor(secret_key_file=tmp_path / "wrong").check()
    assert "not-the-secret" not in str(refused.value)


def test_keys_are_read_again_when_they_rotate(open_anchor: Open, s3: S3Server, tmp_path: Path) -> None:
    anchor = open_anchor()
    (tmp_path / "secret").write_text("rotated-and-wrong")
    with pytest.raises(ConfigurationError, match="SignatureDoesNotMatch"):
        anchor.check()
    (tmp_path / "secret").write_text(s3.secret_key)
    anchor.publish(note(7))


def test_keys_come_from_the_environment_where_no_files_are_named(
    open_anchor: Open, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchor = open_anchor(access_key_file=None, secret_key_file=None)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(ConfigurationError, match="there are no credentials; set accessKeyFile and secretKeyFile, or"):
        anchor.check()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    anchor.publish(note(7))


class Relay(socketserver.ThreadingTCPServer):
    """TLS in front of a server that has none."""

    daemon_threads = True

    def __init__(self, to: tuple[str, int], trust: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Relaying)
        self.to = to
        self.trust = trust
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Relaying(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Relay)
        try:
            caller = self.server.trust.wrap_socket(self.request, server_side=True)
        except ssl.SSLError:
            return
        with caller, socket.create_connection(self.server.to) as upstream:
            others = {caller: upstream, upstream: caller}
            while data := (readable := _wait_for(caller, upstream)).recv(1 << 16):
                others[readable].sendall(data)


def _wait_for(caller: ssl.SSLSocket, upstream: socket.socket) -> socket.socket:
    """The one that has something to read, TLS's own buffer included."""
    if caller.pending():
        return caller
    ready: list[socket.socket] = select.select([caller, upstream], [], [])[0]
    return ready[0]


def test_a_server_that_is_down_is_told_and_recovered_from(open_anchor: Open, make_s3: Callable[[], S3Server]) -> None:
    server = make_s3()
    bucket = server.create_bucket(object_lock=True)
    keys = server.folder / "access", server.folder / "secret"
    for file, key in zip(keys, (server.access_key, server.secret_key), strict=True):
        file.write_text(key)
    anchor = open_anchor(endpoint=server.endpoint, bucket=bucket, access_key_file=keys[0], secret_key_file=keys[1])
    server.stop()
    for step in (anchor.check, lambda: anchor.publish(note(7))):
        with pytest.raises(Unavailable, match="Connection refused"):
            step()
    server.start()
    anchor.publish(note(7))
    server.stop()
    with pytest.raises(Unavailable):
        anchor.publish(note(8))
    server.start()
    anchor.publish(note(8))
    assert len(list(server.client().list_objects(bucket, recursive=True))) == 2


def test_over_tls_the_named_authority_is_believed_and_no_other(
    open_anchor: Open, s3: S3Server, client: Minio, s3_locked_bucket: str, tmp_path: Path
) -> None:
    authorities = {name: make_authority(name, now=datetime.now(UTC)) for name in ("named", "other")}
    for name, authority in authorities.items():
        (tmp_path / f"{name}.pem").write_bytes(authority.certificate_pem)
    pair = authorities["named"].issue("s3", hosts=["127.0.0.1"], now=datetime.now(UTC))
    (tmp_path / "server.pem").write_bytes(pair.certificate_pem + pair.key_pem)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(tmp_path / "server.pem")
    over_tls = Relay(("127.0.0.1", s3.port), trust)
    endpoint = f"https://127.0.0.1:{over_tls.port}"
    try:
        for authority_file in (tmp_path / "other.pem", None):
            with pytest.raises(Unavailable, match="certificate verify failed"):
                open_anchor(endpoint=endpoint, certificate_authority=authority_file).check()
        open_anchor(endpoint=endpoint, certificate_authority=tmp_path / "named.pem").publish(note(7))
    finally:
        over_tls.stop()
    assert read(client, s3_locked_bucket) == note(7)


def test_nothing_of_the_keys_is_logged(open_anchor: Open, s3: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger="urllib3"):
        open_anchor().publish(note(7))
    assert caplog.records
    assert s3.secret_key not in caplog.text
