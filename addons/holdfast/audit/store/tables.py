"""The tables of the record.

`records.leaf` is the truth, and `checkpoints.note` vouches for it; every other column is derived from a leaf, so
that lists are answered by an index, and the verifier derives them again and compares. Tables with a `day` are
partitioned by it in Postgres. It is the day on which the record's log was opened; of `calls`, the day on which the
call arrived.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Named, Table, Text, TypedColumns, UniqueConstraint, literal_column

from holdfast.audit.record import CallRow
from holdfast.database import Code, metadata

DAILY = ("records", "checkpoints", "bodies", "blobs", "calls")
"""The tables that are partitioned by day, in the order in which writers take them."""


class LogColumns(TypedColumns):
    """One log. `certificate` is the root's note for its key (empty for `legacy` logs); `root` is in hexadecimal.

    `size` and `root` change with every commit, and only from what the writer knows them to be: of two writers of
    one log, the second fails.
    """

    id: Named[int] = Column(primary_key=True)
    origin: Named[str] = Column(Code)
    replica: Named[str] = Column(Code)
    epoch: Named[int]
    day: Named[str] = Column(Code)
    certificate: Named[str] = Column(Text)
    size: Named[int] = Column(BigInteger)
    root: Named[str] = Column(Code)
    opened_at: Named[str] = Column(Code)
    closed_at: Named[str | None] = Column(Code)
    dropped_at: Named[str | None] = Column(Code)


class LeafHashColumns(TypedColumns):
    """What stays of a log that was dropped: its leaf hashes, 32 bytes each, from leaf `first` on."""

    log: Named[int] = Column(primary_key=True, autoincrement=False)
    first: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    hashes: Named[bytes]


class RecordColumns(TypedColumns):
    """One leaf of a log."""

    day: Named[str] = Column(Code, primary_key=True)
    log: Named[int] = Column(primary_key=True, autoincrement=False)
    seq: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    call_id: Named[str] = Column(Code)
    kind: Named[str] = Column(Code)
    at: Named[str] = Column(Code)
    leaf: Named[bytes]


class CheckpointColumns(TypedColumns):
    """The signed note of one commit."""

    day: Named[str] = Column(Code, primary_key=True)
    log: Named[int] = Column(primary_key=True, autoincrement=False)
    size: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    note: Named[str] = Column(Text)


class BodyColumns(TypedColumns):
    """One piece of a body that a record refers to, in order; all pieces of a body share the salt."""

    day: Named[str] = Column(Code, primary_key=True)
    log: Named[int] = Column(primary_key=True, autoincrement=False)
    seq: Named[int] = Column(BigInteger, primary_key=True, autoincrement=False)
    slot: Named[str] = Column(Code, primary_key=True)
    part: Named[int] = Column(primary_key=True, autoincrement=False)
    salt: Named[bytes]
    sha256: Named[str] = Column(Code)


class BlobColumns(TypedColumns):
    """One piece, kept as `codec` says; `size` is its own length. Without `body` it is in the object store."""

    day: Named[str] = Column(Code, primary_key=True)
    sha256: Named[str] = Column(Code, primary_key=True)
    size: Named[int]
    codec: Named[str] = Column(Code)
    body: Named[bytes | None]


class CallColumns(TypedColumns):
    """`CallRow`, column for field; `log` and `seq` are the record that it was derived from."""

    day: Named[str] = Column(Code, primary_key=True)
    audit_id: Named[str] = Column(Code, primary_key=True)
    received_at: Named[str] = Column(Code)
    username: Named[str] = Column(Code)
    issuer: Named[str]
    caller: Named[str] = Column(Code)
    verb: Named[str] = Column(Code)
    api_group: Named[str] = Column(Code)
    resource: Named[str] = Column(Code)
    subresource: Named[str] = Column(Code)
    namespace: Named[str] = Column(Code)
    name: Named[str] = Column(Code)
    uri: Named[str]
    effect: Named[str]
    rule: Named[str]
    verdict: Named[str] = Column(Code)
    code: Named[int | None]
    hold_id: Named[str]
    duration_us: Named[int | None] = Column(BigInteger)
    user_agent: Named[str]
    complete: Named[bool]
    log: Named[int]
    seq: Named[int] = Column(BigInteger)


class CallerColumns(TypedColumns):
    """One caller, as records tell it (see `callers`)."""

    id: Named[str] = Column(Code, primary_key=True)
    caller: Named[str] = Column(Text)


class CallerClaimColumns(TypedColumns):
    """A claim that a caller is found by."""

    name: Named[str] = Column(Code, primary_key=True)
    value: Named[str] = Column(Code, primary_key=True)
    caller: Named[str] = Column(Code, primary_key=True)


logs = Table("logs", metadata, LogColumns, UniqueConstraint("origin"))
leaf_hashes = Table("leaf_hashes", metadata, LeafHashColumns)
records = Table("records", metadata, RecordColumns)
checkpoints = Table("checkpoints", metadata, CheckpointColumns, sqlite_with_rowid=False)
bodies = Table("bodies", metadata, BodyColumns, sqlite_with_rowid=False)
blobs = Table("blobs", metadata, BlobColumns)
calls = Table("calls", metadata, CallColumns, sqlite_with_rowid=False)
callers = Table("callers", metadata, CallerColumns, sqlite_with_rowid=False)
caller_claims = Table("caller_claims", metadata, CallerClaimColumns, sqlite_with_rowid=False)
CALL_ROW = tuple(calls.c[name] for name in CallRow.__struct_fields__)
"""The columns that make a `CallRow`."""

Index("logs_by_replica", logs.c.replica, logs.c.epoch)
Index("records_by_call", records.c.call_id)
OF_ADMISSIONS = records.c.kind.in_([literal_column("'issue'"), literal_column("'revoke'")])
"""Of the records that `admissions` lists, spelt as their index is: or databases do not see that it has them all."""

Index(
    "records_of_admissions",
    records.c.at,
    records.c.log,
    records.c.seq,
    sqlite_where=OF_ADMISSIONS,
    postgresql_where=OF_ADMISSIONS,
)
Index("calls_by_id", calls.c.audit_id)
FOUND_BY = (
    "verdict",
    "verb",
    "resource",
    "subresource",
    "namespace",
    "name",
    "username",
    "caller",
    "api_group",
    "rule",
    "day",
)
"""The columns that calls are found by on a walk through all of them (see `search`), and the rest of their key."""

Index("calls_by_time", calls.c.received_at, calls.c.audit_id, *(calls.c[name] for name in FOUND_BY))
# In Postgres there are calls_by_name and calls_by_user as well; SQLite would pay too much for them.
Index("calls_by_caller", calls.c.caller, calls.c.received_at, calls.c.audit_id)
for _name, _column, _usual in (("verdict", calls.c.verdict, "allowed"), ("hold", calls.c.hold_id, "")):
    _key, _rare = (_column, calls.c.received_at, calls.c.audit_id), _column != _usual
    Index(f"calls_by_{_name}", *_key, sqlite_where=_rare, postgresql_where=_rare)
