"""The credential layer alone, on the way back: what is refused stops at once, and nothing passes unrecorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from mitmproxy import http
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http import (
    ErrorCode,
    HttpErrorHook,
    HttpEvent,
    HttpRequestHeadersHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
    RequestData,
    RequestEndOfMessage,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)

from credential.test_layer import Act, Run, nothing, permit
from holdfast.credential.layer import ResponseBodyHook, ResponseOverflowHook
from holdfast.errors import BadGateway, BadRequest, HoldfastError
from holdfast.hooks.fail_closed import refuse

if TYPE_CHECKING:
    from mitmproxy.proxy import events

    from holdfast.exchange import Exchange

SECRET = b'{"data":{"password":"s3cret"}}'


def refusing(error: HoldfastError) -> Act:
    """A stage that says no, as every stage of ours does."""
    return lambda exchange, flow: refuse(flow, exchange, error)


def record(exchange: Exchange, flow: http.HTTPFlow) -> None:
    """What the masking and the recording stage leave of a buffered answer."""
    exchange.response.caller_view = exchange.response.body
    exchange.finished = True


def stream(exchange: Exchange, flow: http.HTTPFlow) -> None:
    """What the streaming stage does with a watch."""
    assert flow.response is not None
    exchange.response.streamed = True
    flow.response.stream = True


def finish(exchange: Exchange, flow: http.HTTPFlow) -> None:
    """The last record is durable."""
    exchange.finished = True


NO = refusing(BadGateway("what must be masked cannot be found"))


@dataclass
class Answered(Run):
    """A request that is forwarded, and an answer that meets the hooks of `on`."""

    act: Act = permit
    on: dict[type[commands.StartHook], Act] = field(default_factory=dict)

    def _hook(self, hook: commands.StartHook) -> None:
        super()._hook(hook)
        self.on.get(type(hook), nothing)(self.exchange, getattr(hook, "flow"))  # noqa: B009  a hook of any type

    def begin(self, code: int = 200) -> None:
        """The head of the API server's answer."""
        response = http.Response.make(code, b"", {"content-type": "application/json"})
        response.headers.pop("content-length")
        response.data.content = None
        self._feed(ResponseHeaders(1, response, end_stream=False))

    def go_on(self, *pieces: bytes) -> None:
        """More of the answer's body."""
        for piece in pieces:
            self._feed(ResponseData(1, piece))

    def end(self) -> None:
        """The end of the answer."""
        self._feed(ResponseEndOfMessage(1))

    def break_off(self) -> None:
        """The API server's connection ends."""
        self._feed(ResponseProtocolError(1, "gone", ErrorCode.GENERIC_SERVER_ERROR))

    @property
    def is_ended(self) -> bool:
        """Whether the caller has a whole answer."""
        return isinstance(self.client[-1], ResponseEndOfMessage)


def test_an_answer_refused_at_its_headers_is_a_status_at_once_and_stops_the_api_server() -> None:
    run = Answered(on={HttpResponseHeadersHook: NO})
    run.begin()
    assert (run.code, run.is_ended) == (502, True)
    assert b"cannot be found" in run.status
    assert isinstance(run.upstream[-1], RequestProtocolError)


def test_what_still_comes_of_a_refused_answer_reaches_nobody() -> None:
    run = Answered(on={HttpResponseHeadersHook: NO})
    run.begin()
    before = list(run.client)
    run.go_on(SECRET, SECRET)
    run.end()
    assert run.client == before
    assert not run.stream.response_body_buf


def test_the_record_of_a_refused_answer_is_tried_once_before_the_caller_hears_of_it() -> None:
    seen: list[int] = []
    run = Answered(
        on={HttpResponseHeadersHook: NO, ResponseBodyHook: lambda exchange, flow: seen.append(len(run.client))}
    )
    run.begin()
    assert seen == [0]


@pytest.mark.parametrize(
    "late",
    [
        ResponseProtocolError(1, "server closed connection", ErrorCode.GENERIC_SERVER_ERROR),
        ResponseData(1, SECRET),
    ],
)
def test_what_comes_while_a_refused_answer_is_recorded_does_not_follow_the_status(late: HttpEvent) -> None:
    run = Answered(on={HttpResponseHeadersHook: NO, ResponseBodyHook: lambda exchange, flow: interrupt()})

    def interrupt() -> None:
        assert list(run.stream.handle_event(late)) == []

    run.begin()
    assert (run.code, run.is_ended) == (502, True)
    assert sum(isinstance(event, RequestProtocolError) for event in run.upstream) == 1


def test_an_answer_refused_when_it_outgrows_the_buffer_is_a_status_at_once() -> None:
    run = Answered(on={ResponseOverflowHook: NO})
    run.begin()
    run.go_on(SECRET * 50_000)
    assert (run.code, run.is_ended) == (502, True)
    assert b"s3cret" not in run.status
    assert isinstance(run.upstream[-1], RequestProtocolError)


def test_an_answer_that_no_record_tells_of_is_withheld() -> None:
    run = Answered(
        on={ResponseBodyHook: lambda exchange, flow: setattr(exchange.response, "caller_view", exchange.response.body)}
    )
    run.begin()
    run.go_on(SECRET)
    run.end()
    assert (run.code, run.is_ended) == (500, True)
    assert b"did not record" in run.status
    assert b"s3cret" not in run.status


