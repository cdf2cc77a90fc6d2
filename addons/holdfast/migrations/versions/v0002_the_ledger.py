"""The ledger: logs, their leaves in a Merkle tree, checkpoints, bodies in pieces with salted commitments.

What the tables before held goes into logs named `legacy/DAY`, one a UTC day, in the order in which it was written:
unsigned, since nobody can vouch for it any more, until the first log that is signed tells what it saw of them.
In Postgres the tables that grow are partitioned by day, so that old days are dropped, not deleted.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa
from alembic import op

from holdfast.audit.payload import compress
from holdfast.audit.tree import Frontier, hash_leaf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")
BY_DAY = "LIST (day)"
DAILY = ("records", "checkpoints", "bodies", "blobs", "calls")
PAGE = 500
BLOBS_A_PAGE = 20
"""Bodies were kept whole, however long."""

CUT = ("username", "api_group", "resource", "subresource", "namespace", "name", "rule")
"""The columns of calls that keep no more of a text than fits into an index."""

EARLIER = ("records", "payloads", "calls")
"""The tables of revision 0001 that give way to new ones of the same or another name."""


def upgrade() -> None:
    """Put the earlier tables aside, make the new ones, carry over, drop the earlier ones."""
    for name in EARLIER:
        op.rename_table(name, f"earlier_{name}")
    for index in ("records_by_call", "calls_by_time", "calls_by_user"):
        op.drop_index(index)
    _create_logs()
    _create_records()
    _create_payloads()
    _create_calls()
    _carry_over(op.get_bind())
    for name in EARLIER:
        op.drop_table(f"earlier_{name}")


def _create_logs() -> None:
    op.create_table(
        "logs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("origin", CODE, nullable=False),
        sa.Column("replica", CODE, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("day", CODE, nullable=False),
        sa.Column("certificate", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", CODE, nullable=False),
        sa.Column("opened_at", CODE, nullable=False),
        sa.Column("closed_at", CODE, nullable=True),
        sa.Column("dropped_at", CODE, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("origin"),
    )
    op.create_index("logs_by_replica", "logs", ["replica", "epoch"])
    op.create_table(
        "leaf_hashes",
        sa.Column("log", sa.Integer(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("log", "first"),
    )


def _create_records() -> None:
    _create_daily(
        "records",
        sa.Column("log", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("call_id", CODE, nullable=False),
        sa.Column("kind", CODE, nullable=False),
        sa.Column("at", CODE, nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        key=("day", "log", "seq"),
        rowid=True,
    )
    op.create_index("records_by_call", "records", ["call_id"])
    _create_daily(
        "checkpoints",
        sa.Column("log", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        key=("day", "log", "size"),
    )


def _create_payloads() -> None:
    _create_daily(
        "bodies",
        sa.Column("log", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("slot", CODE, nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("sha256", CODE, nullable=False),
        key=("day", "log", "seq", "slot", "part"),
    )
    _create_daily(
        "blobs",
        sa.Column("sha256", CODE, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("codec", CODE, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        key=("day", "sha256"),
        rowid=True,
    )


def _create_calls() -> None:
    _create_daily(
        "calls",
        sa.Column("audit_id", CODE, nullable=False),
        sa.Column("received_at", CODE, nullable=False),
        sa.Column("username", CODE, nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("caller", CODE, nullable=False),
        sa.Column("verb", CODE, nullable=False),
        sa.Column("api_group", CODE, nullable=False),
        sa.Column("resource", CODE, nullable=False),
        sa.Column("subresource", CODE, nullable=False),
        sa.Column("namespace", CODE, nullable=False),
        sa.Column("name", CODE, nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("effect", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("verdict", CODE, nullable=False),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("hold_id", sa.String(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=True),
        sa.Column("user_agent", sa.String(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("log", sa.Integer(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        key=("day", "audit_id"),
    )
    _create_call_indexes()
    op.create_table(
        "callers",
        sa.Column("id", CODE, nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "caller_claims",
        sa.Column("name", CODE, nullable=False),
        sa.Column("value", CODE, nullable=False),
        sa.Column("caller", CODE, nullable=False),
        sa.PrimaryKeyConstraint("name", "value", "caller"),
        sqlite_with_rowid=False,
    )


def _create_call_indexes() -> None:
    op.create_index("calls_by_id", "calls", ["audit_id"])
    columns = ("verdict", "verb", "resource", "subresource", "namespace", "name", "username", "caller", "api_group")
    op.create_index("calls_by_time", "calls", ["received_at", "audit_id", *columns, "rule", "day"])
    op.create_index("calls_by_caller", "calls", ["caller", "received_at", "audit_id"])
    for name, column, usual in (("verdict", "verdict", "allowed"), ("hold", "hold_id", "")):
        key, rare = [column, "received_at", "audit_id"], sa.text(f"{column} != '{usual}'")
        op.create_index(f"calls_by_{name}", "calls", key, sqlite_where=rare, postgresql_where=rare)
    if op.get_bind().dialect.name == "postgresql":
        op.create_index("calls_by_name", "calls", ["name", "received_at", "audit_id"])
        op.create_index("calls_by_user", "calls", ["username", "received_at", "audit_id"])


def _create_daily(name: str, *columns: sa.Column[Any], key: tuple[str, ...], rowid: bool = False) -> None:
    """Make a table that grows: in Postgres partitioned by day, with one partition for days that have none.

    In SQLite its rows stand in the tree of the key itself, unless they are too long for that (`rowid`).
    """
    op.create_table(
        name,
        sa.Column("day", CODE, nullable=False),
        *columns,
        sa.PrimaryKeyConstraint(*key),
        postgresql_partition_by=BY_DAY,
        sqlite_with_rowid=rowid,
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE TABLE {name}_other PARTITION OF {name} DEFAULT")


# What follows reads and writes the tables as they are at this revision, whatever becomes of them later.


def _carry_over(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        _make_partitions(connection)
    logs: dict[str, tuple[int, Frontier]] = {}
    for page in _pages(
        connection, "SELECT seq, call_id, kind, at, leaf FROM earlier_records WHERE seq > :after", "seq"
    ):
        rows = [_place(logs, row) for row in page]
        _insert(connection, "records", [{**row, "day": row["at"][:10]} for row in rows])
        _insert(connection, "bodies", [body for row in rows for body in _bodies(row)])
    _insert(connection, "logs", [_log(day, number, tree) for day, (number, tree) in logs.items()])
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT setval('logs_id_seq', :next, false)"), {"next": len(logs) + 1})
    _carry_over_blobs(connection)
    _carry_over_calls(connection)


def _make_partitions(connection: sa.Connection) -> None:
    query = "SELECT substr(at, 1, 10) FROM earlier_records UNION SELECT substr(received_at, 1, 10) FROM earlier_calls"
    for day in connection.execute(sa.text(query)).scalars():
        for table in DAILY:
            part = f"{table}_{day.replace('-', '')} PARTITION OF {table} FOR VALUES IN ('{day}')"
            connection.execute(sa.text(f"CREATE TABLE {part}"))


def _pages(connection: sa.Connection, query: str, key: str) -> Iterator[list[dict[str, Any]]]:
    after: Any = 0
    ordered = sa.text(f"{query} ORDER BY {key} LIMIT {PAGE}")
    while page := [dict(row) for row in connection.execute(ordered, {"after": after}).mappings()]:
        yield page
        after = page[-1][key]


def _place(logs: dict[str, tuple[int, Frontier]], row: dict[str, Any]) -> dict[str, Any]:
    number, tree = logs.setdefault(row["at"][:10], (len(logs) + 1, Frontier()))
    placed = {**row, "log": number, "seq": tree.size}
    tree.add(hash_leaf(bytes(row["leaf"])))
    return placed


def _bodies(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    leaf = msgspec.json.decode(row["leaf"])
    for slot in ("request", "response"):
        digest = leaf.get(f"{slot}Body", {}).get("sha256")
        if digest:
            place = {"day": row["at"][:10], "log": row["log"], "seq": row["seq"]}
            yield {**place, "slot": slot, "part": 0, "salt": b"", "sha256": digest}


def _log(day: str, number: int, tree: Frontier) -> dict[str, Any]:
    return {
        "id": number, "origin": f"legacy/{day}", "replica": "legacy", "epoch": number, "day": day, "certificate": "",
        "size": tree.size, "root": tree.root().hex(), "opened_at": f"{day}T00:00:00.000000Z",
        "closed_at": f"{day}T23:59:59.999999Z", "dropped_at": None,
    }  # fmt: skip


def _carry_over_blobs(connection: sa.Connection) -> None:
    query = sa.text(
        "SELECT b.day, b.sha256, p.body FROM (SELECT DISTINCT day, sha256 FROM bodies) b "
        "JOIN earlier_payloads p ON p.sha256 = b.sha256"
    )
    for row in connection.execute(query, execution_options={"yield_per": BLOBS_A_PAGE}).mappings():
        codec, kept = compress(bytes(row["body"]))
        blob = {"day": row["day"], "sha256": row["sha256"], "size": len(row["body"]), "codec": str(codec), "body": kept}
        _insert(connection, "blobs", [blob])


def _carry_over_calls(connection: sa.Connection) -> None:
    """The rows of calls are derived: made again from the records, whose last one that tells of the call wrote it."""
    latest = sa.text(
        "SELECT c.*, r.log, r.seq, r.leaf FROM earlier_calls c JOIN records r ON r.call_id = c.audit_id "
        "WHERE r.kind IN ('hold', 'intent', 'open', 'outcome') ORDER BY c.audit_id, r.log, r.seq"
    )
    found = connection.execute(latest, execution_options={"yield_per": PAGE})
    rows = (dict(row) for row in found.mappings())
    for _, versions in groupby(rows, key=lambda row: row["audit_id"]):
        *_, row = versions
        identity = msgspec.json.decode(row.pop("leaf")).get("identity")
        caller = _keep_caller(connection, identity) if identity else ""
        _insert(connection, "calls", [{**_cut(row), "day": row["received_at"][:10], "caller": caller}])


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    """Write the texts as `record.call_row` does, which the verifier holds them against; they were kept whole."""
    from holdfast.audit.record import column_text

    cut = {name: column_text(row[name]) for name in CUT}
    return {**row, **cut, "uri": row["uri"].replace("\0", "\ufffd")}


def _keep_caller(connection: sa.Connection, identity: dict[str, Any]) -> str:
    from holdfast.audit.callers import caller_claims, caller_id

    encoded = msgspec.json.encode(identity, order="sorted").decode()
    number = caller_id(encoded)
    known = connection.execute(sa.text("SELECT 1 FROM callers WHERE id = :id"), {"id": number}).scalar()
    if known is None:
        _insert(connection, "callers", [{"id": number, "caller": encoded}])
        claims = caller_claims(identity.get("claims", {}))
        _insert(connection, "caller_claims", [{"name": n, "value": v, "caller": number} for n, v in claims])
    return number


def _insert(connection: sa.Connection, table: str, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    if rows:
        columns = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        connection.execute(sa.text(f"INSERT INTO {table} ({columns}) VALUES ({values})"), rows)  # noqa: S608
