"""Signed notes and keys: outside vectors, another implementation, one spelling of everything."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import product
from pathlib import Path

import aics_tlog
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.note import (
    COSIGNATURE,
    ED25519,
    LARGEST_NOTE,
    MOST_SIGNATURES,
    BadNote,
    KeyName,
    Note,
    Signature,
    Signer,
    decode_base64,
    encode_base64,
    find_signature,
    is_signed_by,
    key_name,
    parse_note,
    parse_signature,
    parse_signer,
    parse_verifier,
    sign_note,
    write_note,
)
from holdfast.errors import ConfigurationError

GO = json.loads((Path(__file__).parent / "vectors" / "notes_go.json").read_text())
ALICE = Signer(KeyName("alice.example/a"), Ed25519PrivateKey.from_private_bytes(b"a" * 32))
BOB = Signer(KeyName("bob.example"), Ed25519PrivateKey.from_private_bytes(b"b" * 32))
WITNESS = Signer(KeyName("witness.example"), Ed25519PrivateKey.from_private_bytes(b"w" * 32), COSIGNATURE)
STRANGE = "aA0+/= \n\u00e9\ud800"
TEXT = "a text\n\nof two parts\n"
NOTE = sign_note(TEXT, ALICE, BOB)

characters = st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n")
texts = st.text(characters).map(lambda text: f"{text}\n")
names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1, max_size=40)


@pytest.mark.parametrize("keys", GO["keys"], ids=lambda keys: keys["public"].partition("+")[0])
def test_keys_of_another_implementation(keys: dict[str, str]) -> None:
    signer = parse_signer(keys["private"])
    assert signer.secret_text() == keys["private"]
    assert str(signer.verifier) == keys["public"]
    assert parse_verifier(keys["public"]) == signer.verifier


@pytest.mark.parametrize("case", GO["notes"], ids=range(len(GO["notes"])))
def test_notes_of_another_implementation(case: dict[str, str]) -> None:
    note = parse_note(case["note"])
    assert note.text == case["text"]
    assert write_note(note) == case["note"]
    verifiers = [parse_verifier(text) for text in case["signers"]]
    assert len(note.signatures) == len(verifiers)
    assert all(is_signed_by(note, verifier) for verifier in verifiers)
    assert not is_signed_by(note, ALICE.verifier)


def test_notes_that_we_sign_are_those_of_another_implementation() -> None:
    signers = [parse_signer(keys["private"]) for keys in GO["keys"]]
    for case in GO["notes"]:
        ours = [signer for signer in signers if str(signer.verifier) in case["signers"]]
        if len(ours) == len(case["signers"]):
            assert sign_note(case["text"], *ours) == case["note"]


@given(texts, names)
def test_another_implementation_agrees(text: str, name: str) -> None:
    signer = Signer(KeyName(name), ALICE.private_key)
    note = sign_note(text, signer)
    other = aics_tlog.parse_note(note)
    key = aics_tlog.parse_vkey(str(signer.verifier))
    assert (other.text, aics_tlog.verify_note(other, [key])) == (text, True)
    theirs = aics_tlog.sign_note(text, signer.private_key, name)
    assert write_note(Note(text, (Signature(KeyName(name), theirs.key_id, theirs.signature),))) == note
    assert parse_note(note).text == text
    assert is_signed_by(parse_note(note), signer.verifier)


def test_every_changed_byte_is_refused_or_signs_nothing() -> None:
    raw = NOTE.encode()
    for place in range(len(raw)):
        for value in {raw[place] ^ (1 << bit) for bit in range(8)} | set(b"\n\x00 +-A="):
            changed = raw[:place] + bytes([value]) + raw[place + 1 :]
            if changed == raw:
                continue
            with suppress(UnicodeDecodeError, BadNote):
                note = parse_note(changed.decode())
                assert not (is_signed_by(note, ALICE.verifier) and is_signed_by(note, BOB.verifier))


@given(st.integers(0, len(NOTE)), st.integers(0, 8), st.text(max_size=8))
def test_a_note_has_one_spelling(place: int, removed: int, added: str) -> None:
    changed = NOTE[:place] + added + NOTE[place + removed :]
    with suppress(BadNote):
        note = parse_note(changed)
        assert write_note(note) == changed
        assert changed == NOTE or note != parse_note(NOTE)


@given(st.text(st.sampled_from("a\n— +AB=\x00\ud800é0")))
def test_whatever_is_parsed_is_written_the_same(text: str) -> None:
    with suppress(BadNote):
        assert write_note(parse_note(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\n\n",
        "a text\n",
        "a text\n\n",
        NOTE.removesuffix("\n"),
        f"{NOTE}\n",
        NOTE.replace("\n", "\r\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("— ", "—  "),
        NOTE.replace("— alice", "—\u00a0alice"),
        NOTE.replace("— alice.example/a ", "— alice.example/a\t"),
        NOTE.replace("— alice", "— al\x01ice"),
        NOTE.replace("— alice", "— al\x7f+ice"),
        NOTE.replace("— alice", "— al\ud800ice"),
        NOTE.replace("— alice.example/a", "— "),
        NOTE.replace("a text", "a \x1b[2Jtext"),
        NOTE.replace("a text", "a \ud800 text"),
        NOTE.replace("a text", "a\ttext"),
        NOTE.replace("=\n", "\n"),
        NOTE.replace("=\n", "= \n"),
        NOTE + NOTE.splitlines()[-1].partition(" AA")[0],
        f"{NOTE.splitlines()[-1]}\n",
        "a text\n\nalice.example/a AAAAAAA=\n",
        "a text\n\n— alice.example/a AAAAAA==\n",
        "a text\n\n— alice.example/a \n",
        f"{'a' * LARGEST_NOTE}\n\n— alice.example/a AAAAAAA=\n",
        "a text\n\n" + "— alice.example/a AAAAAAA=\n" * (MOST_SIGNATURES + 1),
    ],
)
def test_what_is_no_note_is_refused(text: str) -> None:
    assert text != NOTE
    with pytest.raises(BadNote):
        parse_note(text)


def test_sixteen_signatures_are_few() -> None:
    text = "a text\n\n" + "— alice.example/a AAAAAAA=\n" * MOST_SIGNATURES
    assert len(parse_note(text).signatures) == MOST_SIGNATURES >= 16


def test_a_signature_line_holds_no_new_line() -> None:
    line = NOTE.splitlines()[-1]
    assert parse_signature(line).name == BOB.name
    for wrong in (f"{line}\n", f"\n{line}", f" {line}", line.replace("bob", "bob\n"), line.replace("bob", "\x01")):
        with pytest.raises(BadNote):
            parse_signature(wrong)


def test_the_first_line_of_a_key_counts() -> None:
    good, bad = ALICE.sign(TEXT.encode()), ALICE.sign(b"another text\n")
    assert is_signed_by(Note(TEXT, (good, bad)), ALICE.verifier)
    assert not is_signed_by(Note(TEXT, (bad, good)), ALICE.verifier)
    assert find_signature(Note(TEXT, (good,)), BOB.verifier) is None


def test_a_key_under_another_name_or_of_another_type_is_another_key() -> None:
    note = parse_note(NOTE)
    renamed = Signer(BOB.name, ALICE.private_key)
    retyped = Signer(ALICE.name, ALICE.private_key, COSIGNATURE)
    assert is_signed_by(note, ALICE.verifier)
    assert not is_signed_by(note, renamed.verifier)
    assert not is_signed_by(note, retyped.verifier)
    assert len({signer.verifier.key_id for signer in (ALICE, renamed, retyped)}) == 3


def test_a_witness_signs_no_notes() -> None:
    with pytest.raises(BadNote, match="cosigns checkpoints"):
        sign_note(TEXT, WITNESS)
    note = Note(TEXT, (WITNESS.sign(TEXT.encode()),))
    assert not is_signed_by(note, WITNESS.verifier)


@pytest.mark.parametrize("text", ["", "no end", "a\ttab\n", "a\rreturn\n", "\x00\n", "\ud800\n"])
def test_what_no_note_may_hold_is_not_signed(text: str) -> None:
    with pytest.raises(BadNote):
        sign_note(text, ALICE)


@pytest.mark.parametrize("key_type", [ED25519, COSIGNATURE])
def test_every_changed_character_of_a_key_is_refused(key_type: int) -> None:
    signer = Signer(ALICE.name, ALICE.private_key, key_type)
    public, private = str(signer.verifier), signer.secret_text()
    assert parse_verifier(f"{public}\n") == signer.verifier
    assert parse_signer(f"{private}\n").verifier == signer.verifier
    for place, character in product(range(len(public)), STRANGE):
        changed = public[:place] + character + public[place + 1 :]
        if changed != public:
            with pytest.raises(BadNote):
                parse_verifier(changed)
    for place, character in product(range(len(private)), STRANGE):
        changed = private[:place] + character + private[place + 1 :]
        if changed != private:
            with pytest.raises(BadNote):
                parse_signer(changed)


@pytest.mark.parametrize("wrap", [" {}", "{} ", "{}\n\n", "\n{}", "{}\r\n", "\ufeff{}"])
def test_a_key_has_one_spelling(wrap: str) -> None:
    with pytest.raises(BadNote):
        parse_verifier(wrap.format(ALICE.verifier))
    with pytest.raises(BadNote):
        parse_signer(wrap.format(ALICE.secret_text()))
    name, key_id, key = str(ALICE.verifier).split("+", 2)
    with pytest.raises(BadNote):
        parse_verifier(f"{name}+{key_id.upper()}+{key}")


@pytest.mark.parametrize("key_type", [0, 2, 5, 6, 255])
def test_a_key_of_a_type_that_we_do_not_know_is_refused(key_type: int) -> None:
    signer = Signer(ALICE.name, ALICE.private_key, key_type)
    with pytest.raises(BadNote):
        parse_verifier(str(signer.verifier))
    with pytest.raises(BadNote):
        parse_signer(signer.secret_text())


def test_a_key_under_no_name_is_refused() -> None:
    for name in ("", "a b", "a\x01"):
        signer = Signer(KeyName(name), ALICE.private_key)
        with pytest.raises(BadNote):
            parse_verifier(str(signer.verifier))
        with pytest.raises(BadNote):
            parse_signer(signer.secret_text())


@pytest.mark.parametrize("change", [lambda text: text[:-8], lambda text: f"{text}AAAA", lambda text: text[:40]])
def test_a_refusal_tells_nothing_of_a_private_key(change: object) -> None:
    secret = ALICE.secret_text()
    assert callable(change)
    with pytest.raises(BadNote) as refused:
        parse_signer(change(secret))
    assert secret.rpartition("+")[2][:12] not in str(refused.value)
    assert encode_base64(b"a" * 32)[:12] not in repr(ALICE)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\u2003b", "\x07", "a\u200bb", "\ud800"])
def test_what_cannot_name_a_key(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot name"):
        key_name(name)


def test_base64_has_one_spelling() -> None:
    assert decode_base64("AA==") == b"\x00"
    for text in ("", "AA=", "AA", "AB==", "AA==\n", " AA==", "A-A_", "AA==AA==", "\uff21\uff21=="):
        assert decode_base64(text) == b""
