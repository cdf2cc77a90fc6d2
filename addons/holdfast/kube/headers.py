"""Request headers: rebuilt from an allow-list, and refused where they could mean something upstream.

The API server trusts some headers because of who sends them: `Impersonate-*` under the gateway's credential,
`X-Remote-*` behind a front proxy. These are refused, not stripped, so that no spelling slips through a filter
and no caller believes that they worked. Names that servers normalize (`_` into `-`), values with control
characters, repeated single-valued fields, and `Connection` tokens that make a hop drop a field are the usual
ways around a filter; each is refused by name. What is neither forwarded nor dangerous is dropped
(`Accept-Encoding`, so that responses come unencoded; `Audit-ID`, which the gateway sets; `Origin`; cookies).

`Authorization`, or the token that a browser sends as a subprotocol instead, is read and never forwarded. `Host`
and the body's framing are set by whoever forwards.

Sources: RFC 9110 sections 5 and 7.6.1, RFC 9112 sections 5.2 and 6; Kubernetes "Authenticating"
(impersonation, authenticating proxy).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import BadRequest, HeadersTooLarge, Unauthorized
from holdfast.kube.negotiation import json_accept
from holdfast.kube.subprotocols import split_bearer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.exchange import RequestInfo, WireRequest

MAX_HEADER_BYTES = 64 << 10
MAX_HEADER_FIELDS = 100

_FORWARDED = {
    "content-type": b"Content-Type",
    "user-agent": b"User-Agent",
    "kubectl-command": b"Kubectl-Command",
    "kubectl-session": b"Kubectl-Session",
    "if-none-match": b"If-None-Match",
    "if-modified-since": b"If-Modified-Since",
}
_FORWARDED_WITH_UPGRADE = {
    "upgrade": b"Upgrade",
    "sec-websocket-key": b"Sec-WebSocket-Key",
    "sec-websocket-version": b"Sec-WebSocket-Version",
    "sec-websocket-protocol": b"Sec-WebSocket-Protocol",
    "x-stream-protocol-version": b"X-Stream-Protocol-Version",
}
"""Without Sec-WebSocket-Extensions: compressed frames could not be observed, and the API server offers none."""

_REPEATABLE = frozenset({"connection", "te", "sec-websocket-protocol", "x-stream-protocol-version"})
_SINGLE = (
    frozenset(_FORWARDED)
    | frozenset(_FORWARDED_WITH_UPGRADE)
    | {"authorization", "content-length", "content-encoding", "host", "transfer-encoding"}
) - _REPEATABLE

_CONNECTION_TOKENS = frozenset({"keep-alive", "close", "upgrade"})
_UPGRADES = frozenset({"websocket", "spdy/3.1"})

_TOKEN = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

_Fields = dict[str, list[bytes]]
"""Lower-case names, and the values of each in the order in which they came."""


@dataclass(frozen=True, slots=True)
class AcceptedHeaders:
    """What a request's headers say, and the fields that go upstream.

    `fields` lack `Accept`: what may be asked for depends on what is asked, see `forwarded_fields`. `upgrade` is
    lower case, `websocket`, `spdy/3.1` or empty. `kubectl_command` and `kubectl_session` are the client's own
    words, for display and grouping, never for a decision.
    """

    accept: str = ""
    content_type: str = ""
    user_agent: str = ""
    kubectl_command: str = ""
    kubectl_session: str = ""
    upgrade: str = ""
    fields: tuple[tuple[bytes, bytes], ...] = ()


def check_request_headers(wire: WireRequest) -> AcceptedHeaders:
    """Read a request's headers; raise BadRequest, HeadersTooLarge or, of a subprotocol, Unauthorized, with the reason.

    No message repeats a header's value.
    """
    _check_size(wire.headers)
    fields = _collect(wire.headers)
    _check_repeats(fields)
    _check_framing(fields)
    upgrade = _check_upgrade(fields, wire.http_version)
    _take_bearer(fields, upgrade)
    return AcceptedHeaders(
        accept=", ".join(_texts(fields, "accept")),
        content_type=_text(fields, "content-type"),
        user_agent=_text(fields, "user-agent"),
        kubectl_command=_text(fields, "kubectl-command"),
        kubectl_session=_text(fields, "kubectl-session"),
        upgrade=upgrade,
        fields=_rebuild(fields, upgrade),
    )


def presented_authorization(headers: tuple[tuple[bytes, bytes], ...]) -> str | None:
    """What `Authorization` says, or would say of the token among the subprotocols: also of a request that is refused.

    None where there is neither, or no telling which.
    """
    header = next((value.decode("latin-1") for name, value in headers if name.lower() == b"authorization"), None)
    if header is not None:
        return header
    try:
        token, _ = split_bearer([value for name, value in headers if name.lower() == b"sec-websocket-protocol"])
    except (BadRequest, Unauthorized):
        return None
    return None if token is None else f"Bearer {token}"


def forwarded_fields(accepted: AcceptedHeaders, info: RequestInfo) -> tuple[tuple[bytes, bytes], ...]:
    """Return every field that goes upstream, `Accept` included.

    A resource request asks for JSON only. Other paths ask for what the client asked for (kubectl reads
    `/openapi/v2` as protobuf whatever it gets), and so does a proxied workload, whose encodings are its own.
    """
    is_object = info.is_resource_request and info.subresource != "proxy" and info.verb != "proxy"
    accept = json_accept(accepted.accept) if is_object else accepted.accept
    return ((b"Accept", accept.encode()), *accepted.fields) if accept else accepted.fields


def _check_size(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    if len(headers) > MAX_HEADER_FIELDS:
        raise HeadersTooLarge(
            f"The request has {len(headers)} header fields; at most {MAX_HEADER_FIELDS} are accepted."
        )
    size = sum(len(name) + len(value) + len(": \r\n") for name, value in headers)
    if size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(f"The request's headers are {size} bytes long; at most {MAX_HEADER_BYTES} are accepted.")


def _collect(headers: tuple[tuple[bytes, bytes], ...]) -> _Fields:
    """Check every field by itself; the white space around values is gone afterwards."""
    fields: _Fields = {}
    for raw_name, raw_value in headers:
        value = raw_value.strip(b" \t")
        name = _checked_name(raw_name)
        if _CONTROL.search(value):
            raise BadRequest(f"The header {name} has a control character or a folded line in its value: send one line.")
        fields.setdefault(name, []).append(value)
    return fields


@functools.lru_cache(maxsize=1024)
def _checked_name(raw_name: bytes) -> str:
    """Return the name in lower case, if it may be sent; there are few names, and they come with every request."""
    if b"_" in raw_name:
        raise BadRequest(f"The header name {_shown(raw_name)} has a '_', which some servers read as '-'.")
    if not _TOKEN.fullmatch(raw_name):
        raise BadRequest(f"The header name {_shown(raw_name)} is not a token (RFC 9110 section 5.6.2).")
    name = raw_name.decode("ascii").lower()
    _check_name(name)
    return name


def _check_name(name: str) -> None:
    if name.startswith("impersonate-"):
        raise BadRequest(
            f"The header {name} is refused: who asks is taken from the token only; leave out --as, --as-group and "
            "--as-uid."
        )
    if name.startswith("x-remote-") or name == "x-forwarded-client-cert":
        raise BadRequest(f"The header {name} is refused: who asks is taken from the token only; leave it out.")
    if name == "trailer":
        raise BadRequest("The header trailer is refused: a request's fields come before its body.")


def _check_repeats(fields: _Fields) -> None:
    for name, values in fields.items():
        if len(values) > 1 and name in _SINGLE:
            raise BadRequest(f"The header {name} is sent twice, and servers differ in which one counts: send one.")


def _check_framing(fields: _Fields) -> None:
    length, coding = _text(fields, "content-length"), _text(fields, "transfer-encoding")
    if _has(fields, "content-length") and not (length.isascii() and length.isdigit()):
        raise BadRequest("The header content-length is not a number.")
    if _has(fields, "transfer-encoding") and coding.lower() != "chunked":
        raise BadRequest("The header transfer-encoding is not 'chunked', the one coding that is accepted.")
    if _has(fields, "transfer-encoding") and _has(fields, "content-length"):
        raise BadRequest("The request has both content-length and transfer-encoding: send one (RFC 9112 section 6.3).")
    if _text(fields, "content-encoding").lower() not in {"", "identity"}:
        raise BadRequest("The header content-encoding is refused: send the body as it is, without compression.")
    if set(_tokens(fields, "te")) - {"trailers"}:
        raise BadRequest("The header te has more than 'trailers': leave it out.")


def _check_upgrade(fields: _Fields, http_version: str) -> str:
    connection, upgrade = _tokens(fields, "connection"), _text(fields, "upgrade").lower()
    if set(connection) - _CONNECTION_TOKENS:
        raise BadRequest(
            "The header connection has a token other than keep-alive, close and upgrade: a token that names a header "
            "would have that header dropped on the way."
        )
    if _has(fields, "upgrade") != ("upgrade" in connection):
        raise BadRequest("An upgrade needs both headers, 'Connection: Upgrade' and 'Upgrade': send both or neither.")
    if _has(fields, "upgrade"):
        _check_protocol(upgrade, http_version)
    return upgrade


def _take_bearer(fields: _Fields, upgrade: str) -> None:
    """Take a bearer token out of the subprotocols; who reads it is `presented_authorization`."""
    if not _has(fields, "sec-websocket-protocol"):
        return
    token, others = split_bearer(fields["sec-websocket-protocol"])
    if token is None:
        return
    if upgrade != "websocket":
        raise BadRequest(
            "A bearer token in sec-websocket-protocol is for WebSockets only: send 'Authorization: Bearer TOKEN'."
        )
    if _has(fields, "authorization"):
        raise BadRequest("The token is sent twice, in authorization and in sec-websocket-protocol: send one.")
    fields["sec-websocket-protocol"] = [", ".join(others).encode()]


def _check_protocol(upgrade: str, http_version: str) -> None:
    if upgrade not in _UPGRADES:
        raise BadRequest("The header upgrade names neither websocket nor SPDY/3.1, the protocols Kubernetes speaks.")
    if http_version != "HTTP/1.1":
        raise BadRequest(f"An upgrade needs HTTP/1.1; this request came over {http_version}.")


def _rebuild(fields: _Fields, upgrade: str) -> tuple[tuple[bytes, bytes], ...]:
    names = _FORWARDED | _FORWARDED_WITH_UPGRADE if upgrade else _FORWARDED
    rebuilt = tuple((names[name], value) for name, values in fields.items() if name in names for value in values)
    return ((b"Connection", b"Upgrade"), *rebuilt) if upgrade else rebuilt


def _has(fields: _Fields, wanted: str) -> bool:
    return wanted in fields


def _texts(fields: _Fields, wanted: str) -> list[str]:
    return [value.decode("utf-8", "replace") for value in fields.get(wanted, ())]


def _text(fields: _Fields, wanted: str) -> str:
    return fields[wanted][0].decode("utf-8", "replace") if wanted in fields else ""


def _tokens(fields: _Fields, wanted: str) -> list[str]:
    return list(_split_tokens(_texts(fields, wanted)))


def _split_tokens(values: Iterable[str]) -> Iterable[str]:
    return (token.strip().lower() for value in values for token in value.split(",") if token.strip())


def _shown(name: bytes) -> str:
    return repr(name[:40].decode("ascii", "replace"))
