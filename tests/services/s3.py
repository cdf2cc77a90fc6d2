"""An S3 server of the tests' own: versitygw over a folder, on loopback, with versions and object lock.

It keeps what S3 knows of an object in files beside the objects (its "sidecar") and not in extended attributes, which
not every file system has.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from minio import Minio

from testcluster.processes import Process, free_ports, spawn

HOST = "127.0.0.1"
START_SECONDS = 60


@dataclass
class S3Server:
    """One server with its objects in `folder`; `secret_key` signs the requests of its only account."""

    program: Path
    folder: Path
    region: str = "us-east-1"
    access_key: str = "holdfast"
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    port: int = 0
    tls: tuple[Path, Path] | None = None
    """Certificate and key, PEM; from the next start on."""

    _process: Process | None = None

    @property
    def endpoint(self) -> str:
        """The server's URL; buckets are in the path."""
        return f"{'https' if self.tls else 'http'}://{HOST}:{self.port}"

    def start(self) -> S3Server:
        """Start it, on the port that it had before if it was stopped; returns when it takes connections."""
        self.port = self.port or free_ports(1)[0]
        objects, versions, metadata = (self.folder / name for name in ("objects", "versions", "metadata"))
        for each in (objects, versions, metadata):
            each.mkdir(parents=True, exist_ok=True)
        backend: list[str | Path] = ["posix", "--versioning-dir", versions, "--sidecar", metadata, objects]
        credentials = {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        secure = ["--cert", self.tls[0], "--key", self.tls[1]] if self.tls else []
        self._process = spawn(
            "versitygw",
            [self.program, "--port", f"{HOST}:{self.port}", "--region", self.region, "--quiet", *secure, *backend],
            self.folder / "log",
            environment=os.environ | credentials,
        )
        self._await_listener(self._process)
        return self

    def stop(self) -> None:
        """End it; what was put is kept for the next start."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def client(self) -> Minio:
        """A client that may do everything."""
        return Minio(f"{HOST}:{self.port}", self.access_key, self.secret_key, secure=False, region=self.region)

    def create_bucket(self, *, object_lock: bool = False) -> str:
        """Make an empty bucket; return its name."""
        name = f"test-{secrets.token_hex(6)}"
        self.client().make_bucket(name, object_lock=object_lock)
        return name

    def _await_listener(self, process: Process) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            process.check()
            with suppress(OSError), socket.create_connection((HOST, self.port)):
                return
            time.sleep(0.05)
        self.stop()
        raise TimeoutError(f"versitygw does not listen after {START_SECONDS} s; {self.folder / 'log'} says more")
