"""JSON bodies, masked for the caller and for the store in one walk.

Both views are spliced from the bytes that came: white space, key order, numbers of any size, escapes and
unknown fields stay as they are wherever no rule reaches. Only the objects on the way to a masked field are
decoded, each into its keys and the undecoded bytes of its values (`spans`); one that says a key twice is
refused there, as is everything that cannot be read as JSON.

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
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from holdfast.errors import BadGateway
from holdfast.masking.fingerprint import Views, is_mask
from holdfast.masking.spans import UNREADABLE, Members, Spans, Unsafe, decode_members, decode_text
from holdfast.masking.states import FieldRule, State

if TYPE_CHECKING:
    from holdfast.masking.plan import FieldPlan, Plan

_DEEPEST = 128
"""Levels of nesting that are followed; Kubernetes' own types stay below 40."""

_LEFT_BRACE, _LEFT_BRACKET, _QUOTE, _NULL = b'{["n'
_CONTAINERS = b"{["
_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
_NONE = Raw(b"null")

type _Path = tuple[str | int, ...]


class _ObjectMeta(msgspec.Struct):
    """Of `ObjectMeta`, what tells one object from another."""

    name: str | None = None
    namespace: str | None = None


_decode_metadata = msgspec.json.Decoder(_ObjectMeta | None).decode
_decode_bytes = msgspec.json.Decoder(bytes).decode


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
    if plan.fields is None or not body:
        return MaskedBody(body, body, {})
    walk = _Walk(body, plan.fields, views)
    try:
        walk_from(walk, *walk.spans.document())
    except UNREADABLE as error:
        raise BadGateway(
            "The body could not be read as JSON, so what must be masked in it could not be found "
            f"({_why(error)}); expected one JSON document without repeated keys. It was withheld."
        ) from error
    return walk.result()


def _why(error: Exception) -> str:
    if isinstance(error, Unsafe):
        return str(error)
    return "it is nested too deeply" if isinstance(error, RecursionError) else "it is malformed"


