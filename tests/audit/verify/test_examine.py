"""What one line tells by itself, and that nobody is believed in what the log's own key must say."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.audit.checkpoint import Checkpoint, Origin, sign_checkpoint
from holdfast.audit.export import CheckpointLine, ContentLine, LogLine, RecordLine, encode_line
from holdfast.audit.note import KeyName, Signer
from holdfast.audit.record import Closing, Kind, Leaf, Record, decode, encode, encode_leaf, timestamp
from holdfast.audit.store.export import export_lines
from holdfast.audit.tree import RootHash, hash_leaf
from holdfast.audit.verify import Anchoring, verify_lines
from holdfast.audit.verify.examine import (
    ExaminedCheckpoint,
    ExaminedRecord,
    ExaminedStretch,
    count_rows,
    examine,
    examine_block,
    follows,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from audit.tampering import Site
    from holdfast.audit.export import Line
    from holdfast.audit.verify.examine import Examined

ORIGIN = Origin(KeyName("holdfast/test/gw/1"))
OURS = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"o" * 32))
OTHER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"x" * 32))
CHECKPOINT = Checkpoint(ORIGIN, 5, RootHash(bytes(32)))
NOW = "2026-01-01T00:00:00.000000Z"


def test_a_checkpoint_of_a_known_log_is_verified() -> None:
    line = CheckpointLine(5, sign_checkpoint(CHECKPOINT, OURS))
    examined = examine(line, {ORIGIN: OURS.verifier})
    assert examined == ExaminedCheckpoint(line, OURS.verifier, CHECKPOINT)


@pytest.mark.parametrize("verifiers", [{}, {ORIGIN: OTHER.verifier}, {KeyName("holdfast/test/gw/2"): OURS.verifier}])
def test_any_other_is_handed_on(verifiers: dict[KeyName, object]) -> None:
    line = CheckpointLine(5, sign_checkpoint(CHECKPOINT, OURS))
    assert examine(line, verifiers) is line  # type: ignore[arg-type]
    assert examine(CheckpointLine(5, "no note"), {ORIGIN: OURS.verifier}) == CheckpointLine(5, "no note")


def test_what_another_verifier_says_of_a_checkpoint_does_not_count(site: Site) -> None:
    """Two logs of one name may have two keys: only that of the log at hand says what it signed."""
    lines = list(export_lines(site.database, "test", NOW))
    believed = [
        ExaminedCheckpoint(line, OTHER.verifier, CHECKPOINT) if isinstance(line, CheckpointLine) else line
        for line in lines
    ]
    assert verify_lines(believed, site.root, Anchoring()) == verify_lines(lines, site.root, Anchoring())


def test_a_leaf_nested_too_deeply_is_told_as_no_leaf() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    leaf = b'{"log":"x","mono":1,"previous":"","record":{"at":"","identity":{"claims":{"a":%s},"issuer":"",' % deep
    leaf += b'"username":""},"kind":"outcome"},"seq":0,"time":"","version":2}'
    examined = examine(RecordLine(0, ("", "", "outcome", ""), leaf), {})
    assert isinstance(examined, ExaminedRecord)
    assert [code for code, _ in examined.findings] == ["leaf-spelling"]


def test_a_call_nested_too_deeply_is_told_as_altered(site: Site) -> None:
    deep = msgspec.Raw(b'{"uri":%s}' % (b"[" * 100_000 + b"]" * 100_000))
    lines = list(export_lines(site.database, "test", NOW))
    changed = [
        msgspec.structs.replace(line, call=deep) if isinstance(line, RecordLine) and line.call_place else line
        for line in lines
    ]
    assert "call-altered" in verify_lines(changed, site.root, Anchoring()).counts


def respelt(line: Line, change: Callable[[dict[str, object]], dict[str, object]]) -> Line:
    """The line with its call's columns told otherwise."""
    if not (isinstance(line, RecordLine) and line.call_place):
        return line
    told = change(msgspec.json.decode(line.call, type=dict))
    return msgspec.structs.replace(line, call=msgspec.Raw(msgspec.json.encode(told)))


