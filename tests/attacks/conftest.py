"""A gateway in front of an upstream that keeps every byte, for attacks that must leave nothing there."""

from __future__ import annotations

import os
import socket
import sqlite3
import ssl
import sys
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from attacks.scripted_upstream import ScriptedUpstream
from attacks.wire import Answer, connect, read_answer
from holdfast.approval.store import HoldStore
from holdfast.database import Database
from holdfast.exchange import Identity
from recording_upstream import TOKEN
from running import ISSUER, RunningGateway, Upstream
from services.small_disk import enter_namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POD_PATH = "/api/v1/namespaces/demo/pods/p"
GATEWAY_SCRIPT = Path(__file__).parents[2] / "addons" / "gateway.py"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Gain the right to mount here, not in a fixture: this process still has one thread."""
    wanted = any("disk" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and os.geteuid() != 0 and not session.config.option.collectonly:
        with suppress(OSError):  # the fixture tells
            enter_namespaces()


@dataclass
class Target:
    """The gateway, what is behind it, and a client."""

    gateway: RunningGateway
    upstream: ScriptedUpstream

    def client(self, *, http2: bool = False) -> httpx.Client:
        """An HTTP client that trusts the gateway."""
        context = ssl.create_default_context(cafile=str(self.gateway.ca_file))
        return httpx.Client(base_url=self.gateway.url, verify=context, http2=http2, timeout=30)

    def call(self, method: str, path: str, *, token: str | None = "", **options: Any) -> httpx.Response:
        """One request as an agent; `token=None` sends none."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.gateway.token('agent', 'agents')}"
        with self.client() as client:
            return client.request(method, path, headers=headers, **options)

    def connect(self, *alpn: str) -> ssl.SSLSocket:
        """A TLS connection that sends bytes as they are."""
        return connect(self.gateway.url, self.gateway.ca_file, *alpn)

    def send(self, request: bytes, *, token: str = "") -> Answer:
        """Send raw bytes, `<token>` replaced by an agent's token; return the first answer."""
        with self.connect() as connection:
            connection.sendall(self.fill(request, token))
            return read_answer(connection)

    def fill(self, request: bytes, token: str = "") -> bytes:
        """Put an agent's token in the place of `<token>`."""
        return request.replace(b"<token>", (token or self.gateway.token("agent", "agents")).encode())

    def records(self) -> list[dict[str, Any]]:
        """Every record in the audit database, in order."""
        return read_records(self.gateway.database)

    def outcomes(self, path: str) -> list[dict[str, Any]]:
        """The last record of every call whose URI begins so."""
        return [
            record
            for record in self.records()
            if record["kind"] == "outcome" and record["what"]["uri"].startswith(path)
        ]

    def settle(self, condition: Callable[[], object], seconds: float = 20) -> None:
        """Wait until `condition` holds."""
        wait_until(condition, seconds)


def read_records(database: Path) -> list[dict[str, Any]]:
    """Every record of a call in an audit database, in order."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        leaves = connection.execute("SELECT leaf FROM records WHERE call_id <> '' ORDER BY log, seq").fetchall()
    return [msgspec.json.decode(leaf)["record"] for (leaf,) in leaves]


def approve(target: Target, *, deny: str = "") -> None:
    """Decide the one hold that waits, as a person of group platform."""
    database = Database.open(f"sqlite:///{target.gateway.database}")
    try:
        holds = HoldStore(database)
        wait_until(lambda: pending_holds(target.gateway.database))
        (hold_id,) = pending_holds(target.gateway.database)
        boss = Identity(ISSUER, "boss", ("platform",))
        holds.decide(hold_id, not deny, boss, deny, datetime.now(UTC))
    finally:
        database.close()


def pending_holds(database: Path, state: str = "pending") -> list[str]:
    """The IDs of the holds in this state."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM holds WHERE state = ?", (state,))]


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return once `condition` holds; fail when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class ScriptedGateway(RunningGateway):
    """The gateway under mitmdump or mitmweb, which print no `ready`: ready is when the port answers."""

    program: str = "mitmdump"
    script: Path = GATEWAY_SCRIPT
    arguments: tuple[str, ...] = ()

    def start(self, timeout: float = 60) -> RunningGateway:
        """Start the program and wait until the gateway takes connections."""
        port = free_port()
        self.write_config(listen_port=port)
        program = Path(sys.executable).parent / self.program
        self.command = (str(program), "-n", "-s", str(self.script), *self.arguments)
        self.environment = {"PYTHONUNBUFFERED": "1", **self.environment}
        self.ready_line = "["
        super().start(timeout)
        self.url = f"https://127.0.0.1:{port}"
        wait_until(lambda: self._answers(port), timeout)
        return self

    def _answers(self, port: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "".join(self.output)
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[ScriptedUpstream]:
    """The upstream alone."""
    upstream = ScriptedUpstream(tmp_path)
    upstream.start()
    yield upstream
    upstream.stop()


@pytest.fixture
def make_target(tmp_path: Path, upstream: ScriptedUpstream) -> Iterator[Callable[..., Target]]:
    """Starts a gateway with given settings, ends it after the test."""
    started: list[RunningGateway] = []

    def make(kind: type[RunningGateway] = RunningGateway, **options: Any) -> Target:
        gateway = kind(tmp_path / "gateway", Upstream(upstream.server, upstream.ca_file, TOKEN), **options)
        started.append(gateway)
        return Target(gateway.start(), upstream)

    yield make
    for gateway in started:
        gateway.stop()


@contextmanager
def running_target(folder: Path, gateway: type[RunningGateway] = RunningGateway, **options: Any) -> Iterator[Target]:
    """A gateway of this kind in front of an upstream, for as long as the block lasts."""
    upstream = ScriptedUpstream(folder)
    upstream.start()
    running = gateway(folder / "gateway", Upstream(upstream.server, upstream.ca_file, TOKEN), **options)
    yield Target(running.start(), upstream)
    running.stop()
    upstream.stop()


@pytest.fixture(scope="session")
def shared_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One gateway for the tests that leave it as it was; see `target`."""
    with running_target(tmp_path_factory.mktemp("attacks")) as target:
        yield target


@pytest.fixture
def target(shared_target: Target) -> Target:
    """The shared gateway, as `holdfast serve` starts it, with the shipped policies; its upstream has seen nothing."""
    shared_target.upstream.forget()
    return shared_target
