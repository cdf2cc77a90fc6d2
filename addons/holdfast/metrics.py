"""Figures for Prometheus, and the small server that shows them.

They tell how the record is doing: counts, seconds and lengths, nothing of any call. Whoever can reach the port can
read them, so it is closed unless the settings open it, and then on the loopback address unless they say otherwise.
Names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator
    from wsgiref.simple_server import WSGIServer

    from prometheus_client import Metric

COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class AnchorFigures(Protocol):
    """What is shown of one anchor."""

    @property
    def name(self) -> str:
        """The anchor's name, a label."""

    @property
    def lag_seconds(self) -> float:
        """The age of the oldest record that the anchor has not seen; 0 when it has seen all."""

    @property
    def failures(self) -> int:
        """How many times a checkpoint could not be anchored since the process began."""

    @property
    def contradictions(self) -> int:
        """How many times the anchor began to contradict a log since the process began."""


class Metrics:
    """The figures of one process. Safe to use from several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._records = Counter("holdfast_audit_records", "Records made durable.", registry=self.registry)
        self._commit_seconds = Histogram(
            "holdfast_audit_commit_seconds",
            "How long it took to make a batch of records durable.",
            buckets=COMMIT_BUCKETS,
            registry=self.registry,
        )
        self._queue = Gauge("holdfast_audit_queue_length", "Records that wait for the writer.", registry=self.registry)
        self._queue_bytes = Gauge(
            "holdfast_audit_queue_bytes", "Bytes of the records that are not written yet.", registry=self.registry
        )

    def count_commit(self, records: int, seconds: float) -> None:
        """Count one batch that was made durable."""
        self._records.inc(records)
        self._commit_seconds.observe(seconds)

    def watch_queue(self, length: Callable[[], int], size: Callable[[], int]) -> None:
        """Ask `length` how many records wait and `size` how many bytes they hold, whenever the figures are read."""
        self._queue.set_function(length)
        self._queue_bytes.set_function(size)

    def watch_anchors(self, states: Callable[[], Iterable[AnchorFigures]]) -> None:
        """Ask `states` how the anchors are doing, whenever the figures are read."""
        self.registry.register(_AnchorCollector(states))


class MetricsServer:
    """A running server; the figures are at every path of it, `/metrics` too."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening. Blocks for up to half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve_metrics(metrics: Metrics, host: str, port: int) -> MetricsServer:
    """Serve the figures from a thread. Raises ConfigurationError when the port cannot be had."""
    try:
        return MetricsServer(*start_http_server(port, host, metrics.registry))
    except OSError as error:
        raise ConfigurationError(
            f"metrics.port: cannot listen on {host}:{port}: {error.strerror}; free the port or choose another."
        ) from error


class _AnchorCollector(Collector):
    def __init__(self, states: Callable[[], Iterable[AnchorFigures]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        lag = GaugeMetricFamily(
            "holdfast_audit_anchor_lag_seconds",
            "Age of the oldest record that the anchor has not seen.",
            labels=["anchor"],
        )
        failures = CounterMetricFamily(
            "holdfast_audit_anchor_failures", "Checkpoints that could not be anchored.", labels=["anchor"]
        )
        contradictions = CounterMetricFamily(
            "holdfast_audit_anchor_contradictions",
            "Logs of which the anchor began to say that they did not only grow.",
            labels=["anchor"],
        )
        for state in self._states():
            lag.add_metric([state.name], state.lag_seconds)
            failures.add_metric([state.name], state.failures)
            contradictions.add_metric([state.name], state.contradictions)
        yield lag
        yield failures
        yield contradictions
