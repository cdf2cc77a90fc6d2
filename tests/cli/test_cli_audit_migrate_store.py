"""`holdfast audit migrate-store`: the whole record in another database, verified, or a sentence why not."""

from __future__ import annotations

import json
import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url, text
from typer.testing import CliRunner

from audit.entries import entry, record
from console.world import World, make_world
from holdfast.audit.keys import CONSOLE
from holdfast.audit.objects import open_pieces
from holdfast.audit.opening import open_ledger
from holdfast.audit.record import Entry, Kind
from holdfast.audit.store.copying import count_rows
from holdfast.cli import app
from holdfast.database import Database
from holdfast.settings import Settings, load_settings

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from services.postgres import PostgresServer

runner = CliRunner()
LARGE = os.urandom(5000)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """The gateway's and the approvals API's logs, both closed, with bodies in a folder beside the database."""
    world = make_world(tmp_path, {"audit": {"payloads": {"folder": "payloads", "inlineBytes": 100}}})
    write(world.settings, CONSOLE)
    write(world.settings)
    return world


@pytest.fixture
def target(postgres_url: str) -> str:
    """An empty PostgreSQL database, its URL with a password."""
    assert make_url(postgres_url).password
    return postgres_url


def write(settings: Settings, role: str = "") -> str:
    """Record some calls as the gateway does; return the log's name."""
    database = Database.open(settings.database_url)
    pieces = open_pieces(settings.audit.payloads, 5)
    ledger = open_ledger(settings, database, role, pieces)
    for number in range(5):
        asked = Entry(record(kind=Kind.INTENT))
        ledger.write([asked, entry(LARGE + bytes([number]), call=asked.record.call)])
    ledger.close()
    database.close()
    if pieces is not None:
        pieces.close()
    return ledger.row.origin


def run(world: World, *arguments: str, to: str | None = None) -> Result:
    result = runner.invoke(
        app,
        ["audit", *arguments, "--config", str(world.folder / "holdfast.yaml")],
        env={"HOLDFAST_MIGRATE_TO": to},
    )
    password = make_url(to).password if to and "://" in to else None
    assert not password or str(password) not in result.output
    return result


def use(world: World, url: str) -> Settings:
    """Set `audit.database`; return the settings as they are now."""
    file = world.folder / "holdfast.yaml"
    audit = {"database": url, "payloads": {"folder": "payloads", "inlineBytes": 100}}
    lines = [line for line in file.read_text().splitlines() if not line.startswith("audit:")]
    file.write_text("\n".join([*lines, f"audit: {json.dumps(audit)}", ""]))
    return load_settings(file)


def verdict(world: World) -> dict[str, Any]:
    told = json.loads(run(world, "verify", "-o", "json").stdout)
    assert isinstance(told, dict)
    return told


def rows(url: str) -> int:
    with closing(Database.open(url)) as database:
        return sum(count_rows(database).values())


def test_the_record_moves_to_postgres_and_the_gateway_goes_on_there(world: World, target: str) -> None:
    before = verdict(world)
    assert (before["verdict"], before["records"] > 20, before["payloads"]) == ("UNANCHORED", True, 5)
    result = run(world, "migrate-store", to=target)
    assert (result.exit_code, result.stdout) == (0, "")
    moved = rows(world.settings.database_url)
    assert result.stderr == f"copied and verified: {moved} rows. Now set audit.database and start again.\n"
    settings = use(world, target)
    assert verdict(world) == before
    origin = write(settings)
    after = verdict(world)
    assert after["verdict"] == before["verdict"]
    assert after["counts"].keys() == before["counts"].keys()
    assert after["records"] >= before["records"] + 10
    assert origin in {log["origin"] for log in after["logs"]}


def test_a_running_gateway_keeps_its_record(world: World, target: str) -> None:
    database = Database.open(world.settings.database_url)
    for role in ("", CONSOLE):
        ledger = open_ledger(world.settings, database, role)
        result = run(world, "migrate-store", to=target)
        ledger.close()
        assert result.exit_code == 2
        assert result.stderr == (
            f"holdfast: {world.settings.state_dir / f'audit{role}.head'}: another Holdfast process writes the log that "
            "this file belongs to; stop the gateway (`holdfast serve`) and its approvals API first.\n"
        )
    database.close()
    assert rows(target) == 0


def test_a_database_to_copy_to_that_nobody_made_is_asked_for(world: World, postgres: PostgresServer) -> None:
    result = run(world, "migrate-store", to=postgres.url("nowhere"))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.endswith(
        "/nowhere: the audit database cannot be written: the server has no such role or database; make them first "
        "(createuser, createdb).\n"
    )


def test_only_an_empty_database_is_copied_to(world: World, target: str) -> None:
    assert run(world, "migrate-store", to=target).exit_code == 0
    before = rows(target)
    again = run(world, "migrate-store", to=target)
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == "holdfast: the database to copy to holds records already; expected an empty one.\n"
    assert rows(target) == before
    itself = run(world, "migrate-store", to=world.settings.database_url)
    assert (itself.exit_code, itself.stderr) == (2, again.stderr)


def test_what_was_altered_before_does_not_pass_for_verified(world: World, target: str) -> None:
    with closing(Database.open(world.settings.database_url)) as database, database.writing() as connection:
        connection.execute(text("UPDATE calls SET username = 'mallory' WHERE username = 'alice'"))
    result = run(world, "migrate-store", to=target)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("holdfast: the copy does not verify: call-altered in holdfast/testing/")
    assert "do not use the copy" in result.stderr


def test_a_payload_that_was_altered_in_the_folder_does_not_pass_either(world: World, target: str) -> None:
    victim = next(file for file in (world.folder / "payloads").rglob("*") if file.is_file())
    victim.write_bytes(b"something else")
    result = run(world, "migrate-store", to=target)
    assert result.exit_code == 1
    assert victim.name in result.stderr


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("holdfast:hunter2@db/holdfast", "expected sqlite:///PATH or postgresql://USER@HOST/NAME"),
        ("mysql://holdfast:hunter2@db/holdfast", "'mysql' is not supported"),
        ("postgresql://holdfast:hunter2@127.0.0.1:1/holdfast", "Connection refused|connection failed|cannot"),
        ("postgresql://holdfast@127.0.0.1:1/holdfast?password=hunter2", "a password belongs before the host"),
    ],
)
def test_a_url_that_leads_nowhere_is_told_without_its_password(world: World, to: str, told: str) -> None:
    result = run(world, "migrate-store", to=to)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert any(part in result.stderr for part in told.split("|"))
    assert "hunter2" not in result.stderr


def test_a_password_on_the_command_line_is_refused(world: World, target: str) -> None:
    result = run(world, "migrate-store", "--to", target)
    assert result.exit_code == 2
    assert "HOLDFAST_MIGRATE_TO" in result.stderr
    assert str(make_url(target).password) not in result.output
    assert "HOLDFAST_MIGRATE_TO" in runner.invoke(app, ["audit", "migrate-store", "--help"]).stdout
    assert rows(target) == 0
