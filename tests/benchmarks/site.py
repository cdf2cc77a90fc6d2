"""Where benchmarks run: a cluster, and in front of it the gateway and a mitmdump without addons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from running import RunningGateway, Upstream
from testcluster.building import cache_folder, find_assets, find_go
from testcluster.cluster import Cluster
from testcluster.processes import free_ports, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = Path(__file__).parents[1] / "cluster"
NAMESPACE = "demo-bench"


@dataclass
class Site:
    """A running cluster; `close` ends everything."""

    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="holdfast-bench-")))
    _closing: ExitStack = field(default_factory=ExitStack)

    def start(self, report: Callable[[str], None]) -> Site:
        """Start the cluster and make what is read."""
        self._closing.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.load = _build_load(report)
        self.cluster = Cluster.start(self._make("cluster"), find_assets(report), report)
        self._closing.callback(self.cluster.stop)
        self.cluster.run_kubectl("create", "namespace", NAMESPACE)
        self.token = self.cluster.service_account_token("bench", NAMESPACE, "cluster-admin")
        self.token_file = self.folder / "token"
        self.token_file.write_text(self.token)
        for number in range(5):
            self.cluster.run_kubectl("create", "configmap", f"small-{number}", "-n", NAMESPACE, "--from-literal=k=v")
        return self

    def close(self) -> None:
        """End every process, remove every file."""
        self._closing.close()

    def gateway(self, name: str, **settings: Any) -> RunningGateway:
        """A gateway with everything on: tokens, the shipped policies, masks, the record."""
        upstream = Upstream(self.cluster.server, self.cluster.ca_file, self.token)
        gateway = RunningGateway(self._make(name), upstream, settings=settings).start()
        self._closing.callback(gateway.stop)
        (gateway.folder / "agent.token").write_text(gateway.token("bench", "agents", "platform"))
        return gateway

    def stock(self) -> tuple[str, Path, psutil.Process]:
        """mitmdump as it comes, in reverse mode: its URL, its CA and its process."""
        folder = self._make("stock")
        (port,) = free_ports(1)
        program = Path(sys.executable).with_name("mitmdump")
        options = [
            "-q",
            "--set",
            f"confdir={folder}",
            "--set",
            f"ssl_verify_upstream_trusted_ca={self.cluster.ca_file}",
        ]
        command = [program, "--mode", f"reverse:{self.cluster.server}@127.0.0.1:{port}", *options]
        process = spawn("stock", command, folder / "stock.log")
        self._closing.callback(process.stop)
        authority = folder / "mitmproxy-ca-cert.pem"
        while not (authority.exists() and _listens(port)):
            process.check()
            time.sleep(0.1)
        return f"https://127.0.0.1:{port}", authority, psutil.Process(process.child.pid)

    def run_load(self, url: str, authority: Path, token_file: Path, *arguments: str) -> dict[str, float]:
        """Run the load generator against `url`; what it measured."""
        command = [str(self.load), "-url", url, "-ca", str(authority), "-token-file", str(token_file), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
        result: dict[str, float] = json.loads(done.stdout)
        return result

    def _make(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def resident_megabytes(process: psutil.Process) -> float:
    """Resident memory in MB."""
    return float(process.memory_info().rss / 1e6)


def _listens(port: int) -> bool:
    return any(
        connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
        for connection in psutil.net_connections("tcp")
    )


def _build_load(report: Callable[[str], None]) -> Path:
    report("building the load generator")
    program = cache_folder() / "load"
    command = [str(find_go(report)), "build", "-o", str(program), "./load"]
    subprocess.run(command, cwd=MODULE, check=True, env={**os.environ, "CGO_ENABLED": "0"}, stdin=subprocess.DEVNULL)
    return program
