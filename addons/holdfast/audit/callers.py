"""Callers as lists find them: each kept once, with the claims that calls are looked for by.

A caller is the identity part of a record, as JSON. Its ID is the first 32 hexadecimal digits of the SHA-256 of that
JSON. Claims are looked for as `flatten_claims` tells them, in the order of their names, as they stand in that JSON: of
many claims only the first are looked for, and a token has them in any order.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any

from holdfast.exchange import flatten_claims

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_CLAIMS = 64
LONGEST_CLAIM = 256
"""An issuer chooses the claims; it must not be able to fill the index with one token."""


def caller_id(encoded: str) -> str:
    """The ID of a caller, from its JSON."""
    return sha256(encoded.encode()).hexdigest()[:32]


def caller_claims(claims: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values under which calls of a caller with these claims are found, without repetition."""
    # NUL is no text to Postgres.
    pairs = ((name.replace("\0", "\ufffd"), value.replace("\0", "\ufffd")) for name, value in flatten_claims(claims))
    short = (pair for pair in pairs if max(map(len, pair)) <= LONGEST_CLAIM)
    return list(dict.fromkeys(islice(short, MOST_CLAIMS)))
