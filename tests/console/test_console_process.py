"""The approvals API as a child process: it says where it is, and never outlives its parent."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from console.world import World, make_world

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 60
COMMAND = [sys.executable, "-m", "holdfast.cli", "console", "--exit-with-parent", "--config"]
PARENT = """
import subprocess, sys, time
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
line = child.stdout.readline()
print(child.pid, line.strip(), flush=True)
time.sleep(600 if line else 0)
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def test_it_dies_with_a_parent_that_was_killed(world: World) -> None:
    command = [*COMMAND, str(world.folder / "holdfast.yaml")]
    with subprocess.Popen([sys.executable, "-c", PARENT, *command], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, ready, url = parent.stdout.readline().split()
        child = psutil.Process(int(pid))
        trust = ssl.create_default_context(cafile=world.folder / "ca.crt")
        assert ready == "ready"
        assert httpx.get(f"{url}/healthz", verify=trust).text == "ok\n"
        parent.send_signal(signal.SIGKILL)
    try:
        child.wait(SECONDS)
    except psutil.TimeoutExpired:
        child.kill()
        raise


def test_it_ignores_an_interrupt_and_obeys_sigterm(world: World) -> None:
    command = [*COMMAND, str(world.folder / "holdfast.yaml")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("ready https://127.0.0.1:")
        child.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1)
        child.send_signal(signal.SIGTERM)
        assert child.wait(SECONDS) == 0


def test_a_taken_port_is_one_sentence_and_exit_code_2(world: World) -> None:
    settings = world.folder / "holdfast.yaml"
    with subprocess.Popen([*COMMAND, str(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        port = child.stdout.readline().strip().rpartition(":")[2]
        settings.write_text(settings.read_text().replace("approvals: {port: 0}", f"approvals: {{port: {port}}}"))
        second = subprocess.run([*COMMAND, str(settings)], capture_output=True, text=True, timeout=SECONDS)
        child.terminate()
    assert second.returncode == 2
    assert second.stderr == (
        f"holdfast: the approvals API cannot listen on 127.0.0.1:{port}: Address already in use; "
        "free the port or set approvals.port.\n"
    )
