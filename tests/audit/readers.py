"""Roles of Postgres that only read the record."""

from __future__ import annotations

import re
import secrets
from contextlib import closing
from importlib.resources import files
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from services.postgres import PostgresServer


def make_reader(server: PostgresServer, url: str) -> str:
    """Run the script of `reader-role`, twice; return the URL of the database for a new member, made as it says."""
    name, member = url.rpartition("/")[2], f"auditor_{secrets.token_hex(4)}"
    script = read_script()
    made = [
        line.replace("auditor", member).replace("'...'", "'secret'")
        for line in advised(script, r"(?:CREATE|ALTER) ROLE")
    ]
    assert len(made) == 2
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for statement in (script, script, *made):
            connection.execute(statement)  # type: ignore[call-overload]  # no text of others
    return server.url(name, member, "secret")


def read_script() -> str:
    """The SQL that `reader-role` prints."""
    return files("holdfast.migrations").joinpath("reader_role.sql").read_text(encoding="utf-8")


def advised(script: str, verb: str) -> list[str]:
    """The statements that the script only advises, in its comments, as far as they begin so."""
    return re.findall(rf"^--   ({verb} .*;)$", script, re.MULTILINE)
