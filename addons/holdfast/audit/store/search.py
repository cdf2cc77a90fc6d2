"""Finding calls by their columns: along the index that has every column, or by one that leads to few calls.

`calls_by_time` holds all that can be asked for, in the order in which calls arrived. A walk along it reads nothing
else: a million calls are passed by in about a tenth of a second, whatever is asked and however little of it there is.
Where one of the wishes alone leaves only few calls, its own index is shorter; whether it does is found out by counting
them, up to `FEW`. In SQLite an index whose order is not that of time costs the writer a page of the file for almost
every record, so there only callers have one, and what is rare by nature; in Postgres users and names have one too.

In Postgres the walk goes day by day, so that the partitions behind a full page are left alone. Planners guess how soon
a walk meets what it looks for, and guess wrong for wishes that exclude each other. So Postgres is told, for the one
transaction, that it may only walk (https://www.postgresql.org/docs/current/runtime-config-query.html); and where few
calls are to be gathered, this is done before they are put in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import batched, groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    String,
    UnaryExpression,
    any_,
    func,
    literal,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy.sql.operators import custom_op

from holdfast.audit.record import CallRow, column_text, timestamp
from holdfast.audit.store.tables import CALL_ROW, caller_claims, calls

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Row, Select

    Conditions = tuple[ColumnElement[bool], ...]

FEW = 5_000
"""So many calls are looked up one by one without being noticed."""

FEW_CALLERS = 500
"""So many callers are looked for one by one in their index."""

Position = tuple[str, str]
"""Where a page of calls ended: `received_at` and `audit_id` of its last call."""

PAGE = 500

_KEY = (calls.c.day, calls.c.received_at, calls.c.audit_id)
_TUNING = text(
    "SELECT set_config('jit', 'off', true), set_config('plan_cache_mode', 'force_custom_plan', true), "
    "set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', :gathers, true), "
    "set_config('enable_sort', :gathers, true)"
)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which calls are meant; an empty field means any.

    `resource` is RBAC's spelling: `pods`, `pods/exec`, `pods/*` for any subresource. `api_group` is None for any,
    empty for the core group. The caller must have all of `claims`, which are names and values. `until` is the first
    moment that is not meant any more.
    """

    user: str = ""
    verb: str = ""
    resource: str = ""
    namespace: str = ""
    verdict: str = ""
    since: datetime | None = None
    until: datetime | None = None
    api_group: str | None = None
    name: str = ""
    rule: str = ""
    hold: str = ""
    claims: tuple[tuple[str, str], ...] = ()


ANY_CALL = Filters()


@dataclass(frozen=True, slots=True, eq=False)
class _Wish:
    """A condition on calls; and how it is written for its own index, if it has one, which may have them in order."""

    condition: ColumnElement[bool]
    leading: Conditions = ()
    in_order: bool = True


