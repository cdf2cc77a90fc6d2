"""The README's commands, run as a newcomer would: in order, in an empty folder, on the test cluster."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testcluster.processes import free_ports

if TYPE_CHECKING:
    from testcluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shell_blocks(heading: str) -> list[str]:
    """The ```sh blocks under one heading, up to the next heading of the same or a higher level."""
    section = re.split(r"^##? ", README.split(f"\n## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell_environment(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    """An empty home, an administrator's kubeconfig, and the project's programs on PATH."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "kubectl").symlink_to(cluster.kubectl)
    return {
        "PATH": f"{Path(sys.executable).parent}:{tools}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "KUBECONFIG": str(cluster.admin_kubeconfig),
        "HOLDFAST": str(ROOT),
    }


def test_the_commands_for_ones_own_cluster_work_in_order(shell_environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "try"  # which the first command makes, in the home
    script = "set -euo pipefail\n" + "\n".join(shell_blocks("In front of your own cluster"))
    issuer, listen, approvals, witness = free_ports(4)
    script = script.replace("holdfast witness serve", f"holdfast witness serve --listen 127.0.0.1:{witness}")
    script = (
        script.replace("8445", str(issuer))
        .replace("8446", str(witness))
        .replace("cluster: mine\n", f"cluster: mine\nlisten: {{port: {listen}}}\napprovals: {{port: {approvals}}}\n")
    )
    shell = subprocess.Popen(
        ["bash", "-x", "-c", script],
        cwd=tmp_path,
        env=shell_environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = shell.communicate(timeout=180)
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
    logs = "\n".join(f"--- {log.name}\n{log.read_text()}" for log in sorted(folder.glob("*.log")))
    assert shell.returncode == 0, f"{said}\n{logs}"
    assert "anchor http://127.0.0.1" in said
    assert 'namespace "demo-unused" deleted' in (folder / "delete.log").read_text()
    assert (folder / "story.flows").stat().st_size > 0
    assert said.count("\nINTACT: ") == 3


@pytest.mark.parametrize(
    "command", [line.split()[0] for block in shell_blocks("Two commands") for line in block.splitlines()]
)
def test_the_two_commands_are_there(command: str) -> None:
    assert os.access(ROOT / command, os.X_OK)


def test_the_demo_plays_to_its_end() -> None:
    played = subprocess.run(
        ["scripts/demo", "--once"], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=400
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert "every step came out as it must" in played.stdout
