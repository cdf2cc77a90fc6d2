"""What a call was, told from its records: one line for lists and flow comments, sections for a person.

Pure: a CallStory in, text and JSON values out. Bodies are what was stored, so they are masked already.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from holdfast.audit.record import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast.audit.record import CallRow, Payload, Record, Refusal
    from holdfast.audit.store import CallStory

NOBODY = "(nobody)"


@dataclass(frozen=True, slots=True)
class Body:
    """A stored body: its bytes and media type, or why it is not to be shown."""

    content: bytes = b""
    media_type: str = ""
    withheld: str = ""


def name_object(row: CallRow) -> str:
    """What the call was about, as kubectl would write it: `pods/web-1/exec`, `namespaces`, or the path."""
    if not row.resource:
        return row.uri
    return "/".join(part for part in (row.resource, row.name, row.subresource) if part)


def summarize(story: CallStory) -> str:
    """Tell the call in one line: `alice delete namespaces/x: held h-..., approved by bob, 200`."""
    row = story.call
    place = f" in {row.namespace}" if row.namespace and row.resource != "namespaces" else ""
    steps = [*_tell_hold(story), *_tell_end(story)]
    return f"{row.username or NOBODY} {row.verb or 'asked'} {name_object(row)}{place}: {', '.join(steps)}"


def request_body(story: CallStory) -> Body:
    """The request's body."""
    return _join(story, _last(record.request_body for record in story.records))


def response_body(story: CallStory) -> Body:
    """The response's body; of a stream, its recorded pieces in order."""
    pieces = [record.response_body for record in story.records if record.kind is Kind.CHUNK and record.response_body]
    return _join(story, pieces or _last(record.response_body for record in story.records))


def is_refused(story: CallStory) -> bool:
    """Whether the gateway, or a person, said no."""
    return story.call.verdict not in {"allowed", "approved", "held"}


def export_story(story: CallStory) -> dict[str, Any]:
    """All of the story as a JSON value: the call, its records as stored, and the bodies."""
    return {
        "call": export_row(story.call),
        "summary": summarize(story),
        "records": [msgspec.to_builtins(record) for record in story.records],
        "request": _export_body(request_body(story)),
        "response": _export_body(response_body(story)),
    }


def export_row(row: CallRow) -> dict[str, Any]:
    """A line of a list as a JSON value, with the record's camelCase keys."""
    return {_camel(key): value for key, value in msgspec.structs.asdict(row).items()}


def show_body(body: Body) -> str:
    """The body for a person: JSON indented, other text as it is, bytes that are no text counted."""
    if body.withheld:
        return f"(not shown: {body.withheld})"
    try:
        text = body.content.decode()
    except UnicodeDecodeError:
        return f"({len(body.content)} bytes that are not text)"
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def describe(story: CallStory) -> list[tuple[str, str]]:
    """Who, what, and what was decided, as names and values; absent values are empty."""
    last = latest(story)
    return [
        *_describe_caller(last),
        *_describe_call(story.call, last),
        *_describe_decision(story),
        *_describe_end(story),
    ]


def latest(story: CallStory) -> Record:
    """The record that knows most of the call: the last one that speaks of the call and not of a person's decision."""
    told = [record for record in story.records if record.kind not in {Kind.DECISION, Kind.CHUNK}]
    return (told or list(story.records))[-1]


def _tell_hold(story: CallStory) -> Iterator[str]:
    if story.call.hold_id:
        yield f"held {story.call.hold_id}"
    for record in story.records:
        if record.kind is Kind.DECISION and record.hold is not None:
            reason = f" ({record.hold.decision_reason})" if record.hold.decision_reason else ""
            yield f"{record.hold.state} by {record.hold.decided_by}{reason}"


def _tell_end(story: CallStory) -> Iterator[str]:
    row, last = story.call, latest(story)
    if not row.hold_id:
        decided_by_rule = row.rule and row.verdict in {"allowed", "denied"}
        yield f"{row.verdict} by {row.rule}" if decided_by_rule else row.verdict
    elif row.verdict in {"expired", "cancelled"}:
        yield row.verdict
    if last.refusal is not None:
        yield f"refused with {last.refusal.code}"
    elif row.code is not None:
        yield str(row.code)
    if not row.complete:
        yield "outcome unknown"


