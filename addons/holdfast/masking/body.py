"""JSON bodies, masked for the caller and for the store in one walk.

Both views are spliced from the bytes that came: white space, key order, numbers of any size, escapes and
unknown fields stay as they are wherever no rule reaches. Only the objects on the way to a masked field are
decoded, each into its keys and the undecoded bytes of its values. A value's place follows from going through
its siblings in order, and is checked against its bytes, so an object that says a key twice (where two readers
may see two values) does not come out even and is refused, as is everything that cannot be read as JSON.

What an answer is made of is told by its own `kind`: an object, a list of them (`items`), a Table
(`rows[*].object`; apimachinery `pkg/apis/meta/v1/types.go`), or a Status, which is left alone. The copy of an
object in its `last-applied-configuration` is opened and masked by the same rules, and stays JSON, because
`kubectl apply` must read it.
"""

from __future__ import annotations

import binascii
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from holdfast.errors import BadGateway
from holdfast.masking.fingerprint import Views, is_mask
from holdfast.masking.plan import Plan
from holdfast.masking.states import FieldRule, State

_DEEPEST = 128
"""Levels of nesting that are followed; Kubernetes' own types stay below 40."""

_LEFT_BRACE, _LEFT_BRACKET, _QUOTE, _COMMA, _N = b'{[",n'
_WHITE_SPACE = b" \t\r\n"

type _Path = tuple[str | int, ...]
type _Members = dict[str, Raw]

_members_of = msgspec.json.Decoder(dict[str, Raw]).decode
_elements_of = msgspec.json.Decoder(list[Raw]).decode
_text_of = msgspec.json.Decoder(str).decode
_bytes_of = msgspec.json.Decoder(bytes).decode
_encoded = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class MaskedBody:
    """One body, twice: as the caller sees it and as it is stored; `counts` has the masks made, by rule."""

    caller: bytes
    store: bytes
    counts: Mapping[str, int]


def mask_json(body: bytes, plan: Plan, views: Views) -> MaskedBody:
    """Mask an answer of the API server: object, list, Table or Status. Raises BadGateway if it cannot be read."""
    return _mask(body, plan, views, _Walk.answer)


def mask_object(body: bytes, plan: Plan, views: Views) -> MaskedBody:
    """Mask a request body that is an object, or a merge or strategic merge patch of one, whatever its `kind` says.

    Raises BadGateway if it cannot be read.
    """
    return _mask(body, plan, views, _Walk.object)


def mask_event(event: bytes, plan: Plan, views: Views) -> MaskedBody:
    """Mask one watch event, `{"type": ..., "object": ...}`. Raises BadGateway if it cannot be read."""
    return _mask(event, plan, views, _Walk.event)


def mask_json_patch(body: bytes, plan: Plan, views: Views) -> MaskedBody:
    """Mask every `value` of a JSON Patch (RFC 6902), and nothing else, if the plan has any field rule.

    A patch names places in an object that is not here, so what its values hold is not known. Raises BadGateway
    if it cannot be read.
    """
    return _mask(body, plan, views, _Walk.patch)


def _mask(body: bytes, plan: Plan, views: Views, walk_from: Callable[[_Walk, Raw, int], None]) -> MaskedBody:
    if plan.root is None or not body:
        return MaskedBody(body, body, {})
    walk = _Walk(body, plan, views)
    try:
        walk_from(walk, Raw(body.strip(_WHITE_SPACE)), walk.past_space(0))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, IndexError, _Unreadable) as error:
        raise BadGateway(
            f"The body could not be read as JSON, so what must be masked in it could not be found "
            f"({_why(error)}); expected one JSON document without repeated keys. It was withheld."
        ) from error
    return walk.result()


class _Unreadable(Exception):
    """The document is JSON that cannot be masked safely; the message has none of it."""


def _why(error: Exception) -> str:
    if isinstance(error, _Unreadable):
        return str(error)
    return "it is nested too deeply" if isinstance(error, RecursionError) else "it is malformed"


class _Walk:
    """One pass over `body`: both views grow side by side up to `_done`, the end of what was copied or masked."""

    def __init__(self, body: bytes, plan: Plan, views: Views) -> None:
        self._body = body
        self._view = memoryview(body)
        self._plan = plan
        self._views = views
        self._done = 0
        self._caller: list[bytes | memoryview] = []
        self._store: list[bytes | memoryview] = []
        self._counts: Counter[str] = Counter()
        self._metadata: Raw | None = None
        self._place: bytes | None = None

    def result(self) -> MaskedBody:
        """Return both views; the body itself where nothing was masked."""
        if not self._caller:
            return MaskedBody(self._body, self._body, {})
        rest = self._view[self._done :]
        return MaskedBody(b"".join([*self._caller, rest]), b"".join([*self._store, rest]), dict(self._counts))

    def past_space(self, at: int) -> int:
        """Return where the white space that may begin at `at` ends."""
        body = self._body
        while body[at] in _WHITE_SPACE:
            at += 1
        return at

    # What a document is made of.

    def answer(self, raw: Raw, at: int) -> None:
        """Mask whatever `raw`, which begins at `at`, says it is."""
        members = _members_of(raw)
        match _shape(members):
            case "Status":
                self._check_members(raw, at, members)
            case "Table":
                self._each("rows", self._row, raw, at, members)
            case "List":
                self._each("items", self.object, raw, at, members)
            case _:
                self._object(raw, at, members)

    def event(self, raw: Raw, at: int) -> None:
        """Mask the object of a watch event."""
        self._one("object", self.answer, raw, at)

    def patch(self, raw: Raw, at: int) -> None:
        """Mask the values of a JSON Patch."""
        for operation, place in self._elements(raw, at, _elements_of(raw)):
            self._one("value", self._hidden, operation, place)

    def object(self, raw: Raw, at: int) -> None:
        """Mask one API object."""
        self._object(raw, at, _members_of(raw))

    def _object(self, raw: Raw, at: int, members: _Members) -> None:
        self._metadata, self._place = members.get("metadata"), None
        self._descend_members(raw, at, members, self._root(), ())

    def _row(self, raw: Raw, at: int) -> None:
        self._one("object", self.object, raw, at)

    def _hidden(self, raw: Raw, at: int) -> None:
        assert self._plan.everything is not None
        self._visit(raw, at, self._plan.everything, ("value",))

    def _one(self, name: str, mask: Callable[[Raw, int], None], raw: Raw, at: int) -> None:
        for key, member, place in self._members(raw, at, _members_of(raw)):
            if key == name and self._body[place] != _N:
                mask(member, place)

    def _each(self, name: str, mask: Callable[[Raw, int], None], raw: Raw, at: int, members: _Members) -> None:
        for key, member, place in self._members(raw, at, members):
            if key == name and self._body[place] != _N:
                for element, begin in self._elements(member, place, _elements_of(member)):
                    mask(element, begin)

    def _check_members(self, raw: Raw, at: int, members: _Members) -> None:
        for _ in self._members(raw, at, members):
            pass
