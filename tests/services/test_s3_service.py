"""The S3 server of the tests: it asks for signatures, keeps versions, and its object lock holds."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from minio import Minio
from minio.commonconfig import COMPLIANCE
from minio.error import S3Error
from minio.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.s3 import S3Server


def put(client: Minio, bucket: str, content: bytes, retention: Retention | None = None) -> str | None:
    return client.put_object(bucket, "a/b", io.BytesIO(content), len(content), retention=retention).version_id


def get(client: Minio, bucket: str, version: str | None = None) -> bytes:
    with client.get_object(bucket, "a/b", version_id=version) as response:
        return response.data


def test_what_is_put_is_got(s3: S3Server, s3_bucket: str) -> None:
    put(s3.client(), s3_bucket, b"content")
    assert get(s3.client(), s3_bucket) == b"content"


def test_every_bucket_is_new(s3: S3Server, s3_bucket: str) -> None:
    put(s3.client(), s3_bucket, b"content")
    assert list(s3.client().list_objects(s3.create_bucket())) == []


@pytest.mark.parametrize("keys", [("holdfast", "wrong-secret"), ("somebody", "wrong-secret"), (None, None)])
def test_a_request_without_the_account_s_signature_is_refused(
    s3: S3Server, s3_bucket: str, keys: tuple[str | None, str | None]
) -> None:
    stranger = Minio(f"127.0.0.1:{s3.port}", *keys, secure=False, region=s3.region)
    with pytest.raises(S3Error, match=r"SignatureDoesNotMatch|XAdminUserNotFound|AccessDenied"):
        put(stranger, s3_bucket, b"content")


def test_a_locked_version_cannot_be_deleted_and_is_not_overwritten(s3: S3Server, s3_locked_bucket: str) -> None:
    client, bucket = s3.client(), s3_locked_bucket
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    locked = put(client, bucket, b"locked", Retention(COMPLIANCE, tomorrow))
    free = put(client, bucket, b"free")
    sooner = Retention(COMPLIANCE, tomorrow - timedelta(hours=1))
    attacks: list[Callable[[], object]] = [
        lambda: client.remove_object(bucket, "a/b", version_id=locked),
        lambda: client.set_object_retention(bucket, "a/b", sooner, version_id=locked),
    ]
    for attack in attacks:
        with pytest.raises(S3Error, match="AccessDenied"):
            attack()
    client.remove_object(bucket, "a/b", version_id=free)
    client.remove_object(bucket, "a/b")
    assert get(client, bucket, locked) == b"locked"


def test_a_stopped_server_comes_back_with_what_was_put(make_s3: Callable[[], S3Server]) -> None:
    server = make_s3()
    bucket = server.create_bucket()
    put(server.client(), bucket, b"content")
    server.stop()
    server.start()
    assert get(server.client(), bucket) == b"content"
