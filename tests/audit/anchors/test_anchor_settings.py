"""The settings name the anchors; a place that is away keeps nobody from starting."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from audit.anchors.authority import TimestampAuthority
from audit.anchors.notes import note
from holdfast.audit.anchors.file import read_notes
from holdfast.audit.anchors.opening import open_anchors, open_publisher
from holdfast.errors import ConfigurationError, Unavailable
from holdfast.settings import Anchors

if TYPE_CHECKING:
    from pathlib import Path

BUCKET: dict[str, Any] = {"endpoint": "http://127.0.0.1:9", "bucket": "anchors"}
TIMESTAMP: dict[str, Any] = {"url": "http://127.0.0.1:9", "certificateAuthority": "ca.pem", "folder": "timestamps"}
WITNESS: dict[str, Any] = {"url": "https://witness.test", "publicKey": "w+00000000+AA=="}


def test_nothing_is_anchored_unless_the_settings_say_so() -> None:
    assert open_anchors(Anchors()) == []


def test_every_anchor_of_the_settings_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    authority = TimestampAuthority(tmp_path / "tsa")
    timestamp = {**TIMESTAMP, "certificateAuthority": str(authority.root_file)}
    settings = {"file": str(tmp_path / "a.notes"), "bucket": BUCKET, "timestamp": timestamp}
    anchors = open_anchors(Anchors.model_validate(settings))
    assert [anchor.name for anchor in anchors] == ["file", "bucket", "timestamp"]


def test_a_bucket_that_is_away_is_told_and_tried_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    (anchor,) = open_anchors(Anchors.model_validate({"bucket": {**BUCKET, "endpoint": endpoint}}))
    assert [(record.levelno, "Connection refused" in record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, True)
    ]
    with pytest.raises(Unavailable, match="Connection refused"):
        anchor.publish(note(1))


def test_a_bucket_without_credentials_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(ConfigurationError, match="there are no credentials"):
        open_anchors(Anchors.model_validate({"bucket": BUCKET}))


def test_an_authority_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    timestamp = {**TIMESTAMP, "certificateAuthority": str(tmp_path / "absent.pem")}
    with pytest.raises(ConfigurationError, match=r"absent.pem: cannot be read"):
        open_anchors(Anchors.model_validate({"timestamp": timestamp}))


async def test_the_publisher_of_the_settings_publishes(tmp_path: Path) -> None:
    file = tmp_path / "a.notes"
    publisher = open_publisher(Anchors.model_validate({"file": str(file)}), lambda: [note(3)])
    publisher.start()
    await publisher.close()
    assert list(read_notes(file)) == [note(3)]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"intervalSeconds": 0}, "greater than 0"),
        ({"alarmSeconds": -1}, "greater than 0"),
        ({"bucket": {**BUCKET, "accessKeyFile": "key"}}, "accessKeyFile and secretKeyFile go together"),
        ({"bucket": {**BUCKET, "retainDays": 0}}, "greater than 0"),
        ({"bucket": {**BUCKET, "bucket": "No_Bucket"}}, "should match pattern"),
        ({"bucket": {**BUCKET, "endpoint": "https://user:password@s3.test"}}, "should match pattern"),
        ({"bucket": {**BUCKET, "endpoint": "https://s3.test/path"}}, "should match pattern"),
        ({"timestamp": {**TIMESTAMP, "url": "https://user:password@tsa.test"}}, "should match pattern"),
        ({"timestamp": {**TIMESTAMP, "url": "ftp://tsa.test"}}, "should match pattern"),
        ({"timestamp": {"url": "https://tsa.test"}}, "Field required"),
        ({"witnesses": [{**WITNESS, "url": "https://user:password@witness.test"}]}, "should match pattern"),
        ({"witness": []}, "Extra inputs are not permitted"),
    ],
)
def test_what_the_settings_may_not_say_is_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Anchors.model_validate(settings)
