"""A database that lacks the end of what was written to it, as one that was put back from a backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.entries import entry
from holdfast.audit.opening import open_ledger
from holdfast.audit.store.ledger import LedgerStore
from holdfast.audit.tree import hash_leaf, root_of

if TYPE_CHECKING:
    from console.world import World
    from holdfast.audit.logs import LogRow


def lose_the_end(world: World, log: LogRow) -> None:
    """Put the database back to where the log had one record."""
    (first, *_) = LedgerStore(world.database).leaves(log)
    with world.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM records WHERE log = ? AND seq > 0", (log.id,))
        root = root_of([hash_leaf(first)]).hex()
        connection.exec_driver_sql("UPDATE logs SET size = 1, root = ? WHERE id = ?", (root, log.id))
        connection.exec_driver_sql("DELETE FROM checkpoints WHERE log = ? AND size > 1", (log.id,))


def write_and_lose(world: World, role: str = "") -> None:
    """A record that the gateway has written, and the database lacks."""
    ledger = open_ledger(world.settings, world.database, role)
    ledger.write([entry()])
    ledger.close()
    lose_the_end(world, ledger.row)
