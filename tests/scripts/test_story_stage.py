"""The demo on somebody's cluster: what was there before stays as it was; and the commands it ends with exist."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING

import pytest
import typer.main
from click import Context

from holdfast.cli import app
from story.closing import describe_commands
from story.stage import NAMESPACES, SERVICE_ACCOUNT, Stage

if TYPE_CHECKING:
    from pathlib import Path

# A cluster that has objects, in `objects`, some of which `get` does not show yet, in `hidden`.
KUBECTL = f"""#!{sys.executable}
import json, pathlib, sys

folder = pathlib.Path(__file__).parent
state = json.loads((folder / "state.json").read_text())
verb, *rest = sys.argv[3:]
if verb == "get":
    kind, *names = rest[:-3]
    print("\\n".join(f"{{kind}}/{{name}}" for name in names if f"{{kind}}/{{name}}" in state["objects"]))
elif verb == "create":
    for made in json.load(sys.stdin)["items"]:
        name = made["kind"].lower() + "/" + made["metadata"]["name"]
        if name in state["objects"] + state["hidden"]:
            sys.exit(name + " already exists")
        state["objects"].append(name)
        state["log"].append("create " + name)
elif verb == "delete":
    name = "/".join(rest[:2])
    state["log"].append("delete " + name)
    state["objects"] = [kept for kept in state["objects"] if kept != name]
elif verb == "wait":
    sys.exit("the demo goes no further")
(folder / "state.json").write_text(json.dumps(state))
"""


class FakeCluster:
    """kubectl as a script, and what it was asked to do."""

    def __init__(self, folder: Path, objects: tuple[str, ...], hidden: tuple[str, ...]) -> None:
        self.kubectl = folder / "kubectl"
        self.kubectl.write_text(KUBECTL)
        self.kubectl.chmod(0o700)
        self._state = folder / "state.json"
        present = ["serviceaccounts/default", *objects]
        self._state.write_text(json.dumps({"objects": present, "hidden": hidden, "log": []}))

    @property
    def log(self) -> list[str]:
        return list(json.loads(self._state.read_text())["log"])


def play(folder: Path, *objects: str, hidden: tuple[str, ...] = ()) -> tuple[FakeCluster, str]:
    """Set the stage on a cluster that has `objects`, as far as that goes; return it and what went wrong."""
    cluster = FakeCluster(folder, objects, hidden)
    stage = Stage(folder, lambda _: None, kubectl=cluster.kubectl)
    with pytest.raises(RuntimeError) as fault:
        stage.set_up(folder / "kubeconfig", None)
    stage.close()
    return cluster, str(fault.value)


@pytest.mark.parametrize(
    "there", [*(f"namespace/{name}" for name in NAMESPACES), f"clusterrolebinding/{SERVICE_ACCOUNT}"]
)
def test_it_refuses_a_cluster_that_has_one_of_its_objects(tmp_path: Path, there: str) -> None:
    cluster, fault = play(tmp_path, there)
    assert fault.startswith(f"the cluster already has what the demo would make ({there}); ")
    assert cluster.log == []


def test_everything_in_the_way_is_named_at_once(tmp_path: Path) -> None:
    _, fault = play(tmp_path, "namespace/demo", "namespace/demo-slow", "clusterrolebinding/holdfast-demo")
    assert "(namespace/demo, namespace/demo-slow, clusterrolebinding/holdfast-demo)" in fault


def test_what_appears_meanwhile_is_not_removed(tmp_path: Path) -> None:
    cluster, fault = play(tmp_path, hidden=("namespace/demo-keep",))
    made = [entry.removeprefix("create ") for entry in cluster.log if entry.startswith("create ")]
    removed = [entry.removeprefix("delete ") for entry in cluster.log if entry.startswith("delete ")]
    assert "already exists" in fault
    assert made == ["namespace/demo", "namespace/demo-old"]
    assert removed == made[::-1]


def test_commands_to_go_on_with_exist(tmp_path: Path) -> None:
    stage = Stage(tmp_path, lambda _: None, mitmweb_url="https://127.0.0.1:50123")
    commands = [shlex.split(line) for line in describe_commands(stage).splitlines() if line.startswith("  ")]
    (holdfast,) = [command[2:] for command in commands if command[1].endswith("/holdfast")]
    group = typer.main.get_command(app)
    context = Context(group, info_name="holdfast")
    for word in ("audit", "list"):
        assert holdfast.pop(0) == word
        group = group.get_command(context, word)  # type: ignore[attr-defined]
    group.make_context("list", holdfast, parent=context)
    assert ["--rfile", str(tmp_path / "story.flows")] in [command[-2:] for command in commands]
    assert commands[-1][-2:] == ["--server", "https://127.0.0.1:50123"]
