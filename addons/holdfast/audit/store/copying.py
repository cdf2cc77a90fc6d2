"""The whole record copied from one database into another, of the same kind or the other one.

One snapshot is read, and one transaction written: the copy is there whole or not at all. Leaves, notes and blobs
are carried over byte for byte, so what proves the original proves the copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, insert, select, text

from holdfast.audit.store.ledger import LedgerStore, make_partitions
from holdfast.audit.store.tables import DAILY, logs
from holdfast.audit.tree import hash_leaf, root_of
from holdfast.database import metadata
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Table

    from holdfast.database import Database

PAGE = 500


def count_rows(database: Database) -> dict[str, int]:
    """How many rows each table has. Raises Unavailable."""
    with database.reading() as connection:
        return {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in metadata.sorted_tables
        }


def copy_record(source: Database, target: Database, copied: Callable[[str, int], None]) -> None:
    """Copy every table; `copied` hears of each page, by table and number of rows.

    Raises ConfigurationError when the target holds anything, Unavailable.
    """
    with source.snapshot() as reader, target.writing() as writer:
        for table in metadata.sorted_tables:
            if writer.execute(select(table).limit(1)).first() is not None:
                raise ConfigurationError("the database to copy to holds records already; expected an empty one.")
        for day in _days(reader):
            make_partitions(writer, day)
        for table in metadata.sorted_tables:
            _copy_table(reader, writer, table, copied)
        _continue_numbers(writer)


def find_difference(source: Database, target: Database) -> str:
    """Say in what a copy differs from the original; empty when it does not. Raises Unavailable.

    Rows are counted, and every log's tree is made again from the leaves of the copy.
    """
    for name, rows in count_rows(source).items():
        found = count_rows(target)[name]
        if found != rows:
            return f"{name} has {found} rows, expected {rows}"
    store = LedgerStore(target)
    for log in LedgerStore(source).all_logs():
        copy = store.find_log(log.origin)
        if copy is None or (copy.size, copy.root, copy.certificate) != (log.size, log.root, log.certificate):
            return f"the log {log.origin} is not described as it was"
        if log.dropped_at is None and root_of(hash_leaf(leaf) for leaf in store.leaves(copy)).hex() != log.root:
            return f"the log {log.origin} has other records"
    return ""


def _days(reader: Connection) -> list[str]:
    days: set[str] = set()
    for name in DAILY:
        days.update(reader.execute(select(metadata.tables[name].c.day).distinct()).scalars())
    return sorted(days)


def _copy_table(reader: Connection, writer: Connection, table: Table, copied: Callable[[str, int], None]) -> None:
    rows = reader.execute(select(table), execution_options={"yield_per": PAGE}).mappings()
    for page in rows.partitions(PAGE):
        writer.execute(insert(table), [dict(row) for row in page])
        copied(table.name, len(page))


def _continue_numbers(writer: Connection) -> None:
    """In Postgres, the numbers of new logs go on after the copied ones."""
    if writer.dialect.name == "postgresql":
        highest = select(func.coalesce(func.max(logs.c.id), 0) + 1).scalar_subquery()
        writer.execute(select(func.setval(text("pg_get_serial_sequence('logs', 'id')"), highest, False)))
