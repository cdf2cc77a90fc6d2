"""One kubectl of one version, run as one person: through the gateway, or past it."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ("1.27", "1.29", "1.30", "1.33")
TIMEOUT_SECONDS = 60


def find_versions() -> dict[str, Path]:
    """The kubectls that stand beside the real `kubectl`, by version.

    Where `kubectl` is a dispatcher, as in the Google Cloud SDK, kubectl.1.27 and so on are there.
    """
    on_path = shutil.which("kubectl")
    if on_path is None:
        return {}
    beside = Path(on_path).resolve().parent
    paths = {version: beside / f"kubectl.{version}" for version in VERSIONS}
    return {version: path for version, path in paths.items() if path.is_file()}


@dataclass(frozen=True)
class Kubectl:
    """Runs `path` with `kubeconfig` in `namespace`; what kubectl remembers of a server is kept under `folder`."""

    path: Path
    kubeconfig: Path
    namespace: str
    folder: Path

    def run(self, *arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end, whatever that is."""
        return subprocess.run(
            self._command(arguments),
            input=stdin,
            env=self._environment(environment),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )

    def ok(self, *arguments: str, stdin: str = "", **environment: str) -> str:
        """Run it and return what it printed; it must succeed."""
        done = self.run(*arguments, stdin=stdin.encode(), **environment)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def fails(self, *arguments: str, stdin: str = "") -> str:
        """Run it and return what it complained of; it must fail."""
        done = self.run(*arguments, stdin=stdin.encode())
        assert done.returncode == 1, done.stdout.decode()
        return done.stderr.decode()

    @contextmanager
    def started(self, *arguments: str, terminal: int | None = None) -> Iterator[subprocess.Popen[str]]:
        """Start it, on a terminal or with both outputs as one; it ends with the block, and after a minute anyway."""
        with subprocess.Popen(
            self._command(arguments),
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE if terminal is None else terminal,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment({}),
        ) as process:
            limit = threading.Timer(TIMEOUT_SECONDS, process.kill)
            limit.start()
            try:
                yield process
            finally:
                limit.cancel()
                process.kill()

    def _command(self, arguments: tuple[str, ...]) -> list[str | Path]:
        return [self.path, "--kubeconfig", self.kubeconfig, "--namespace", self.namespace, *arguments]

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        # Ports come again, so discovery that is kept in the home folder could be another server's.
        return {**os.environ, "KUBECACHEDIR": str(self.folder / "kubectl-cache"), **more}
