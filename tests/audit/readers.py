"""Roles of Postgres that only read the record."""

from __future__ import annotations

import secrets
from contextlib import closing
from importlib.resources import files
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from services.postgres import PostgresServer


def make_reader(server: PostgresServer, url: str) -> str:
    """Run the script of `reader-role`, twice; return the URL of the database for a new member of the role."""
    name, member = url.rpartition("/")[2], f"auditor_{secrets.token_hex(4)}"
    script = files("holdfast.migrations").joinpath("reader_role.sql").read_text(encoding="utf-8")
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for statement in (script, script, f"CREATE ROLE {member} LOGIN PASSWORD 'secret' IN ROLE holdfast_reader"):
            connection.execute(statement)  # type: ignore[call-overload]  # no text of others
    return server.url(name, member, "secret")
