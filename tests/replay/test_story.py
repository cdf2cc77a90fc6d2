"""What is told of a call, over the kinds of records that a call may leave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holdfast.audit.record import Call, Entry, Held, Kind, Payload, Refusal, Ruling, call_row
from holdfast.audit.store import CallStory
from holdfast.audit.store.calls import ALTERED
from holdfast.replay.story import (
    Body,
    describe,
    export_story,
    format_duration,
    is_refused,
    latest,
    request_body,
    response_body,
    show_body,
    summarize,
)
from replay.stories import PENDING, allowed_call, audit_id, held_call, record, refused_call, streamed_call

if TYPE_CHECKING:
    from collections.abc import Sequence

DELETE = Call(
    method="DELETE",
    uri="/api/v1/namespaces/shop",
    verb="delete",
    api_group="",
    api_version="v1",
    resource="namespaces",
    subresource="",
    namespace="shop",
    name="shop",
    is_resource=True,
)
HOLD = Ruling(effect="hold", rule="delete-namespace")


def tell(entries: Sequence[Entry]) -> CallStory:
    """The story that the store gives back for these entries."""
    told = tuple(entry.complete() for entry in entries)
    rows = [row for record in told if (row := call_row(record)) is not None]
    payloads = {body.commitment: body.content for entry in entries for body in entry.bodies}
    return CallStory(rows[-1], told, payloads)


def denied_by_person() -> list[Entry]:
    opened, _, _, _ = held_call(1)
    denied = Held(id="h-aaaaaaaaaa", state="denied", decided_by="bob", decision_reason="not now")
    refusal = Refusal(code=403, reason="Forbidden", message="bob denied it")
    decision = Entry(record(1, Kind.DECISION, hold=denied, timing=None))
    return [opened, decision, Entry(record(1, Kind.OUTCOME, what=DELETE, decision=HOLD, hold=denied, refusal=refusal))]


def ended(state: str) -> list[Entry]:
    opened, _, _, _ = held_call(1)
    held, refusal = Held(id="h-aaaaaaaaaa", state=state), Refusal(code=403, reason="Forbidden", message="over")
    return [opened, Entry(record(1, Kind.OUTCOME, what=DELETE, decision=HOLD, hold=held, refusal=refusal))]


def denied_by_policy() -> list[Entry]:
    refusal, ruling = Refusal(code=403, reason="Forbidden", message="no"), Ruling(effect="deny", rule="no-namespaces")
    return [Entry(record(1, Kind.OUTCOME, what=DELETE, decision=ruling, refusal=refusal))]


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        (allowed_call(1), "agent list pods in web: allowed by read-pods, 200"),
        (
            held_call(1),
            "agent delete namespaces/shop: held h-aaaaaaaaaa, approved by bob (asked in the channel), 200",
        ),
        (
            denied_by_person(),
            "agent delete namespaces/shop: held h-aaaaaaaaaa, denied by bob (not now), refused with 403",
        ),
        (ended("expired"), "agent delete namespaces/shop: held h-aaaaaaaaaa, expired, refused with 403"),
        (ended("cancelled"), "agent delete namespaces/shop: held h-aaaaaaaaaa, cancelled, refused with 403"),
        (denied_by_policy(), "agent delete namespaces/shop: denied by no-namespaces, refused with 403"),
        (refused_call(1), "(nobody) asked /api/v1/secrets: refused, refused with 401"),
        (streamed_call(1), "agent get pods/a/log in web: allowed by read-pods, 200"),
        (held_call(1)[:1], "agent delete namespaces/shop: held h-aaaaaaaaaa, outcome unknown"),
        (
            held_call(1)[:3],
            "agent delete namespaces/shop: held h-aaaaaaaaaa, approved by bob (asked in the channel), outcome unknown",
        ),
    ],
    ids=range(10),
)
def test_a_call_is_told_in_one_line(entries: list[Entry], line: str) -> None:
    assert summarize(tell(entries)) == line


@pytest.mark.parametrize(
    ("entries", "refused"),
    [
        (allowed_call(1), False),
        (held_call(1), False),
        (refused_call(1), True),
        (denied_by_person(), True),
        (ended("expired"), True),
    ],
)
def test_what_was_refused_is_told_apart(entries: list[Entry], refused: bool) -> None:
    assert is_refused(tell(entries)) is refused


def test_a_decision_never_speaks_for_the_call() -> None:
    story = tell(held_call(1)[:2])
    assert latest(story).kind is Kind.HOLD
    assert dict(describe(story))["User"] == "agent"


def test_bodies_are_those_of_the_call() -> None:
    story = tell(held_call(1))
    assert request_body(story).content == b'{"propagationPolicy": "Background"}'
    assert response_body(story) == Body(b'{"status": "Success"}', "application/json")


def test_pieces_of_a_stream_are_put_together_in_order_equal_ones_too() -> None:
    opened, first, second, outcome = streamed_call(1)
    story = tell([opened, first, first, second, outcome])
    assert response_body(story).content == b"line one\nline one\nline two\n"


def test_a_body_that_is_not_stored_says_why() -> None:
    payload = Payload(size=10, withheld="not JSON")
    story = tell([Entry(record(1, Kind.OUTCOME, what=DELETE, response_body=payload))])
    assert show_body(response_body(story)) == "(not shown: not JSON)"


def test_a_body_that_was_erased_says_so() -> None:
    story = tell(allowed_call(1))
    erased = CallStory(story.call, story.records, {})
    assert show_body(response_body(erased)) == "(not shown: erased)"


def test_a_body_that_is_not_what_was_recorded_says_so_and_is_not_shown() -> None:
    story = tell(allowed_call(1))
    faults = dict.fromkeys(story.payloads, ALTERED)
    altered = CallStory(story.call, story.records, {}, faults)
    assert show_body(response_body(altered)) == "(not shown: not what the record commits to)"
    told = export_story(altered)["response"]
    assert (told["content"], told["withheld"]) == ("", "not what the record commits to")


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b'{"a":[1]}', '{\n  "a": [\n    1\n  ]\n}'),
        (b"plain text\n", "plain text\n"),
        (b"\xff\x00", "(2 bytes that are not text)"),
        (b"", ""),
    ],
)
def test_a_body_is_shown_as_what_it_is(content: bytes, shown: str) -> None:
    assert show_body(Body(content)) == shown


def test_bytes_that_are_no_text_are_exported_whole() -> None:
    payload = b"\xff\x00"
    exported = export_story(tell(allowed_call(1, answer=payload)))
    assert exported["response"]["content"] == {"base64": "/wA="}
    assert exported["call"]["auditID"] == audit_id(1)
    assert exported["call"]["apiGroup"] == ""


def test_a_hold_that_is_pending_is_not_complete() -> None:
    told = dict(describe(tell([Entry(record(1, Kind.HOLD, what=DELETE, decision=HOLD, hold=PENDING))])))
    assert (told["Verdict"], told["Outcome"]) == ("held", "unknown: no outcome is recorded")


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [(0, "0.0ms"), (8300, "8.3ms"), (2_140_000, "2.1s"), (245_000_000, "4m05s"), (3_600_000_000, "60m00s")],
)
def test_durations_are_short(microseconds: int, shown: str) -> None:
    assert format_duration(microseconds) == shown


@pytest.mark.parametrize(("detail", "told"), [("", "who? [expired]"), ("aud: 'x'", "who? [expired: aud: 'x']")])
def test_why_a_caller_was_refused_is_told_with_what_was_found(detail: str, told: str) -> None:
    refusal = Refusal(code=401, reason="Unauthorized", message="who?", why="expired", detail=detail)
    assert dict(describe(tell([Entry(record(1, Kind.OUTCOME, refusal=refusal))])))["Refusal"] == told
