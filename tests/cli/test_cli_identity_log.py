"""`holdfast identity log`: what is on record beside calls."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from audit.entries import entry
from audit.readers import make_reader
from console.world import ISSUER, World, make_world
from holdfast.audit.record import Caller, Entry, Issued, Kind, Record, Revoked, describe_refusal, timestamp
from holdfast.cli import app
from holdfast.errors import Unauthorized

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from services.postgres import PostgresServer

NOW = datetime.now(UTC)


def admissions() -> list[Entry]:
    shut_out = Revoked(
        id="r-1",
        issuer=ISSUER,
        reason="gone",
        requested_by="carol",
        scope="user",
        value="eve\x1b[31m",
        until="2026-01-31T12:00:00.000000Z",
    )
    let_in = Revoked(
        id="r-1", issuer=ISSUER, reason="back", requested_by="dora", scope="user", value="eve", lifted=True
    )
    parts: list[dict[str, Any]] = [
        {
            "kind": Kind.ISSUE,
            "identity": Caller(issuer=ISSUER, username="ada"),
            "issue": Issued(id="j-1", grant="token-exchange", expires_at=1_700_000_000),
        },
        {"kind": Kind.ISSUE, "refusal": describe_refusal(Unauthorized("no", "wrong_audience", "aud: 'x'"))},
        {"kind": Kind.REVOKE, "revoke": shut_out},
        {"kind": Kind.REVOKE, "revoke": let_in},
    ]
    return [
        Entry(Record(at=timestamp(NOW - timedelta(minutes=10 - number)), **part)) for number, part in enumerate(parts)
    ]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path)
    world.ledger.write([entry(), *admissions(), entry()])
    return world


def run(world: World, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["identity", "log", "--config", str(world.folder / "holdfast.yaml"), *arguments])


def test_it_tells_who_what_why_and_by_whom(world: World) -> None:
    listed = run(world)
    assert (listed.exit_code, listed.stderr) == (0, "")
    lines = [line.split() for line in listed.stdout.splitlines()]
    assert [line[1:] for line in lines] == [
        ["KIND", "WHO", "ISSUER", "GRANT", "ID", "WHY", "BY"],
        ["lifted", "user", "eve", ISSUER, "r-1", "back", "dora"],
        ["revoked", "user", r"eve\x1b[31m", ISSUER, "r-1", "gone", "(until", "2026-01-31T12:00:00Z)", "carol"],
        ["refused", "no", "[wrong_audience:", "aud:", "'x']"],
        ["issued", "ada", ISSUER, "token-exchange", "j-1"],
    ]


def test_programs_get_all_of_it_and_the_next_page(world: World) -> None:
    first = json.loads(run(world, "-o", "json", "--limit", "3").stdout)
    assert [found["kind"] for found in first["log"]] == ["lifted", "revoked", "refused"]
    assert {name: first["log"][2][name] for name in ("code", "detail", "message")} == {
        "code": "wrong_audience",
        "detail": "aud: 'x'",
        "message": "no",
    }
    assert {name: first["log"][0][name] for name in ("revocationID", "scope", "value", "reason", "by")} == {
        "revocationID": "r-1",
        "scope": "user",
        "value": "eve",
        "reason": "back",
        "by": "dora",
    }
    (last,) = YAML(typ="safe").load(run(world, "-o", "yaml", "--page", first["next"]).stdout)["log"]
    assert (last["user"], last["tokenID"], last["expiresAt"]) == ("ada", "j-1", "2023-11-14T22:13:20Z")
    assert f"there are more: --page {first['next']}" in run(world, "--limit", "3").stderr


def test_it_can_be_asked_for_a_span_of_time(world: World) -> None:
    until = timestamp(NOW - timedelta(minutes=8))
    found = json.loads(
        run(world, "-o", "json", "--since", timestamp(NOW - timedelta(minutes=9)), "--until", until).stdout
    )
    assert [told["kind"] for told in found["log"]] == ["refused"]
    assert json.loads(run(world, "-o", "json", "--until", timestamp(NOW - timedelta(days=1))).stdout)["log"] == []


@pytest.mark.parametrize("page", ["x", "2026-01-31T12:00:00.000000Z", "2026-01-31T12:00:00.000000Z/a/1"])
def test_a_page_that_no_list_gave_is_refused(world: World, page: str) -> None:
    refused = run(world, "--page", page)
    assert (refused.exit_code, "--page: found" in refused.stderr) == (2, True)


def test_it_reads_the_database_that_is_for_reading(postgres: PostgresServer, postgres_url: str, tmp_path: Path) -> None:
    world = make_world(tmp_path, {"audit": {"database": postgres_url}})
    world.ledger.write(admissions())
    reader = make_reader(postgres, postgres_url)
    world = make_world(tmp_path, {"audit": {"database": "postgresql://127.0.0.1:1/x", "readDatabase": reader}})
    assert len(json.loads(run(world, "-o", "json").stdout)["log"]) == 4
