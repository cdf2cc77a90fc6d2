"""The records of a call, made from its exchange."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from holdfast.audit.payload import SALT_BYTES, Body, Slot
from holdfast.audit.record import (
    Answer,
    Call,
    Client,
    Entry,
    Exec,
    Kind,
    Payload,
    Record,
    Timing,
    describe_call,
    describe_caller,
    describe_decision,
    describe_hold,
    describe_refusal,
    timestamp,
)
from holdfast.kube.canonical import carries_token

if TYPE_CHECKING:
    from holdfast.exchange import Exchange, Response

LONGEST_URI = 8 << 10
LONGEST_HINT = 512
"""A stranger's request is recorded too; it must not be able to fill the disk with one."""


def hold_entry(exchange: Exchange) -> Entry:
    """A person is waited for."""
    return _entry(exchange, Kind.HOLD)


def intent_entry(exchange: Exchange) -> Entry:
    """A mutating call is about to be forwarded; its body goes into the store with this record."""
    return _entry(exchange, Kind.INTENT, with_request=True)


def open_entry(exchange: Exchange) -> Entry:
    """A stream is about to begin."""
    return _entry(exchange, Kind.OPEN, with_request=not exchange.intent_recorded)


def chunk_entry(exchange: Exchange, store_view: bytes) -> Entry:
    """A piece of a stream, as it is stored."""
    record = Record(
        kind=Kind.CHUNK,
        call=exchange.audit_id,
        at=timestamp(datetime.now(UTC)),
        bytes_up=exchange.response.bytes_up,
        bytes_down=exchange.response.bytes_down,
    )
    return Entry(record, (_body(Slot.RESPONSE, store_view, exchange.response.media_type),))


def outcome_entry(exchange: Exchange) -> Entry:
    """How the call ended."""
    return _entry(exchange, Kind.OUTCOME, with_request=not exchange.intent_recorded, with_response=True)


def shown_uri(exchange: Exchange) -> str:
    """The path and query as sent; without the query where it holds a token, and cut where nobody should need more."""
    target = exchange.info.target if exchange.info is not None else exchange.wire.target
    path, mark, query = target.partition(b"?")
    shown = path + mark + (b"withheld" if carries_token(query) else query)
    return _bounded(shown.decode("latin-1"), LONGEST_URI)


def _bounded(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}... (cut from {len(text)} characters)"


def _entry(exchange: Exchange, kind: Kind, *, with_request: bool = False, with_response: bool = False) -> Entry:
    response = exchange.response
    request_body = _request_body(exchange) if with_request else None
    response_body = _response_body(exchange) if with_response else None
    record = Record(
        kind=kind,
        call=exchange.audit_id,
        at=timestamp(datetime.now(UTC)),
        identity=describe_caller(exchange.identity) if exchange.identity else None,
        what=_call(exchange),
        client=Client(
            peer=exchange.wire.peer,
            user_agent=_bounded(exchange.client.user_agent, LONGEST_HINT),
            kubectl_command=_bounded(exchange.client.kubectl_command, LONGEST_HINT),
            kubectl_session=_bounded(exchange.client.kubectl_session, LONGEST_HINT),
        ),
        decision=describe_decision(exchange.decision, exchange.mask_counts) if exchange.decision else None,
        hold=describe_hold(exchange.hold) if exchange.hold else None,
        refusal=describe_refusal(exchange.refusal) if exchange.refusal else None,
        response=_answer(response),
        exec=_exec(exchange),
        timing=_timing(exchange, kind),
        streamed=response.streamed,
        bytes_up=response.bytes_up,
        bytes_down=response.bytes_down,
        error=exchange.error,
        request_body=request_body if isinstance(request_body, Payload) else None,
        response_body=response_body if isinstance(response_body, Payload) else None,
    )
    return Entry(record, tuple(body for body in (request_body, response_body) if isinstance(body, Body)))


def _call(exchange: Exchange) -> Call:
    uri = shown_uri(exchange)
    return describe_call(exchange.info, uri) if exchange.info else Call(method=exchange.wire.method, uri=uri)


def _request_body(exchange: Exchange) -> Body | Payload | None:
    """The request's body as it is stored, or why it is not; None when there is none."""
    if exchange.request_withheld:
        return Payload(size=len(exchange.request_body), withheld=exchange.request_withheld)
    if exchange.request_view:
        return _body(Slot.REQUEST, exchange.request_view, exchange.content_type)
    return None


def _response_body(exchange: Exchange) -> Body | Payload | None:
    """The response's body as it is stored, or why it is not; None when there is none."""
    response = exchange.response
    if exchange.refusal is not None and response.code:
        return Payload(size=response.bytes_down, withheld="the answer was not let through")
    if response.store_view:
        return _body(Slot.RESPONSE, response.store_view, response.media_type)
    return None


def _body(slot: Slot, content: bytes, media_type: str) -> Body:
    return Body(slot, content, media_type, secrets.token_bytes(SALT_BYTES))


def _exec(exchange: Exchange) -> Exec | None:
    info = exchange.info
    if info is None or info.subresource not in {"exec", "attach"}:
        return None
    status = exchange.response.exit_status
    command = tuple(value for name, value in info.query if name == "command")
    return Exec(command=command, exit_code=status.code if status else None)


def _answer(response: Response) -> Answer | None:
    if not response.code:
        return None
    return Answer(code=response.code, content_type=response.media_type, bytes=response.bytes_down)


def _timing(exchange: Exchange, kind: Kind) -> Timing:
    now = monotonic()
    is_over = kind is Kind.OUTCOME
    sent = exchange.response.started_mono
    return Timing(
        received_at=timestamp(exchange.received_at),
        total=_microseconds(now - exchange.received_mono) if is_over else None,
        upstream=_microseconds(now - sent) if is_over and sent else None,
        held=_microseconds(exchange.held_seconds) if exchange.held_seconds else None,
    )


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1_000_000))
