"""The cluster is real: what a gateway must carry works here without one, and the audit log saw it."""

from __future__ import annotations

import json
import os
import subprocess
import termios
import threading
import time
import urllib.request
import uuid
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import psutil
import pytest

from testcluster.processes import free_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from testcluster import Cluster

    Admin = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def namespace(admin: Admin) -> Iterator[str]:
    name = f"real-{uuid.uuid4().hex[:8]}"
    ok(admin("create", "namespace", name))
    yield name
    ok(admin("delete", "namespace", name, "--wait=false"))


@pytest.fixture(scope="module")
def shell(admin: Admin, namespace: str) -> str:
    """A pod whose container prints lines, and in which commands can be run."""
    ok(admin("run", "shell", "-n", namespace, "--image=none"))
    ok(admin("wait", "-n", namespace, "--for=condition=Ready", "pod/shell", "--timeout=60s"))
    return "shell"


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_deployment_rolls_out_and_scales(admin: Admin, namespace: str) -> None:
    ok(admin("create", "deployment", "web", "-n", namespace, "--image=none", "--replicas=2"))
    ok(admin("rollout", "status", "-n", namespace, "deployment/web", "--timeout=60s"))
    ok(admin("scale", "-n", namespace, "deployment/web", "--replicas=0"))
    ok(admin("wait", "-n", namespace, "--for=delete", "pod", "-l", "app=web", "--timeout=60s"))


def test_a_job_ends_with_its_command(admin: Admin, namespace: str) -> None:
    ok(
        admin(
            "create", "job", "fails", "-n", namespace, "--image=none", "--", "sh", "-c", "printf 'no newline'; exit 3"
        )
    )
    ok(admin("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Failed", "pod", "-l", "job-name=fails"))
    code = "-o=jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}"
    assert ok(admin("get", "pods", "-n", namespace, "-l", "job-name=fails", code)) == "3"
    assert ok(admin("logs", "-n", namespace, "-l", "job-name=fails")) == "no newline\n"


def test_logs_are_cut_as_asked(admin: Admin, namespace: str, shell: str) -> None:
    lines = ok(admin("logs", "-n", namespace, shell)).splitlines()
    assert lines[:2] == ["line 1 of shell", "line 2 of shell"]
    assert len(ok(admin("logs", "-n", namespace, shell, "--tail=3")).splitlines()) == 3
    assert ok(admin("logs", "-n", namespace, shell, "--limit-bytes=9")) == "line 1 of"
    assert ok(admin("logs", "-n", namespace, shell, "--since-time=2100-01-01T00:00:00Z")) == ""
    stamp, text = ok(admin("logs", "-n", namespace, shell, "--timestamps")).splitlines()[0].split(" ", 1)
    assert stamp.endswith("Z")
    assert text == lines[0]


def test_followed_logs_end_with_the_last_line(admin: Admin, namespace: str) -> None:
    script = "echo first; sleep 1; echo second; printf last"
    ok(admin("run", "talks", "-n", namespace, "--image=none", "--restart=Never", "--", "sh", "-c", script))
    ok(admin("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Running", "pod/talks", "--timeout=30s"))
    assert ok(admin("logs", "-f", "-n", namespace, "talks")) == "first\nsecond\nlast\n"


@pytest.mark.parametrize("code", [0, 7])
def test_exec_carries_input_output_and_exit_code(admin: Admin, namespace: str, shell: str, code: int) -> None:
    script = f"cat; echo to stderr >&2; exit {code}"
    done = admin("exec", "-i", "-n", namespace, shell, "--", "sh", "-c", script, stdin="typed\n")
    assert (done.returncode, done.stdout) == (code, "typed\n")
    assert done.stderr.startswith("to stderr\n")


def test_exec_carries_three_megabytes_each_way(admin: Admin, namespace: str, shell: str) -> None:
    text = "0123456789abcde\n" * (3 * 2**20 // 16)
    assert ok(admin("exec", "-i", "-n", namespace, shell, "--", "cat", stdin=text)) == text


def test_exec_has_a_terminal_of_the_client_s_size(cluster: Cluster, namespace: str, shell: str) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (33, 101))
    command: list[str | Path] = [
        cluster.kubectl,
        "--kubeconfig",
        cluster.admin_kubeconfig,
        "exec",
        "-it",
        "-n",
        namespace,
        shell,
    ]
    script = "sleep 1; stty size; read word; echo heard $word; exit 5"
    with subprocess.Popen([*command, "--", "sh", "-c", script], stdin=theirs, stdout=theirs, stderr=theirs) as child:
        os.close(theirs)
        os.write(ours, b"me\n")
        shown = read_terminal(ours)
    assert "33 101" in shown
    assert "heard me" in shown
    assert child.returncode == 5


def read_terminal(descriptor: int) -> str:
    """Read until the other end is closed, which Linux reports as an error."""
    shown = b""
    with os.fdopen(descriptor, "rb", buffering=0) as terminal, suppress(OSError):
        while data := terminal.read(4096):
            shown += data
    return shown.decode()


