"""S3 with object lock: one object a checkpoint, which nobody can remove before its time, the owner included.

Each object (see `layout` for its key) is retained in mode COMPLIANCE. A bucket keeps every version of a key, so
putting another object under it, or hiding it behind a delete marker, leaves the first one where it was; an auditor
fetches all versions. That the bucket was made with object lock is asked for before anything is put there, and then
proven: the retention of the first object is read back, since some servers take one in any bucket and do nothing about
it. Until that is seen no checkpoint counts as anchored.
"""

from __future__ import annotations

import base64
import io
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.commonconfig import COMPLIANCE
from minio.credentials.credentials import Credentials
from minio.credentials.providers import EnvAWSProvider, Provider
from minio.error import MinioException, S3Error
from minio.retention import Retention

from holdfast.audit.anchors.layout import checkpoint_path
from holdfast.audit.checkpoint import parse_checkpoint
from holdfast.audit.s3 import first_line, read_key
from holdfast.errors import ConfigurationError, Unavailable
from holdfast.settings.section import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.settings.audit import Bucket

TIMEOUT_SECONDS = 10
NOT_LOCKED = {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"}
"""What a server answers when the bucket was made without object lock."""

REFUSED = {
    "NoSuchBucket",
    "AccessDenied",
    "InvalidAccessKeyId",
    "InvalidRequest",
    "SignatureDoesNotMatch",
    "NotImplemented",
}
"""Answers that asking again does not change; InvalidRequest is a retention for a bucket without object lock."""

HOW_TO_LOCK = "make another bucket: `aws s3api create-bucket --bucket NAME --object-lock-enabled-for-bucket`."


class BucketAnchor:
    """Puts checkpoints into a bucket. Blocking; `clock` gives the time that retention counts from."""

    def __init__(
        self, client: Minio, bucket: str, prefix: str, retain_days: int, clock: Callable[[], datetime] | None = None
    ) -> None:
        self.name = "bucket"
        self.interval_seconds = 0.0
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._retain = timedelta(days=retain_days)
        self._clock = clock or (lambda: datetime.now(UTC))
        self._is_locked = False

    def check(self) -> None:
        """See that the bucket says it was made with object lock. Raises ConfigurationError, Unavailable."""
        # There is a configuration where the library cannot read it: not one whose default rule is empty, as it may
        # be. Nor does it read whether the lock is enabled. The first object proves that (see `publish`).
        with self._unavailable(), suppress(ValueError):
            self._client.get_object_lock_config(self._bucket)

    def publish(self, note: str) -> None:
        """Return when the server has the checkpoint under lock. Raises Unavailable, ConfigurationError."""
        if not self._is_locked:
            self.check()
        checkpoint, _ = parse_checkpoint(note)
        key, body = f"{self._prefix}{checkpoint_path(checkpoint)}", note.encode()
        checksum = base64.b64encode(sha256(body).digest()).decode("ascii")
        until = (self._clock() + self._retain).replace(microsecond=0)
        with self._unavailable():
            put = self._client.put_object(
                self._bucket,
                key,
                io.BytesIO(body),
                len(body),
                content_type="text/plain; charset=utf-8",
                metadata={"x-amz-checksum-sha256": checksum},
                retention=Retention(COMPLIANCE, until),
            )
            if not self._is_locked:
                self._prove_lock(key, put.version_id, until)
        self._is_locked = True

    def _prove_lock(self, key: str, version: str | None, until: datetime) -> None:
        found = self._client.get_object_retention(self._bucket, key, version)
        if found is None or found.mode != COMPLIANCE or found.retain_until_date < until:
            kept = f"retained in mode {found.mode} until {found.retain_until_date}" if found else "not retained"
            raise ConfigurationError(
                f"audit.anchors.bucket: {self._bucket} does not lock: {key} was put there in mode COMPLIANCE until "
                f"{until} and is {kept}. Use a server that keeps object lock, and {HOW_TO_LOCK}"
            )

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            _raise_if_final(error, self._bucket)
            raise Unavailable(f"bucket {self._bucket}: {error.code}: {error.message}") from error
        except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError, SyntaxError) as error:
            raise Unavailable(f"bucket {self._bucket}: {first_line(error)}") from error


class Keys(Provider):
    """Credentials from two files, or from the environment, looked up for every request, so that they can be rotated."""

    def __init__(self, access_key_file: Path | None, secret_key_file: Path | None) -> None:
        self._files = access_key_file, secret_key_file

    def retrieve(self) -> Credentials:
        """Look them up. Raises ConfigurationError."""
        access_key_file, secret_key_file = self._files
        try:
            if access_key_file is None or secret_key_file is None:
                return EnvAWSProvider().retrieve()
            return Credentials(read_key(access_key_file), read_key(secret_key_file))
        except ValueError as error:
            raise ConfigurationError(
                "audit.anchors.bucket: there are no credentials; set accessKeyFile and secretKeyFile, or the variables "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            ) from error


def open_bucket(settings: Bucket) -> BucketAnchor:
    """Make the anchor that the settings ask for; its `check` is still to be called. Raises ConfigurationError."""
    url = urlsplit(settings.endpoint)
    if settings.certificate_authority is not None:
        read_file(settings.certificate_authority)
    http = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=TIMEOUT_SECONDS, read=TIMEOUT_SECONDS),
        retries=False,
        cert_reqs="CERT_REQUIRED",
        ca_certs=str(settings.certificate_authority) if settings.certificate_authority else None,
    )
    try:
        client = Minio(
            url.netloc,
            secure=url.scheme == "https",
            region=settings.region,
            http_client=http,
            credentials=Keys(settings.access_key_file, settings.secret_key_file),
        )
    except ValueError as error:
        raise ConfigurationError(f"audit.anchors.bucket.endpoint: {settings.endpoint}: {first_line(error)}.") from error
    return BucketAnchor(client, settings.bucket, settings.prefix, settings.retain_days)


def _raise_if_final(error: S3Error, bucket: str) -> None:
    if error.code in NOT_LOCKED:
        raise ConfigurationError(
            f"audit.anchors.bucket: {bucket} was made without object lock, which cannot be added here; {HOW_TO_LOCK}"
        ) from error
    if error.code in REFUSED:
        raise ConfigurationError(
            f"audit.anchors.bucket: {bucket}: {error.code}: {error.message} Expected a bucket that is there, made with "
            "object lock, and a key that may GetBucketObjectLockConfiguration, PutObject, PutObjectRetention and "
            "GetObjectRetention."
        ) from error
