"""A gateway that really runs: `holdfast serve` as a child process in front of a given API server."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from holdfast.audit.payload import decompress
from holdfast.identity.dev_issuer import DevIssuer

if TYPE_CHECKING:
    from collections.abc import Sequence

POLICIES = Path(__file__).parents[1] / "policies"
ISSUER = "https://issuer.test"
AUDIENCE = "holdfast"


def trusted_issuer(url: str = ISSUER, audiences: Sequence[str] = (AUDIENCE,), **more: Any) -> dict[str, Any]:
    """An entry of `identity.jwt`: users and groups as the claims `sub` and `groups` name them; `more` of the issuer."""
    mappings = {name: {"claim": claim, "prefix": ""} for name, claim in (("username", "sub"), ("groups", "groups"))}
    return {"issuer": {"url": url, "audiences": list(audiences), **more}, "claimMappings": mappings}


def read_stored(database: Path) -> dict[str, bytes]:
    """All that an audit database keeps, by place: its files as they are, and every payload piece decompressed."""
    kept = {str(file): file.read_bytes() for file in database.parent.glob(f"{database.name}*")}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for day, digest, codec, body in connection.execute("SELECT day, sha256, codec, body FROM blobs"):
            kept[f"{database} blob {day} {digest}"] = decompress(codec, body)
    return kept


@dataclass
class Upstream:
    """What the gateway is put in front of, and the credential it is given."""

    server: str
    ca_file: Path
    token: str


@dataclass
class RunningGateway:
    """One gateway process, its folder, and tokens for its callers."""

    folder: Path
    upstream: Upstream
    policies: tuple[Path, ...] = tuple(
        sorted(path for path in POLICIES.glob("*.yaml") if not path.name.endswith(".cases.yaml"))
    )
    command: tuple[str, ...] = (sys.executable, "-m", "holdfast.cli", "serve")
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    ready_line: str = "ready "
    url: str = ""
    process: subprocess.Popen[str] | None = None
    output: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.issuer = DevIssuer(ISSUER)
        self.config_file = self.folder / "holdfast.yaml"
        self.token_file = self.folder / "upstream.token"

    @property
    def ca_file(self) -> Path:
        """The authority that callers verify the gateway with."""
        return self.folder / "state" / "listener" / "ca.crt"

    @property
    def database(self) -> Path:
        """The audit database's file."""
        return self.folder / "state" / "audit.db"

    def write_config(self, listen_port: int = 0, approvals_port: int = 0) -> None:
        """Write holdfast.yaml (JSON is YAML), the issuer's keys and the upstream token."""
        (self.folder / "jwks.json").write_text(json.dumps(self.issuer.jwks()))
        self.token_file.write_text(self.upstream.token)
        config = {
            "cluster": "test",
            "listen": {"port": listen_port},
            "upstream": {
                "server": self.upstream.server,
                "certificateAuthority": str(self.upstream.ca_file),
                "tokenFile": str(self.token_file),
            },
            "identity": {"jwt": [trusted_issuer(url=ISSUER, audiences=[AUDIENCE], jwksFile="jwks.json")]},
            "policies": [str(path) for path in self.policies],
            "approvals": {"port": approvals_port, "embedded": False},
        }
        for section, values in self.settings.items():
            config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
        self.config_file.write_text(json.dumps(config))

    def start(self, timeout: float = 60) -> RunningGateway:
        """Start the process and wait until it listens; its output on failure."""
        if not self.config_file.exists():
            self.write_config()
        self.process = subprocess.Popen(
            [*self.command, *(["--config", str(self.config_file)] if "serve" in self.command else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "HOLDFAST_CONFIG": str(self.config_file), **self.environment},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()
        deadline = time.monotonic() + timeout
        while not self.url:
            ready = [line for line in self.output if line.startswith(self.ready_line)]
            if ready:
                self.url = ready[0].split()[-1]
            elif self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError("the gateway did not start:\n" + "".join(self.output))
            else:
                time.sleep(0.05)
        return self

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.output.append(line)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the process (and its children); returns its exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()

    def token(self, username: str, *groups: str, **claims: Any) -> str:
        """A token of the configured issuer."""
        return self.issuer.mint(username, groups, audience=AUDIENCE, claims=claims)

    def kubeconfig(self, username: str, *groups: str, token: str | None = None) -> Path:
        """A kubeconfig for the gateway with a token embedded."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "gateway", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}
            ],
            "users": [{"name": username, "user": {"token": self.token(username, *groups) if token is None else token}}],
            "contexts": [{"name": "gateway", "context": {"cluster": "gateway", "user": username}}],
            "current-context": "gateway",
        }
        file = self.folder / f"kubeconfig-{username.replace('/', '_')}"
        file.write_text(json.dumps(config))
        return file

    def holdfast(
        self, *arguments: str, token: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run the `holdfast` command with this gateway's configuration."""
        environment = {**os.environ, "HOLDFAST_CONFIG": str(self.config_file)}
        if token is not None:
            environment["HOLDFAST_TOKEN"] = token
        return subprocess.run(
            [sys.executable, "-m", "holdfast.cli", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=timeout,
        )