def test_attach_reaches_the_container_s_own_command(admin: Admin, namespace: str) -> None:
    run = ["run", "echo", "-n", namespace, "-i", "--quiet", "--image=none", "--restart=Never", "--rm"]
    script = "read word; echo heard $word"
    assert "heard me" in ok(admin(*run, "--", "sh", "-c", script, stdin="me\n"))


def test_an_ephemeral_container_runs_beside_the_others(admin: Admin, namespace: str, shell: str) -> None:
    ok(admin("debug", "-n", namespace, shell, "--image=none", "-c", "beside", "--", "echo", "from beside"))
    ended = '{.status.ephemeralContainerStatuses[?(@.name=="beside")].state.terminated.reason}=Completed'
    ok(admin("wait", "-n", namespace, f"--for=jsonpath={ended}", f"pod/{shell}", "--timeout=30s"))
    assert ok(admin("logs", "-n", namespace, shell, "-c", "beside")) == "from beside\n"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "15")
        self.end_headers()
        self.wfile.write(b"through the pod")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_port_forward_reaches_a_port_of_this_machine(
    cluster: Cluster, namespace: str, shell: str, web_port: int
) -> None:
    command: list[str | Path] = [cluster.kubectl, "--kubeconfig", cluster.admin_kubeconfig, "-n", namespace]
    command += ["port-forward", f"pod/{shell}", f":{web_port}"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            address = forward.stdout.readline().removeprefix("Forwarding from ").partition(" ")[0]
            for _ in range(3):
                assert urllib.request.urlopen(f"http://{address}", timeout=10).read() == b"through the pod"
        finally:
            forward.terminate()


def test_what_runs_in_a_pod_ends_with_it(admin: Admin, namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    script = f"sleep 987 & echo $! > {file}; wait"
    ok(admin("run", "sleeps", "-n", namespace, "--image=none", "--", "sh", "-c", script))
    ok(admin("wait", "-n", namespace, "--for=condition=Ready", "pod/sleeps", "--timeout=30s"))
    wait_until(lambda: file.is_file() and file.read_text().endswith("\n"))
    process = psutil.Process(int(file.read_text()))
    ok(admin("delete", "pod", "sleeps", "-n", namespace))
    process.wait(timeout=10)


def test_exec_ends_with_its_client(cluster: Cluster, namespace: str, shell: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    command: list[str | Path] = [
        cluster.kubectl,
        "--kubeconfig",
        cluster.admin_kubeconfig,
        "exec",
        "-n",
        namespace,
        shell,
        "--",
    ]
    with subprocess.Popen([*command, "sh", "-c", f"echo $$ > {file}; exec sleep 987"]) as client:
        wait_until(lambda: file.is_file() and file.read_text().endswith("\n"))
        process = psutil.Process(int(file.read_text()))
        client.kill()
    process.wait(timeout=10)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_audit_log_is_a_witness(cluster: Cluster, admin: Admin, namespace: str) -> None:
    name = f"seen-{uuid.uuid4().hex}"
    ok(admin("create", "configmap", name, "-n", namespace, "--from-literal=key=hidden-value"))
    events = [event for event in cluster.audit_events() if event.get("objectRef", {}).get("name") == name]
    # A create names its object only in the body, which has not been read at stage RequestReceived.
    assert [(event["verb"], event["user"]["username"], event["stage"]) for event in events] == [
        ("create", "admin", "ResponseComplete")
    ]
    stages = [event["stage"] for event in cluster.audit_events() if event["auditID"] == events[0]["auditID"]]
    assert stages == ["RequestReceived", "ResponseComplete"]
    assert "hidden-value" not in json.dumps(events)


def test_a_service_account_has_its_role_and_no_more(cluster: Cluster, admin: Admin, namespace: str) -> None:
    token = cluster.service_account_token("viewer", namespace, "view")
    may = ["--server", cluster.server, "--certificate-authority", str(cluster.ca_file), "--token", token]

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [cluster.kubectl, "--kubeconfig", os.devnull, *may, "-n", namespace, *arguments]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    ok(ask("get", "pods"))
    assert "Forbidden" in ask("get", "secrets").stderr


def test_old_and_new_kubectls_reach_it(cluster: Cluster, kubectls: list[tuple[str, Path]]) -> None:
    for version, path in kubectls:
        command: list[str | Path] = [
            path,
            "--kubeconfig",
            cluster.admin_kubeconfig,
            "get",
            "namespace",
            "default",
            "-o",
            "name",
        ]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert ok(done) == "namespace/default\n", version


def test_two_clusters_stand_side_by_side_even_if_a_port_is_lost(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = iter([[cluster.port, *free_ports(2)], free_ports(3)])
    monkeypatch.setattr("testcluster.cluster.free_ports", lambda _: next(offers))
    other = type(cluster).start(tmp_path, cluster.assets)
    assert not list(offers)
    try:
        assert other.server != cluster.server
        ok(other.run_kubectl("create", "namespace", "only-there"))
        assert "NotFound" in cluster.run_kubectl("get", "namespace", "only-there").stderr
    finally:
        other.stop()
    assert "refused" in other.run_kubectl("get", "namespaces").stderr
    assert not [process for process in psutil.process_iter(["cmdline"]) if is_of(process, tmp_path)]


def is_of(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in argument for argument in process.info["cmdline"] or [])
