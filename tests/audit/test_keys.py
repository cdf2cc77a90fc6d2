"""Certificates and key files: as specified, and everything that is none."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.audit.checkpoint import Origin
from holdfast.audit.keys import (
    EPOCH_KEY_DAYS,
    Certificate,
    KeyFolder,
    load_verifier,
    open_epoch_key,
    parse_certificate,
)
from holdfast.audit.note import (
    COSIGNATURE,
    LARGEST_NOTE,
    BadNote,
    KeyName,
    Note,
    Signer,
    Verifier,
    key_name,
    parse_note,
    sign_note,
    write_note,
)
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
END = datetime(2027, 3, 7, 12, 0, 0, tzinfo=UTC)
ROOT = Signer(key_name("holdfast-root/test"), Ed25519PrivateKey.from_private_bytes(b"r" * 32))
IMPOSTOR = Signer(ROOT.name, Ed25519PrivateKey.from_private_bytes(b"i" * 32))
RENAMED = Signer(key_name("holdfast-root/other"), ROOT.private_key)
# RFC 8032 section 7.1, test 1
KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KEY_TEXT = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
CERTIFICATE = Certificate("test", ("gw", "gw.console"), KEY, START, END)
TEXT = (
    "holdfast/certificate/v1\n"
    "cluster test\n"
    "replica gw gw.console\n"
    f"key {KEY_TEXT}\n"
    "not-before 2026-01-31T12:00:00Z\n"
    "not-after 2027-03-07T12:00:00Z\n"
)
NOTE = sign_note(TEXT, ROOT)
INSTANT = timedelta(microseconds=1)


# -- certificates ------------------------------------------------------------------------------------------------


def test_a_certificate_is_written_as_specified_and_read_back() -> None:
    assert CERTIFICATE.text() == TEXT
    assert parse_certificate(NOTE, ROOT.verifier) == CERTIFICATE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("holdfast/certificate/v1", "holdfast/certificate/v2"),
        ("holdfast/certificate/v1", "Holdfast/certificate/v1"),
        ("holdfast/certificate/v1\n", ""),
        ("holdfast/certificate/v1\n", "\nholdfast/certificate/v1\n"),
        ("cluster test\n", ""),
        ("cluster test\n", "cluster test\ncluster test\n"),
        ("cluster test\nreplica gw gw.console\n", "replica gw gw.console\ncluster test\n"),
        ("cluster test\n", "cluster test\n\n"),
        ("cluster test", "cluster"),
        ("cluster test", "Cluster test"),
        ("cluster test", " cluster test"),
        ("replica", "replicas"),
        ("replica gw gw.console", "replica"),
        ("2027-03-07T12:00:00Z\n", "2027-03-07T12:00:00Z\nextension true\n"),
        ("not-after 2027-03-07T12:00:00Z\n", ""),
        (KEY_TEXT, ""),
        (KEY_TEXT, KEY_TEXT.rstrip("=")),
        (KEY_TEXT, KEY_TEXT.replace("o=", "p=")),
        (KEY_TEXT, KEY_TEXT.replace("/", "_")),
        (KEY_TEXT, KEY.hex()),
        (KEY_TEXT, "AAAA"),
        (KEY_TEXT, f"AQ{KEY_TEXT}"),
        (KEY_TEXT, "AZ11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHUR"),
        ("2026-01-31T12:00:00Z", ""),
        ("2026-01-31T12:00:00Z", "2026-01-31"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00z"),
        ("2026-01-31T12:00:00Z", "2026-01-31 12:00:00Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.0Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00+00:00"),
        ("2026-01-31T12:00:00Z", "2026-1-31T12:00:00Z"),
        ("2026-01-31T12:00:00Z", " 2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z "),
        ("2026-01-31T12:00:00Z", "2026-02-30T12:00:00Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T24:00:00Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:60Z"),
        ("2026-01-31T12:00:00Z", "0000-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00Z", "10000-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00Z", "-026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00Z", "\u0662026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00Z", "1769860800"),
    ],
)
def test_what_the_root_signed_and_is_no_certificate_is_refused(old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(BadNote, match="certificate"):
        parse_certificate(sign_note(TEXT.replace(old, new), ROOT), ROOT.verifier)


def test_a_certificate_that_was_cut_is_refused() -> None:
    for end in range(len(NOTE)):
        with pytest.raises(BadNote):
            parse_certificate(NOTE[:end], ROOT.verifier)


def test_every_changed_byte_of_a_certificate_is_refused() -> None:
    raw = NOTE.encode()
    for place in range(len(raw)):
        for value in {raw[place] ^ (1 << bit) for bit in range(8)}:
            changed = raw[:place] + bytes([value]) + raw[place + 1 :]
            with suppress(UnicodeDecodeError), pytest.raises(BadNote):
                parse_certificate(changed.decode(), ROOT.verifier)


@pytest.mark.parametrize(
    ("note", "root"),
    [
        (sign_note(TEXT, IMPOSTOR), ROOT.verifier),
        (sign_note(TEXT, RENAMED), ROOT.verifier),
        (NOTE, IMPOSTOR.verifier),
        (NOTE, RENAMED.verifier),
        (NOTE, Verifier(ROOT.name, ROOT.verifier.public_key, COSIGNATURE)),
        (NOTE, Verifier(ROOT.name, b"\xff" * 32)),
        (NOTE, Verifier(ROOT.name, b"")),
        (write_note(Note(TEXT.replace("gw ", "gx "), parse_note(NOTE).signatures)), ROOT.verifier),
    ],
)
def test_a_certificate_that_the_root_did_not_sign_is_refused(note: str, root: Verifier) -> None:
    with pytest.raises(BadNote, match=f"carries no good signature of the root key {root.name}"):
        parse_certificate(note, root)


@pytest.mark.parametrize("note", ["", "\n", TEXT, f"{TEXT}\n", f"{NOTE}\n", NOTE.replace("\n", "\r\n")])
def test_a_certificate_without_a_signature_is_refused(note: str) -> None:
    with pytest.raises(BadNote, match=r"signed note|signature line"):
        parse_certificate(note, ROOT.verifier)


def test_others_may_sign_a_certificate_too() -> None:
    for signers in ((ROOT, IMPOSTOR), (IMPOSTOR, ROOT), (RENAMED, ROOT)):
        assert parse_certificate(sign_note(TEXT, *signers), ROOT.verifier) == CERTIFICATE


def test_a_certificate_has_as_many_names_as_a_note_has_room_for() -> None:
    many, too_many = (Certificate("test", ("gw",) * (LARGEST_NOTE // length), KEY, START, END) for length in (4, 3))
    assert parse_certificate(sign_note(many.text(), ROOT), ROOT.verifier) == many
    with pytest.raises(BadNote, match="longer than"):
        parse_certificate(sign_note(too_many.text(), ROOT), ROOT.verifier)


@pytest.mark.parametrize(
    ("origin", "covered"),
    [
        ("holdfast/test/gw/1", True),
        ("holdfast/test/gw/999999999", True),
        ("holdfast/test/gw.console/12", True),
        ("holdfast/test/gw.maintenance/1", False),
        ("holdfast/test/gw2/1", False),
        ("holdfast/test/g/1", False),
        ("holdfast/test/GW/1", False),
        ("holdfast/test/gw gw.console/1", False),
        ("holdfast/test//1", False),
        ("holdfast/other/gw/1", False),
        ("holdfast/test2/gw/1", False),
        ("holdfast/test/gw/0", False),
        ("holdfast/test/gw/01", False),
        ("holdfast/test/gw/-1", False),
        ("holdfast/test/gw/1000000000", False),
        ("holdfast/test/gw/\u0661", False),
        ("holdfast/test/gw/1\u0661", False),
        ("holdfast/test/gw/1\n", False),
        ("holdfast/test/gw/1 ", False),
        ("holdfast/test/gw/", False),
        ("holdfast/test/gw", False),
        ("holdfast/test/gw/1/1", False),
        ("holdfast/test/gw/gw/1", False),
        ("/holdfast/test/gw/1", False),
        ("witness/holdfast/test/gw/1", False),
        ("Holdfast/test/gw/1", False),
        ("", False),
    ],
)
def test_a_certificate_covers_the_logs_of_its_replicas(origin: str, covered: bool) -> None:
    log = Origin(KeyName(origin))
    assert CERTIFICATE.covers(log) is covered
    if covered:
        assert CERTIFICATE.verifier_for(log) == Verifier(log, KEY)
        return
    with pytest.raises(BadNote, match="does not cover the log"):
        CERTIFICATE.verifier_for(log)


def test_a_name_in_a_certificate_is_no_pattern() -> None:
    certificate = Certificate(".*", ("g.", ".*", ""), KEY, START, END)
    for origin in ("holdfast/test/gw/1", "holdfast/.*/gw/1", "holdfast/.*//1"):
        assert not certificate.covers(Origin(KeyName(origin)))


@pytest.mark.parametrize(
    ("moment", "valid"),
    [
        (START - INSTANT, False),
        (START, True),
        (START + INSTANT, True),
        (END, True),
        (END + INSTANT, False),
        (START.astimezone(timezone(timedelta(hours=14))), True),
        (datetime(2027, 3, 7, 12, 0, 0, tzinfo=timezone(timedelta(hours=-1))), False),
        (datetime.min.replace(tzinfo=UTC), False),
        (datetime.max.replace(tzinfo=UTC), False),
    ],
)
def test_a_certificate_is_good_from_its_first_second_to_its_last(moment: datetime, valid: bool) -> None:
    assert CERTIFICATE.is_valid_at(moment) is valid


def test_a_certificate_that_ends_before_it_begins_is_good_at_no_time() -> None:
    backwards = Certificate("test", ("gw",), KEY, END, START)
    read = parse_certificate(sign_note(backwards.text(), ROOT), ROOT.verifier)
    assert not any(read.is_valid_at(moment) for moment in (START, START + (END - START) / 2, END))


# -- key files ---------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    """A folder with a root and a key in use."""
    folder = KeyFolder(tmp_path / "audit-keys")
    open_epoch_key(folder, "test", "gw", START)
    return folder


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda _: b"", "this is not a private key"),
        (lambda _: b"\n", "this is not a private key"),
        (lambda _: b"\xff\xfe", "this is not a private key"),
        (lambda content: b"\xef\xbb\xbf" + content, "this is not a private key"),
        (lambda content: b"\n" + content, "this is not a private key"),
        (lambda content: content.partition(b"\n")[2], "this is not a private key"),
        (lambda content: content[:20], "this is not a private key"),
        (lambda content: content.partition(b"\n")[0][:-4], "is not an Ed25519 key of 32 bytes"),
        (lambda content: content.replace(b"\n", b"\r\n"), "is not an Ed25519 key of 32 bytes"),
        (
            lambda content: content.replace(b"/gw+", b"/gx+", 1),
            "the key ID of private key holdfast/test/gx does not fit",
        ),
        (lambda content: content.partition(b"\n")[0], "this is not a signed note"),
        (lambda content: content.partition(b"\n")[0] + b"\n", "this is not a signed note"),
        (lambda content: content[:-1], "this is not a signed note"),
        (lambda content: content[:-8] + b"\n", "not written as it must be|no good signature"),
        (lambda content: content + b"\n", "signed note|signature line"),
        (lambda content: content + content, "no good signature|signature line|not written as it must be"),
        (lambda content: content.replace(b"cluster test", b"cluster prod"), "no good signature of the root key"),
        (lambda content: content.replace(b"gw.console", b"gw.\xff\xff\xff"), "no good signature of the root key"),
    ],
    ids=range(18),
)
def test_a_key_file_with_other_content_is_refused_by_name(
    keys: KeyFolder, change: Callable[[bytes], bytes], says: str
) -> None:
    secret = keys.load_epoch_key().signer.secret_text().split("+", 4)[4]
    keys.epoch_key.write_bytes(change(keys.epoch_key.read_bytes()))
    with pytest.raises(ConfigurationError, match=rf"epoch\.key: .*({says})") as refused:
        keys.load_epoch_key()
    assert secret[:8] not in str(refused.value)


def test_a_key_with_the_certificate_of_another_is_refused(keys: KeyFolder) -> None:
    secret = keys.epoch_key.read_bytes().partition(b"\n")[0]
    keys.make_epoch_key(keys.load_root(), "test", ("gw",), Ed25519PrivateKey.generate(), START)
    certificate = keys.epoch_key.read_bytes().partition(b"\n")[2]
    keys.epoch_key.write_bytes(secret + b"\n" + certificate)
    with pytest.raises(ConfigurationError, match=r"epoch\.key: the certificate is another key's"):
        keys.load_epoch_key()


def test_a_key_that_another_root_certified_is_refused(keys: KeyFolder) -> None:
    root = Signer(keys.load_root().name, IMPOSTOR.private_key)
    keys.make_epoch_key(root, "test", ("gw",), Ed25519PrivateKey.generate(), START)
    with pytest.raises(ConfigurationError, match=r"epoch\.key: .*no good signature of the root key"):
        keys.load_epoch_key()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "nonsense",
        "\udcff",
        "\ufeff" + str(ROOT.verifier),
        str(ROOT.verifier)[:-1],
        f"{ROOT.verifier}\n\n",
        f"{ROOT.verifier}\r\n",
        f"{ROOT.verifier}\n{ROOT.verifier}\n",
        str(ROOT.verifier).replace("+", "-"),
        str(ROOT.verifier).replace("test+", "prod+"),
        ROOT.secret_text(),
        NOTE,
    ],
)
def test_a_file_that_holds_no_public_key_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "root.pub"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError, match=r"root\.pub: .*public key") as refused:
        load_verifier(file)
    assert ROOT.secret_text()[-20:] not in str(refused.value)


@pytest.mark.parametrize("ending", ["", "\n"])
def test_a_public_key_is_read_with_or_without_the_end_of_its_line(tmp_path: Path, ending: str) -> None:
    (tmp_path / "root.pub").write_text(f"{ROOT.verifier}{ending}")
    assert KeyFolder(tmp_path).root_verifier() == ROOT.verifier


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"{ROOT.secret_text()}\n", "is not the private half of .*root.pub"),
        (str(ROOT.verifier), "this is not a private key"),
        ("", "this is not a private key"),
        (ROOT.secret_text()[:-1], "is not an Ed25519 key"),
        (f"{ROOT.secret_text()}\n\n", "is not an Ed25519 key"),
    ],
)
def test_what_is_not_the_root_s_private_key_is_refused_by_name(keys: KeyFolder, content: str, says: str) -> None:
    keys.root_key.write_text(content)
    with pytest.raises(ConfigurationError, match=rf"root\.key: .*{says}"):
        keys.load_root()


@pytest.mark.parametrize("name", ["epoch_key", "root_key", "root_pub"])
def test_a_key_that_cannot_be_read_is_told_by_name(keys: KeyFolder, name: str) -> None:
    file: Path = getattr(keys, name)
    loads: dict[str, Callable[[], object]] = {
        "epoch_key": keys.load_epoch_key,
        "root_key": keys.load_root,
        "root_pub": keys.root_verifier,
    }
    load = loads[name]
    file.unlink()
    with pytest.raises(ConfigurationError, match=rf"{file.name}: cannot be read: No such file or directory"):
        load()
    file.mkdir()
    with pytest.raises(ConfigurationError, match=rf"{file.name}: cannot be read: Is a directory"):
        load()


def test_keys_are_their_owner_s_alone_whatever_was_there_before(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "deep" / "audit-keys")
    before = os.umask(0)
    try:
        open_epoch_key(keys, "test", "gw", START)
        for file in (keys.root_pub, keys.root_key, keys.epoch_key):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        keys.epoch_key.chmod(0o666)
        keys.make_epoch_key(keys.load_root(), "test", ("gw",), Ed25519PrivateKey.generate(), START)
    finally:
        os.umask(before)
    assert stat.S_IMODE(keys.epoch_key.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    assert sorted(file.name for file in keys.folder.iterdir()) == ["epoch.key", "root.key", "root.pub"]


@pytest.mark.parametrize("there", ["root.pub", "root.key"])
def test_a_root_is_not_made_where_there_is_half_of_one(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("kept")
    with pytest.raises(ConfigurationError, match="there is a root key already; `holdfast audit keys rotate` goes on"):
        KeyFolder(tmp_path).make_root("test", ROOT.private_key)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(there, "kept")]


def test_a_root_is_not_written_over_what_is_elsewhere(tmp_path: Path) -> None:
    keys, away = KeyFolder(tmp_path / "keys"), tmp_path / "root.key"
    keys.folder.mkdir()
    away.write_text("kept")
    with pytest.raises(ConfigurationError, match=r"root\.key: is there already; a key is not written over another"):
        keys.make_root("test", ROOT.private_key, away)
    assert (away.read_text(), list(keys.folder.iterdir())) == ("kept", [])


# -- the key to sign with ----------------------------------------------------------------------------------------


def test_a_new_key_is_certified_for_all_that_its_replica_writes(tmp_path: Path) -> None:
    now = START + timedelta(microseconds=999_999)
    keys = KeyFolder(tmp_path)
    key = open_epoch_key(keys, "test", "gw", now)
    assert (key.certificate.cluster, key.certificate.replicas) == ("test", ("gw", "gw.console", "gw.maintenance"))
    assert key.certificate.not_before == START - timedelta(minutes=5)
    assert key.certificate.not_after == START + timedelta(days=EPOCH_KEY_DAYS)
    origin = Origin(KeyName("holdfast/test/gw.console/3"))
    assert key.signer_for(origin).verifier == key.certificate.verifier_for(origin)
    made = keys.make_epoch_key(keys.load_root(), "test", ("gw",), Ed25519PrivateKey.generate(), now)
    assert made.certificate == keys.load_epoch_key().certificate
    with pytest.raises(BadNote, match="does not cover the log"):
        key.signer_for(Origin(KeyName("holdfast/test/other/1")))


def test_the_key_in_use_is_opened_again(keys: KeyFolder) -> None:
    first = open_epoch_key(keys, "test", "gw", START)
    again = open_epoch_key(keys, "test", "gw", START + timedelta(days=EPOCH_KEY_DAYS))
    assert (again.certificate_note, again.signer.verifier) == (first.certificate_note, first.signer.verifier)
    assert again.changed_at == keys.changed_at() > 0


@pytest.mark.parametrize(
    ("cluster", "replica", "after", "says"),
    [
        ("prod", "gw", timedelta(), "is certified for test/gw, gw.console, gw.maintenance, not for prod/gw; set"),
        ("prod", "gw", timedelta(), "set `cluster: test` and `replica: gw` to go on under that name, give a further"),
        (
            "test",
            "other",
            timedelta(),
            "not for test/other; set `replica: gw` to go on under that name, give a further",
        ),
        ("test", "other", timedelta(), "a stateDir of its own, or run `holdfast audit keys rotate`"),
        ("test", "gw.console", timedelta(), "not for test/gw.console; set `replica: gw` to"),
        ("test", "gw", timedelta(minutes=-5) - INSTANT, "its certificate is good from 2026-01-31T11:55:00Z to "),
        ("test", "gw", timedelta(days=EPOCH_KEY_DAYS) + INSTANT, "to 2027-03-07T12:00:00Z; run `holdfast audit keys"),
    ],
)
def test_a_key_that_is_not_for_this_gateway_now_is_refused(
    keys: KeyFolder, cluster: str, replica: str, after: timedelta, says: str
) -> None:
    before = keys.epoch_key.read_bytes()
    with pytest.raises(ConfigurationError, match=rf"epoch\.key: .*{says}"):
        open_epoch_key(keys, cluster, replica, START + after)
    assert keys.epoch_key.read_bytes() == before


def test_a_first_start_that_broke_off_is_gone_on_with(keys: KeyFolder) -> None:
    root = keys.load_root().verifier
    keys.epoch_key.unlink()
    keys.root_pub.unlink()
    assert keys.changed_at() == 0
    key = open_epoch_key(keys, "test", "gw", START)
    assert keys.root_verifier() == root
    assert parse_certificate(key.certificate_note, root) == key.certificate


def test_without_the_root_s_private_key_no_other_root_is_made(keys: KeyFolder) -> None:
    keys.epoch_key.unlink()
    keys.root_key.unlink()
    with pytest.raises(ConfigurationError, match=r"root\.key: cannot be read: No such file"):
        open_epoch_key(keys, "test", "gw", START)
    assert [file.name for file in keys.folder.iterdir()] == ["root.pub"]