@dataclass(frozen=True, slots=True)
class _Span:
    """From which moment, up to which, and from which call within on."""

    since: str
    until: str
    beyond: Position | None
    newest_first: bool

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """On the columns that put calls in order."""
        if self.since:
            yield calls.c.received_at >= self.since
        if self.until:
            yield calls.c.received_at < self.until
        if self.beyond is not None:
            place, position = tuple_(calls.c.received_at, calls.c.audit_id), tuple_(*self.beyond)
            yield place < position if self.newest_first else place > position

    def days(self) -> Iterator[ColumnElement[bool]]:
        """The same in whole days, by which Postgres chooses partitions."""
        here = self.beyond[0] if self.beyond is not None else ""
        first = self.since if self.newest_first else max(self.since, here)
        last = min(filter(None, (self.until, here)), default="") if self.newest_first else self.until
        if first:
            yield calls.c.day >= first[:10]
        if last:
            yield calls.c.day <= last[:10]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of all calls to look through, and the wish that leads through it by its own index, if one does.

    What it leads to is gathered first, unless the index has it in order and there is nothing else to ask.
    """

    conditions: Conditions
    leading: _Wish | None = None
    gathers: bool = False


class CallSearch:
    """One search, as far as one transaction sees the calls."""

    def __init__(self, connection: Connection, filters: Filters) -> None:
        self._connection = connection
        self._filters = filters
        self._is_partitioned = connection.dialect.name == "postgresql"
        self._tuned: bool | None = None
        self._callers = self._find_callers() if filters.claims else None
        self._wishes = tuple(self._all_wishes())

    def page(self, limit: int, beyond: Position | None = None, *, newest_first: bool = True) -> list[CallRow]:
        """Return the first `limit` calls in order of time, or those that follow a position."""
        found: list[CallRow] = []
        for part in self._parts(self._span(beyond, newest_first=newest_first)):
            keys = self._find(part, limit, newest_first=newest_first)
            found += self._rows(keys)
            limit -= len(keys)
            if not limit:
                break
        return found

    def among(self, day: str, audit_ids: Sequence[str]) -> list[CallRow]:
        """Return those of a day's calls that are meant."""
        span = self._span(None, newest_first=True).conditions()
        query = _select_rows(day, audit_ids).where(*span, *(wish.condition for wish in self._wishes))
        return [CallRow(**row) for row in self._connection.execute(query).mappings()]

    def _span(self, beyond: Position | None, *, newest_first: bool) -> _Span:
        since, until = (timestamp(moment) if moment else "" for moment in (self._filters.since, self._filters.until))
        return _Span(since, until, beyond, newest_first)

    def _parts(self, span: _Span) -> Iterator[_Part]:
        """Yield what is to be looked through, in order."""
        if self._callers == ():
            return
        days = tuple(span.days()) if self._is_partitioned else ()
        whole = self._plan((*days, *span.conditions()))
        if whole.leading is not None or not self._is_partitioned:
            yield whole
            return
        for day in self._days(days, newest_first=span.newest_first):
            yield self._plan((calls.c.day == day, *span.conditions()))

    def _days(self, within: Conditions, *, newest_first: bool) -> Iterator[str]:
        """Yield the days that have calls, the next one when those before were not enough."""
        nearest = select(func.max(calls.c.day) if newest_first else func.min(calls.c.day)).where(*within)
        day = self._connection.execute(nearest).scalar()
        while day is not None:
            yield day
            further = calls.c.day < day if newest_first else calls.c.day > day
            day = self._connection.execute(nearest.where(further)).scalar()

    def _plan(self, conditions: Conditions) -> _Part:
        """Choose the wish whose own index is the shortest way through a part; none when a walk through all of it is."""
        led = [wish for wish in self._wishes if wish.leading]
        if led and led[0].in_order and (len(self._wishes) == 1 or self._filters.hold):
            return _Part(conditions, led[0])
        shortest, chosen = FEW + 1, None
        for wish in led:
            length = self._count((*conditions, *wish.leading), shortest)
            if length < shortest:
                shortest, chosen = length, wish
        return _Part(conditions, chosen, gathers=chosen is not None)

    def _count(self, conditions: Conditions, limit: int) -> int:
        """Count calls, at most `limit`."""
        self._tune(gathers=True)
        found = select(calls.c.audit_id).where(*conditions).limit(limit).subquery()
        return self._connection.execute(select(func.count()).select_from(found)).scalar_one()

    def _find(self, part: _Part, limit: int, *, newest_first: bool) -> Sequence[Row[str, str]]:
        """Return day and ID of the first calls of a part, without reading the calls themselves."""
        self._tune(gathers=part.gathers)
        wishes = (wish.leading if wish is part.leading else (wish.condition,) for wish in self._wishes)
        meant = (*part.conditions, *(condition for wish in wishes for condition in wish))
        source: Any = calls
        if part.gathers:
            source = select(*_KEY).where(*meant).cte("gathered").prefix_with("MATERIALIZED")
            meant = ()
        received_at, audit_id = source.c.received_at, source.c.audit_id
        in_order = (column.desc() if newest_first else column.asc() for column in (received_at, audit_id))
        return self._connection.execute(
            select(source.c.day, audit_id).where(*meant).order_by(*in_order).limit(limit)
        ).all()

    def _rows(self, keys: Sequence[Row[str, str]]) -> Iterator[CallRow]:
        """Yield the calls of these keys, in their order."""
        self._tune(gathers=True)
        for day, group in groupby(keys, key=lambda key: key.day):
            for page in batched((key.audit_id for key in group), PAGE):
                found = self._connection.execute(_select_rows(day, page)).mappings()
                rows = {row["audit_id"]: CallRow(**row) for row in found}
                yield from (rows[audit_id] for audit_id in page if audit_id in rows)

    def _tune(self, *, gathers: bool) -> None:
        """In Postgres, leave only the plans that are meant: what was found is gathered, or an index is walked along."""
        if gathers is not self._tuned:
            tune(self._connection, gathers=gathers)
            self._tuned = gathers

    def _find_callers(self) -> tuple[str, ...]:
        """The callers that are meant; in SQLite, where many are looked up in their table, some of them."""
        query = _having_all(self._filters.claims)
        if not self._is_partitioned:
            query = query.limit(FEW_CALLERS + 1)
        return tuple(self._connection.execute(query).scalars())

    def _all_wishes(self) -> Iterator[_Wish]:
        """Yield the conditions, those that are quicker to tell first."""
        filters = self._filters
        if filters.hold:  # it leads always: it has one call, and is no column of `calls_by_time`
            here = calls.c.hold_id == filters.hold
            yield _Wish(here, (here, calls.c.hold_id != literal_column("''")))
        if filters.verdict:
            here = calls.c.verdict == filters.verdict
            is_rare = filters.verdict != "allowed"
            yield _Wish(here, (here, calls.c.verdict != literal_column("'allowed'")) if is_rare else ())
        yield from map(_Wish, _on_kinds(filters))
        for column, value in ((calls.c.name, filters.name), (calls.c.username, filters.user)):
            if value:
                here = column == column_text(value)
                yield _Wish(here, (here,) if self._is_partitioned else ())
        yield from map(_Wish, _on_rules(filters))
        if self._callers is not None:
            yield self._wish_for_callers(self._callers)

    def _wish_for_callers(self, callers: tuple[str, ...]) -> _Wish:
        if self._is_partitioned:
            here = _is_one_of(callers)
            return _Wish(here, (here,) if len(callers) <= FEW_CALLERS else (), in_order=len(callers) == 1)
        column = _without_index(calls.c.caller)
        if len(callers) > FEW_CALLERS:
            return _Wish(column.in_(_having_all(self._filters.claims)))
        return _Wish(column.in_(callers), (calls.c.caller.in_(callers),), in_order=len(callers) == 1)


