"""RFC 3161 against an authority that really runs; what it signs, OpenSSL verifies too."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from rfc3161_client import decode_timestamp_response

from audit.anchors.authority import TimestampAuthority, make_pair
from audit.anchors.notes import checkpoint, note
from holdfast.audit.anchors.layout import TIMESTAMP_REPLY, checkpoint_path
from holdfast.audit.anchors.timestamp import (
    LARGEST_REPLY,
    BadTimestamp,
    TimestampAnchor,
    load_authority,
    open_timestamp,
    parse_reply,
    verify_reply,
)
from holdfast.errors import ConfigurationError, Unavailable
from holdfast.settings.audit import Timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cryptography import x509


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimestampAuthority]:
    authority = TimestampAuthority(tmp_path_factory.mktemp("tsa") / "authority")
    authority.start()
    yield authority
    authority.stop()


@pytest.fixture
def authority(running: TimestampAuthority) -> Iterator[TimestampAuthority]:
    yield running
    running.respond = running.sign
    running.status = 200
    running.queries.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "timestamps"


@pytest.fixture
def anchor(authority: TimestampAuthority, folder: Path) -> TimestampAnchor:
    return open_anchor(authority, folder)


def open_anchor(authority: TimestampAuthority, folder: Path, root: Path | None = None) -> TimestampAnchor:
    return open_timestamp(
        Timestamp(url=authority.url, certificate_authority=root or authority.root_file, folder=folder)
    )


def roots(authority: TimestampAuthority) -> list[x509.Certificate]:
    return [authority.root.certificate]


def query(authority: TimestampAuthority, text: str) -> bytes:
    """What OpenSSL asks about a text."""
    (authority.folder / "text").write_text(text)
    authority.openssl("ts", "-query", "-data", "text", "-sha256", "-cert", "-out", "query")
    return (authority.folder / "query").read_bytes()


def test_the_token_is_kept_beside_the_note_and_openssl_verifies_it(
    authority: TimestampAuthority, anchor: TimestampAnchor, folder: Path
) -> None:
    anchor.publish(note(7))
    file = folder / checkpoint_path(checkpoint(7))
    reply_file = file.with_suffix(TIMESTAMP_REPLY)
    assert file.read_text() == note(7)
    done = authority.openssl(
        "ts", "-verify", "-data", str(file), "-in", str(reply_file), "-CAfile", str(authority.root_file)
    )
    assert "Verification: OK" in done.stdout
    at = verify_reply(reply_file.read_bytes(), note(7), roots(authority))
    assert abs(at - datetime.now(UTC)) < timedelta(hours=1)
    assert stat.S_IMODE(reply_file.stat().st_mode) == 0o600


def test_certificates_in_any_order_are_taken(authority: TimestampAuthority) -> None:
    reply = authority.sign(query(authority, note(7)))
    with pytest.raises(ValueError, match="InvalidSetOrdering"):
        decode_timestamp_response(reply)
    assert verify_reply(reply, note(7), roots(authority))


def test_what_is_stamped_is_not_stamped_again(authority: TimestampAuthority, anchor: TimestampAnchor) -> None:
    anchor.publish(note(7))
    anchor.publish(note(7))
    assert len(authority.queries) == 1
    anchor.publish(note(7, history="forked"))
    assert len(authority.queries) == 2


def answer_sign_by_other(authority: TimestampAuthority, asked: bytes) -> bytes:
    purpose = ExtendedKeyUsageOID.SERVER_AUTH
    return authority.sign_as(make_pair("other", authority.intermediate, purpose=purpose), authority.sign(asked))


def answer_sign_by_stranger(authority: TimestampAuthority, asked: bytes) -> bytes:
    stranger = make_pair("stranger", purpose=ExtendedKeyUsageOID.TIME_STAMPING)
    return authority.sign_as(stranger, authority.sign(asked))


def answer_other_nonce(authority: TimestampAuthority, asked: bytes) -> bytes:
    return authority.sign(query(authority, note(7)))


def answer_damaged(authority: TimestampAuthority, asked: bytes) -> bytes:
    reply = bytearray(authority.sign(asked))
    reply[-1] ^= 1
    return bytes(reply)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answer_other_nonce, "Nonce mismatch"),
        (answer_sign_by_stranger, "does not hold: Error while verifying certificates"),
        (answer_sign_by_other, "does not hold"),
        (answer_damaged, "does not hold"),
        (lambda _, asked: b"", "cannot be read"),
        (lambda _, asked: b"<html>", "cannot be read"),
        (lambda _, asked: bytes.fromhex("30053003020100"), "cannot be read"),
        (lambda _, asked: b"\x30" * (LARGEST_REPLY + 1), "answered more than"),
    ],
)
def test_what_does_not_prove_it_is_refused_and_not_kept(
    answer: Callable[[TimestampAuthority, bytes], bytes],
    expected: str,
    authority: TimestampAuthority,
    anchor: TimestampAnchor,
    folder: Path,
) -> None:
    authority.respond = lambda asked: answer(authority, asked)
    with pytest.raises(Unavailable, match=expected):
        anchor.publish(note(7))
    assert not folder.exists()
    authority.respond = authority.sign
    anchor.publish(note(7))
    assert len(list(folder.rglob("*.*"))) == 2


def test_a_certificate_that_may_be_a_server_s_only_stamps_nothing(authority: TimestampAuthority) -> None:
    reply = authority.sign(query(authority, note(7)))
    stamping = make_pair("other", authority.intermediate, purpose=ExtendedKeyUsageOID.TIME_STAMPING)
    assert verify_reply(authority.sign_as(stamping, reply), note(7), roots(authority))
    serving = make_pair("other", authority.intermediate, purpose=ExtendedKeyUsageOID.SERVER_AUTH)
    with pytest.raises(BadTimestamp):
        verify_reply(authority.sign_as(serving, reply), note(7), roots(authority))


def test_another_root_is_not_believed(authority: TimestampAuthority, folder: Path) -> None:
    authority.write("unrelated", make_pair("root", is_authority=True))
    anchor = open_anchor(authority, folder, authority.folder / "unrelated.pem")
    with pytest.raises(Unavailable, match="does not hold: Error while verifying certificates"):
        anchor.publish(note(7))


def test_a_token_is_over_one_note_only(authority: TimestampAuthority) -> None:
    reply = authority.sign(query(authority, note(7)))
    with pytest.raises(BadTimestamp, match="Mismatch between messages"):
        verify_reply(reply, note(8), roots(authority))


def test_a_refusal_is_told_in_the_authority_s_words(tmp_path: Path, folder: Path) -> None:
    authority = TimestampAuthority(tmp_path / "strict", digests="sha512")
    authority.start()
    try:
        with pytest.raises(Unavailable, match=r"refused \(status 2\): Message digest algorithm is not supported"):
            open_anchor(authority, folder).publish(note(7))
    finally:
        authority.stop()


def test_another_status_is_told(authority: TimestampAuthority, anchor: TimestampAnchor) -> None:
    authority.status = 503
    with pytest.raises(Unavailable, match=r"127.0.0.1:\d+/tsa: answered 503, expected 200"):
        anchor.publish(note(7))


def test_an_authority_that_is_down_is_told_and_recovered_from(
    authority: TimestampAuthority, anchor: TimestampAnchor, folder: Path
) -> None:
    authority.stop()
    with pytest.raises(Unavailable, match="Connection refused"):
        anchor.publish(note(7))
    authority.start()
    anchor.publish(note(7))
    assert (folder / checkpoint_path(checkpoint(7))).exists()


def test_a_folder_that_cannot_be_written_is_told(authority: TimestampAuthority, folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(Unavailable, match="timestamps: cannot be written: Not a directory"):
        open_anchor(authority, folder).publish(note(7))


def test_an_authority_s_file_must_hold_the_root(authority: TimestampAuthority, tmp_path: Path) -> None:
    for file, fault in (
        (authority.folder / "intermediate.pem", "holds no root"),
        (authority.folder / "config", "cannot be read; expected certificates in PEM"),
        (tmp_path / "absent.pem", "cannot be read: No such file"),
    ):
        with pytest.raises(ConfigurationError, match=fault):
            load_authority(file)


@pytest.fixture(scope="module")
def good_reply(running: TimestampAuthority) -> bytes:
    return running.sign(query(running, note(7)))


@given(st.data())
def test_no_flipped_bit_tells_another_time(running: TimestampAuthority, good_reply: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, 8 * len(good_reply) - 1))
    flipped = bytearray(good_reply)
    flipped[position // 8] ^= 1 << position % 8
    try:
        at = verify_reply(bytes(flipped), note(7), roots(running))
    except BadTimestamp:
        return
    assert at == verify_reply(good_reply, note(7), roots(running))


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_without_another_fault(reply: bytes) -> None:
    with pytest.raises(BadTimestamp):
        parse_reply(reply)
