"""A call named by the beginning of its audit ID, as people name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_

from holdfast.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

AFTER_ALL = "\x7f"
"""No character of an audit ID sorts after this one."""


def starts_with(column: ColumnElement[str], beginning: str) -> ColumnElement[bool]:
    """Whether the audit ID in a column starts so, asked as an index can answer it."""
    return and_(column >= beginning, column < beginning + AFTER_ALL)


def require_one[T](found: Sequence[T], beginning: str) -> T:
    """The one call that was found. Raises NotFound when there is none, Conflict when there are several."""
    if not found:
        raise NotFound(f"no call in the record has an audit ID that starts with {beginning!r}")
    if len(found) > 1:
        raise Conflict(f"several calls have an audit ID that starts with {beginning!r}; give more of it")
    return found[0]