def test_a_stream_whose_opening_no_record_tells_of_is_withheld() -> None:
    run = Answered(on={HttpResponseHeadersHook: lambda exchange, flow: setattr(flow.response, "stream", True)})
    run.begin()
    run.go_on(SECRET)
    run.end()
    assert run.code == 500
    assert b"s3cret" not in run.status


def test_a_recorded_answer_passes() -> None:
    run = Answered(on={ResponseBodyHook: record})
    run.begin()
    run.go_on(SECRET)
    run.end()
    assert (run.code, run.status, run.is_ended) == (200, SECRET, True)


def receipt(exchange: Exchange, flow: http.HTTPFlow) -> None:
    """The outcome is durable, and the record of it has a place."""
    exchange.receipt = "the receipt"


def receipts(run: Answered) -> list[str]:
    """The receipts on the one answer that the caller has."""
    (head,) = (event for event in run.client if isinstance(event, ResponseHeaders))
    return head.response.headers.get_all("audit-receipt")


@pytest.mark.parametrize("given", [nothing, receipt])
def test_a_receipt_is_the_gateways_whatever_the_hooks_and_the_api_server_say(given: Act) -> None:
    def forge(exchange: Exchange, flow: http.HTTPFlow) -> None:
        record(exchange, flow)
        given(exchange, flow)
        assert flow.response is not None
        flow.response.headers.set_all("Audit-Receipt", ["forged", "again"])

    run = Answered(on={ResponseBodyHook: forge})
    run.begin()
    run.end()
    assert run.code == 200
    assert receipts(run) == (["the receipt"] if given is receipt else [])


def test_the_status_of_an_api_server_that_broke_off_carries_its_receipt() -> None:
    run = Answered(on={HttpErrorHook: receipt})
    run.break_off()
    assert run.code == 502
    assert receipts(run) == ["the receipt"]


@pytest.mark.parametrize("on", [{ResponseBodyHook: record}, {HttpResponseHeadersHook: stream}])
def test_trailers_which_no_mask_and_no_record_has_seen_do_not_pass(on: dict[type[commands.StartHook], Act]) -> None:
    run = Answered(on={**on, HttpResponseHook: finish})
    run.begin()
    run.go_on(SECRET)
    run._feed(ResponseTrailers(1, http.Headers(audit_receipt="forged", x_password="s3cret")))
    run.end()
    assert (run.code, run.status, run.is_ended) == (200, SECRET, True)
    assert not any(isinstance(event, ResponseTrailers) for event in run.client)


def test_a_stream_whose_opening_is_recorded_passes_as_it_comes() -> None:
    run = Answered(on={HttpResponseHeadersHook: stream, HttpResponseHook: finish})
    run.begin()
    run.go_on(SECRET)
    assert (run.code, run.status, run.is_ended) == (200, SECRET, False)
    run.end()
    assert run.is_ended


def test_a_stream_whose_end_cannot_be_recorded_ends_as_a_broken_one() -> None:
    lost = refusing(BadGateway("the end is not recorded"))
    run = Answered(on={HttpResponseHeadersHook: stream, HttpResponseHook: lost})
    run.begin()
    run.go_on(SECRET)
    run.end()
    assert not any(isinstance(event, ResponseEndOfMessage) for event in run.client)
    assert isinstance(run.client[-1], ResponseProtocolError)


def test_a_stream_that_outgrew_the_buffer_is_counted_once() -> None:
    def overflow(exchange: Exchange, flow: http.HTTPFlow) -> None:
        stream(exchange, flow)
        assert flow.response is not None
        flow.response.stream = count

    def count(data: bytes) -> bytes:
        run.exchange.response.bytes_down += len(data)
        return data

    run = Answered(on={ResponseOverflowHook: overflow, HttpResponseHook: finish})
    pieces = [SECRET * 20_000] * 3
    run.begin()
    run.go_on(*pieces)
    run.end()
    assert run.status == b"".join(pieces)
    assert run.exchange.response.bytes_down == len(run.status)


def test_after_an_interim_answer_an_api_server_that_fails_is_still_told_as_a_status() -> None:
    class Expecting(Answered):
        def _request(self) -> http.Request:
            request = super()._request()
            request.headers["expect"] = "100-continue"
            return request

    run = Expecting()
    run.break_off()
    codes = [event.response.status_code for event in run.client if isinstance(event, ResponseHeaders)]
    assert codes == [100, 502]
    assert b'"kind":"Status"' in run.status.replace(b" ", b"")


class Stranger(Answered):
    """Whoever it is, the identity stage says no; what it sends after its headers is left unsent."""

    def _feed(self, event: events.Event) -> None:
        if not isinstance(event, RequestData | RequestEndOfMessage):
            super()._feed(event)


def test_a_stranger_is_answered_at_the_headers() -> None:
    run = Stranger(on={HttpRequestHeadersHook: refusing(BadRequest("no"))})
    assert run.code == 400
    assert b'"kind":"Status"' in run.status.replace(b" ", b"")
    assert run.connections == 0


@pytest.mark.parametrize("late", [b"", b"x" * (2 << 20)])
def test_what_a_stranger_sends_after_its_headers_is_not_kept_and_changes_nothing(late: bytes) -> None:
    run = Answered(on={HttpRequestHeadersHook: refusing(BadRequest("no"))}, body=late)
    assert (run.code, run.is_ended) == (400, True)
    assert not run.stream.request_body_buf
    assert run.exchange.request_body == b""
    assert run.upstream == []
