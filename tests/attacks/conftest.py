"""A gateway in front of an upstream that keeps every byte, for attacks that must leave nothing there."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from recording_upstream import TOKEN, RecordingUpstream
from running import RunningGateway, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Target:
    """The gateway, what is behind it, and a client."""

    gateway: RunningGateway
    upstream: RecordingUpstream

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


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[RecordingUpstream]:
    """The upstream alone."""
    upstream = RecordingUpstream(tmp_path).start()
    yield upstream
    upstream.stop()


@pytest.fixture
def make_target(tmp_path: Path, upstream: RecordingUpstream) -> Iterator[Callable[..., Target]]:
    """Starts a gateway with given settings, ends it after the test."""
    started: list[RunningGateway] = []

    def make(**options: Any) -> Target:
        gateway = RunningGateway(tmp_path / "gateway", Upstream(upstream.server, upstream.ca_file, TOKEN), **options)
        started.append(gateway)
        return Target(gateway.start(), upstream)

    yield make
    for gateway in started:
        gateway.stop()


@pytest.fixture
def target(make_target: Callable[..., Target]) -> Target:
    """A gateway as `holdfast serve` starts it, with the shipped policies."""
    return make_target()
