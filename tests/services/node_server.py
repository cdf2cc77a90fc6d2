"""A Node program of tests/idp as an HTTPS server on loopback: its packages, its certificate, its start and its end."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.certificates import make_authority
from services.npm import find_node, install_packages
from testcluster.processes import Process, spawn

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "127.0.0.1"
PROJECT = Path(__file__).parents[1] / "idp"
START_SECONDS = 60


@dataclass
class NodeServer:
    """One server, with its files in `folder`; `url` is known once it runs."""

    folder: Path
    url: str = ""
    _process: Process | None = field(default=None, init=False, repr=False)

    @property
    def ca_file(self) -> Path:
        """What its HTTPS is verified with."""
        return self.folder / "ca.crt"

    def run(
        self,
        script: str,
        *arguments: str | Path,
        environment: dict[str, str] | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start `script CERTIFICATE KEY ARGUMENTS`; returns when it takes connections. Raises NodeFailed."""
        packages = install_packages(PROJECT, report)
        for name in (script, "package.json"):
            shutil.copy(PROJECT / name, self.folder)
        (self.folder / "node_modules").symlink_to(packages)
        command = [find_node(), self.folder / script, *self._issue_certificate(), *arguments]
        log = self.folder / "log"
        self._process = spawn(script, command, log, environment=os.environ | (environment or {}), folder=self.folder)
        self.url = self._await_ready(self._process, log)

    def stop(self) -> None:
        """End it; it forgets everything."""
        if self._process is not None:
            self._process.stop()

    def _issue_certificate(self) -> tuple[Path, Path]:
        now = datetime.now(UTC)
        authority = make_authority("Node server of the tests", now=now, days=2)
        pair = authority.issue(HOST, hosts=(HOST,), now=now, days=2)
        certificate, key = self.folder / "tls.crt", self.folder / "tls.key"
        self.ca_file.write_bytes(authority.certificate_pem)
        certificate.write_bytes(pair.certificate_pem)
        key.write_bytes(pair.key_pem)
        return certificate, key

    def _await_ready(self, process: Process, log: Path) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            process.check()
            ready = [line for line in log.read_text().splitlines() if line.startswith("ready ")]
            if ready:
                return ready[0].split()[1]
            time.sleep(0.05)
        self.stop()
        raise TimeoutError(f"{process.name} does not listen after {START_SECONDS} s; {log} says more")
