"""The credential layer alone: hooks say what they like, and it lets out only what has its verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from mitmproxy import connection, http
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers.http import (
    ErrorCode,
    GetHttpConnection,
    GetHttpConnectionCompleted,
    HttpRequestHook,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseHeaders,
    SendHttp,
)
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons

from holdfast.credential.layer import GatewayLayer, GatewayStream, RequestBodyHook, Wire, decided_digest
from holdfast.credential.sources import Credential, Target
from holdfast.errors import Forbidden
from holdfast.exchange import AuditID, Exchange, Identity, RequestInfo, Verdict

TARGET = Target("api.test", 6443, "api.test", b"")
UPSTREAM_TOKEN = "upstream-credential-0c1d"
CALLER_TOKEN = "caller-token-77aa"
PATH = b"/api/v1/namespaces/demo/pods"
BODY = b'{"data":{"password":"s3cret"}}'
VIEW = b'{"data":{"password":"masked"}}'
INFO = RequestInfo(True, "POST", PATH, PATH.decode(), "create", resource="pods", namespace="demo")

type Act = Callable[[Exchange, http.HTTPFlow], None]


def nothing(exchange: Exchange, flow: http.HTTPFlow) -> None:
    """Hooks that do nothing."""


@dataclass
class Run:
    """One request through a `GatewayStream`; `act` stands for every `request` hook, `meddle` comes after them."""

    act: Act
    meddle: Act = nothing
    body: bytes = BODY
    impersonate: bool = False
    upstream: list[object] = field(default_factory=list)
    client: list[object] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self.wire = Wire(
            TARGET,
            lambda: Credential(token=UPSTREAM_TOKEN),
            1 << 20,
            1 << 20,
            lambda _: pytest.fail("tap"),
            impersonate=self.impersonate,
        )
        with taddons.context(Proxyserver()) as addons:
            client = connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=0.0)
            client.proxy_mode = ProxyMode.parse("reverse:https://api.test:6443")
            base = context.Context(client, addons.options)
            base.server.address, base.server.tls = ("api.test", 6443), True
            GatewayLayer(base, self.wire)
            self.stream = GatewayStream(base.fork(), 1, self.wire)
            self._feed(events.Start())
            self._feed(RequestHeaders(1, self._request(), end_stream=not self.body))
            if self.body:
                self._feed(RequestData(1, self.body))
            self._feed(RequestEndOfMessage(1))

    @property
    def exchange(self) -> Exchange:
        """The story of the request."""
        return self.stream.exchange

    @property
    def status(self) -> bytes:
        """What the caller was sent."""
        return b"".join(event.data for event in self.client if isinstance(event, ResponseData))

    @property
    def code(self) -> int:
        """The caller's response code."""
        (head,) = (event for event in self.client if isinstance(event, ResponseHeaders))
        return head.response.status_code

    def _request(self) -> http.Request:
        headers = {"authorization": f"Bearer {CALLER_TOKEN}", "content-length": str(len(self.body))}
        request = http.Request.make("POST", "https://api.test" + PATH.decode(), self.body, headers)
        request.data.content, request.authority = None, ""
        return request

    def _feed(self, event: events.Event) -> None:
        waiting = [event]
        while waiting:
            for command in self.stream.handle_event(waiting.pop(0)):
                waiting.extend(self._obey(command))

    def _obey(self, command: commands.Command) -> list[events.Event]:
        if isinstance(command, commands.StartHook):
            self._hook(command)
            return [events.HookCompleted(command)] if command.blocking else []
        if isinstance(command, GetHttpConnection):
            self.connections += 1
            return [GetHttpConnectionCompleted(command, (self.stream.context.server, None))]
        if isinstance(command, SendHttp):
            is_up = command.connection is not self.stream.context.client
            (self.upstream if is_up else self.client).append(command.event)
        return []

    def _hook(self, hook: commands.StartHook) -> None:
        if isinstance(hook, RequestBodyHook):
            self.exchange.request_view = VIEW
        if isinstance(hook, HttpRequestHook):
            self.act(self.exchange, hook.flow)
            self.meddle(self.exchange, hook.flow)


def permit(exchange: Exchange, flow: http.HTTPFlow) -> None:
    """Fill in what the stages fill in when all of them say yes."""
    exchange.info = INFO
    exchange.forward_headers = ((b"Content-Type", b"application/json"),)
    exchange.intent_recorded = True
    exchange.verdict = Verdict(exchange.audit_id, decided_digest(TARGET, INFO, exchange.request_view))


def without(name: str, value: object) -> Act:
    """All is permitted, but one part of the story is missing."""

    def act(exchange: Exchange, flow: http.HTTPFlow) -> None:
        permit(exchange, flow)
        setattr(exchange, name, value)

    return act


def edit(name: str, value: object) -> Act:
    """A flow edited in mitmweb."""
    return lambda exchange, flow: setattr(flow.request, name, value)


def test_a_permitted_call_leaves_as_it_was_classified_with_the_credential_on_it() -> None:
    run = Run(permit)
    head, body, end = run.upstream
    assert isinstance(head, RequestHeaders)
    assert isinstance(body, RequestData)
    assert isinstance(end, RequestEndOfMessage)
    assert (head.request.method, head.request.data.path, head.request.host) == ("POST", PATH, "api.test")
    assert head.request.headers["authorization"] == f"Bearer {UPSTREAM_TOKEN}"
    assert head.request.headers["audit-id"] == run.exchange.audit_id
    assert head.request.headers["content-length"] == str(len(BODY))
    assert body.data == BODY


