"""What Prometheus reads, over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

from holdfast.errors import ConfigurationError
from holdfast.metrics import Metrics, MetricsServer, serve_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Figures:
    name: str
    lag_seconds: float
    failures: int
    contradictions: int = 0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(metrics: Metrics) -> Iterator[MetricsServer]:
    running = serve_metrics(metrics, "127.0.0.1", 0)
    yield running
    running.close()


def read(server: MetricsServer) -> dict[str, float]:
    """What is shown, by name and labels as they are written."""
    text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").raise_for_status().text
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_anchors_are_asked_whenever_the_figures_are_read(metrics: Metrics, server: MetricsServer) -> None:
    states = [Figures("file", 0.0, 0), Figures("witness.example", 12.5, 3, contradictions=1)]
    metrics.watch_anchors(lambda: states)
    shown = read(server)
    assert shown['holdfast_audit_anchor_lag_seconds{anchor="file"}'] == 0
    assert shown['holdfast_audit_anchor_lag_seconds{anchor="witness.example"}'] == 12.5
    assert shown['holdfast_audit_anchor_failures_total{anchor="witness.example"}'] == 3
    assert shown['holdfast_audit_anchor_contradictions_total{anchor="file"}'] == 0
    assert shown['holdfast_audit_anchor_contradictions_total{anchor="witness.example"}'] == 1
    states[0] = Figures("file", 7.0, 1)
    shown = read(server)
    assert shown['holdfast_audit_anchor_lag_seconds{anchor="file"}'] == 7
    assert shown['holdfast_audit_anchor_failures_total{anchor="file"}'] == 1


def test_the_writer_is_counted(metrics: Metrics, server: MetricsServer) -> None:
    waiting = [4]
    metrics.watch_queue(lambda: waiting[0], lambda: waiting[0] * 1000)
    metrics.count_commit(50, 0.004)
    metrics.count_commit(1, 0.2)
    shown = read(server)
    assert shown["holdfast_audit_queue_length"] == 4
    assert shown["holdfast_audit_queue_bytes"] == 4000
    assert shown["holdfast_audit_records_total"] == 51
    assert shown["holdfast_audit_commit_seconds_count"] == 2
    assert shown['holdfast_audit_commit_seconds_bucket{le="0.005"}'] == 1
    waiting[0] = 0
    assert read(server)["holdfast_audit_queue_length"] == 0


def test_a_port_that_is_taken_is_told(metrics: Metrics, server: MetricsServer) -> None:
    with pytest.raises(ConfigurationError, match=r"metrics.port: cannot listen on 127.0.0.1:\d+: .+; free the port"):
        serve_metrics(metrics, "127.0.0.1", server.port)


def test_a_closed_server_lets_its_port_go(metrics: Metrics) -> None:
    first = serve_metrics(metrics, "127.0.0.1", 0)
    first.close()
    again = serve_metrics(metrics, "127.0.0.1", first.port)
    again.close()
