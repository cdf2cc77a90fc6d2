"""`holdfast audit prove | verify-proof` over a small record written through a ledger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from console.world import World, make_world
from holdfast.cli import app
from replay.stories import allowed_call, held_call

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

runner = CliRunner()


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path)
    for entries in (allowed_call(1), held_call(2)):
        world.ledger.write(entries)
    return world


def run(world: World, *arguments: str, text: str | None = None) -> Result:
    """Run a command that has settings."""
    return runner.invoke(app, ["audit", *arguments, "--config", str(world.folder / "holdfast.yaml")], input=text)


def root(world: World) -> str:
    """The file that the auditor has."""
    return str(world.folder / "audit-keys-other" / "root.pub")


def test_a_proof_is_written_and_verified_without_settings(world: World) -> None:
    file = world.folder / "call.tlog-proof"
    written = run(world, "prove", "2", "--file", str(file))
    assert (written.exit_code, written.stdout) == (0, "")
    assert written.stderr == f"written: record 5 of holdfast/test/other/1 to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    verified = runner.invoke(app, ["audit", "verify-proof", str(file), "--root", root(world)])
    assert verified.exit_code == 0
    for part in ("record 5 of the 6 of holdfast/test/other/1", "Kind     outcome", "User     agent", "Answer   200"):
        assert part in verified.stdout
    as_json = runner.invoke(app, ["audit", "verify-proof", str(file), "--root", root(world), "-o", "json"])
    told = json.loads(as_json.stdout)
    assert (told["proven"]["seq"], told["record"]["kind"]) == (5, "outcome")


def test_a_proof_goes_through_a_pipe(world: World) -> None:
    proof = run(world, "prove", "holdfast/test/other/1", "0").stdout
    verified = runner.invoke(app, ["audit", "verify-proof", "-", "--root", root(world)], input=proof)
    assert "Kind    heartbeat" in verified.stdout


def test_a_proof_that_was_changed_is_refused_with_1(world: World) -> None:
    proof = run(world, "prove", "holdfast/test/other/1", "0").stdout.replace("index 0", "index 1")
    verified = runner.invoke(app, ["audit", "verify-proof", "-", "--root", root(world)], input=proof)
    assert (verified.exit_code, verified.stdout) == (1, "")
    assert verified.stderr == (
        "holdfast: the proof does not lead from the record to the checkpoint of holdfast/test/other/1\n"
    )


def test_a_record_that_is_not_there_is_not_proven(world: World) -> None:
    for arguments in (("9",), ("holdfast/test/other/2", "0"), ("holdfast/test/other/1", "6")):
        result = run(world, "prove", *arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
