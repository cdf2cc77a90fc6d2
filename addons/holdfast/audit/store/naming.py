"""A call named by the beginning of its audit ID, or of the ID of the hold in which it waited, as people name it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, literal_column

from holdfast.audit.store.tables import calls
from holdfast.errors import Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement

HOLD = "h-"
"""With this the ID of a hold begins, and no audit ID."""

AFTER_ALL = "\x7f"
"""No character of an audit ID sorts after this one."""


def starts_with(column: ColumnElement[str], beginning: str) -> ColumnElement[bool]:
    """Whether the audit ID in a column starts so, asked as an index can answer it."""
    return and_(column >= beginning, column < beginning + AFTER_ALL)


def is_call(beginning: str) -> ColumnElement[bool]:
    """Whether a call is named so, asked as an index can answer it."""
    if beginning.startswith(HOLD):
        return and_(starts_with(calls.c.hold_id, beginning), calls.c.hold_id != literal_column("''"))
    return starts_with(calls.c.audit_id, beginning)


def require_one[T](found: Sequence[T], beginning: str) -> T:
    """The one call that was found. Raises NotFound when there is none, Conflict when there are several."""
    is_hold = beginning.startswith(HOLD)
    if not found:
        which = "waited in a hold with an ID" if is_hold else "has an audit ID"
        raise NotFound(f"no call in the record {which} that starts with {beginning!r}")
    if len(found) > 1:
        which = "waited in a hold with an ID" if is_hold else "have an audit ID"
        further = ", or find them with `holdfast audit list --hold ID`" if is_hold else ""
        raise Conflict(f"several calls {which} that starts with {beginning!r}; give more of it{further}")
    return found[0]
