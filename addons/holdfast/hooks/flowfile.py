"""The record as a mitmproxy flow file: what mitmweb, mitmproxy and `mitmproxy.io.FlowReader` open.

A flow is built from what is stored, so it shows masked bodies and the headers that the record knows; neither the
caller's token nor the gateway's credential was ever there. Its ID is the audit ID, its comment tells the call in
one line (mitmweb shows comments, not metadata), and a refused call is marked.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from mitmproxy import http
from mitmproxy.connection import Client, Server
from mitmproxy.io import FlowWriter

if TYPE_CHECKING:
    from holdfast.audit.record import Record
    from holdfast.audit.store import CallStory

HTTPS_PORT = 443
REFUSED_MARK = ":no_entry:"


class FlowFile:
    """Writes calls, one flow each; `cluster` stands for the host that was asked."""

    def __init__(self, stream: IO[bytes], cluster: str) -> None:
        self._writer = FlowWriter(stream)
        self._host = quote(cluster, safe="-._")

    def add(self, story: CallStory, *, comment: str, is_refused: bool, request: bytes, response: bytes) -> None:
        """Write one call with its stored bodies."""
        flow = build_flow(story, self._host, request, response)
        flow.comment = comment
        flow.marked = REFUSED_MARK if is_refused else ""
        self._writer.add(flow)


def build_flow(story: CallStory, host: str, request: bytes, response: bytes) -> http.HTTPFlow:
    """Build the flow of one call; without a response when none is recorded."""
    last = story.records[-1]
    started = datetime.fromisoformat(story.call.received_at).timestamp()
    ended = started + (story.call.duration_us or 0) / 1_000_000
    flow = http.HTTPFlow(_client(last, started), Server(address=(host, HTTPS_PORT), tls=True, sni=host))
    flow.id = story.call.audit_id
    flow.timestamp_created = started
    flow.request = _request(story, last, host, request, started)
    if story.call.code is not None:
        flow.response = _response(story, last, response, ended)
    return flow


def _client(last: Record, started: float) -> Client:
    """The client's end of the connection; the record has its address, and no port."""
    address = last.client.peer if last.client else ""
    return Client(peername=(address, 0), sockname=("", 0), timestamp_start=started)


def _request(story: CallStory, last: Record, host: str, body: bytes, started: float) -> http.Request:
    return http.Request(
        host=host,
        port=HTTPS_PORT,
        method=(last.what.method if last.what else "GET").encode(),
        scheme=b"https",
        authority=b"",
        path=(story.call.uri or "/").encode(),
        http_version=b"HTTP/1.1",
        headers=_headers(_request_headers(story, last, host)),
        content=body,
        trailers=None,
        timestamp_start=started,
        timestamp_end=started,
    )


def _request_headers(story: CallStory, last: Record, host: str) -> list[tuple[str, str]]:
    client = last.client
    media_types = [record.request_body.media_type for record in story.records if record.request_body]
    return [
        ("Host", host),
        ("User-Agent", client.user_agent if client else ""),
        ("Kubectl-Command", client.kubectl_command if client else ""),
        ("Kubectl-Session", client.kubectl_session if client else ""),
        ("Content-Type", media_types[-1] if media_types else ""),
    ]


def _response(story: CallStory, last: Record, body: bytes, ended: float) -> http.Response:
    content_type = last.response.content_type if last.response else "application/json"
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=story.call.code or 0,
        reason=b"",
        headers=_headers([("Audit-ID", story.call.audit_id), ("Content-Type", content_type)]),
        content=body or _refusal_body(last),
        trailers=None,
        timestamp_start=ended,
        timestamp_end=ended,
    )


def _refusal_body(last: Record) -> bytes:
    """The Status of a refusal, from the record of it; its body is not stored a second time."""
    if last.refusal is None:
        return b""
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    said = {"message": last.refusal.message, "reason": last.refusal.reason, "code": last.refusal.code}
    return json.dumps(status | said).encode()


def _headers(fields: list[tuple[str, str]]) -> http.Headers:
    return http.Headers([(name.encode(), value.encode()) for name, value in fields if value])