def tune(connection: Connection, *, gathers: bool) -> None:
    """In Postgres, for the rest of the transaction: what is found is gathered, or else an index is walked along."""
    if connection.dialect.name == "postgresql":
        connection.execute(_TUNING, {"gathers": "on" if gathers else "off"})


def _is_one_of(callers: tuple[str, ...]) -> ColumnElement[bool]:
    """In Postgres, which makes a hash table of many when they are one value."""
    if len(callers) == 1:
        return calls.c.caller == callers[0]
    return calls.c.caller == any_(literal(list(callers), ARRAY(String)))


def _without_index(column: ColumnElement[str]) -> ColumnElement[str]:
    """The column as SQLite does not look for it in an index (https://www.sqlite.org/optoverview.html, section 3)."""
    return UnaryExpression(column, operator=custom_op("+"), type_=column.type)


def _on_kinds(filters: Filters) -> Iterator[ColumnElement[bool]]:
    resource, _, subresource = filters.resource.partition("/")
    if filters.verb:
        yield calls.c.verb == filters.verb
    if resource not in {"", "*"}:
        yield calls.c.resource == column_text(resource)
    if subresource == "*":
        yield calls.c.subresource != ""
    elif resource:
        yield calls.c.subresource == column_text(subresource)
    if filters.namespace:
        yield calls.c.namespace == column_text(filters.namespace)


def _on_rules(filters: Filters) -> Iterator[ColumnElement[bool]]:
    if filters.api_group is not None:
        yield calls.c.api_group == column_text(filters.api_group)
        yield calls.c.resource != ""
    if filters.rule:
        yield calls.c.rule == column_text(filters.rule)


def _having_all(claims: Sequence[tuple[str, str]]) -> Select[str]:
    """Select the callers that have all of these claims."""
    first, *others = (_having(*claim) for claim in claims)
    column = first.selected_columns[0]
    return first.where(*(column.in_(other) for other in others))


def _having(name: str, value: str) -> Select[str]:
    claims = caller_claims.alias()
    return select(claims.c.caller).where(claims.c.name == name, claims.c.value == value)


def _select_rows(day: str, audit_ids: Sequence[str]) -> Select[Any]:
    return select(*CALL_ROW).where(calls.c.day == day, calls.c.audit_id.in_(audit_ids))