def test_columns_in_another_order_are_the_same_columns(site: Site) -> None:
    lines = list(export_lines(site.database, "test", NOW))
    turned = [respelt(line, lambda told: dict(reversed(told.items()))) for line in lines]
    assert turned != lines
    assert verify_lines(turned, site.root, Anchoring()) == verify_lines(lines, site.root, Anchoring())


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda told: told | {"complete": 1}, id="a number in place of a truth"),
        pytest.param(lambda told: told | {"code": 200.0}, id="another kind of number"),
        pytest.param(lambda told: {key: told[key] for key in told if key != "hold_id"}, id="one that is missing"),
        pytest.param(lambda told: told | {"more": None}, id="one more"),
    ],
)
def test_columns_that_are_almost_the_same_are_altered(
    site: Site, change: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    lines = [respelt(line, change) for line in export_lines(site.database, "test", NOW)]
    assert "call-altered" in verify_lines(lines, site.root, Anchoring()).counts


# -- records that are told as one --------------------------------------------------------------------------------


def at_once(lines: list[Line]) -> list[Line | Examined]:
    return examine_block(b"".join(encode_line(line) + b"\n" for line in lines), {})


def changed[T: Line](lines: list[Line], kind: type[T], change: Callable[[T], Line]) -> list[Line]:
    return [change(line) if isinstance(line, kind) else line for line in lines]


def other_content(line: ContentLine) -> ContentLine:
    return ContentLine(3 - line.log)


def without_a_start(lines: list[Line]) -> list[Line]:
    return [line for line in lines if not (isinstance(line, RecordLine) and line.seq == 0)]


def without_one(lines: list[Line]) -> list[Line]:
    return [line for line in lines if not (isinstance(line, RecordLine) and line.seq == 5)]


def rewritten(lines: list[Line], change: Callable[[Leaf], Leaf]) -> list[Line]:
    """Every record told otherwise, and linked to the one before again."""
    told: list[Line] = []
    before = b""
    for line in lines:
        if isinstance(line, RecordLine):
            leaf = change(decode(line.leaf))
            previous = hash_leaf(before).hex() if leaf.seq else leaf.previous
            before = encode_leaf(msgspec.structs.replace(leaf, previous=previous), encode(leaf.record))
            told.append(msgspec.structs.replace(line, leaf=before))
        else:
            told.append(line)
    return told


def closed_early(leaf: Leaf) -> Leaf:
    closing = Record(kind=Kind.CLOSE, at=leaf.record.at, close=Closing(reason="forged"))
    return msgspec.structs.replace(leaf, record=closing) if leaf.seq == 2 else leaf


def an_hour_later_at_times(leaf: Leaf) -> Leaf:
    time = datetime.fromisoformat(leaf.time) + timedelta(hours=leaf.seq % 3 == 2)
    return msgspec.structs.replace(leaf, time=timestamp(time), mono=leaf.mono + leaf.seq)


def nobody_s(lines: list[Line]) -> list[Line]:
    """Logs that nobody signed, with leaves that say so."""
    names = {line.origin: f"legacy/{line.id}" for line in lines if isinstance(line, LogLine)}
    renamed = changed(lines, LogLine, lambda log: msgspec.structs.replace(log, origin=names[log.origin]))
    return rewritten(renamed, lambda leaf: msgspec.structs.replace(leaf, log=names[leaf.log]))


CHANGES: dict[str, Callable[[list[Line]], list[Line]]] = {
    "none": lambda lines: lines,
    "another day": lambda lines: changed(lines, LogLine, lambda log: msgspec.structs.replace(log, day="2020-01-01")),
    "another name": lambda lines: changed(
        lines, LogLine, lambda log: msgspec.structs.replace(log, origin=log.origin.replace("/test/", "/else/"))
    ),
    "a log of nobody's": lambda lines: changed(
        lines, LogLine, lambda log: msgspec.structs.replace(log, origin=f"legacy/{log.id}")
    ),
    "another log": lambda lines: changed(lines, ContentLine, other_content),
    "no beginning": without_a_start,
    "one is not there": without_one,
    "a forged log of nobody's": nobody_s,
    "a close in the middle": lambda lines: rewritten(lines, closed_early),
    "a clock that jumps": lambda lines: rewritten(lines, an_hour_later_at_times),
}


@pytest.mark.parametrize("change", CHANGES)
def test_records_that_follow_one_another_are_told_as_one_and_found_as_each_by_itself(site: Site, change: str) -> None:
    lines = CHANGES[change](list(export_lines(site.database, "test", NOW)))
    examined = at_once(lines)
    assert sum(isinstance(line, ExaminedStretch) for line in examined) >= 2
    assert sum(map(count_rows, examined)) == len(lines)
    assert verify_lines(examined, site.root, Anchoring()) == verify_lines(lines, site.root, Anchoring())


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 9},
        {"place": 9},
        {"previous": "11" * 32},
        {"log": "holdfast/test/gw/2"},
        {"day": "2020-01-01"},
        {"version": 1},
        {"version": 0},
        {"findings": [("leaf-type", "the leaf is kept as str")]},
        {"gone": ["request"]},
        {"leaf": b"{}"},
        {"elsewhere": ("call", 1, 5)},
        {"unlisted": ("call", "2020-01-01")},
    ],
)
def test_what_has_more_to_tell_than_its_place_stands_by_itself(change: dict[str, object]) -> None:
    first = ExaminedRecord(0, bytes(32), [], 2, "outcome", ORIGIN, 0, "", NOW, 1, day="2026-01-01")
    second = ExaminedRecord(1, bytes(32), [], 2, "outcome", ORIGIN, 1, "00" * 32, NOW, 1, day="2026-01-01")
    third = msgspec.structs.replace(second, seq=2, place=2)
    assert follows(second, first)
    assert follows(third, second)
    assert not follows(msgspec.structs.replace(third, **change), second)
