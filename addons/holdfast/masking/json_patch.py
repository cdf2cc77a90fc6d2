"""JSON Patch operations (RFC 6902) that get around masks.

`add`, `remove` and `replace` use what the caller wrote. `copy` and `move` use what the object holds: from a masked
field they could take its value to where no mask is. `test` tells whether a guess at a value is right. These three
may name only places where nothing is masked, neither there nor below; so `metadata.resourceVersion` and, under most
masks, labels can be tested as ever.

A place is found as the API server finds it (github.com/evanphx/json-patch): whatever stands before the first slash
of a pointer is passed over, and an index may be written with a sign or zeros, so it may be any index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.masking.spans import UNREADABLE, Spans, decode_members, decode_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast.masking.plan import Plan
    from holdfast.masking.spans import Members
    from holdfast.masking.states import State

_HARMLESS = frozenset({"add", "remove", "replace"})
_POINTERS = {"copy": "from", "move": "from", "test": "path"}
"""Of the other operations, the member that names where they read."""


def find_forbidden_operation(body: bytes, plan: Plan) -> str | None:
    """Return why a JSON Patch must not be sent on, naming its first operation that gets around a mask, or None.

    What cannot be read, and an operation that RFC 6902 does not have, are forbidden too. A plan without field
    rules forbids nothing. The text has nothing of the body in it.
    """
    if plan.fields is None:
        return None
    try:
        for index, members in enumerate(_operations(body)):
            why = _why_forbidden(members, plan.fields.root)
            if why:
                return f"operation {index} {why}"
    except UNREADABLE:
        return "it cannot be read; expected a list of operations without repeated keys (RFC 6902)"
    return None


def _operations(body: bytes) -> Iterator[Members]:
    spans = Spans(body)
    for raw, at in spans.elements(*spans.document()):
        members = decode_members(raw)
        for _ in spans.members(raw, at, members):
            pass
        yield members


def _why_forbidden(members: Members, root: State) -> str:
    operation = decode_text(members["op"]) if "op" in members else ""
    if operation in _HARMLESS:
        return ""
    if operation not in _POINTERS:
        return "is none of add, remove, replace, copy, move, test"
    name = _POINTERS[operation]
    if name not in members:
        return f"({operation}) has no {name}"
    if _reaches_mask(decode_text(members[name]), root):
        return f"({operation}) reads what is masked; only add, remove and replace can be used there"
    return ""


def _reaches_mask(pointer: str, root: State) -> bool:
    states = {root}
    for token in pointer.split("/")[1:]:
        states = {child for state in states for child in _below(state, token)}
    return any(not state.is_dead for state in states)


def _below(state: State, token: str) -> Iterator[State]:
    yield state.members.get(token.replace("~1", "/").replace("~0", "~"), state.other)
    if token.lstrip("+-").isdigit():
        yield state.other
        yield from state.elements.values()
