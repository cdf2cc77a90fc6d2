"""Logs from before logs were signed, as the migration leaves them."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import text

from holdfast.audit.callers import caller_id
from holdfast.audit.record import Payload, Record, call_row, encode_caller
from holdfast.audit.tree import hash_leaf, root_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.database import Database

BODY = b"a body from before bodies were cut"


def payload(content: bytes = BODY) -> Payload:
    """How a leaf of version 1 refers to a body."""
    return Payload(sha256=sha256(content).hexdigest(), size=len(content), media_type="text/plain")


def spell(told: Record) -> bytes:
    """A leaf of version 1."""
    return msgspec.json.encode(msgspec.to_builtins(told) | {"version": 1}, order="sorted")


def add_legacy_log(database: Database, day: str, told: Sequence[Record], number: int, body: bytes = BODY) -> None:
    """Put a log of that day into the database, with all that hangs on its records."""
    leaves = [spell(record) for record in told]
    log = {
        "id": number, "origin": f"legacy/{day}", "replica": "legacy", "epoch": number, "day": day, "certificate": "",
        "size": len(leaves), "root": root_of(map(hash_leaf, leaves)).hex(), "opened_at": f"{day}T00:00:00.000000Z",
        "closed_at": f"{day}T23:59:59.999999Z", "dropped_at": None,
    }  # fmt: skip
    _insert(database, "logs", log)
    for seq, (record, leaf) in enumerate(zip(told, leaves, strict=True)):
        place = {"day": day, "log": number, "seq": seq}
        _insert(
            database,
            "records",
            place | {"call_id": record.call, "kind": record.kind.value, "at": record.at, "leaf": leaf},
        )
        if record.response_body is not None:
            digest = record.response_body.sha256
            _insert(database, "bodies", place | {"slot": "response", "part": 0, "salt": b"", "sha256": digest})
            blob = {"day": day, "sha256": digest, "size": len(body), "codec": "raw", "body": body}
            _insert(database, "blobs", blob)
        row = call_row(record)
        if row is not None and record.identity is not None:
            encoded = encode_caller(record.identity)
            caller = caller_id(encoded)
            _insert(database, "callers", {"id": caller, "caller": encoded})
            _insert(
                database,
                "calls",
                msgspec.structs.asdict(row) | place | {"day": row.received_at[:10], "caller": caller},
            )


def _insert(database: Database, table: str, row: dict[str, object]) -> None:
    columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    with database.writing() as connection:
        connection.execute(text(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({values})"), row)  # noqa: S608
