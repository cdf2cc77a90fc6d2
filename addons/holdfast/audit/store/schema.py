"""What the database's schema has in the place of our tables, and beside them, that could change what a query tells.

Who owns the database can leave every row as it was signed, and have the database read other ones, or never end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Connection, Table

BROKEN_INDEX = "table whose indexes say otherwise"
READ = frozenset({"table", "trigger", "rule", "row security", BROKEN_INDEX})
"""The kinds of tables whose rows are their own, so that to read them ends. Of others no row is read."""

_SQLITE_KINDS = "SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view')"
_SQLITE_TRIGGERS = "SELECT tbl_name, 'trigger' FROM sqlite_master WHERE type = 'trigger'"
_SQLITE_COLUMNS = (
    "SELECT tables.name, columns.name FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns "
    "WHERE tables.type = 'table'"
)
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\b", re.IGNORECASE)

_POSTGRES_KINDS = """
    SELECT relname, CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
        WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' ELSE 'missing' END
    FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_POSTGRES_COLUMNS = """
    SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = current_schema()::regnamespace AND attnum > 0 AND NOT attisdropped
"""
_POSTGRES_INTERFERENCES = """
    SELECT parent.relname, 'foreign table' FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    JOIN pg_class AS parent ON parent.oid = inhparent
    WHERE parent.relnamespace = current_schema()::regnamespace AND child.relkind = 'f'
    UNION ALL
    SELECT relname, CASE WHEN relrowsecurity THEN 'row security' WHEN relhasrules THEN 'rule' ELSE 'trigger' END
    FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
    AND (relrowsecurity OR relhasrules OR EXISTS (
        SELECT 1 FROM pg_trigger WHERE tgrelid = pg_class.oid AND NOT tgisinternal))
"""


def table_kinds(connection: Connection, tables: Iterable[Table]) -> dict[str, str]:
    """`table` for each of these tables; else what stands in its place, or what it has that changes or hides rows."""
    is_sqlite = connection.dialect.name == "sqlite"
    there = dict(_sqlite_kinds(connection) if is_sqlite else _pairs(connection, _POSTGRES_KINDS))
    columns = set(_pairs(connection, _SQLITE_COLUMNS if is_sqlite else _POSTGRES_COLUMNS))
    kinds: dict[str, str] = {}
    for table in tables:
        kind = there.get(table.name, "missing")
        lacking = sorted(column.name for column in table.c if (table.name, column.name) not in columns)
        kinds[table.name] = f"table without {', '.join(lacking)}" if kind == "table" and lacking else kind
    for name, kind in _pairs(connection, _SQLITE_TRIGGERS if is_sqlite else _POSTGRES_INTERFERENCES):
        if kinds.get(name) == "table":
            kinds[name] = kind
    broken = [
        name for name, kind in kinds.items() if is_sqlite and kind == "table" and not _is_intact(connection, name)
    ]
    return kinds | dict.fromkeys(broken, BROKEN_INDEX)


def _is_intact(connection: Connection, table: str) -> bool:
    """Whether a table's indexes have the rows that it has (https://www.sqlite.org/pragma.html#pragma_integrity_check).

    Lists are read from indexes, an export from tables; who may write the file can make them differ.
    """
    found = connection.exec_driver_sql(f"PRAGMA integrity_check({table})").scalars().all()
    return [str(told) for told in found] == ["ok"]


def _sqlite_kinds(connection: Connection) -> Iterator[tuple[str, str]]:
    for name, kind, statement in connection.execute(text(_SQLITE_KINDS)):
        yield name, "virtual table" if kind == "table" and _VIRTUAL.match(statement) else kind


def _pairs(connection: Connection, query: str) -> Iterator[tuple[str, str]]:
    for first, second in connection.execute(text(query)).all():  # noqa: UP028  rows are no tuples of text to mypy
        yield first, second
