"""Request headers: rebuilt from an allow-list, and refused where they could mean something upstream.

The API server trusts some headers because of who sends them: `Impersonate-*` under the gateway's credential,
`X-Remote-*` behind a front proxy. These are refused, not stripped, so that no spelling slips through a filter
and no caller believes that they worked. Names that servers normalize (`_` into `-`), values with control
characters, repeated single-valued fields, and `Connection` tokens that make a hop drop a field are the usual
ways around a filter; each is refused by name. What is neither forwarded nor dangerous is dropped
(`Accept-Encoding`, so that responses come unencoded; `Audit-ID`, which the gateway sets; `Origin`; cookies).

`Authorization` is read and never forwarded. `Host` and the body's framing are set by whoever forwards.

Sources: RFC 9110 sections 5 and 7.6.1, RFC 9112 sections 5.2 and 6; Kubernetes "Authenticating"
(impersonation, authenticating proxy); k8s.io/apiserver `pkg/authentication/request/websocket`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import BadRequest, HeadersTooLarge
from holdfast.kube.negotiation import json_accept

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
_WEBSOCKET_BEARER = "base64url.bearer.authorization.k8s.io."

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

    authorization: str | None = None
    accept: str = ""
    content_type: str = ""
    user_agent: str = ""
    kubectl_command: str = ""
    kubectl_session: str = ""
    upgrade: str = ""
    fields: tuple[tuple[bytes, bytes], ...] = ()


def check_request_headers(wire: WireRequest) -> AcceptedHeaders:
    """Read a request's headers; raise BadRequest or HeadersTooLarge, naming the header and the reason.

    No message repeats a header's value.
    """
    _check_size(wire.headers)
    fields = _collect(wire.headers)
    _check_repeats(fields)
    _check_framing(fields)
    upgrade = _check_upgrade(fields, wire.http_version)
    return AcceptedHeaders(
        authorization=_text(fields, "authorization") or None,
        accept=", ".join(_texts(fields, "accept")),
        content_type=_text(fields, "content-type"),
        user_agent=_text(fields, "user-agent"),
        kubectl_command=_text(fields, "kubectl-command"),
        kubectl_session=_text(fields, "kubectl-session"),
        upgrade=upgrade,
        fields=_rebuild(fields, upgrade),
    )


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
    if any(token.startswith(_WEBSOCKET_BEARER) for token in _tokens(fields, "sec-websocket-protocol")):
        raise BadRequest(
            "A bearer token in sec-websocket-protocol is not supported in this version: send it in the header "
            "'Authorization: Bearer'."
        )
    return upgrade


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
