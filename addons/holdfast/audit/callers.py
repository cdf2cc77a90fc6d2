"""Callers as lists find them: each kept once, with the claims that calls are looked for by.

A caller is the identity part of a record, as JSON. Its ID is the first 32 hexadecimal digits of the SHA-256 of that
JSON. A claim is looked for as text: a scalar by itself, a list by each member, an object by its members under
dotted names. Members are taken in the order of their names, as they stand in that JSON: of many claims only the first
are looked for, and a token has them in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import islice
from operator import itemgetter
from typing import Any

MOST_CLAIMS = 64
LONGEST_CLAIM = 256
"""An issuer chooses the claims; it must not be able to fill the index with one token."""


def caller_id(encoded: str) -> str:
    """The ID of a caller, from its JSON."""
    return sha256(encoded.encode()).hexdigest()[:32]


def caller_claims(claims: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values under which calls of a caller with these claims are found, without repetition."""
    # NUL is no text to Postgres.
    pairs = ((name.replace("\0", "\ufffd"), value.replace("\0", "\ufffd")) for name, value in _flatten("", claims))
    short = (pair for pair in pairs if max(map(len, pair)) <= LONGEST_CLAIM)
    return list(dict.fromkeys(islice(short, MOST_CLAIMS)))


def _flatten(name: str, value: Any) -> Iterator[tuple[str, str]]:
    match value:
        case Mapping():
            for key, member in sorted(value.items(), key=itemgetter(0)):
                yield from _flatten(f"{name}.{key}" if name else str(key), member)
        case list() | tuple():
            for member in value:
                yield from _flatten(name, member)
        case bool():
            yield name, "true" if value else "false"
        case str() | int():
            yield name, str(value)
