"""Checkpoints and cosignatures: outside vectors, another implementation, one spelling."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import aics_tlog
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.checkpoint import (
    LAST_SECOND,
    Checkpoint,
    Origin,
    cosign,
    cosigned_at,
    open_checkpoint,
    parse_checkpoint,
    parse_checkpoint_text,
    sign_checkpoint,
)
from holdfast.audit.note import (
    COSIGNATURE,
    BadNote,
    KeyName,
    Note,
    Signature,
    Signer,
    Verifier,
    parse_signer,
    parse_verifier,
    write_note,
)
from holdfast.audit.tree import EMPTY_ROOT, RootHash, hash_leaf, root_of

GO = json.loads((Path(__file__).parent / "vectors" / "checkpoints_go.json").read_text())
LOG = parse_signer(GO["log"]["private"])
ORIGIN = Origin(LOG.name)
WITNESS = Signer(KeyName("witness.example"), Ed25519PrivateKey.from_private_bytes(b"w" * 32), COSIGNATURE)
ROOT = root_of([hash_leaf(b"a leaf")])
CHECKPOINT = Checkpoint(ORIGIN, 1, ROOT)
NOTE = sign_checkpoint(CHECKPOINT, LOG)
NOW = 1_795_619_763

sizes = st.integers(0, 10**16 - 1)
roots = st.binary(min_size=32, max_size=32).map(RootHash)


def cosigned(checkpoint: Checkpoint = CHECKPOINT, unix_seconds: int = NOW) -> Note:
    """The checkpoint's note with the witness's line under it."""
    note = parse_checkpoint(sign_checkpoint(checkpoint, LOG))[1]
    return Note(note.text, (*note.signatures, cosign(checkpoint, WITNESS, unix_seconds)))


@pytest.mark.parametrize("case", GO["checkpoints"], ids=range(len(GO["checkpoints"])))
def test_checkpoints_of_another_implementation(case: dict[str, object]) -> None:
    text = str(case["note"])
    checkpoint = open_checkpoint(text, LOG.verifier)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root.hex()) == (case["origin"], case["size"], case["root"])
    assert checkpoint.root == root_of(hash_leaf(b"leaf %d" % number) for number in range(checkpoint.size))
    assert text.startswith(sign_checkpoint(checkpoint, LOG))
    note = parse_checkpoint(text)[1]
    times = [cosigned_at(note, parse_verifier(witness["public"])) for witness in GO["witnesses"]]
    assert times == case["times"]


def test_we_cosign_as_another_implementation_does() -> None:
    for case in GO["checkpoints"]:
        checkpoint, note = parse_checkpoint(case["note"])
        for place, keys in enumerate(GO["witnesses"]):
            plain = parse_signer(keys["private"])
            witness = Signer(plain.name, plain.private_key, COSIGNATURE)
            assert str(witness.verifier) == keys["public"]
            assert cosign(checkpoint, witness, case["times"][place]) == note.signatures[1 + place]


@given(sizes, roots, st.integers(0, LAST_SECOND))
def test_another_implementation_agrees(size: int, root: RootHash, unix_seconds: int) -> None:
    note = aics_tlog.parse_note(write_note(cosigned(Checkpoint(ORIGIN, size, root), unix_seconds)))
    keys = [aics_tlog.parse_vkey(str(key)) for key in (LOG.verifier, WITNESS.verifier)]
    result = aics_tlog.verify_checkpoint(note, keys[0], keys[1:], quorum=1)
    assert (result.ok, result.size, result.root) == (True, size, root)
    assert result.timestamps == {WITNESS.name: unix_seconds}
    _, line = aics_tlog.sign_cosignature(WITNESS.private_key, WITNESS.name, unix_seconds, ORIGIN, size, root)
    signature = Signature(KeyName(line.name), line.key_id, line.signature)
    assert cosigned_at(Note(note.text, (signature,)), WITNESS.verifier) == unix_seconds


@given(sizes, roots)
def test_what_is_written_is_read(size: int, root: RootHash) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    assert open_checkpoint(sign_checkpoint(checkpoint, LOG), LOG.verifier) == checkpoint
    assert parse_checkpoint_text(checkpoint.text()) == checkpoint


def test_every_changed_byte_is_refused() -> None:
    raw = NOTE.encode()
    for place in range(len(raw)):
        for value in {raw[place] ^ (1 << bit) for bit in range(8)} | set(b"\n 0+="):
            changed = raw[:place] + bytes([value]) + raw[place + 1 :]
            with suppress(UnicodeDecodeError, BadNote):
                assert open_checkpoint(changed.decode(), LOG.verifier) == CHECKPOINT
                assert changed == raw


@given(st.integers(0, len(CHECKPOINT.text())), st.integers(0, 4), st.text(max_size=4))
def test_a_checkpoint_has_one_spelling(place: int, removed: int, added: str) -> None:
    text = CHECKPOINT.text()
    changed = text[:place] + added + text[place + removed :]
    with suppress(BadNote):
        assert parse_checkpoint_text(changed).text() == changed


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [""],
        ["", "1", CHECKPOINT.text().split("\n")[2]],
        [ORIGIN, "1"],
        [ORIGIN, "1", CHECKPOINT.text().split("\n")[2], "an extension"],
        [ORIGIN, "1", CHECKPOINT.text().split("\n")[2], "", "another text"],
        [ORIGIN, "01", CHECKPOINT.text().split("\n")[2]],
        [ORIGIN, "+1", CHECKPOINT.text().split("\n")[2]],
        [ORIGIN, "-1", CHECKPOINT.text().split("\n")[2]],
        [ORIGIN, "", CHECKPOINT.text().split("\n")[2]],
        [ORIGIN, "1 ", CHECKPOINT.text().split("\n")[2]],
        [ORIGIN, "1_0", CHECKPOINT.text().split("\n")[2]],
        [ORIGIN, "\u0661", CHECKPOINT.text().split("\n")[2]],
        [ORIGIN, "1" * 17, CHECKPOINT.text().split("\n")[2]],
        [ORIGIN, "1", "AAAA"],
        [ORIGIN, "1", CHECKPOINT.text().split("\n")[2].rstrip("=")],
        [ORIGIN, "1", ROOT.hex()],
        ["a log", "1", CHECKPOINT.text().split("\n")[2]],
        ["a+log", "1", CHECKPOINT.text().split("\n")[2]],
    ],
)
def test_what_is_no_checkpoint_is_refused(lines: list[str]) -> None:
    with pytest.raises(BadNote):
        parse_checkpoint_text("".join(f"{line}\n" for line in lines))


def test_only_the_log_itself_signs_for_it() -> None:
    other = Signer(KeyName("holdfast/cluster/other/1"), LOG.private_key)
    with pytest.raises(BadNote, match="cannot sign for"):
        sign_checkpoint(CHECKPOINT, other)
    with pytest.raises(BadNote, match="no good signature"):
        open_checkpoint(NOTE, other.verifier)
    foreign = write_note(Note(CHECKPOINT.text(), (other.sign(CHECKPOINT.text().encode()),)))
    with pytest.raises(BadNote, match="no good signature"):
        open_checkpoint(foreign, other.verifier)
    with pytest.raises(BadNote, match="no good signature"):
        open_checkpoint(foreign, LOG.verifier)
    with pytest.raises(BadNote, match="no good signature"):
        open_checkpoint(NOTE, Verifier(LOG.name, WITNESS.verifier.public_key))


def test_a_log_does_not_cosign() -> None:
    with pytest.raises(BadNote, match="not a witness's"):
        cosign(CHECKPOINT, LOG, NOW)
    assert cosigned_at(parse_checkpoint(NOTE)[1], LOG.verifier) is None
    line = cosign(CHECKPOINT, Signer(ORIGIN, LOG.private_key, COSIGNATURE), NOW)
    relabelled = Signature(line.name, LOG.verifier.key_id, line.value)
    assert cosigned_at(Note(CHECKPOINT.text(), (relabelled,)), LOG.verifier) is None


def test_every_changed_byte_of_a_cosignature_is_refused() -> None:
    note = cosigned()
    assert cosigned_at(note, WITNESS.verifier) == NOW
    good = note.signatures[-1]
    for bit in range(8 * len(good.value)):
        value = bytearray(good.value)
        value[bit // 8] ^= 1 << bit % 8
        changed = Note(note.text, (Signature(good.name, good.key_id, bytes(value)),))
        assert cosigned_at(changed, WITNESS.verifier) is None
    for value in (b"\x00", good.value[:-1], good.value + b"\x00", good.value[8:]):
        assert (
            cosigned_at(Note(note.text, (Signature(good.name, good.key_id, bytes(value)),)), WITNESS.verifier) is None
        )
    other = Checkpoint(ORIGIN, 2, ROOT)
    assert cosigned_at(Note(other.text(), note.signatures), WITNESS.verifier) is None


@pytest.mark.parametrize("unix_seconds", [LAST_SECOND + 1, 1 << 63, (1 << 64) - 1])
def test_a_time_that_no_clock_tells_is_no_time(unix_seconds: int) -> None:
    assert cosigned_at(cosigned(unix_seconds=LAST_SECOND), WITNESS.verifier) == LAST_SECOND
    assert cosigned_at(cosigned(unix_seconds=unix_seconds), WITNESS.verifier) is None


def test_a_cosignature_is_no_signature_of_the_log() -> None:
    """One key under one name: what it cosigned as a witness does not sign the checkpoint."""
    both = Signer(ORIGIN, LOG.private_key, COSIGNATURE)
    line = cosign(CHECKPOINT, both, NOW)
    relabelled = Signature(line.name, LOG.verifier.key_id, line.value[8:])
    for signature in (line, relabelled):
        with pytest.raises(BadNote, match="no good signature"):
            open_checkpoint(write_note(Note(CHECKPOINT.text(), (signature,))), LOG.verifier)


def test_an_empty_log_has_a_checkpoint() -> None:
    empty = Checkpoint(ORIGIN, 0, EMPTY_ROOT)
    assert open_checkpoint(sign_checkpoint(empty, LOG), LOG.verifier) == empty
