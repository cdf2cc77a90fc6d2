"""One spelling of base64url and of JSON, as JOSE writes them.

Two readers that disagree about one token are a way in: the reader that checks sees one value, the reader that
acts sees another. So a value has one accepted spelling here: base64url without padding or stray bits (RFC 7515
section 2, RFC 4648 section 3.5), JSON objects without duplicate members (RFC 7515 section 4, RFC 8725 section
3.1), without NaN, of bounded depth and with integers that every JSON reader holds exactly (RFC 8259 section 6).
What comes back is deeply immutable.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

MAX_DEPTH = 16
MAX_INTEGER = 2**53 - 1

# A string (to its end, or to the end of the text) is one match, so that brackets in it are not counted.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def decode_base64url(text: str) -> bytes:
    """Decode the one canonical spelling of some bytes; any other raises ValueError."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode_base64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


def encode_base64url(data: bytes) -> str:
    """Encode without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def parse_object(document: bytes) -> Mapping[str, Any]:
    """Parse UTF-8 JSON whose top is an object; objects become read-only mappings, arrays tuples.

    Raises ValueError for anything that two JSON readers may read differently, or that is deeper than MAX_DEPTH.
    """
    text = document.decode("utf-8")
    _require_shallow(text)
    value = _DECODER.decode(text)
    if not isinstance(value, Mapping):
        raise ValueError("not a JSON object")
    return value


def write_json(value: Mapping[str, Any]) -> bytes:
    """Write what `parse_object` reads, read-only mappings and tuples included."""
    return json.dumps(value, default=dict, separators=(",", ":"), ensure_ascii=False).encode()


def read_strings(claims: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    """A claim that is absent, one string, or a list of strings; None when it is something else."""
    value = claims.get(name, ())
    if isinstance(value, str):
        return (value,)
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return value
    return None


def _require_shallow(text: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
        elif match[0] in "]}":
            depth -= 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")


def _read_members(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    members = {_freeze(name): _freeze(value) for name, value in pairs}
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return MappingProxyType(members)


def _freeze(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, str):
        value.encode("utf-8")  # An escaped lone surrogate is no text; whoever hashes or stores it would fail later.
    return value


def _read_integer(text: str) -> int:
    value = int(text)
    if abs(value) > MAX_INTEGER:
        raise ValueError("integer out of range")
    return value


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("number out of range")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_read_members,
    parse_int=_read_integer,
    parse_float=_read_float,
    parse_constant=_refuse_constant,
)
