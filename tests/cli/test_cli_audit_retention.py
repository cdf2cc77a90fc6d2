"""`holdfast audit retention` and `erase`: the plan, what is done, and that nothing is done unasked."""

from __future__ import annotations

import fcntl
import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from audit.entries import entry
from console.world import World, make_world
from holdfast.audit.record import Caller
from holdfast.audit.store import AuditStore
from holdfast.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

runner = CliRunner()
RULES = {"payloads": [{"name": "bodies-of-pods", "olderThanDays": 0, "resources": ["pods*"]}], "maxAgeDays": 30}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path, {"audit": {"retention": RULES}})
    for user in ("alice", "bob"):
        world.ledger.write([entry(b"body of " + user.encode(), identity=Caller("https://issuer", user))])
    return world


def run(world: World, *arguments: str) -> Result:
    return runner.invoke(app, ["audit", *arguments, "--config", str(world.folder / "holdfast.yaml")])


def bodies(world: World) -> list[bytes]:
    return sorted(body for story in AuditStore(world.database).iter_calls() for body in story.payloads.values())


def test_erasing_asks_and_says_what_it_did(world: World) -> None:
    refused = run(world, "erase", "--user", "alice", "--reason", "she asked")
    assert (refused.exit_code, "1 bodies of 13 bytes" in refused.stderr) == (1, True)
    assert len(bodies(world)) == 2
    done = run(world, "erase", "--user", "alice", "--reason", "she asked", "--yes", "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"bodies": 1, "bytes": 13})
    assert bodies(world) == [b"body of bob"]
    shown = json.loads(run(world, "list", "--user", "alice", "-o", "json").stdout)
    assert len(shown if isinstance(shown, list) else shown["items"]) == 1
    verified = json.loads(run(world, "verify", "-o", "json", "--root", str(root(world))).stdout)
    assert verified["counts"]["payload-erased"] == 1


def root(world: World) -> Path:
    return world.folder / "state" / "audit-keys" / "root.pub"


def test_nobody_is_erased_by_accident(world: World) -> None:
    result = run(world, "erase", "--reason", "x", "--yes")
    assert (result.exit_code, "expected --user or --call" in result.stderr) == (2, True)
    assert len(bodies(world)) == 2


def test_a_plan_changes_nothing(world: World) -> None:
    planned = json.loads(run(world, "retention", "plan", "-o", "json").stdout)
    assert planned == {"days": [], "payloads": [{"rule": "bodies-of-pods", "bodies": 0, "bytes": 0}]}
    assert "nothing is to go" in run(world, "retention", "run").stderr
    assert len(bodies(world)) == 2


def test_one_command_erases_at_a_time(world: World) -> None:
    world.settings.state_dir.mkdir(exist_ok=True)
    with (world.settings.state_dir / "audit.maintenance.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (["retention", "run"], ["erase", "--user", "alice", "--reason", "x", "--yes"]):
            result = run(world, *command)
            assert (result.exit_code, "another command that erases is under way" in result.stderr) == (1, True)
