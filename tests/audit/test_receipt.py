"""Receipts: the header's one spelling, and everything that is none."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.anchors.notes import ORIGIN, note
from holdfast.audit.checkpoint import Origin
from holdfast.audit.note import BadNote, KeyName, encode_base64
from holdfast.audit.receipt import Receipt, parse_receipt
from holdfast.audit.tree import HASH_BYTES, LeafHash

LEAF = LeafHash(bytes(range(HASH_BYTES)))
LEAF_TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
RECEIPT = Receipt(ORIGIN, 4, LEAF, note(5))
HEADER = RECEIPT.header()
NOTE_TEXT = encode_base64(note(5).encode())

origins = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"\\'), min_size=1)


def test_the_header_is_written_as_specified() -> None:
    receipt = Receipt(ORIGIN, 7, LEAF, "a note\n")
    assert receipt.header() == (
        f'log="holdfast/test/gw-1:8443/1", seq=7, leaf=:{LEAF_TEXT}:, checkpoint=:YSBub3RlCg==:'
    )


@given(origins, st.integers(0, 10**16 - 1), st.binary(min_size=32, max_size=32), st.text(min_size=1))
def test_what_is_written_is_read(origin: str, seq: int, leaf: bytes, told: str) -> None:
    receipt = Receipt(Origin(KeyName(origin)), seq, LeafHash(leaf), told)
    assert parse_receipt(receipt.header()) == receipt


@pytest.mark.parametrize("around", ["{}\n", " {}", "\t{}\r\n"])
def test_a_receipt_that_was_copied_with_what_stood_around_it_is_read(around: str) -> None:
    assert parse_receipt(around.format(HEADER)) == RECEIPT


def test_a_note_of_the_longest_kind_is_read() -> None:
    receipt = Receipt(ORIGIN, 0, LEAF, "x" * (64 << 10))
    assert parse_receipt(receipt.header()) == receipt


@pytest.mark.parametrize(
    "text",
    [
        "",
        "forged",
        f"Audit-Receipt: {HEADER}",
        f"{HEADER}, {HEADER}",
        f"{HEADER};",
        f"{HEADER}, more=1",
        HEADER.replace(", ", ","),
        HEADER.replace(", ", ",  "),
        HEADER.replace(", ", "\n"),
        HEADER.replace("seq=4, ", ""),
        HEADER.replace("seq=4", "SEQ=4"),
        HEADER.replace("seq=4", "seq="),
        HEADER.replace("seq=4", "seq=-1"),
        HEADER.replace("seq=4", "seq=+4"),
        HEADER.replace("seq=4", "seq=04"),
        HEADER.replace("seq=4", "seq=4.0"),
        HEADER.replace("seq=4", "seq=1e3"),
        HEADER.replace("seq=4", "seq=0x4"),
        HEADER.replace("seq=4", "seq=\u0664"),
        HEADER.replace("seq=4", "seq=" + "9" * 17),
        HEADER.replace("seq=4", "seq=" + "9" * 5000),
        HEADER.replace("seq=4", 'seq="4"'),
        HEADER.replace(f'"{ORIGIN}"', '""'),
        HEADER.replace(f'"{ORIGIN}"', ORIGIN),
        HEADER.replace(f'"{ORIGIN}"', f"'{ORIGIN}'"),
        HEADER.replace(ORIGIN, "a log"),
        HEADER.replace(ORIGIN, 'a\\"log'),
        HEADER.replace(ORIGIN, "a\\log"),
        HEADER.replace(ORIGIN, "a\x00log"),
        HEADER.replace(ORIGIN, "g\u00f6/1"),
        HEADER.replace(LEAF_TEXT, ""),
        HEADER.replace(LEAF_TEXT, LEAF.hex()),
        HEADER.replace(LEAF_TEXT, encode_base64(LEAF[:-1])),
        HEADER.replace(LEAF_TEXT, encode_base64(LEAF + b"x")),
        HEADER.replace(LEAF_TEXT, LEAF_TEXT.rstrip("=")),
        HEADER.replace(LEAF_TEXT, LEAF_TEXT[:-2] + "9="),
        HEADER.replace(LEAF_TEXT, LEAF_TEXT.replace("A", "-")),
        HEADER.replace(f":{LEAF_TEXT}:", f'"{LEAF_TEXT}"'),
        HEADER.replace(NOTE_TEXT, ""),
        HEADER.replace(NOTE_TEXT, "===="),
        HEADER.replace(NOTE_TEXT, f"{NOTE_TEXT}A"),
        HEADER.replace(NOTE_TEXT, f"{NOTE_TEXT[:8]}\n{NOTE_TEXT[8:]}"),
        HEADER.replace(NOTE_TEXT, encode_base64(b"\xff\xfe")),
        HEADER.replace(NOTE_TEXT, encode_base64(note(5).encode()[:-1] + b"\x80")),
        f'leaf=:{LEAF_TEXT}:, log="{ORIGIN}", seq=4, checkpoint=:{NOTE_TEXT}:',
    ],
)
def test_what_is_no_receipt_is_refused(text: str) -> None:
    assert text != HEADER
    with pytest.raises(BadNote, match="this is not a receipt: expected the value of an Audit-Receipt header"):
        parse_receipt(text)


def test_a_receipt_that_was_cut_is_refused() -> None:
    for end in range(len(HEADER)):
        with pytest.raises(BadNote):
            parse_receipt(HEADER[:end])


@given(st.integers(0, len(HEADER)), st.integers(0, 4), st.text(max_size=4))
def test_a_receipt_has_one_spelling(place: int, removed: int, added: str) -> None:
    changed = HEADER[:place] + added + HEADER[place + removed :]
    with suppress(BadNote):
        assert parse_receipt(changed).header() == changed.strip()
