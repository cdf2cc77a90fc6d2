"""`holdfast approvals` against the approvals API in a process of its own."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from console.world import World, make_world
from holdfast.cli import app
from holdfast.exchange import HoldState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

runner = CliRunner()

type Approvals = Callable[..., Result]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[str]:
    command = [sys.executable, "-m", "holdfast.cli", "console", "--config", str(world.folder / "holdfast.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as console:
        assert console.stdout is not None
        yield console.stdout.readline().removeprefix("ready ").strip()
        console.terminate()


@pytest.fixture
def approvals(world: World, server: str) -> Approvals:
    def run(user: str, *arguments: str) -> Result:
        environment = {"HOLDFAST_APPROVALS_SERVER": server, "HOLDFAST_CA": str(world.folder / "ca.crt")}
        groups = ("platform",) if user == "bob" else ()
        token = ["--token-file", str(world.token_file(user, *groups))]
        return runner.invoke(app, ["approvals", *arguments, *token], env=environment)

    return run


def test_an_approver_sees_shows_and_approves(approvals: Approvals, world: World) -> None:
    hold = world.add_hold(1)
    listed = approvals("bob", "list").stdout
    assert listed.split()[:9] == ["ID", "STATE", "USER", "VERB", "OBJECT", "NAMESPACE", "RULE", "AGE", "DECIDED"]
    assert hold.id in listed
    shown = approvals("bob", "show", hold.id).stdout
    for part in (
        "delete namespaces shop",
        "kubectl delete (as the client says)",
        "carol, group platform",
        "Background",
    ):
        assert part in shown
    program, group, *command = shlex.split(shown.splitlines()[-1])
    assert (program, group, command) == ("holdfast", "approvals", ["approve", hold.id])
    approved = approvals("bob", *command, "--reason", "as agreed")
    assert (approved.exit_code, approved.stdout) == (0, f"{hold.id} approved: agent delete namespaces shop\n")
    stored = world.holds.get(hold.id)
    assert (stored.state, stored.decided_by, stored.decision_reason) == (HoldState.APPROVED, "bob", "as agreed")


def test_a_denial_needs_its_reason_option(approvals: Approvals, world: World) -> None:
    hold = world.add_hold(2)
    assert approvals("carol", "deny", hold.id).exit_code == 2
    assert world.holds.get(hold.id).state is HoldState.PENDING
    assert approvals("carol", "deny", hold.id, "--reason", "no").exit_code == 0
    assert world.holds.get(hold.id).state is HoldState.DENIED


def test_the_requester_is_refused_with_exit_code_1(approvals: Approvals, world: World) -> None:
    hold = world.add_hold(3)
    refused = approvals("agent", "approve", hold.id)
    assert refused.exit_code == 1
    assert refused.stderr == (f"holdfast: hold {hold.id} was asked for by agent; somebody else must decide it.\n")


def test_a_hold_may_be_named_by_its_beginning_when_that_is_unique(approvals: Approvals, world: World) -> None:
    near, far = world.add_hold(32**9 * 7 + 1), world.add_hold(32**9 * 7 + 32**3)
    common = near.id[:5]
    assert far.id.startswith(common)
    ambiguous = approvals("carol", "approve", common)
    assert (ambiguous.exit_code, world.holds.get(near.id).state) == (1, HoldState.PENDING)
    assert approvals("carol", "approve", near.id[:-1].removeprefix("h-")).exit_code == 0
    assert world.holds.get(near.id).state is HoldState.APPROVED
    assert world.holds.get(far.id).state is HoldState.PENDING
    assert approvals("carol", "show", "h-zzzz").exit_code == 1


def test_json_lists_all_when_asked(approvals: Approvals, world: World) -> None:
    hold = world.add_hold(5)
    approvals("carol", "deny", hold.id, "--reason", "no")
    pending = json.loads(approvals("carol", "list", "-o", "json").stdout)
    everything = json.loads(approvals("carol", "list", "--all", "-o", "json").stdout)
    assert {item["state"] for item in pending} <= {"pending"}
    assert {"id": hold.id, "state": "denied"}.items() <= next(x for x in everything if x["id"] == hold.id).items()


def test_watch_prints_a_hold_again_when_it_is_decided(approvals: Approvals, world: World, server: str) -> None:
    hold = world.add_hold(6)
    command = [sys.executable, "-m", "holdfast.cli", "approvals", "list", "--watch", "-o", "json", "--server", server]
    options = ["--certificate-authority", world.folder / "ca.crt", "--token-file", world.token_file("carol")]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        follow = (line for line in map(json.loads, watch.stdout) if line["id"] == hold.id)
        assert next(follow)["state"] == "pending"
        approvals("bob", "approve", hold.id)
        assert next(follow)["decidedBy"] == "bob"
        watch.terminate()


@pytest.mark.parametrize(
    ("environment", "arguments", "sentence"),
    [
        ({}, ["--server", "https://127.0.0.1:1"], "no token: give --token-file FILE"),
        ({"HOLDFAST_TOKEN": "x"}, ["--config", "{folder}/holdfast.yaml"], "approvals.port is 0"),
        (
            {"HOLDFAST_TOKEN": "x"},
            ["--config", "{folder}/none.yaml"],
            "or name the approvals API with --server and --certificate-authority, which is the gateway's "
            "state/listener/ca.crt",
        ),
        ({"HOLDFAST_TOKEN": "x y"}, ["--server", "{server}"], "$HOLDFAST_TOKEN: expected one bearer token on one line"),
        ({"HOLDFAST_TOKEN": "x"}, ["--server", "{server}"], "its certificate is not trusted"),
        ({"HOLDFAST_TOKEN_FILE": "{folder}/none"}, ["--server", "{server}"], "none: cannot be read"),
        ({"HOLDFAST_TOKEN": "x"}, ["--server", "{server}", "--certificate-authority", "{folder}/jwks.json"], "PEM"),
    ],
)
def test_what_is_not_configured_is_one_sentence_and_exit_code_2(
    world: World, server: str, environment: dict[str, str], arguments: list[str], sentence: str
) -> None:
    def fill(text: str) -> str:
        return text.format(folder=world.folder, server=server)

    result = runner.invoke(
        app, ["approvals", "list", *map(fill, arguments)], env={key: fill(value) for key, value in environment.items()}
    )
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_api_that_cannot_be_reached_is_exit_code_1() -> None:
    command = ["approvals", "list", "--server", "https://127.0.0.1:1"]
    result = runner.invoke(app, command, env={"HOLDFAST_TOKEN": "x"})
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("holdfast: approvals API https://127.0.0.1:1: cannot be reached (")
    assert result.stderr.endswith("; is `holdfast serve` or `holdfast console` running there?\n")


def test_a_bad_token_is_refused_with_exit_code_1(world: World, server: str) -> None:
    authority = str(world.folder / "ca.crt")
    result = runner.invoke(
        app,
        ["approvals", "list", "--server", server, "--certificate-authority", authority],
        env={"HOLDFAST_TOKEN": "not-a-token"},
    )
    assert result.exit_code == 1
    assert "not-a-token" not in result.stderr


def test_what_still_waits_goes_before_what_is_over_when_a_beginning_fits_both(
    approvals: Approvals, world: World
) -> None:
    decided, waiting = world.add_hold(32**9 * 9 + 1), world.add_hold(32**9 * 9 + 32**3)
    common = decided.id[:5]
    assert waiting.id.startswith(common)
    assert approvals("carol", "deny", decided.id, "--reason", "no").exit_code == 0
    assert approvals("carol", "approve", common).exit_code == 0
    assert world.holds.get(waiting.id).state is HoldState.APPROVED
