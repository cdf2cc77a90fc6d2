"""The record: its bytes, and the row that is derived from it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from audit.entries import record, request, response
from holdfast.audit.record import (
    LARGEST_INTEGER,
    Answer,
    Entry,
    Held,
    Kind,
    Leaf,
    Part,
    Payload,
    Record,
    Refusal,
    call_row,
    decode,
    describe_body,
    describe_call,
    describe_caller,
    describe_decision,
    describe_refusal,
    encode,
    encode_leaf,
    timestamp,
)
from holdfast.errors import LONGEST_DETAIL, Forbidden, Internal, Unauthorized
from holdfast.exchange import AuditID, Decision, Effect, Identity, Mask, RequestInfo

numbers = st.integers() | st.floats(allow_nan=True)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


OLD_LEAF = b'{"at":"2026-03-01T12:00:00.000000Z","bytesDown":3,"call":"c-1","kind":"intent","version":1}'


def place(told: Record) -> bytes:
    """The record's leaf as the first of a log."""
    return encode_leaf(Leaf(told, "holdfast/c/r/1", 0, "00" * 32, "2026-03-01T12:00:01.000000Z", 7), encode(told))


@pytest.mark.parametrize("part", [Record, *Part.__subclasses__()], ids=lambda part: part.__name__)
def test_members_are_declared_in_the_order_of_their_keys(part: type[Part]) -> None:
    keys = list(part.__struct_encode_fields__)
    assert keys == sorted(keys)


def test_a_leaf_is_sorted_compact_json_without_empty_parts() -> None:
    told = Record(kind=Kind.INTENT, call=AuditID("c-1"), at="2026-03-01T12:00:00.000000Z", bytes_down=3)
    inner = b'{"at":"2026-03-01T12:00:00.000000Z","bytesDown":3,"call":"c-1","kind":"intent"}'
    assert encode(told) == inner
    assert place(told) == (
        b'{"log":"holdfast/c/r/1","mono":7,"previous":"%s","record":%s,"seq":0,"time":"2026-03-01T12:00:01.000000Z",'
        b'"version":2}' % (b"00" * 32, inner)
    )


def test_a_refusal_without_a_detail_is_spelt_as_before_there_were_details() -> None:
    told = Record(kind=Kind.ISSUE, at="2026-03-01T12:00:00.000000Z", refusal=describe_refusal(Unauthorized("no", "x")))
    assert encode(told).endswith(b'"refusal":{"code":401,"message":"no","reason":"Unauthorized","why":"x"}}')
    assert decode(place(told)).record == told


@given(st.text())
def test_whatever_a_caller_sent_is_a_short_line_in_the_record(text: str) -> None:
    detail = Unauthorized("no", "x", text).detail
    assert len(detail) <= LONGEST_DETAIL
    assert detail.isprintable()


def test_a_leaf_from_before_the_log_is_read() -> None:
    leaf = decode(OLD_LEAF)
    assert (leaf.version, leaf.record.call, leaf.record.bytes_down) == (1, "c-1", 3)


@given(st.text(), st.dictionaries(st.text(), json_values, max_size=3))
def test_leaves_are_what_another_implementation_of_rfc_8785_writes(text: str, claims: dict[str, object]) -> None:
    told = record(error=text, identity=describe_caller(Identity("https://issuer", text, claims=claims)))
    leaf = place(told)
    assert rfc8785.dumps(json.loads(leaf)) == leaf


@given(st.data())
def test_a_leaf_with_any_byte_changed_is_another_leaf_or_none(data: st.DataObject) -> None:
    leaf = place(record())
    at = data.draw(st.integers(0, len(leaf) - 1))
    changed = leaf[:at] + data.draw(st.binary(min_size=1, max_size=1)) + leaf[at + 1 :]
    try:
        read = decode(changed)
    except Internal:
        return
    assert (read == decode(leaf)) == (changed == leaf)


@given(st.dictionaries(st.text(), json_values))
def test_claims_of_any_shape_become_canonical_json_without_floats(claims: dict[str, object]) -> None:
    told = record(identity=describe_caller(Identity("https://issuer", "alice", claims=claims)))
    leaf = place(told)

    def refuse(spelling: str) -> None:
        pytest.fail(f"a float was recorded: {spelling}")

    parsed = json.loads(leaf, parse_float=refuse, parse_constant=refuse)
    again = json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert json.loads(again) == parsed
    assert decode(leaf).record == told
    assert place(decode(leaf).record) == leaf


@pytest.mark.parametrize(
    ("claim", "kept"),
    [
        (1.0, 1),
        (1.5, "1.5"),
        (float("inf"), "inf"),
        (LARGEST_INTEGER, LARGEST_INTEGER),
        (LARGEST_INTEGER + 1, "9007199254740992"),
        (1e300, str(int(1e300))),
        (True, True),
        (("a", {"b": 2.0}), ["a", {"b": 2}]),
    ],
)
def test_numbers_that_are_no_safe_integers_become_text(claim: object, kept: object) -> None:
    assert describe_caller(Identity("i", "u", claims={"claim": claim})).claims == {"claim": kept}


def test_what_json_cannot_hold_is_an_error_of_its_own_call() -> None:
    with pytest.raises(Internal, match="cannot be encoded"):
        encode(record(error="\udcff"))


GOOD = place(record())


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"{}",
        OLD_LEAF.replace(b'"version":1', b'"version":3'),
        OLD_LEAF.replace(b'"intent"', b'"rumour"'),
        OLD_LEAF.replace(b'"version"', b'"unknown":1,"version"'),
        OLD_LEAF.replace(b":3,", b":9007199254740992,"),
        OLD_LEAF.replace(b":3,", b":3, "),
        OLD_LEAF.replace(b'"call"', b'"call":"c-0","call"'),
        OLD_LEAF.replace(b"c-1", b"\\u0063-1"),
        OLD_LEAF.replace(b'"bytesDown":3', b'"bytesDown":3,"bytesUp":0'),
        GOOD.replace(b'"seq":0', b'"seq":00'),
        GOOD.replace(b'"seq":0', b'"seq":-1'),
        GOOD.replace(b'"seq":0', b'"seq":0,"seq":0'),
        GOOD.replace(b'"seq":0', b'"seq":"0"'),
        GOOD.replace(b'"seq":0', b'"sea":0,"seq":0'),
        GOOD.replace(b'"version":2', b'"version":2.0'),
        GOOD.replace(b'"alice"', b'"alice","username":"alice"'),
        GOOD + b"\n",
        b"\xef\xbb\xbf" + GOOD,
    ],
)
def test_other_bytes_are_not_read_as_a_record(leaf: bytes) -> None:
    with pytest.raises(Internal, match="cannot be read"):
        decode(leaf)


@pytest.mark.parametrize("opens", [b"[", b'{"a":'])
def test_a_leaf_that_is_nested_too_deeply_is_none(opens: bytes) -> None:
    deep = opens * 20_000 + b"1" + (b"]" if opens == b"[" else b"}") * 20_000
    leaf = place(record()).replace(b'"groups":', b'"claims":{"a":' + deep + b'},"groups":')
    with pytest.raises(Internal, match="cannot be read: it is nested too deeply"):
        decode(leaf)


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(timezone(timedelta(hours=5)))))
def test_timestamps_sort_as_their_times(first: datetime, second: datetime) -> None:
    if second > datetime(1, 1, 2, tzinfo=UTC):
        assert (timestamp(first) < timestamp(second)) == (first < second)


def test_parts_take_over_what_the_stages_say() -> None:
    info = RequestInfo(True, "POST", b"/x", "/x", "create", api_version="v1", resource="pods", subresource="exec")
    assert describe_call(info, "/masked").uri == "/masked"
    assert describe_call(info, "/masked").subresource == "exec"
    decision = Decision(Effect.HOLD, "rule", "why", "sha256:0", (Mask("secrets"), Mask("tokens")))
    ruling = describe_decision(decision, {"secrets": 3})
    assert (ruling.effect, ruling.masks) == ("hold", {"secrets": 3, "tokens": 0})
    assert describe_refusal(Unauthorized("who?", "expired")).why == "expired"
    assert describe_refusal(Unauthorized("who?", "wrong_audience", "aud: 'x'")) == Refusal(
        code=401, reason="Unauthorized", message="who?", why="wrong_audience", detail="aud: 'x'"
    )
    assert describe_refusal(Forbidden("no")) == Refusal(code=403, reason="Forbidden", message="no")
    (body,) = response(b"abc", "text/plain")
    assert describe_body(body) == Payload(commitment=body.commitment, size=3, media_type="text/plain")


def test_an_entry_is_completed_with_the_commitments_to_its_bodies() -> None:
    bodies = request(b"asked") + response(b"answered")
    told = Entry(record(), bodies).complete()
    assert told.request_body == describe_body(bodies[0])
    assert told.response_body == describe_body(bodies[1])
    assert Entry(told).complete() is told


def test_keys_are_ascii_in_every_part_that_a_stranger_names() -> None:
    caller = describe_caller(Identity("i", "u", claims={"grüße": {"Ω": 1}}))
    assert caller.claims == {"gr\\xfc\\xdfe": {"\\u03a9": 1}}
    masks = describe_decision(Decision(masks=(Mask("geheim-ß"),)), {"geheim-ß": 2}).masks
    assert masks == {"geheim-\\xdf": 2}


DENIED, EXPIRED = (
    Refusal(code=403, reason="Forbidden", message="no"),
    Refusal(code=403, reason="Forbidden", message="too late"),
)
UNKNOWN, NO_STORE = (
    Refusal(code=401, reason="Unauthorized", message="who?"),
    Refusal(code=503, reason="ServiceUnavailable", message="no store"),
)


@pytest.mark.parametrize(
    ("hold", "refusal", "verdict"),
    [
        (None, None, "allowed"),
        (None, DENIED, "denied"),
        (None, UNKNOWN, "refused"),
        (None, NO_STORE, "refused"),
        ("pending", None, "held"),
        ("approved", None, "approved"),
        ("released", None, "approved"),
        ("released", NO_STORE, "refused"),
        ("denied", DENIED, "denied"),
        ("expired", EXPIRED, "expired"),
        ("cancelled", NO_STORE, "cancelled"),
    ],
)
def test_the_verdict_is_one_word(hold: str | None, refusal: Refusal | None, verdict: str) -> None:
    row = call_row(record(hold=Held(id="h-1", state=hold) if hold else None, refusal=refusal))
    assert row is not None
    assert row.verdict == verdict


def test_the_code_is_what_the_caller_got() -> None:
    upstream = call_row(record(response=Answer(code=404)))
    refused = call_row(record(response=Answer(code=200), refusal=NO_STORE))
    waiting = call_row(record(kind=Kind.INTENT))
    assert upstream and refused and waiting  # noqa: PT018
    assert (upstream.code, refused.code, waiting.code) == (404, 503, None)


@pytest.mark.parametrize("kind", [Kind.INTENT, Kind.OPEN, Kind.HOLD, Kind.OUTCOME])
def test_only_an_outcome_completes_a_call(kind: Kind) -> None:
    row = call_row(record(kind=kind))
    assert row is not None
    assert row.complete is (kind is Kind.OUTCOME)


@pytest.mark.parametrize("kind", [Kind.CHUNK, Kind.DECISION])
def test_chunks_and_decisions_leave_the_call_as_it_is(kind: Kind) -> None:
    assert call_row(record(kind=kind)) is None


def test_a_call_that_nobody_could_read_still_has_a_row() -> None:
    row = call_row(Record(kind=Kind.OUTCOME, call=AuditID("c"), at="2026-03-01T12:00:00.000000Z", refusal=UNKNOWN))
    assert row is not None
    assert (row.username, row.verb, row.received_at) == ("", "", "2026-03-01T12:00:00.000000Z")
