"""`holdfast policy check`: what passes, what fails, and with which exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from console.world import World, make_world
from holdfast.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

runner = CliRunner()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def run(*arguments: object) -> Result:
    return runner.invoke(app, ["policy", "check", *map(str, arguments)])


def test_the_configured_policies_are_tried_with_the_cases_beside_them(world: World) -> None:
    result = run("--config", world.folder / "holdfast.yaml", "-o", "json")
    assert result.exit_code == 0
    assert [(line["case"], line["result"]) for line in json.loads(result.stdout)] == [
        ("an agent reads pods", "pass"),
        ("nobody deletes pods", "pass"),
    ]


def test_a_case_that_fails_says_how_and_exits_with_1(world: World) -> None:
    cases = world.folder / "policy.cases.yaml"
    cases.write_text(cases.read_text().replace("expect: deny", "expect: hold"))
    result = run(world.folder / "policy.yaml")
    assert result.exit_code == 1
    assert "expected hold, found deny by no rule" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 files, 2 cases: 1 pass, 1 fail"


def test_a_glob_that_names_cases_too_means_the_policies(world: World) -> None:
    assert run(world.folder / "policy.yaml", world.folder / "policy.cases.yaml").exit_code == 0


def test_a_policy_without_cases_is_loaded(world: World) -> None:
    (world.folder / "policy.cases.yaml").unlink()
    result = run(world.folder / "policy.yaml")
    assert (result.exit_code, "no cases beside it" in result.stdout) == (0, True)
    assert result.stdout.splitlines()[-1] == "1 files, 0 cases: 0 pass, 0 fail"


@pytest.mark.parametrize(
    ("found", "replaced"),
    [
        ("effect: allow", "effect: permit"),
        ("read-pods", "Read Pods"),
        ("rules:", "rulez:"),
        ("verbs: [get", "verbs: [see"),
    ],
)
def test_a_policy_that_cannot_be_enforced_is_one_sentence_and_exit_code_2(
    world: World, found: str, replaced: str
) -> None:
    policy = world.folder / "policy.yaml"
    policy.write_text(policy.read_text().replace(found, replaced))
    result = run(policy)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"holdfast: {policy}: ")
    assert result.stderr.count("\n") == 1


def test_names_taken_in_another_file_are_refused(world: World) -> None:
    again = world.folder / "again.yaml"
    again.write_text((world.folder / "policy.yaml").read_text())
    assert run(world.folder / "policy.yaml", again).exit_code == 2
