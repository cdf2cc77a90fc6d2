"""The one place that sees the credential: below the flow object, between mitmproxy's HTTP stream and the wire.

mitmproxy forwards a request when a hook crashes, when a script is unloaded and when an operator edits the flow
in mitmweb. So nothing here trusts that the hooks ran. `GatewayStream` looks at every event that its parent
class sends towards the API server, and lets a request out only with a `Verdict` that is bound to the request as
the flow shows it now; what leaves is a new request, built from what was classified, with the credential on it.

The same stream keeps secrets out of the flow: the caller's `Authorization`, and the subprotocols that may hold a
token instead, are taken out before the flow exists, the request body that the flow shows is the masked view, and a
buffered response enters the flow only as the caller's view of it. mitmweb, flow files, dumps and logs therefore have
nothing to leak.

Written against mitmproxy 12.2 (`proxy/layers/http/__init__.py`); the overridden states keep its names.
"""

from __future__ import annotations

import hmac
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import uuid_utils
from mitmproxy import flow, http
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import commands, events, layer, tunnel
from mitmproxy.proxy.layers import ClientTLSLayer, tcp
from mitmproxy.proxy.layers.http import (
    DropStream,
    ErrorCode,
    HttpErrorHook,
    HttpEvent,
    HttpLayer,
    HTTPMode,
    HttpResponseHeadersHook,
    HttpStream,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
    SendHttp,
)
from mitmproxy.proxy.layers.http._http1 import Http1Server

from holdfast.credential.impersonation import impersonation_fields
from holdfast.credential.sources import Credential, Target
from holdfast.errors import BadGateway, BadRequest, HoldfastError, Internal, TooLarge, Unavailable
from holdfast.exchange import AuditID, Exchange, RequestInfo, WireRequest, flow_digest
from holdfast.kube.canonical import carries_token
from holdfast.kube.status import render_status

if TYPE_CHECKING:
    from mitmproxy.connection import Client, Connection
    from mitmproxy.proxy.context import Context

MAX_UNREAD_BYTES = 256 << 10
"""HTTP/1 bytes that cannot be read yet: headers or a chunk's line without end, whatever follows a call that waits.
mitmproxy has no bound; here more than this ends the connection."""

SHOWN_HEADERS = frozenset(
    b"accept connection content-length content-type expect host if-modified-since if-none-match kubectl-command "
    b"kubectl-session sec-websocket-version transfer-encoding upgrade user-agent x-stream-protocol-version".split()
)
"""What the flow keeps of the caller's headers: enough for mitmproxy to read the request, nothing that is a secret."""

_QUOTED_BYTES = re.compile(r"""\bb['"].*""", re.DOTALL)


@dataclass
class RequestBodyHook(commands.StartHook):
    """The whole request body is in `exchange.request_body`; the hook must leave its masked view in the exchange."""

    flow: http.HTTPFlow


@dataclass
class ResponseBodyHook(commands.StartHook):
    """The whole response body is in `exchange.response.body`; the hook must leave the caller's view there."""

    flow: http.HTTPFlow


@dataclass
class ResponseOverflowHook(commands.StartHook):
    """A response turned out too long to buffer; the hook sets `flow.response.stream`, or refuses."""

    flow: http.HTTPFlow


@dataclass
class UpgradeEndHook(commands.StartHook):
    """A connection that was upgraded (exec, attach, port-forward) has ended."""

    flow: http.HTTPFlow


class UpgradeTap(Protocol):
    """Watches an upgraded connection go by, without altering it."""

    def feed_client(self, data: bytes) -> None:
        """Bytes from the caller."""

    def feed_server(self, data: bytes) -> None:
        """Bytes from the API server."""


@dataclass(frozen=True)
class Wire:
    """What the layer needs of the gateway: the target, the credential, bounds, and the exchanges by flow id.

    `impersonate` says whether the API server is told who asks.
    """

    target: Target
    credential: Callable[[], Credential]
    request_body_bytes: int
    response_buffer_bytes: int
    open_tap: Callable[[Exchange], UpgradeTap]
    impersonate: bool = False
    exchanges: weakref.WeakValueDictionary[str, Exchange] = field(default_factory=weakref.WeakValueDictionary)

    def begin(self, request: http.Request, client: Client) -> Exchange:
        """Start the story of one request from what arrived."""
        return Exchange(
            AuditID(str(uuid_utils.uuid7())), _wire_request(request, client), datetime.now(UTC), monotonic()
        )


