"""One real cluster for all tests of this folder, built before the first of them and started when one asks."""

from __future__ import annotations

import os
import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

from kubectl import find_versions  # noqa: E402
from running import RunningGateway, Upstream  # noqa: E402
from testcluster import Assets, Cluster, ClusterError, GoMissing, Progress, find_assets  # noqa: E402
from testcluster.processes import free_ports  # noqa: E402

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Admin = Callable[..., subprocess.CompletedProcess[str]]

_BUILT = pytest.StashKey[Assets | ClusterError]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if item.path.is_relative_to(FOLDER):
            item.add_marker("cluster")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build here, not in the fixture: the first build takes longer than any test may."""
    wanted = any("cluster" in getattr(item, "fixturenames", ()) for item in session.items)
    if not wanted or session.config.option.collectonly:
        return
    progress = _progress(session.config)
    try:
        session.config.stash[_BUILT] = find_assets(progress)
    except ClusterError as error:
        session.config.stash[_BUILT] = error
    progress.done()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line that the cluster's tests did not run, and why."""
    outcome = config.stash.get(_BUILT, None)
    if isinstance(outcome, GoMissing):
        terminalreporter.write_line(f"tests/cluster did not run: {outcome}", yellow=True)


def _progress(config: pytest.Config) -> Progress:
    reporter = config.pluginmanager.getplugin("terminalreporter")
    return Progress(lambda text: reporter.write(text, flush=True), reporter.isatty)


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster; it is the session's, so use a namespace of your own."""
    outcome = pytestconfig.stash[_BUILT]
    if isinstance(outcome, GoMissing) and not os.environ.get("CI"):
        pytest.skip(str(outcome))
    if isinstance(outcome, ClusterError):
        pytest.fail(str(outcome), pytrace=False)
    running = Cluster.start(tmp_path_factory.mktemp("cluster"), outcome)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Admin:
    """Run kubectl as the administrator, straight to the API server: admin("get", "pods", stdin="")."""
    return cluster.run_kubectl


@pytest.fixture(scope="session")
def kubectls(cluster: Cluster) -> list[tuple[str, Path]]:
    """(version, path) of the kubectls to try: the cluster's own, and those found beside the real `kubectl`."""
    return [("built", cluster.kubectl), *find_versions().items()]


@pytest.fixture(scope="session")
def gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway in front of the cluster, with the shipped policies, its approvals API, and a credential that may all.

    It is the session's: call as a person of your own.
    """
    token = cluster.service_account_token("holdfast", "kube-system", "cluster-admin")
    upstream = Upstream(cluster.server, cluster.ca_file, token)
    running = RunningGateway(tmp_path_factory.mktemp("gateway"), upstream, settings={"approvals": {"embedded": True}})
    (approvals_port,) = free_ports(1)
    running.write_config(approvals_port=approvals_port)
    running.start()
    _await_listener(approvals_port)
    yield running
    running.stop()


def _await_listener(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    pytest.fail(f"nothing listens on port {port}", pytrace=False)


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while line := self.rfile.readline():
            self.wfile.write(line.upper())


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True  # or its end would wait for every client's


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A port of this machine that gives back every line, in upper case: what is forwarded to."""
    with _EchoServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
