"""`holdfast audit reader-role`: who reads the record needs no right to write it."""

from __future__ import annotations

from importlib.resources import files

import typer


def reader_role() -> None:
    """Print the SQL that makes the role `holdfast_reader` in Postgres, which reads the record and writes nothing.

    It is enough to list, show, export, verify, prove and reconcile. Nothing is run: the owner of the audit database
    does that, with psql. Who reads then logs in as a member of the role, with `audit.readDatabase` in the settings.
    The SQL says how a member is made, and what any login of Postgres can do all the same, as to hold a transaction
    open or to store large objects, and how a superuser ends the latter.

    \b
    Example:
      holdfast audit reader-role | psql postgresql://holdfast@db.internal/holdfast
    """
    typer.echo(files("holdfast.migrations").joinpath("reader_role.sql").read_text(encoding="utf-8"), nl=False)