def shown_digest(request: http.Request) -> str:
    """The digest of a request as the flow shows it; see `exchange.flow_digest`."""
    return flow_digest(
        request.data.method.decode("latin-1"),
        request.scheme,
        request.host,
        request.port,
        request.data.path,
        request.data.content or b"",
    )


def decided_digest(target: Target, info: RequestInfo, view: bytes) -> str:
    """The digest that the flow of a decided call must show: whatever was edited since it arrived shows in it."""
    return flow_digest(info.method, "https", target.host, target.port, info.target, view)


def status_response(error: HoldfastError, info: RequestInfo | None, audit_id: AuditID) -> http.Response:
    """A refusal as the API server would write it: a metav1.Status, with `Retry-After` where trying again helps."""
    response = http.Response.make(
        error.code,
        render_status(error, info),
        {"content-type": "application/json", "cache-control": "no-cache, private", "audit-id": audit_id},
    )
    if error.retry_after is not None:
        response.headers["retry-after"] = str(error.retry_after)
    if error.code == 401:
        response.headers["www-authenticate"] = 'Bearer realm="holdfast"'
    return response


class GatewayProxy(layer.Layer):
    """The top layer of a client's connection: TLS or not, then HTTP, always by way of `GatewayLayer`.

    It replaces mitmproxy's `ReverseProxy` and its `next_layer` hook, so that an unloaded script leaves a
    connection that refuses everything, not one that forwards.
    """

    def __init__(self, context: Context, wire: Wire) -> None:
        super().__init__(context)
        self.wire = wire
        self.received = b""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            self._aim()
        elif isinstance(event, events.DataReceived):
            self.received += event.data
            if len(self.received) >= 3:
                yield from self._descend(replace(event, data=self.received))
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _aim(self) -> None:
        target = self.wire.target
        self.context.server.address = (target.host, target.port)
        self.context.server.sni = target.server_name
        self.context.server.tls = True

    def _descend(self, event: events.DataReceived) -> layer.CommandGenerator[None]:
        stack = tunnel.LayerStack()
        if starts_like_tls_record(event.data):
            stack /= ClientTLSLayer(self.context)
        stack /= GatewayLayer(self.context, self.wire)
        child: layer.Layer = stack[0]
        self._handle_event = child.handle_event  # type: ignore[method-assign]
        yield from child.handle_event(events.Start())
        yield from child.handle_event(event)


class Look(events.Event):
    """Nothing has arrived, and yet streams are to look whether they must end: see `Exchange.cut`."""


class GatewayLayer(HttpLayer):
    """mitmproxy's HTTP layer, with `GatewayStream` for every stream."""

    def __init__(self, context: Context, wire: Wire) -> None:
        super().__init__(context, HTTPMode.transparent)
        self.wire = wire

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if not isinstance(event, Look):
            yield from super()._handle_event(event)
            return
        for stream in list(self.streams.values()):
            yield from self.event_to_child(stream, event)

    def make_stream(self, stream_id: int) -> layer.CommandGenerator[None]:
        """Open a stream that needs a verdict."""
        stream = GatewayStream(self.context.fork(), stream_id, self.wire)
        self.streams[stream_id] = stream
        yield from self.event_to_child(stream, events.Start())

    def event_to_child(self, child: layer.Layer | HttpStream, event: events.Event) -> layer.CommandGenerator[None]:
        """Pass an event on; where it comes from a socket, watch what mitmproxy does not."""
        passed = super().event_to_child(child, event)
        return self._watch(child, event, passed) if isinstance(event, events.ConnectionEvent) else passed

    def _watch(
        self, child: layer.Layer | HttpStream, event: events.ConnectionEvent, passed: layer.CommandGenerator[None]
    ) -> layer.CommandGenerator[None]:
        """Keep log lines from quoting the wire, and end what mitmproxy would leave hanging or let grow."""
        try:
            for command in passed:
                if isinstance(command, commands.Log):
                    command.message = _without_quotes(command.message)
                yield command
        except NotImplementedError:
            # How mitmproxy's HTTP/1 reader meets trailers.
            yield from self._break_off(event.connection, "trailers are not accepted")
        if isinstance(child, Http1Server) and child.state != child.done and len(child.buf) > MAX_UNREAD_BYTES:
            child.state = child.done
            yield from self._break_off(child.conn, "the caller sent more than can be read")

    def _break_off(self, connection: Connection, why: str) -> layer.CommandGenerator[None]:
        yield commands.CloseConnection(connection)
        is_client = connection is self.context.client
        for stream in list(self.streams.values()):
            if is_client:
                error = RequestProtocolError(stream.stream_id, why, ErrorCode.GENERIC_CLIENT_ERROR)
                yield from self.event_to_child(stream, error)
            elif stream.context.server is connection:
                fault = ResponseProtocolError(stream.stream_id, why, ErrorCode.GENERIC_SERVER_ERROR)
                yield from self.event_to_child(stream, fault)


