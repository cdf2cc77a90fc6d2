"""JSON by the parts of CPython that its json package is made of.

The package itself compiles regular expressions when it is imported, for its decoder in Python, which took a quarter of
the cached path's time. What it does in C is the same JSON: the scanner and the writer of strings are called here as
json.decoder and json.encoder call them.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_scanner
from typing import Any

_SPACE = " \t\r\n"


class _Rules:
    """How json.loads reads, but for NaN and infinities, which are no JSON."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")


_scan = make_scanner(_Rules())  # type: ignore[arg-type]  # it takes anything with these names


def parse_json(document: str) -> Any:
    """As json.loads. Raises ValueError, RecursionError."""
    text = document.strip(_SPACE)
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("not JSON: something follows")
    return value


def quote(text: str) -> str:
    """A string as JSON has it, in ASCII."""
    return encode_basestring_ascii(text)
