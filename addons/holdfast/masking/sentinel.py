r"""Finds a mask in a request body: what was masked for a caller must not be written back over the true value.

The mask is looked for as it is, and as base64 at each of the three offsets it can have there, in every spelling
that JSON and YAML allow: letters as `\u006d` or `\x6d` below any number of backslashes (JSON within JSON),
base64 wrapped over lines. Nothing is parsed to find it, so bodies of every kind can be searched; protobuf has
its strings and bytes as they are. Text that only looks like such a spelling is taken for one. This keeps callers
from an accident; whoever means to destroy a value that he may write needs no mask for it.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

from holdfast.masking.fingerprint import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHOLE = "the body"
_LONGEST_PATH = 256

_SPELLED_OUT = re.compile(rb"\\(?:u00|x|U000000)([2-7][0-9A-Fa-f])")
_SPELLED_BREAK = re.compile(rb"\\(?:[nrt]|(?:u00|x|U000000)0[9AaDd])")


def find_mask(body: bytes) -> str | None:
    """Return where `body` holds a mask: a path if it is JSON, else its line or "the body". None without a mask."""
    if not _has_mask(body):
        return None
    return _path_in(body) or _line_in(body) or _WHOLE


def _has_mask(data: bytes) -> bool:
    letters = _SPELLED_OUT.sub(_letter, data) if b"\\" in data else data
    if PREFIX in letters.translate(None, b"\\"):
        return True
    unbroken = _SPELLED_BREAK.sub(b"", letters).translate(None, b"\\ \t\r\n")
    return any(sign in unbroken for sign in _BASE64_SIGNS)


def _letter(spelled: re.Match[bytes]) -> bytes:
    return bytes([int(spelled[1], 16)])


def _base64_sign(offset: int) -> bytes:
    """Return what all base64 of data with PREFIX at `offset` modulo 3 has in common."""
    encoded = base64.b64encode(bytes(offset) + PREFIX)
    return encoded[-(-offset * 8 // 6) : (offset + len(PREFIX)) * 8 // 6]


_BASE64_SIGNS = tuple(_base64_sign(offset) for offset in range(3))


class _Members(list[tuple[str, Any]]):
    """The members of an object, repeated keys too."""


type _Trail = tuple[_Trail, str] | None
"""A value's way from the root, innermost step first: cheap to make for every value, spelled out for one."""


def _path_in(body: bytes) -> str | None:
    try:
        document = json.loads(body.decode(), object_pairs_hook=_Members, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    marked = (trail for trail, text in _strings(document) if _has_mask(text.encode("utf-8", "surrogatepass")))
    return _spelled(next(marked, None))


def _strings(document: Any) -> Iterator[tuple[_Trail, str]]:
    waiting: list[tuple[_Trail, Any]] = [(None, document)]
    while waiting:
        trail, value = waiting.pop()
        if isinstance(value, str):
            yield trail, value
        elif isinstance(value, _Members):
            waiting += [((trail, f".{key}"), member) for key, member in reversed(value)]
        elif isinstance(value, list):
            waiting += [((trail, f"[{index}]"), value[index]) for index in reversed(range(len(value)))]


def _spelled(trail: _Trail) -> str | None:
    steps: list[str] = []
    while trail is not None:
        trail, step = trail
        steps.append(step)
    return "".join(reversed(steps))[:_LONGEST_PATH].lstrip(".") or None


def _line_in(body: bytes) -> str | None:
    signs = (body.find(sign) for sign in (PREFIX, *_BASE64_SIGNS))
    places = [place for place in signs if place >= 0]
    is_text = b"\0" not in body
    return f"line {body.count(b'\n', 0, min(places)) + 1}" if places and is_text else None
