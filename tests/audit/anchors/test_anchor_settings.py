"""The settings name the anchors; a place that is away keeps nobody from starting."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from audit.anchors.authority import TimestampAuthority
from audit.anchors.notes import note, signer
from holdfast.audit.anchors.file import read_notes
from holdfast.audit.anchors.opening import open_anchors, open_publisher
from holdfast.audit.note import COSIGNATURE, Verifier, key_name
from holdfast.errors import ConfigurationError, Unavailable
from holdfast.settings import Settings, Upstream
from holdfast.settings.audit import Anchors, Audit
from holdfast.settings.identity import IdentitySection
from running import trusted_issuer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from holdfast.audit.anchors.publisher import Anchor
    from holdfast.audit.checkpoint import Origin

BUCKET: dict[str, Any] = {"endpoint": "http://127.0.0.1:9", "bucket": "anchors"}
TIMESTAMP: dict[str, Any] = {"url": "http://127.0.0.1:9", "certificateAuthority": "ca.pem", "folder": "timestamps"}
WITNESS_KEY = Verifier(key_name("witness.test"), signer().verifier.public_key, COSIGNATURE)
WITNESS: dict[str, Any] = {"url": "https://witness.test", "publicKey": str(WITNESS_KEY)}


class OneLog:
    """A source that knows one log of three records."""

    def latest_checkpoints(self) -> Sequence[str]:
        return [note(3)]

    def consistency(self, origin: Origin, old_size: int, new_size: int) -> list[bytes]:
        raise AssertionError(origin)

    def certificate(self, origin: Origin) -> str:
        raise AssertionError(origin)


@pytest.fixture
def cosigned(tmp_path: Path) -> Path:
    return tmp_path / "cosigned.notes"


def open_all(cosigned: Path, **settings: Any) -> list[Anchor]:
    return open_anchors(Anchors.model_validate(settings), OneLog(), cosigned)


def test_nothing_is_anchored_unless_the_settings_say_so(cosigned: Path) -> None:
    assert open_all(cosigned) == []


def test_every_anchor_of_the_settings_is_made(tmp_path: Path, cosigned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    authority = TimestampAuthority(tmp_path / "tsa")
    timestamp = {**TIMESTAMP, "certificateAuthority": str(authority.root_file)}
    anchors = open_all(
        cosigned, file=str(tmp_path / "a.notes"), witnesses=[WITNESS], bucket=BUCKET, timestamp=timestamp
    )
    assert [anchor.name for anchor in anchors] == ["file", "witness witness.test", "bucket", "timestamp"]
    assert [anchor.interval_seconds for anchor in anchors] == [0, 0, 0, 3600]


def test_a_bucket_that_is_away_is_told_and_tried_later(
    cosigned: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    (anchor,) = open_all(cosigned, bucket={**BUCKET, "endpoint": endpoint})
    assert [(record.levelno, "Connection refused" in record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, True)
    ]
    with pytest.raises(Unavailable, match="Connection refused"):
        anchor.publish(note(1))


def test_a_bucket_without_credentials_is_refused(cosigned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(ConfigurationError, match="there are no credentials"):
        open_all(cosigned, bucket=BUCKET)


def test_an_authority_that_cannot_be_read_is_refused(tmp_path: Path, cosigned: Path) -> None:
    timestamp = {**TIMESTAMP, "certificateAuthority": str(tmp_path / "absent.pem")}
    with pytest.raises(ConfigurationError, match=r"absent.pem: cannot be read"):
        open_all(cosigned, timestamp=timestamp)


async def test_the_publisher_of_the_settings_publishes_what_the_source_knows(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        upstream=Upstream(kubeconfig=tmp_path / "config"),
        identity=IdentitySection.model_validate({"jwt": [trusted_issuer()]}),
        policies=(tmp_path / "policy.yaml",),
        audit=Audit(anchors=Anchors(file=tmp_path / "a.notes")),
    )
    publisher = open_publisher(settings, OneLog())
    publisher.start()
    await publisher.close()
    assert list(read_notes(tmp_path / "a.notes")) == [note(3)]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"intervalSeconds": 0}, "greater than 0"),
        ({"alarmSeconds": -1}, "greater than 0"),
        ({"timestamp": {**TIMESTAMP, "intervalSeconds": 0}}, "greater than 0"),
        ({"bucket": {**BUCKET, "accessKeyFile": "key"}}, "accessKeyFile and secretKeyFile go together"),
        ({"bucket": {**BUCKET, "retainDays": 0}}, "greater than 0"),
        ({"bucket": {**BUCKET, "bucket": "No_Bucket"}}, "a bucket's name: 3 to 63"),
        ({"bucket": {**BUCKET, "endpoint": "https://user:password@s3.test"}}, "https://HOST:PORT, without a path"),
        ({"bucket": {**BUCKET, "endpoint": "https://s3.test/path"}}, "https://HOST:PORT, without a path"),
        (
            {"timestamp": {**TIMESTAMP, "url": "https://user:password@tsa.test"}},
            "begins with https:// or http://, without user name",
        ),
        ({"timestamp": {**TIMESTAMP, "url": "ftp://tsa.test"}}, "begins with https:// or http://, without user name"),
        ({"timestamp": {"url": "https://tsa.test"}}, "Field required"),
        (
            {"witnesses": [{**WITNESS, "url": "https://user:password@witness.test"}]},
            "begins with https:// or http://, without user name",
        ),
        ({"witness": []}, "Extra inputs are not permitted"),
    ],
)
def test_what_the_settings_may_not_say_is_refused(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        Anchors.model_validate(settings)