def _describe_caller(last: Record) -> Iterator[tuple[str, str]]:
    caller, client = last.identity, last.client
    yield "User", caller.username if caller else NOBODY
    if caller:
        yield "Groups", ", ".join(caller.groups)
        yield "Issuer", caller.issuer
    if client:
        yield "Client", " ".join(part for part in (client.peer, client.user_agent) if part)
        yield "Command", client.kubectl_command


def _describe_call(row: CallRow, last: Record) -> Iterator[tuple[str, str]]:
    yield "Audit ID", row.audit_id
    yield "Time", row.received_at
    yield "Verb", row.verb
    yield "Object", name_object(row)
    yield "API group", row.api_group
    yield "Namespace", row.namespace
    yield "Request", f"{last.what.method} {last.what.uri}" if last.what else row.uri
    if last.exec:
        yield "Executed", json.dumps(list(last.exec.command), ensure_ascii=False) if last.exec.command else ""


def _describe_decision(story: CallStory) -> Iterator[tuple[str, str]]:
    ruling = latest(story).decision
    if ruling is not None:
        yield "Policy", f"{ruling.effect}{f' by rule {ruling.rule}' if ruling.rule else ''}"
        yield "Reason", ruling.reason
        yield "Masks", ", ".join(f"{name} ({count})" for name, count in sorted(ruling.masks.items()))
    yield "Hold", story.call.hold_id
    for record in story.records:
        if record.kind is Kind.DECISION and record.hold is not None:
            yield "Decided", f"{record.hold.state} by {record.hold.decided_by} at {record.at}"
            yield "Because", record.hold.decision_reason


def _describe_end(story: CallStory) -> Iterator[tuple[str, str]]:
    row, last = story.call, latest(story)
    yield "Verdict", row.verdict
    yield "Status", str(row.code) if row.code is not None else ""
    if last.refusal is not None:
        yield "Refusal", _describe_refusal(last.refusal)
    if last.exec and last.exec.exit_code is not None:
        yield "Exit code", str(last.exec.exit_code)
    yield "Stream", _describe_stream(story)
    yield "Took", format_duration(row.duration_us) if row.duration_us is not None else ""
    if last.timing and last.timing.held:
        yield "Waited", format_duration(last.timing.held)
    yield "Error", last.error
    yield "Outcome", "" if row.complete else "unknown: no outcome is recorded"


def _describe_refusal(refusal: Refusal) -> str:
    why = ": ".join(filter(None, (refusal.why, refusal.detail)))
    return " ".join(filter(None, (refusal.message, f"[{why}]" if why else "")))


def format_duration(microseconds: int) -> str:
    """A duration for a person: `8.3ms`, `2.1s`, `4m05s`."""
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.1f}ms"
    if microseconds < 60_000_000:
        return f"{microseconds / 1_000_000:.1f}s"
    minutes, seconds = divmod(microseconds // 1_000_000, 60)
    return f"{minutes}m{seconds:02d}s"


def _describe_stream(story: CallStory) -> str:
    if not any(record.streamed for record in story.records):
        return ""
    pieces = sum(record.kind is Kind.CHUNK for record in story.records)
    up, down = (max(getattr(record, side) for record in story.records) for side in ("bytes_up", "bytes_down"))
    return f"{pieces} recorded pieces; {up} bytes up, {down} bytes down"


def _last(payloads: Iterable[Payload | None]) -> list[Payload]:
    """The last one only: an intent and its outcome may both refer to the one body there is."""
    return [payload for payload in payloads if payload is not None][-1:]


def _join(story: CallStory, payloads: Iterable[Payload]) -> Body:
    parts = list(payloads)
    return Body(
        content=b"".join(story.body(part) for part in parts),
        media_type=next((part.media_type for part in parts if part.media_type), ""),
        withheld="; ".join(dict.fromkeys(why for part in parts if (why := part.withheld or story.why_absent(part)))),
    )


def _export_body(body: Body) -> dict[str, Any]:
    return {"mediaType": body.media_type, "withheld": body.withheld, "content": _content(body)}


def _content(body: Body) -> Any:
    try:
        text = body.content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(body.content).decode()}
    try:
        return json.loads(text)
    except ValueError:
        return text


def _camel(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join("ID" if part == "id" else part.title() for part in rest)
