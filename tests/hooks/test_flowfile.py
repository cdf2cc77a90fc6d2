"""The flow file: what mitmproxy's own reader finds in it."""

from __future__ import annotations

import io

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader

from holdfast.audit.record import Call, Client, Kind, Record, Timing, call_row
from holdfast.audit.store import CallStory
from holdfast.exchange import AuditID
from holdfast.hooks.flowfile import FlowFile

MOMENT = "2026-01-31T12:00:00.000000Z"


def story_from(peer: str) -> CallStory:
    record = Record(
        kind=Kind.OUTCOME,
        call=AuditID("10000000-0000-4000-8000-000000000000"),
        at=MOMENT,
        what=Call(method="GET", uri="/api/v1/pods"),
        client=Client(peer=peer),
        timing=Timing(received_at=MOMENT, total=8300),
    )
    row = call_row(record)
    assert row is not None
    return CallStory(row, (record,), {})


def read_back(story: CallStory) -> HTTPFlow:
    stream = io.BytesIO()
    FlowFile(stream, "cluster").add(story, comment="", is_refused=False, request=b"", response=b"")
    stream.seek(0)
    (flow,) = FlowReader(stream).stream()
    assert isinstance(flow, HTTPFlow)
    return flow


@pytest.mark.parametrize("peer", ["10.0.0.7", "::1", "2001:db8::1234", "fe80::1%eth0", ""])
def test_the_client_is_shown_at_its_whole_address(peer: str) -> None:
    assert read_back(story_from(peer)).client_conn.peername == (peer, 0)
