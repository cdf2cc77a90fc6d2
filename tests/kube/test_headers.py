"""Which header fields are refused, read, forwarded and dropped."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import BadRequest, HeadersTooLarge
from holdfast.exchange import WireRequest
from holdfast.kube.canonical import canonicalize
from holdfast.kube.headers import (
    MAX_HEADER_BYTES,
    MAX_HEADER_FIELDS,
    AcceptedHeaders,
    check_request_headers,
    forwarded_fields,
    presented_authorization,
)
from holdfast.kube.request_info import parse_request_info

Fields = list[tuple[bytes, bytes]]


def check(fields: Fields, http_version: str = "HTTP/1.1") -> AcceptedHeaders:
    wire = WireRequest("GET", b"/api/v1/pods", tuple(fields), tls=True, peer="::1", http_version=http_version)
    return check_request_headers(wire)


def forward(fields: Fields, target: bytes = b"/api/v1/pods") -> Fields:
    return list(forwarded_fields(check(fields), parse_request_info("GET", canonicalize(target))))


UPGRADE: Fields = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]

TOKEN_OFFERED = b"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.aHVudGVyMg"

REFUSED: list[tuple[Fields, str]] = [
    # Who asks is not the client's to say
    *(
        ([(name, b"system:admin")], "taken from the token only; leave out --as,")
        for name in (b"Impersonate-User", b"impersonate-user", b"IMPERSONATE-GROUP", b"Impersonate-Uid")
    ),
    ([(b"Impersonate-Extra-scopes", b"x")], "leave out --as"),
    ([(b"Impersonate-Anything", b"x")], "leave out --as"),
    ([(b"X-Remote-User", b"admin")], "taken from the token only"),
    ([(b"x-remote-group", b"system:masters")], "taken from the token only"),
    ([(b"X-Remote-Extra-Scopes", b"x")], "taken from the token only"),
    ([(b"X-Forwarded-Client-Cert", b"x")], "taken from the token only"),
    # Names
    ([(b"Impersonate_User", b"x")], "'_'"),
    ([(b"X_Remote_User", b"x")], "'_'"),
    ([(b"Accept_", b"x")], "'_'"),
    ([(b"", b"x")], "not a token"),
    ([(b"Impersonate-User ", b"x")], "not a token"),
    ([(b" Impersonate-User", b"x")], "not a token"),
    ([(b"Impersonate-User:", b"x")], "not a token"),
    ([(b"Impersonate\xadUser", b"x")], "not a token"),
    ([(b"Accept\x00", b"x")], "not a token"),
    ([(b"Accept\r\nX", b"x")], "not a token"),
    ([("Kubectl-Sessioñ".encode(), b"x")], "not a token"),
    ([(b":authority", b"x")], "not a token"),
    # Values
    *(
        ([(b"X-Anything", b"a" + bad + b"b")], "control character or a folded line")
        for bad in (b"\r", b"\n", b"\r\n", b"\r\n ", b"\n\t", b"\x00", b"\x01", b"\x0b", b"\x1b", b"\x7f")
    ),
    ([(b"User-Agent", b"x\r\nImpersonate-User: admin")], "control character or a folded line"),
    # Repeats
    *(
        ([(name, b"1"), (name.upper(), b"1")], f"{name.decode().lower()} is sent twice")
        for name in (b"Authorization", b"Content-Type", b"Content-Length", b"Host", b"User-Agent", b"If-None-Match")
    ),
    ([(b"Transfer-Encoding", b"chunked"), (b"transfer-encoding", b"chunked")], "sent twice"),
    ([*UPGRADE, (b"Upgrade", b"websocket")], "sent twice"),
    ([*UPGRADE, (b"Sec-WebSocket-Key", b"a"), (b"Sec-WebSocket-Key", b"a")], "sent twice"),
    # The body's framing
    *(
        ([(b"Transfer-Encoding", coding)], "transfer-encoding is not 'chunked'")
        for coding in (b"gzip", b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked", b"", b"chunked;a=b")
    ),
    *(([(b"Content-Length", length)], "not a number") for length in (b"-1", b"+1", b"0x1", b"1, 1", b"", b"\xb2")),
    ([(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")], "both"),
    ([(b"Content-Encoding", b"gzip")], "without compression"),
    ([(b"Trailer", b"Impersonate-User")], "trailer is refused"),
    ([(b"TE", b"gzip")], "te has more than 'trailers'"),
    ([(b"TE", b"trailers, deflate")], "te has more than 'trailers'"),
    # Connection and upgrades
    *(
        ([(b"Connection", token)], "token other than keep-alive, close and upgrade")
        for token in (
            b"Impersonate-User",
            b"close, Authorization",
            b"keep-alive, Content-Length",
            b"TE",
            b"HTTP2-Settings",
        )
    ),
    ([(b"Connection", b"Upgrade")], "both or neither"),
    ([(b"Upgrade", b"websocket")], "both or neither"),
    ([(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")], "neither websocket nor SPDY"),
    ([(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket, SPDY/3.1")], "neither websocket nor SPDY"),
    ([(b"Connection", b"Upgrade"), (b"Upgrade", b"")], "neither websocket nor SPDY"),
    # A token among the subprotocols
    ([(b"Sec-WebSocket-Protocol", TOKEN_OFFERED)], "for WebSockets only"),
    ([(b"Connection", b"Upgrade"), (b"Upgrade", b"SPDY/3.1"), (b"Sec-WebSocket-Protocol", TOKEN_OFFERED)], "only"),
    ([*UPGRADE, (b"Sec-WebSocket-Protocol", TOKEN_OFFERED), (b"Authorization", b"Bearer x")], "sent twice"),
    ([*UPGRADE, (b"Sec-WebSocket-Protocol", TOKEN_OFFERED), (b"Authorization", b"")], "sent twice"),
    ([*UPGRADE, (b"Sec-WebSocket-Protocol", b"v5.channel.k8s.io, \xc2\x85" + TOKEN_OFFERED)], "no token"),
    ([*UPGRADE, (b"Sec-WebSocket-Protocol", TOKEN_OFFERED.replace(b"base", b"BASE"))], "looks like a bearer token"),
]


@pytest.mark.parametrize(("fields", "why"), REFUSED)
def test_a_header_that_could_mean_something_upstream_is_refused(fields: Fields, why: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(why)) as refusal:
        check([(b"Host", b"gateway"), *fields] if fields[0][0] != b"Host" else fields)
    assert "aHVudGVyMg" not in str(refusal.value)


def test_an_upgrade_over_http2_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"needs HTTP/1\.1"):
        check(UPGRADE, "HTTP/2.0")


def test_header_sections_are_bounded_and_the_bounds_themselves_are_accepted() -> None:
    assert check([(b"X-A", b"")] * MAX_HEADER_FIELDS) == AcceptedHeaders()
    with pytest.raises(HeadersTooLarge, match="fields"):
        check([(b"X-A", b"")] * (MAX_HEADER_FIELDS + 1))
    room = MAX_HEADER_BYTES - len(b"X-A: \r\n")
    assert check([(b"X-A", b"a" * room)]) == AcceptedHeaders()
    with pytest.raises(HeadersTooLarge, match="bytes"):
        check([(b"X-A", b"a" * (room + 1))])


def test_a_plain_request_forwards_what_is_listed_and_drops_the_rest() -> None:
    sent = [
        (b"Host", b"gateway:8443"),
        (b"authorization", b"Bearer hunter2"),
        (b"Proxy-Authorization", b"Basic hunter2"),
        (b"Cookie", b"a=b"),
        (b"Cookie", b"c=d"),
        (b"accept", b"application/json"),
        (b"Accept-Encoding", b"gzip"),
        (b"Audit-ID", b"0"),
        (b"Origin", b"https://evil.example"),
        (b"X-Forwarded-For", b"10.0.0.1"),
        (b"X-HTTP-Method-Override", b"DELETE"),
        (b"Content-Length", b"2"),
        (b"content-type", b"application/json "),
        (b"USER-AGENT", b"kubectl/v1.33.0"),
        (b"Kubectl-Command", b"kubectl get"),
        (b"Kubectl-Session", b"\t5e1f"),
        (b"If-None-Match", b'"x"'),
        (b"If-Modified-Since", b"Thu, 01 Jan 2026 00:00:00 GMT"),
        (b"TE", b"trailers"),
        (b"Connection", b"Keep-Alive"),
        (b"Sec-WebSocket-Key", b"x"),
        (b"X-Stream-Protocol-Version", b"v4.channel.k8s.io"),
    ]
    assert forward(sent) == [
        (b"Accept", b"application/json"),
        (b"Content-Type", b"application/json"),
        (b"User-Agent", b"kubectl/v1.33.0"),
        (b"Kubectl-Command", b"kubectl get"),
        (b"Kubectl-Session", b"5e1f"),
        (b"If-None-Match", b'"x"'),
        (b"If-Modified-Since", b"Thu, 01 Jan 2026 00:00:00 GMT"),
    ]
    accepted = check(sent)
    assert presented_authorization(tuple(sent)) == "Bearer hunter2"
    assert (accepted.content_type, accepted.user_agent) == ("application/json", "kubectl/v1.33.0")
    assert (accepted.kubectl_command, accepted.kubectl_session) == ("kubectl get", "5e1f")
    assert accepted.upgrade == ""


def test_a_websocket_upgrade_keeps_its_handshake_and_offers_no_extension() -> None:
    handshake = [
        (b"Connection", b"keep-alive, Upgrade"),
        (b"upgrade", b"WebSocket"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Protocol", b"v5.channel.k8s.io,v4.channel.k8s.io"),
        (b"Sec-WebSocket-Extensions", b"permessage-deflate"),
        (b"Origin", b"https://gateway"),
    ]
    assert check(handshake).upgrade == "websocket"
    assert forward(handshake) == [
        (b"Accept", b"application/json"),
        (b"Connection", b"Upgrade"),
        (b"Upgrade", b"WebSocket"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Protocol", b"v5.channel.k8s.io,v4.channel.k8s.io"),
    ]


def test_a_token_among_the_subprotocols_is_read_and_not_forwarded() -> None:
    sent = [*UPGRADE, (b"Sec-WebSocket-Protocol", TOKEN_OFFERED), (b"sec-websocket-protocol", b"v4.channel.k8s.io")]
    assert presented_authorization(tuple(sent)) == "Bearer hunter2"
    assert [value for name, value in forward(sent) if name == b"Sec-WebSocket-Protocol"] == [
        b"v5.channel.k8s.io, v4.channel.k8s.io"
    ]


def test_whoever_presents_nothing_or_nonsense_presents_no_token() -> None:
    assert presented_authorization(()) is None
    assert presented_authorization(((b"Sec-WebSocket-Protocol", b"v5.channel.k8s.io"),)) is None
    assert presented_authorization(((b"Sec-WebSocket-Protocol", TOKEN_OFFERED + b"," + TOKEN_OFFERED),)) is None
    assert presented_authorization(((b"Sec-WebSocket-Protocol", b"a b"),)) is None


def test_a_spdy_upgrade_keeps_every_protocol_version_it_offers() -> None:
    versions = [(b"X-Stream-Protocol-Version", b"v%d.channel.k8s.io" % number) for number in (4, 3, 2)]
    sent = [(b"Connection", b"Upgrade"), (b"Upgrade", b"SPDY/3.1"), *versions]
    assert check(sent).upgrade == "spdy/3.1"
    assert forward(sent)[1:] == sent


def test_accept_is_narrowed_to_json_for_objects_only() -> None:
    sent = [(b"Accept", b"application/vnd.kubernetes.protobuf"), (b"accept", b"*/*")]
    as_sent = (b"Accept", b"application/vnd.kubernetes.protobuf, */*")
    assert forward(sent, b"/api/v1/pods") == [(b"Accept", b"*/*")]
    assert forward(sent[:1], b"/api/v1/pods") == [(b"Accept", b"application/json")]
    assert forward([], b"/api/v1/pods") == [(b"Accept", b"application/json")]
    assert forward(sent, b"/openapi/v2") == [as_sent]
    assert forward(sent, b"/api/v1/namespaces/d/services/web/proxy/x") == [as_sent]
    assert forward(sent, b"/api/v1/proxy/nodes/n1") == [as_sent]
    assert forward([], b"/openapi/v2") == []


names = st.one_of(
    st.sampled_from([b"Accept", b"Authorization", b"Impersonate-User", b"Connection", b"Upgrade", b"X-A", b"TE"]),
    st.binary(max_size=6),
)


@settings(deadline=None)
@given(st.lists(st.tuples(names, st.binary(max_size=20)), max_size=6))
def test_whatever_comes_in_only_clean_listed_fields_go_out(fields: Fields) -> None:
    try:
        out = forward(fields)
    except BadRequest:
        return
    for name, value in out:
        assert name in {b"Accept", b"Connection", b"Upgrade"}
        assert not set(value) & {*range(9), *range(10, 32), 127}
