"""A gateway as it is run: what it records is anchored while it runs and at its end, and verifies from outside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx

from attacks.conftest import POD_PATH, Target, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

PODS_PATH = "/api/v1/namespaces/demo/pods"


def verify(target: Target, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report of `holdfast audit verify`."""
    done = target.gateway.holdfast("audit", "verify", "-o", "json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_what_a_gateway_recorded_is_intact_and_anchored_when_it_has_ended(make_target: Callable[..., Target]) -> None:
    target = make_target(settings={"audit": {"anchors": {"intervalSeconds": 0.2, "file": "anchors/file.notes"}}})
    anchors = target.gateway.folder / "anchors"
    anchors.mkdir()
    for _ in range(5):
        assert target.call("GET", POD_PATH).status_code == 200
        assert target.call("POST", PODS_PATH, json={"kind": "Pod"}).status_code == 200
    target.call("GET", "/api/v1/namespaces/kube-system/secrets")
    assert target.gateway.stop() == 0
    code, report = verify(target, "--anchors", str(anchors))
    assert (code, report["verdict"], report["counts"]) == (0, "INTACT", {})
    export = target.gateway.folder / "record.export"
    assert target.gateway.holdfast("audit", "export", "--ledger", str(export)).returncode == 0
    assert export.stat().st_mode & 0o777 == 0o600
    root = target.gateway.folder / "state" / "audit-keys" / "root.pub"
    code, offline = verify(target, str(export), "--root", str(root), "--anchors", str(anchors))
    assert (code, offline) == (0, report)
    code, report = verify(target)
    assert (code, report["verdict"]) == (11, "UNANCHORED")


def test_an_anchor_that_cannot_be_written_stops_no_call_and_shows_in_the_figures(
    make_target: Callable[..., Target],
) -> None:
    port = free_port()
    anchors = {"intervalSeconds": 0.1, "alarmSeconds": 0.1, "file": "nowhere/at/all/file.notes"}
    target = make_target(settings={"audit": {"anchors": anchors}, "metrics": {"port": port}})
    assert target.call("GET", POD_PATH).status_code == 200
    target.settle(lambda: any("the anchor file lags by" in line for line in target.gateway.output))
    figures = read_figures(port)
    assert figures['holdfast_audit_anchor_failures_total{anchor="file"}'] > 0
    assert figures['holdfast_audit_anchor_lag_seconds{anchor="file"}'] > 0
    assert figures["holdfast_audit_records_total"] >= 1
    (target.gateway.folder / "nowhere" / "at" / "all").mkdir(parents=True)
    target.settle(lambda: any("the anchor file has caught up" in line for line in target.gateway.output))
    assert read_figures(port)['holdfast_audit_anchor_lag_seconds{anchor="file"}'] == 0


def read_figures(port: int) -> dict[str, float]:
    """The figures that Prometheus would read."""
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text.splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }
