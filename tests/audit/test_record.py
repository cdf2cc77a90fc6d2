"""The record: its bytes, and the row that is derived from it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.entries import record
from holdfast.audit.record import (
    LARGEST_INTEGER,
    Answer,
    Held,
    Kind,
    Payload,
    Record,
    Refusal,
    call_row,
    decode,
    describe_call,
    describe_caller,
    describe_decision,
    describe_payload,
    describe_refusal,
    encode,
    timestamp,
)
from holdfast.errors import Forbidden, Internal, Unauthorized
from holdfast.exchange import AuditID, Decision, Effect, Identity, Mask, RequestInfo

numbers = st.integers() | st.floats(allow_nan=True)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def test_a_leaf_is_sorted_compact_json_without_empty_parts() -> None:
    leaf = encode(Record(kind=Kind.INTENT, call=AuditID("c-1"), at="2026-03-01T12:00:00.000000Z", bytes_down=3))
    assert leaf == b'{"at":"2026-03-01T12:00:00.000000Z","bytesDown":3,"call":"c-1","kind":"intent","version":1}'


@given(st.dictionaries(st.text(), json_values))
def test_claims_of_any_shape_become_canonical_json_without_floats(claims: dict[str, object]) -> None:
    told = record(identity=describe_caller(Identity("https://issuer", "alice", claims=claims)))
    leaf = encode(told)

    def refuse(spelling: str) -> None:
        pytest.fail(f"a float was recorded: {spelling}")

    parsed = json.loads(leaf, parse_float=refuse, parse_constant=refuse)
    again = json.dumps(parsed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert json.loads(again) == parsed
    assert encode(decode(leaf)) == leaf


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


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"{}",
        b'{"at":"x","call":"c","kind":"intent","version":2}',
        b'{"at":"x","call":"c","kind":"rumour","version":1}',
        b'{"at":"x","call":"c","kind":"intent","version":1,"unknown":1}',
        b'{"at":"x","bytesUp":9007199254740992,"call":"c","kind":"intent","version":1}',
    ],
)
def test_other_bytes_are_not_read_as_a_record(leaf: bytes) -> None:
    with pytest.raises(Internal, match="cannot be read"):
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
    assert describe_refusal(Forbidden("no")) == Refusal(403, "Forbidden", "no")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert describe_payload(b"abc", "text/plain") == Payload(abc, 3, "text/plain")


DENIED, EXPIRED = Refusal(403, "Forbidden", "no"), Refusal(403, "Forbidden", "too late")
UNKNOWN, NO_STORE = Refusal(401, "Unauthorized", "who?"), Refusal(503, "ServiceUnavailable", "no store")


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
    row = call_row(record(hold=Held("h-1", hold) if hold else None, refusal=refusal))
    assert row is not None
    assert row.verdict == verdict


def test_the_code_is_what_the_caller_got() -> None:
    upstream = call_row(record(response=Answer(404)))
    refused = call_row(record(response=Answer(200), refusal=NO_STORE))
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
