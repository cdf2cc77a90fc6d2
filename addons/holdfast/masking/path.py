"""The JSONPath that masks are written in: parsed by jsonpath-ng, kept to the part that can be walked in one pass.

Allowed are `$`, keys (`.data`, `['tls.key']`), `.*` and `[*]`, one index counted from the start (`[0]`), and
`..` before any of these. A filter, slice, union or parent is refused with its reason: each needs values beside
or above the one that is being read, and a mask must be decided from the way to a value alone. The meaning is
jsonpath-ng's, which follows RFC 9535: `*` selects members and elements, a key only members, an index only
elements.
"""

from __future__ import annotations

import enum

from jsonpath_ng import jsonpath
from jsonpath_ng.exceptions import JSONPathError
from jsonpath_ng.parser import parse


class Wild(enum.Enum):
    """The steps that name no child: any one child, or any number of levels down."""

    CHILD = "*"
    DEPTH = ".."


type Step = str | int | Wild
"""One step down from a value: a member's name, an element's index, or a wild card."""

_REFUSED: dict[type, str] = {
    jsonpath.Slice: "slices are not supported; use [*] or one index",
    jsonpath.Parent: "`parent` is not supported; a mask looks down from the object's root",
    jsonpath.This: "`this` is not supported; a mask looks down from the object's root",
    jsonpath.Where: "`where` is not supported; write the path to the values themselves",
    jsonpath.WhereNot: "`wherenot` is not supported; write the path to the values themselves",
}


def parse_path(text: str) -> tuple[Step, ...]:
    """Return the steps from the object's root. Raises ValueError whose message is the reason for a refusal."""
    try:
        tree = parse(text)
    except JSONPathError as error:
        raise ValueError(f"it is not a JSONPath that can be walked: {error}") from error
    steps = _walk(tree, leftmost=True)
    if not steps:
        raise ValueError("it selects the whole object; name the fields below it, as in $.data.*")
    return steps


def _walk(node: jsonpath.JSONPath, *, leftmost: bool) -> tuple[Step, ...]:
    match node:
        case jsonpath.Child(left=left, right=right):
            return _walk(left, leftmost=leftmost) + _walk(right, leftmost=False)
        case jsonpath.Descendants(left=left, right=right):
            return (*_walk(left, leftmost=leftmost), Wild.DEPTH, *_walk(right, leftmost=False))
        case jsonpath.Root() if leftmost:
            return ()
        case _ if leftmost:
            raise ValueError("it must begin with $, the object's root")
    return (_step(node),)


def _step(node: jsonpath.JSONPath) -> Step:
    match node:
        case jsonpath.Fields(fields=(name,)):
            return str(name)
        case jsonpath.Wildcard():
            return Wild.CHILD
        case jsonpath.Index(indices=(int(index),)) if index >= 0:
            return index
        case jsonpath.Index(indices=(_,)):
            raise ValueError("an index counts from the start; use [*] instead of a negative one")
        case jsonpath.Index() | jsonpath.Fields():
            raise ValueError("a union is not supported; write one path for each")
    raise ValueError(_REFUSED.get(type(node), "it uses an operator that is not supported; use keys, * and .."))