def test_neither_token_and_no_unmasked_body_is_ever_in_the_flow() -> None:
    seen: list[str] = []
    run = Run(permit, lambda exchange, flow: seen.append(repr(flow.get_state())))
    seen.append(repr(run.stream.flow.get_state()))
    for state in seen:
        assert CALLER_TOKEN not in state
        assert UPSTREAM_TOKEN not in state
        assert "s3cret" not in state
        assert "masked" in state


@pytest.mark.parametrize(
    "act",
    [
        nothing,
        without("verdict", None),
        without("info", None),
        without("intent_recorded", False),
        without("refusal", Forbidden("no")),
        without("verdict", Verdict(AuditID("another"), decided_digest(TARGET, INFO, VIEW))),
        without("verdict", Verdict(AuditID(""), "")),
    ],
)
def test_a_call_whose_story_is_not_whole_gets_a_status_and_not_even_a_connection(act: Act) -> None:
    run = Run(act)
    assert run.upstream == []
    assert run.connections == 0
    assert run.code in {403, 500}
    assert b'"kind":"Status"' in run.status.replace(b" ", b"")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "DELETE"),
        ("path", "/api/v1/namespaces/kube-system/pods"),
        ("host", "other.test"),
        ("port", 443),
        ("scheme", "http"),
        ("content", b"{}"),
    ],
)
def test_an_edit_after_the_verdict_undoes_it(name: str, value: object) -> None:
    run = Run(permit, edit(name, value))
    assert run.upstream == []
    assert run.connections == 0
    assert run.code == 500
    assert b"edited" in run.status


def test_an_edit_before_the_verdict_is_found_too_since_the_verdict_is_for_what_was_decided() -> None:
    def edit_first(exchange: Exchange, flow: http.HTTPFlow) -> None:
        flow.request.host = "other.test"
        permit(exchange, flow)

    run = Run(edit_first)
    assert run.upstream == []
    assert run.connections == 0


def test_headers_edited_in_the_flow_do_not_go_upstream() -> None:
    run = Run(permit, lambda exchange, flow: flow.request.headers.update({"impersonate-user": "admin"}))  # type: ignore[func-returns-value]
    head = run.upstream[0]
    assert isinstance(head, RequestHeaders)
    assert "impersonate-user" not in head.request.headers


def permit_as(username: str) -> Act:
    """Everybody says yes to this caller."""

    def act(exchange: Exchange, flow: http.HTTPFlow) -> None:
        exchange.identity = Identity("https://issuer.test", username, ("agents",))
        permit(exchange, flow)

    return act


@pytest.mark.parametrize(("impersonate", "expected"), [(True, [b"ada"]), (False, [])])
def test_the_caller_is_named_beside_the_credential_only_where_the_api_server_is_to_know(
    impersonate: bool, expected: list[bytes]
) -> None:
    seen: list[str] = []
    run = Run(permit_as("ada"), lambda exchange, flow: seen.append(repr(flow.get_state())), impersonate=impersonate)
    head = run.upstream[0]
    assert isinstance(head, RequestHeaders)
    assert [value for name, value in head.request.headers.fields if name == b"impersonate-user"] == expected
    assert head.request.headers["authorization"] == f"Bearer {UPSTREAM_TOKEN}"
    assert "impersonate" not in repr([*seen, run.stream.flow.get_state()])


@pytest.mark.parametrize(
    ("act", "code", "why"),
    [
        (permit, 500, b"does not know who makes this call"),
        (permit_as(""), 403, b"cannot be told who you are"),
        (permit_as("x\r\nImpersonate-Group: system:masters"), 403, b"cannot be told who you are"),
    ],
)
def test_whoever_cannot_be_named_does_not_go_upstream_as_the_gateway(act: Act, code: int, why: bytes) -> None:
    run = Run(act, impersonate=True)
    assert run.upstream == []
    assert run.connections == 0
    assert run.code == code
    assert why in run.status


def test_a_verdict_is_good_for_one_request() -> None:
    used: list[Verdict] = []
    first = Run(permit, lambda exchange, flow: used.extend([exchange.verdict] if exchange.verdict else []))
    assert first.upstream
    assert first.exchange.verdict is None
    second = Run(without("verdict", used[0]))
    assert second.upstream == []
    copied = replace(used[0], audit_id=AuditID("x"))
    assert Run(without("verdict", copied)).upstream == []


def test_an_edit_while_the_connection_opens_sends_nothing_and_answers_with_a_status() -> None:
    class Late(Run):
        def _obey(self, command: commands.Command) -> list[events.Event]:
            if isinstance(command, GetHttpConnection):
                self.stream.flow.request.path = "/edited"
            return super()._obey(command)

    run = Late(permit)
    assert run.connections == 1
    assert run.upstream == []
    assert run.code == 500
    assert b"edited" in run.status


def test_a_caller_who_left_during_the_hooks_sends_nothing_upstream() -> None:
    class Left(Run):
        def _hook(self, hook: commands.StartHook) -> None:
            super()._hook(hook)
            if isinstance(hook, HttpRequestHook):
                list(self.stream.handle_event(RequestProtocolError(1, "gone", ErrorCode.CLIENT_DISCONNECTED)))

    run = Left(permit)
    assert run.exchange.left.is_set()
    assert run.upstream == []


def test_what_mitmproxy_quotes_of_the_wire_does_not_become_the_flows_error() -> None:
    class Malformed(Run):
        def _hook(self, hook: commands.StartHook) -> None:
            super()._hook(hook)
            if isinstance(hook, HttpRequestHook):
                message = f"HTTP/2 protocol error: surrounded by whitespace b' Bearer {CALLER_TOKEN}'"
                list(self.stream.handle_event(RequestProtocolError(1, message, ErrorCode.GENERIC_CLIENT_ERROR)))

    run = Malformed(permit)
    assert run.upstream == []
    assert run.stream.flow.error is not None
    assert CALLER_TOKEN not in run.stream.flow.error.msg