class GatewayStream(HttpStream):
    """One request and its response; what it sends upstream passes `_towards_server`, and only that."""

    def __init__(self, context: Context, stream_id: int, wire: Wire) -> None:
        super().__init__(context, stream_id)
        self.wire = wire
        self.exchange: Exchange
        self.credential_attached = False
        self.request_sent = False
        self.response_begun = False
        self.session_begun = False
        self.was_cut = False
        self.was_withheld = False

    # -- what passes ------------------------------------------------------------------------------------------

    def handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """mitmproxy's own handling, with every command that goes to the API server checked on its way out."""
        if isinstance(event, RequestProtocolError):
            self.exchange.left.set()
        if isinstance(event, RequestProtocolError | ResponseProtocolError):
            event = replace(event, message=_without_quotes(event.message))
        if isinstance(event, Look):
            if self._paused is None:  # a hook that is waited for comes first; whoever looks looks again
                yield from self._end_what_is_cut()
            return
        for command in super().handle_event(event):
            if not isinstance(command, SendHttp):
                yield command
            elif command.connection is self.context.client:
                yield from self._towards_client(command)
            else:
                yield from self._towards_server(command)
        yield from self._end_what_is_cut()

    def _end_what_is_cut(self) -> layer.CommandGenerator[None]:
        if self.was_cut or not ((self.response_begun or self.session_begun) and self.exchange.cut):
            return
        if self.session_begun:
            self.was_cut = True
            yield commands.CloseConnection(self.context.client)
            yield commands.CloseConnection(self.context.server)
        else:
            yield from self._cut(self.exchange.cut)

    def _towards_client(self, command: SendHttp) -> layer.CommandGenerator[None]:
        """Where mitmproxy would answer with a page of HTML, answer with a Status; end loudly what was cut."""
        event = command.event
        if isinstance(event, ResponseData) and self.exchange.wire.method == "HEAD":
            return  # mitmproxy would write it, and the next response would begin inside it
        if isinstance(event, ResponseTrailers):
            return  # neither masked nor recorded, and no Kubernetes API has any
        if self._is_unrecorded(event):
            self.was_withheld = True
            yield from self._answer(Internal("the gateway did not record this answer, so it was withheld."), close=True)
        if self.was_withheld:
            return
        if isinstance(event, ResponseEndOfMessage) and self.exchange.cut:
            fault = ResponseProtocolError(self.stream_id, self.exchange.cut, ErrorCode.GENERIC_SERVER_ERROR)
            command, event = SendHttp(fault, command.connection), fault
        if isinstance(event, ResponseProtocolError) and not self.response_begun:
            code = event.code.http_status_code()
            if code is not None:
                yield from self._answer(self.exchange.refusal or _protocol_fault(code, event.message), close=True)
        if isinstance(event, ResponseHeaders):
            self.response_begun |= event.response.status_code >= 200
            self._put_receipt(event.response)
        yield command

    def _put_receipt(self, response: http.Response) -> None:
        """Let an answer carry the receipt of its record; one that came from behind the gateway goes."""
        response.headers.pop("audit-receipt", None)
        if self.exchange.receipt:
            response.headers["audit-receipt"] = self.exchange.receipt

    def _is_unrecorded(self, event: HttpEvent) -> bool:
        """Whether an answer is about to begin that no record tells of; a refusal needs none when the store is down."""
        exchange = self.exchange
        begins = isinstance(event, ResponseHeaders) and event.response.status_code >= 200
        return begins and not (exchange.finished or exchange.response.streamed or exchange.is_refused)

    def _answer(self, refusal: HoldfastError, *, close: bool = False) -> layer.CommandGenerator[None]:
        self.response_begun = True
        response = status_response(refusal, self.exchange.info, self.exchange.audit_id)
        if close and self.exchange.wire.http_version.startswith("HTTP/1"):
            response.headers["connection"] = "close"
        self._put_receipt(response)
        yield SendHttp(ResponseHeaders(self.stream_id, response, end_stream=False), self.context.client)
        yield SendHttp(ResponseData(self.stream_id, response.content or b""), self.context.client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def _towards_server(self, command: SendHttp) -> layer.CommandGenerator[None]:
        event = command.event
        if isinstance(event, RequestHeaders):
            yield from self._send_request(command, event.request)
        elif not self.credential_attached:
            return
        elif isinstance(event, RequestEndOfMessage):
            self.request_sent = True
            yield command
        elif isinstance(event, RequestProtocolError) or (isinstance(event, RequestData) and self.request_sent):
            yield command
        # What remains is the masked body that the flow shows, and trailers: neither is for the API server.

    def _send_request(self, command: SendHttp, shown: http.Request) -> layer.CommandGenerator[None]:
        if (refusal := self._find_fault(shown)) is not None:
            # Only an edit between the verdict and this moment comes here; `make_server_connection` saw to the rest.
            self.exchange.refusal = refusal
            yield from self._tell_error(str(refusal))
            yield from self._answer(refusal, close=True)
            yield from self._leave()
            return
        self.exchange.verdict = None
        self.credential_attached = True
        self.exchange.response.started_mono = monotonic()
        body = self.exchange.request_body
        sealed = self._seal(shown.http_version)
        yield SendHttp(RequestHeaders(self.stream_id, sealed, end_stream=not body), command.connection)
        if body:
            yield SendHttp(RequestData(self.stream_id, body), command.connection)

    def _find_fault(self, shown: http.Request) -> HoldfastError | None:
        exchange, verdict = self.exchange, self.exchange.verdict
        if exchange.is_refused:
            return exchange.refusal
        if verdict is None or exchange.info is None or verdict.audit_id != exchange.audit_id:
            return Internal("the gateway reached no verdict on this call, so it was not forwarded.")
        if exchange.info.is_mutating and not exchange.intent_recorded:
            return Internal("the gateway did not record this call, so it was not forwarded.")
        if not hmac.compare_digest(verdict.flow_digest, shown_digest(shown)):
            return Internal("the call was edited after it was decided, so it was not forwarded.")
        try:
            self._name_caller()
        except HoldfastError as fault:
            return fault
        return None

    def _name_caller(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields that tell the API server who asks, where it is to be told; never none of them then."""
        if not self.wire.impersonate:
            return ()
        if self.exchange.identity is None:
            raise Internal("the gateway does not know who makes this call, so it was not forwarded.")
        return impersonation_fields(self.exchange.identity)

    def _seal(self, http_version: str) -> http.Request:
        exchange, target = self.exchange, self.wire.target
        if exchange.info is None:
            raise Internal("the gateway reached no verdict on this call, so it was not forwarded.")
        authority = target.url.removeprefix("https://").encode()
        fields = [(b"host", authority)] if http_version.startswith("HTTP/1") else []
        fields += [(name.lower(), value) for name, value in exchange.forward_headers]
        fields += [(b"accept-encoding", b"identity"), (b"audit-id", exchange.audit_id.encode())]
        if exchange.request_body or exchange.info.method in {"POST", "PUT", "PATCH"}:
            fields.append((b"content-length", b"%d" % len(exchange.request_body)))
        token = self.wire.credential().token
        if token is not None:
            fields.append((b"authorization", b"Bearer " + token.encode()))
        fields += self._name_caller()
        now = datetime.now(UTC).timestamp()
        return http.Request(
            host=target.host,
            port=target.port,
            method=exchange.info.method.encode(),
            scheme=b"https",
            authority=b"" if http_version.startswith("HTTP/1") else authority,
            path=exchange.info.target,
            http_version=http_version.encode(),
            headers=http.Headers(fields),
            content=None,
            trailers=None,
            timestamp_start=now,
            timestamp_end=now,
        )

    # -- the request ------------------------------------------------------------------------------------------

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """Take the secrets out of the request before there is a flow that could show them."""
        self.exchange = self.wire.begin(event.request, self.context.client)
        _remove_secrets(event.request)
        shown = http.HTTPFlow(self.context.client, self.context.server)
        self.wire.exchanges[shown.id] = self.exchange
        yield from super().state_wait_for_request_headers(replace(event, replay_flow=shown))
        if self.exchange.refusal is not None and self.exchange.identity is None and not self.response_begun:
            # A stranger's body is not worth its memory; that of a caller we know goes into the record.
            yield from self._refuse_early(self.exchange.refusal)

    def state_consume_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Keep the body out of the flow: what the flow gets is the masked view."""
        if isinstance(event, RequestData):
            self.request_body_buf += event.data
            if len(self.request_body_buf) > self.wire.request_body_bytes:
                yield from self._refuse_body()
        elif isinstance(event, RequestEndOfMessage):
            self.exchange.request_body = bytes(self.request_body_buf)
            self.request_body_buf.clear()
            if self.exchange.request_body:
                yield RequestBodyHook(self.flow)
                self.request_body_buf += self.exchange.request_view
            yield from super().state_consume_request_body(event)
        # Trailers are not forwarded: no Kubernetes client sends any.

    def start_request_stream(self) -> layer.CommandGenerator[None]:
        """Never: a streamed body would be on its way before the call is decided."""
        raise Internal("a request body cannot be streamed.")
        yield

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """Without a verdict there is not even a connection, and the caller hears why."""
        fault = self._find_fault(self.flow.request)
        if fault is None:
            return (yield from super().make_server_connection())
        yield from self._refuse(fault)
        return False

    def _refuse_body(self) -> layer.CommandGenerator[None]:
        self.request_body_buf.clear()
        limit = self.wire.request_body_bytes
        yield from self._refuse_early(TooLarge(f"the request body is longer than {limit} bytes; send a smaller one."))

    def _refuse_early(self, error: HoldfastError) -> layer.CommandGenerator[None]:
        """Give the whole answer now: over HTTP/2, Go stops sending and waits for the end of what it got."""
        self.client_state = self.state_discard_request_body
        yield from self._refuse(error)
        if self.server_state == self.state_done:
            yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def state_discard_request_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Let a refused upload run out, so that the client reads the answer."""
        if isinstance(event, RequestEndOfMessage):
            self.client_state = self.state_done
            self.flow.live = False
            yield DropStream(self.stream_id)

    def _refuse(self, error: HoldfastError) -> layer.CommandGenerator[None]:
        self.exchange.refusal = self.exchange.refusal or error
        self.flow.response = status_response(self.exchange.refusal, self.exchange.info, self.exchange.audit_id)
        yield HttpResponseHeadersHook(self.flow)
        yield from self.send_response()

    # -- the response -----------------------------------------------------------------------------------------

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> layer.CommandGenerator[None]:
        """mitmproxy's own, and an answer at once where the hooks refuse what the API server has begun."""
        yield from super().state_wait_for_response_headers(event)
        yield from self._answer_refused_response()

    def _answer_refused_response(self) -> layer.CommandGenerator[None]:
        """Stop the API server, whose answer may have no end, and give the caller the Status instead."""
        if not self.exchange.is_refused or self.server_state != self.state_consume_response_body:
            return
        stop = RequestProtocolError(self.stream_id, "refused by the gateway", ErrorCode.CANCEL)
        yield SendHttp(stop, self.context.server)
        self.response_body_buf.clear()
        yield ResponseBodyHook(self.flow)
        if self.flow.response is not None:
            self.flow.response.data.content = self.exchange.response.caller_view
        yield from self.send_response()
        self.server_state = self.state_discard_response

    def state_discard_response(self, event: events.Event) -> layer.CommandGenerator[None]:
        """What still comes of a refused answer is for nobody."""
        yield from ()

    def check_body_size(self, request: bool) -> layer.CommandGenerator[bool]:
        """mitmproxy's own limits do not apply; a response that grows too long to buffer asks the hooks."""
        if request or len(self.response_body_buf) <= self.wire.response_buffer_bytes:
            return False
        yield ResponseOverflowHook(self.flow)
        yield from self._answer_refused_response()
        if self.flow.response is not None and self.flow.response.stream:
            data = bytes(self.response_body_buf)
            self.response_body_buf.clear()
            self.exchange.response.bytes_down = 0  # what is replayed here is counted again on its way
            yield from self.start_response_stream()
            yield from self.state_stream_response_body(ResponseData(self.stream_id, data))
        return False

    def state_consume_response_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Let the body into the flow only as the caller's view of it."""
        exchange = self.exchange
        if isinstance(event, ResponseData):
            exchange.response.bytes_down += len(event.data)
        elif isinstance(event, ResponseEndOfMessage):
            exchange.response.body = bytes(self.response_body_buf)
            self.response_body_buf.clear()
            yield ResponseBodyHook(self.flow)
            self.response_body_buf += exchange.response.caller_view
        yield from super().state_consume_response_body(event)

    def flow_done(self) -> layer.CommandGenerator[None]:
        """After a 101, relay bytes and watch them; mitmproxy's own WebSocket layer would keep and re-frame them."""
        response = self.flow.response
        if response is None or response.status_code != 101:
            yield from super().flow_done()
            return
        self.child_layer = UpgradedRelay(self.context, self.flow, self.exchange, self.wire.open_tap(self.exchange))
        self._handle_event = self.passthrough
        self.session_begun = True
        yield from self.child_layer.handle_event(events.Start())
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> layer.CommandGenerator[None]:
        """Where the API server failed and nothing was answered yet, the caller gets a Status, not an HTML page."""
        if self.server_state == self.state_discard_response:
            return  # the caller has its answer; this is the end of the connection that we closed
        hopeless = self.response_begun or self.client_state == self.state_errored or self.exchange.left.is_set()
        if isinstance(event, RequestProtocolError) or hopeless:
            yield from super().handle_protocol_error(event)
            return
        self.exchange.refusal = self.exchange.refusal or _upstream_fault(event)
        self.flow.error = flow.Error(event.message)
        yield HttpErrorHook(self.flow)
        yield from self._answer(self.exchange.refusal)
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        yield DropStream(self.stream_id)

    def _cut(self, reason: str) -> layer.CommandGenerator[None]:
        self.was_cut = True
        yield from self._tell_error(reason)
        code = ErrorCode.GENERIC_SERVER_ERROR
        yield SendHttp(ResponseProtocolError(self.stream_id, reason, code), self.context.client)
        if self.context.server in getattr(self.context.layers[-2], "connections", ()):
            yield SendHttp(RequestProtocolError(self.stream_id, reason, code), self.context.server)
        yield from self._leave()

    def _tell_error(self, reason: str) -> layer.CommandGenerator[None]:
        self.flow.error = flow.Error(reason)
        ended = HttpErrorHook(self.flow)
        ended.blocking = False
        yield ended

    def _leave(self) -> layer.CommandGenerator[None]:
        self.client_state = self.server_state = self.state_errored
        yield DropStream(self.stream_id)


class UpgradedRelay(tcp.TCPLayer):
    """Relays an upgraded connection byte for byte, counts, and shows the bytes to a tap."""

    def __init__(self, context: Context, http_flow: http.HTTPFlow, exchange: Exchange, tap: UpgradeTap) -> None:
        super().__init__(context, ignore=True)
        self.http_flow = http_flow
        self.exchange = exchange
        self.tap = tap

    def relay_messages(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Pass an event on; the tap sees data before the other side does."""
        if isinstance(event, events.DataReceived):
            self._watch(event)
        yield from super().relay_messages(event)
        if self._handle_event == self.done:
            yield UpgradeEndHook(self.http_flow)

    def _watch(self, event: events.DataReceived) -> None:
        response = self.exchange.response
        if event.connection == self.context.client:
            response.bytes_up += len(event.data)
            self.tap.feed_client(event.data)
        else:
            response.bytes_down += len(event.data)
            self.tap.feed_server(event.data)


def _wire_request(request: http.Request, client: Client) -> WireRequest:
    target = request.data.path
    if request.http_version.startswith("HTTP/1") and request.data.authority:
        target = request.data.scheme + b"://" + request.data.authority + target
    return WireRequest(
        method=request.data.method.decode("latin-1"),
        target=target,
        headers=request.headers.fields,
        tls=client.tls_established,
        peer=client.peername[0] if client.peername else "",
        http_version=request.http_version,
    )


def _remove_secrets(request: http.Request) -> None:
    request.headers.fields = tuple(
        (name, value) for name, value in request.headers.fields if name.lower() in SHOWN_HEADERS
    )
    path, mark, query = request.data.path.partition(b"?")
    if carries_token(query):
        request.data.path = path + mark + b"withheld"


def _without_quotes(message: str) -> str:
    """Leave out what mitmproxy quotes of the wire in its messages: it may be a header with a token in it."""
    return _QUOTED_BYTES.sub("(left out)", message)


def _protocol_fault(code: int, message: str) -> HoldfastError:
    if code < 500:
        return BadRequest(f"the request is not as HTTP has it: {message}")
    return BadGateway("the API server's answer is not as HTTP has it; it was withheld.")


def _upstream_fault(event: ResponseProtocolError) -> HoldfastError:
    if event.code is ErrorCode.CONNECT_FAILED:
        return Unavailable(
            "the gateway cannot reach the API server; try again, or ask its operators to run `holdfast doctor`."
        )
    return BadGateway(
        "the API server ended the connection before it answered; whether the call took effect is not known. If this "
        "goes on, the gateway's operators find the cause with `holdfast doctor`."
    )
