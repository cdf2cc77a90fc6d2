"""One spelling for each request target, so that what is classified is what the API server will read.

A proxy and a server that decode, merge or trim a path differently can be played against each other: the proxy
authorizes `pods`, the server serves `secrets`. The answer here is not to normalize but to refuse: a target is
accepted only if it has a single reading, and then its bytes are forwarded unchanged.

A path segment is accepted when it is spelled as one of the two encoders in use spells it: Go's
`url.URL.EscapedPath` (client-go, kubectl), or Python's `quote(name, safe="")` (the Kubernetes Python client,
which writes the `:` of `system:node` as `%3A`). Every other spelling of the same name is refused.
The query follows Go's `url.ParseQuery`, the API server's parser, wherever that parser has no doubts.

Sources: RFC 9112 section 3.2 (forms of a target), RFC 3986 sections 2.1 and 6.2.2 (escapes), Go `net/url`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from holdfast.errors import BadRequest

MAX_PATH_BYTES = 4 << 10
MAX_QUERY_BYTES = 64 << 10
MAX_QUERY_PARAMETERS = 10_000
"""Go's own limit: beyond it the API server would read the whole query as empty."""

REPEATABLE_PARAMETERS = frozenset({"command"})
"""exec sends one `command` for each argument; every other parameter has one value."""

TOKEN_PARAMETERS = frozenset({"access_token", "token"})

_GO_UNESCAPED = "$&+,:=@"
_TWO_READINGS_IN_PATH = "/%\\;"
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL_OR_SPACE = re.compile(rb"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class CanonicalTarget:
    """A target with one reading: `path` and `query` decoded, `target` the bytes as they came and will be sent."""

    path: str
    target: bytes
    query: tuple[tuple[str, str], ...] = ()


def canonicalize(target: bytes) -> CanonicalTarget:
    """Read a raw request target, path and query; raise BadRequest if it could be read in two ways.

    The messages name the fault and the right spelling, and never repeat a value of the query.
    """
    raw_path, _, raw_query = target.partition(b"?")
    _check_length(raw_path, raw_query)
    _check_bytes(target)
    return CanonicalTarget(_decode_path(raw_path), target, _decode_query(raw_query))


def carries_token(query: bytes | str) -> bool:
    """Whether a raw query, as it stands after the `?`, has a parameter named as one of `TOKEN_PARAMETERS`.

    For queries that were not accepted too: in one that could be read in two ways, such a name anywhere counts.
    """
    raw = query.encode("utf-8", "surrogatepass") if isinstance(query, str) else query
    try:
        _check_bytes(b"/?" + raw)
        names = [_decode_parameter(piece)[0].lower() for piece in raw.split(b"&")]
    except BadRequest:
        text = unquote_to_bytes(raw).lower()
        return any(name.encode() in text for name in TOKEN_PARAMETERS)
    return not TOKEN_PARAMETERS.isdisjoint(names)


def _check_length(raw_path: bytes, raw_query: bytes) -> None:
    if len(raw_path) > MAX_PATH_BYTES:
        raise BadRequest(f"The path is {len(raw_path)} bytes long; at most {MAX_PATH_BYTES} are accepted.")
    if len(raw_query) > MAX_QUERY_BYTES:
        raise BadRequest(f"The query is {len(raw_query)} bytes long; at most {MAX_QUERY_BYTES} are accepted.")


def _check_bytes(target: bytes) -> None:
    if not target.startswith(b"/"):
        raise BadRequest(
            "The request target is not a path: send /api/..., not a full URL, HOST:PORT or * "
            "(origin form, RFC 9112 section 3.2.1)."
        )
    if _CONTROL_OR_SPACE.search(target):
        raise BadRequest("The request target holds a space or a control character: write it percent-encoded.")
    if not target.isascii():
        raise BadRequest("The request target holds raw bytes outside ASCII: write them as percent-encoded UTF-8.")
    if b"#" in target:
        raise BadRequest("The request target holds '#': a fragment is not sent; write %23 for the character.")
    if b"\\" in target:
        raise BadRequest("The request target holds a backslash, which some servers read as '/': write %5C in a query.")
    if b";" in target:
        raise BadRequest("The request target holds ';', which separates in some servers: write %3B in a query.")


def _decode_path(raw: bytes) -> str:
    segments = raw[1:].split(b"/")
    if b"" in segments[:-1]:
        raise BadRequest("The path holds '//', an empty segment that some servers drop: write single slashes.")
    if len(segments) > 1 and segments[-1] == b"" and not _is_discovery(segments[:-1]):
        raise BadRequest("The path ends in '/', which some servers drop: leave it off.")
    return "/" + "/".join(_decode_segment(segment) for segment in segments)


def _is_discovery(segments: list[bytes]) -> bool:
    """Whether the Python client asks for this document with a `/` at its end, which the API server allows."""
    match segments:
        case [b"api" | b"apis" | b"version"]:
            return True
        case [b"api", _] | [b"apis", _] | [b"apis", _, _]:
            return True
    return False


def _decode_segment(raw: bytes) -> str:
    segment = _unescape(raw, "path")
    if segment in {".", ".."}:
        raise BadRequest("The path holds a dot segment ('.' or '..'): write the path that is meant.")
    for character in _TWO_READINGS_IN_PATH:
        if character in segment:
            raise BadRequest(
                f"The path holds an encoded {character!r} (%{ord(character):02X}), which is decoded twice or read as "
                "a separator by some servers; no Kubernetes name needs it."
            )
    if not segment.isprintable():
        raise BadRequest("The path holds an encoded character that cannot be shown; no Kubernetes name needs it.")
    _check_spelling(raw.decode("ascii"), segment)
    return segment


def _check_spelling(raw: str, segment: str) -> None:
    spelling = quote(segment, safe=_GO_UNESCAPED)
    if raw != spelling and raw != quote(segment, safe=""):
        raise BadRequest(
            f"The path segment {_shortened(raw)} has another spelling: write it as {_shortened(spelling)}."
        )


def _decode_query(raw: bytes) -> tuple[tuple[str, str], ...]:
    pieces = [piece for piece in raw.split(b"&") if piece]
    if raw.count(b"&") >= MAX_QUERY_PARAMETERS:
        raise BadRequest(f"The query has more than {MAX_QUERY_PARAMETERS} parameters.")
    query = tuple(_decode_parameter(piece) for piece in pieces)
    _check_parameters([name for name, _ in query])
    return query


def _decode_parameter(piece: bytes) -> tuple[str, str]:
    name, _, value = piece.replace(b"+", b" ").partition(b"=")
    return _unescape(name, "query"), _unescape(value, "query")


def _check_parameters(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name.lower() in TOKEN_PARAMETERS:
            raise BadRequest(
                f"The query carries {name!r}: tokens in a URL end in logs; send the header 'Authorization: Bearer'."
            )
        if name in seen and name not in REPEATABLE_PARAMETERS:
            raise BadRequest(f"The query names {_shortened(name)} twice, and servers differ in which one counts.")
        seen.add(name)


def _unescape(raw: bytes, place: str) -> str:
    if _BAD_ESCAPE.search(raw):
        raise BadRequest(f"The {place} holds a '%' that two hexadecimal digits do not follow: write %25 in a query.")
    decoded = unquote_to_bytes(raw)
    if b"\x00" in decoded:
        raise BadRequest(f"The {place} holds an encoded NUL character (%00), which nothing in Kubernetes accepts.")
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(f"The {place} holds escapes that are not UTF-8: encode the text as UTF-8 first.") from error


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