class _Walk:
    """One pass over `body`: both views grow side by side up to `_done`, the end of what was copied or masked.

    The way down starts at what a document is made of (`answer`, `event`, `patch`, `object`), follows states
    (`_descend`, `_visit`) and ends in `_replace`.
    """

    def __init__(self, body: bytes, fields: FieldPlan, views: Views) -> None:
        self.spans = Spans(body)
        self._fields = fields
        self._views = views
        self._done = 0
        self._caller: list[bytes] = []
        self._store: list[bytes] = []
        self._counts: Counter[str] = Counter()
        self._metadata = _NONE
        self._place: bytes | None = None

    def result(self) -> MaskedBody:
        """Return both views; the body itself where nothing was masked."""
        if not self._caller:
            return MaskedBody(self.spans.body, self.spans.body, {})
        rest = self.spans.body[self._done :]
        return MaskedBody(b"".join((*self._caller, rest)), b"".join((*self._store, rest)), dict(self._counts))

    def answer(self, raw: Raw, at: int) -> None:
        """Mask whatever `raw`, which begins at `at`, says it is."""
        members = decode_members(raw)
        match _shape(members):
            case "Status":
                self._each(None, self.object, raw, at, members)
            case "Table":
                self._each("rows", self._row, raw, at, members)
            case "List":
                self._each("items", self._item, raw, at, members)
            case _:
                self.object(raw, at)

    def event(self, raw: Raw, at: int) -> None:
        """Mask the object of a watch event."""
        self._one("object", self.answer, raw, at)

    def patch(self, raw: Raw, at: int) -> None:
        """Mask the values of a JSON Patch."""
        for operation, place in self.spans.elements(raw, at):
            self._one("value", self._hide, operation, place)

    def object(self, raw: Raw, at: int) -> None:
        """Mask one API object."""
        members = decode_members(raw)
        self._metadata, self._place = members.get("metadata", _NONE), None
        self._descend(self.spans.members(raw, at, members), self._fields.root, ())

    def _item(self, raw: Raw, at: int) -> None:
        if not self._is_barren(raw, at, self._fields.root):
            self.object(raw, at)

    def _row(self, raw: Raw, at: int) -> None:
        self._one("object", self._item, raw, at)

    def _hide(self, raw: Raw, at: int) -> None:
        self._visit(raw, at, State(rule=self._fields.everything), ("value",))

    def _one(self, name: str, mask: Callable[[Raw, int], None], raw: Raw, at: int) -> None:
        for key, member, place in self.spans.members(raw, at, decode_members(raw)):
            if key == name and self.spans.body[place] != _NULL:
                mask(member, place)

    def _each(self, name: str | None, mask: Callable[[Raw, int], None], raw: Raw, at: int, members: Members) -> None:
        for key, member, place in self.spans.members(raw, at, members):
            if key == name and self.spans.body[place] != _NULL:
                for element, begin in self.spans.elements(member, place):
                    mask(element, begin)

    def _descend(self, members: Iterator[tuple[str, Raw, int]], state: State, path: _Path) -> None:
        for key, member, place in members:
            child = state.members.get(key, state.other)
            if not child.is_dead:
                self._visit(member, place, child, (*path, key))

    def _visit(self, raw: Raw, at: int, state: State, path: _Path) -> None:
        if len(path) > _DEEPEST:
            raise RecursionError
        first = self.spans.body[at]
        if first in _CONTAINERS and self._is_barren(raw, at, state):
            return
        if first == _LEFT_BRACE:
            self._descend(self.spans.members(raw, at, decode_members(raw)), state, path)
        elif first == _LEFT_BRACKET:
            self._visit_elements(raw, at, state, path)
        elif state.rule is not None and first != _NULL:
            self._replace(raw, at, state.rule, path)
        elif state.opens and first == _QUOTE:
            self._open(raw, at, path)

    def _visit_elements(self, raw: Raw, at: int, state: State, path: _Path) -> None:
        for index, (element, place) in enumerate(self.spans.elements(raw, at)):
            child = state.elements.get(index, state.other)
            if not child.is_dead:
                self._visit(element, place, child, (*path, index))

    def _is_barren(self, raw: Raw, at: int, state: State) -> bool:
        return bool(state.needs) and self.spans.has_none_of(state.needs, raw, at)

    def _open(self, raw: Raw, at: int, path: _Path) -> None:
        """Mask the object inside a string; the whole string if it holds none.

        Anyone who may annotate writes this string. So its own `metadata` binds nothing, and its masks differ
        from the live object's: they would show whether a guess written here is the value there.
        """
        inside = _Walk(decode_text(raw).encode(), self._fields, self._views)
        inside._place = self._bound()
        try:
            text, begin = inside.spans.document()
            inside._descend(inside.spans.members(text, begin, decode_members(text)), self._fields.root, path)
        except UNREADABLE:
            self._replace(raw, at, self._fields.everything, path)
            return
        opened = inside.result()
        if opened.counts:
            self._counts.update(opened.counts)
            self._splice(raw, at, *(msgspec.json.encode(view.decode()) for view in (opened.caller, opened.store)))

    def _replace(self, raw: Raw, at: int, rule: FieldRule, path: _Path) -> None:
        value = _decoded(raw) if rule.base64 else _plain(raw)
        if is_mask(value, self._fields.names):
            return
        caller, store = self._views.masks(rule.name, value, self._bound(), path)
        quoted = _quoted_base64 if rule.base64 else _quoted
        self._counts[rule.name] += 1
        self._splice(raw, at, quoted(caller), quoted(store))

    def _splice(self, raw: Raw, at: int, caller: bytes, store: bytes) -> None:
        untouched = self.spans.body[self._done : at]
        self._caller += (untouched, caller)
        self._store += (untouched, store)
        self._done = at + len(raw)

    def _bound(self) -> bytes:
        if self._place is None:
            metadata = _decode_metadata(self._metadata) or _ObjectMeta()
            self._place = self._views.place(metadata.namespace or "", metadata.name or "")
        return self._place


def _shape(members: Members) -> str:
    """Return Status, Table or List for apimachinery's own kinds, an empty string for an object.

    The kind of a list may be any word (a custom resource's `listKind`), but no list has a name (`ListMeta`) and
    every object has one, so that a custom resource that has `items` of its own is none.
    """
    kind, version = (decode_text(members[key]) if key in members else "" for key in ("kind", "apiVersion"))
    if kind == "Status" and version == "v1":
        return "Status"
    if kind == "Table" and version.startswith("meta.k8s.io/"):
        return "Table"
    metadata = _decode_metadata(members.get("metadata", _NONE))
    return "List" if "items" in members and not (metadata and metadata.name) else ""


def _plain(raw: Raw) -> bytes:
    """Return what the fingerprint of a scalar is made from: a string's text, anything else as it is written."""
    try:
        return decode_text(raw).encode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return bytes(raw)


def _decoded(raw: Raw) -> bytes:
    """Return what a base64 string decodes to, in any spelling: padded or not, URL-safe, wrapped."""
    try:
        return _decode_bytes(raw)
    except msgspec.DecodeError:
        text = _plain(raw)
    try:
        return binascii.a2b_base64(text.translate(_STANDARD_ALPHABET) + b"==")
    except binascii.Error:
        return text


def _quoted(mask: bytes) -> bytes:
    return b'"' + mask + b'"'


def _quoted_base64(mask: bytes) -> bytes:
    return b'"' + binascii.b2a_base64(mask, newline=False) + b'"'
