"""Holds in the database, which is where all replicas and the approvals API see them.

Every change of state is one conditional UPDATE whose condition comes from `hold.states_before`, so that of two
who act at once exactly one succeeds.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, Column, Connection, Index, Named, Table, Text, TypedColumns, select, update

from holdfast.approval.hold import decide, states_before
from holdfast.database import Code, Database, Moment, metadata
from holdfast.errors import Conflict, NotFound
from holdfast.exchange import Approvers, AuditID, Hold, HoldID, HoldState, Identity

if TYPE_CHECKING:
    import builtins
    from collections.abc import Collection, Mapping

RESTARTED = "the gateway restarted"


class HoldColumns(TypedColumns):
    """`exchange.Hold`, column for field; `replica` names the gateway that holds the connection."""

    id: Named[str] = Column(Code, primary_key=True)
    audit_id: Named[str] = Column(Code)
    digest: Named[str] = Column(Code)
    state: Named[str] = Column(Code)
    rule: Named[str]
    reason: Named[str]
    issuer: Named[str]
    username: Named[str]
    groups: Named[list[str]] = Column(JSON)
    verb: Named[str]
    api_group: Named[str]
    resource: Named[str]
    namespace: Named[str]
    name: Named[str]
    uri: Named[str]
    body: Named[str] = Column(Text)
    kubectl: Named[str]
    approvers: Named[dict[str, list[str]]] = Column(JSON)
    created_at: Named[datetime] = Column(Moment)
    expires_at: Named[datetime] = Column(Moment)
    decided_by: Named[str]
    decided_at: Named[datetime | None] = Column(Moment)
    decision_reason: Named[str]
    released_at: Named[datetime | None] = Column(Moment)
    replica: Named[str]


holds = Table("holds", metadata, HoldColumns)
Index("holds_by_time", holds.c.created_at)
Index("holds_by_state", holds.c.state, holds.c.created_at)
Index("holds_by_digest", holds.c.digest, holds.c.created_at)


class HoldStore:
    """Reads and writes holds. Blocking: on an event loop, call it in a thread. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert(self, hold: Hold, replica: str) -> None:
        """Keep a new hold; `replica` is the gateway that its caller is connected to."""
        with self._database.writing() as connection:
            connection.execute(holds.insert(), _row(hold, replica))

    def get(self, hold_id: str) -> Hold:
        """Return one hold. Raises NotFound."""
        with self._database.reading() as connection:
            return _get(connection, hold_id)

    def list(self, states: Collection[HoldState] | None = None, limit: int = 100) -> builtins.list[Hold]:
        """Return the latest `limit` holds, newest first, in these states or in any."""
        query = select(holds).order_by(holds.c.created_at.desc()).limit(limit)
        if states is not None:
            query = query.where(holds.c.state.in_(states))
        with self._database.reading() as connection:
            return [_hold(row) for row in connection.execute(query).mappings()]

    def latest_with_digest(self, digest: str) -> Hold | None:
        """Return the latest hold of the same request, whatever became of it."""
        query = select(holds).where(holds.c.digest == digest).order_by(holds.c.created_at.desc()).limit(1)
        with self._database.reading() as connection:
            row = connection.execute(query).mappings().first()
            return _hold(row) if row else None

    def settled(self, hold_ids: Collection[HoldID]) -> dict[HoldID, Hold]:
        """Return those of `hold_ids` that are no longer pending: one query, however many still wait."""
        query = select(holds).where(holds.c.id.in_(hold_ids), holds.c.state != HoldState.PENDING)
        with self._database.reading() as connection:
            found = (_hold(row) for row in connection.execute(query).mappings())
            return {hold.id: hold for hold in found}

    def decide(self, hold_id: str, approve: bool, by: Identity, reason: str, now: datetime) -> Hold:
        """Approve or deny a pending hold before it expires; return it as decided.

        Raises NotFound, Forbidden for whom it may not be decided by, BadRequest for a denial without a reason,
        Conflict when it is no longer pending or its time is over.
        """
        with self._database.writing() as connection:
            decided = decide(_get(connection, hold_id), approve, by, reason, now)
            values = {"decided_by": decided.decided_by, "decision_reason": decided.decision_reason, "decided_at": now}
            if not _move(connection, decided.id, decided.state, values, holds.c.expires_at > now):
                raise Conflict(f"hold {hold_id} was decided by somebody else at this very moment")
        return decided

    def release(self, hold_id: str, digest: str, now: datetime) -> bool:
        """Use up an approval; true exactly once, and only for the request that was approved."""
        with self._database.writing() as connection:
            return _move(connection, hold_id, HoldState.RELEASED, {"released_at": now}, holds.c.digest == digest)

    def cancel(self, hold_id: str, reason: str, now: datetime) -> bool:
        """End a hold that nobody waits for, unless it is denied, expired or released; true when this ended it."""
        with self._database.writing() as connection:
            values = {"decided_at": now, "decision_reason": reason}
            return _move(connection, hold_id, HoldState.CANCELLED, values)

    def expire(self, hold_id: str, now: datetime) -> bool:
        """End a hold that nobody decided in time; false while it has time left, or when it was decided."""
        with self._database.writing() as connection:
            return _move(connection, hold_id, HoldState.EXPIRED, {"decided_at": now}, holds.c.expires_at <= now)

    def abandon(self, replica: str, now: datetime) -> int:
        """Cancel what this replica held when it stopped, as nobody waits for it; return how many."""
        open_holds = holds.c.state.in_(states_before(HoldState.CANCELLED))
        change = update(holds).where(holds.c.replica == replica, open_holds)
        with self._database.writing() as connection:
            values = {"state": HoldState.CANCELLED, "decided_at": now, "decision_reason": RESTARTED}
            return connection.execute(change.values(values)).rowcount


def _move(connection: Connection, hold_id: str, to: HoldState, values: Mapping[str, Any], *conditions: Any) -> bool:
    source = holds.c.state.in_(states_before(to))
    change = update(holds).where(holds.c.id == hold_id, source, *conditions).values(state=to, **values)
    return connection.execute(change).rowcount == 1


def _get(connection: Connection, hold_id: str) -> Hold:
    row = connection.execute(select(holds).where(holds.c.id == hold_id)).mappings().first()
    if row is None:
        raise NotFound(f"there is no hold {hold_id!r}")
    return _hold(row)


def _row(hold: Hold, replica: str) -> dict[str, Any]:
    lists = {"users": list(hold.approvers.users), "groups": list(hold.approvers.groups)}
    fields = {name: getattr(hold, name) for name in Hold.__dataclass_fields__}
    return fields | {"groups": list(hold.groups), "approvers": lists, "released_at": None, "replica": replica}


def _hold(row: Mapping[Any, Any]) -> Hold:
    fields = {name: row[name] for name in Hold.__dataclass_fields__}
    approvers = Approvers(tuple(row["approvers"]["users"]), tuple(row["approvers"]["groups"]))
    named = {
        "id": HoldID(row["id"]),
        "audit_id": AuditID(row["audit_id"]),
        "state": HoldState(row["state"]),
        "groups": tuple(row["groups"]),
        "approvers": approvers,
    }
    return Hold(**(fields | named))
