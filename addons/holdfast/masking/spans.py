"""Where each value of a JSON document stands, so that its bytes can be replaced and all others kept.

A decoder tells keys and the undecoded bytes of their values, but not where they were. Their places follow from
going through an object's members in order: white space, the key, a colon, the value. Every value is compared
with the bytes at its place, and the object must end where the last one does. An object that says a key twice
has more members than keys and cannot come out even: it is refused, since two readers may see two values in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

if TYPE_CHECKING:
    from collections.abc import Iterator

type Members = dict[str, Raw]
"""An object's keys and the bytes of their values, in order."""

_COMMA = b","[0]
_WHITE_SPACE = b" \t\r\n"
_KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:')
_OTHER_SPELLINGS = (b"\\u", b"\\/")

decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
decode_elements = msgspec.json.Decoder(list[Raw]).decode
decode_text = msgspec.json.Decoder(str).decode


class Unsafe(Exception):
    """The document is JSON, but can be read in two ways; the message has none of it."""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError, Unsafe)
"""What reading a document that is not sound raises."""


class Spans:
    """The places of values in `body`: a value is given as its bytes and where they begin. Raises UNREADABLE."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def document(self) -> tuple[Raw, int]:
        """Return the whole document and its place."""
        return Raw(self.body.strip(_WHITE_SPACE)), self._past_space(0)

    def members(self, raw: Raw, at: int, members: Members) -> Iterator[tuple[str, Raw, int]]:
        """Yield key, value and place of each of the `members` decoded from `raw`, which begins at `at`."""
        here = at + 1
        for key, value in members.items():
            here = self._checked(value, self._past_key(here, key))
            yield key, value, here
            here = self._past_comma(here + len(value))
        self._check_end(here, raw, at)

    def elements(self, raw: Raw, at: int) -> Iterator[tuple[Raw, int]]:
        """Yield value and place of each element of `raw`, which begins at `at`."""
        here = at + 1
        for value in decode_elements(raw):
            here = self._checked(value, here)
            yield value, here
            here = self._past_comma(here + len(value))
        self._check_end(here, raw, at)

    def has_none_of(self, keys: tuple[bytes, ...], raw: Raw, at: int) -> bool:
        """Whether none of `keys`, JSON strings, is in `raw` in any spelling: a quick look that may say no wrongly."""
        end = at + len(raw)
        return all(self.body.find(sign, at, end) < 0 for sign in (*keys, *_OTHER_SPELLINGS))

    def _checked(self, value: Raw, here: int) -> int:
        if self.body[here] in _WHITE_SPACE:
            here = self._past_space(here)
        if not self.body.startswith(bytes(value), here):
            raise Unsafe("a key is repeated")
        return here

    def _check_end(self, here: int, raw: Raw, at: int) -> None:
        if self._past_space(here) != at + len(raw) - 1:
            raise Unsafe("a key is repeated")

    def _past_key(self, here: int, key: str) -> int:
        spelled = msgspec.json.encode(key) + b":"
        if self.body.startswith(spelled, here):
            return here + len(spelled)
        found = _KEY.match(self.body, here)
        if found is None or decode_text(found[1]) != key:
            raise Unsafe("a key is repeated")
        return found.end()

    def _past_comma(self, here: int) -> int:
        if self.body[here] == _COMMA:
            return here + 1
        here = self._past_space(here)
        return here + 1 if self.body[here] == _COMMA else here

    def _past_space(self, here: int) -> int:
        while self.body[here] in _WHITE_SPACE:
            here += 1
        return here
