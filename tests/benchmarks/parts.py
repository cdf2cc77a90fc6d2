"""The parts of a benchmark run. Each returns figures; nothing is judged."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from benchmarks.site import NAMESPACE, Site, cpu_seconds, resident_megabytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from running import RunningGateway

PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
ROUNDS = 3
SECONDS = "8s"
HOLDS = 300
MEGABYTES = 200
CALLS = 10_000


def measure_throughput(site: Site, report: Callable[[str], None]) -> dict[str, Any]:
    """Requests/s, p50, p99 and CPU seconds a request: direct, stock, Holdfast, in turn, `ROUNDS` times."""
    gateway = site.gateway("throughput")
    assert gateway.process is not None
    stock_url, stock_ca, stock_process = site.stock()
    agent = gateway.folder / "agent.token"
    ways = {
        "direct": (site.cluster.server, site.cluster.ca_file, site.token_file, None),
        "stock mitmdump": (stock_url, stock_ca, site.token_file, stock_process),
        "holdfast": (gateway.url, gateway.ca_file, agent, psutil.Process(gateway.process.pid)),
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, (url, authority, token, process) in ways.items():
            report(f"throughput, round {turn} of {ROUNDS}: {name}")
            before = cpu_seconds(process) if process else 0.0
            got = site.run_load(url + PATH, authority, token, "-duration", SECONDS)
            got["cpu_seconds_per_request"] = (cpu_seconds(process) - before) / got["requests"] if process else 0.0
            if turn:  # the first round warms up
                rounds[name].append(got)
    gateway.stop()
    return {name: _medians(measured) for name, measured in rounds.items()} | _ratios(rounds)


def measure_latency(site: Site, report: Callable[[str], None]) -> dict[str, Any]:
    """p50 and p99 at 50 requests a second: direct and through Holdfast."""
    gateway = site.gateway("latency")
    report("latency at 50 requests a second")
    options = ("-rate", "50", "-duration", "10s")
    direct = site.run_load(site.cluster.server + PATH, site.cluster.ca_file, site.token_file, *options)
    through = site.run_load(gateway.url + PATH, gateway.ca_file, gateway.folder / "agent.token", *options)
    gateway.stop()
    return {"direct": direct, "holdfast": through}


def measure_holds(site: Site, report: Callable[[str], None]) -> dict[str, Any]:
    """Other calls with nothing waiting and with `HOLDS` calls waiting, in turn."""
    gateway = site.gateway("holds")
    agent = gateway.folder / "agent.token"

    def load() -> dict[str, float]:
        return site.run_load(gateway.url + PATH, gateway.ca_file, agent, "-duration", SECONDS)

    load()
    free, waiting = [], []
    for turn in range(ROUNDS):
        report(f"holds, round {turn + 1} of {ROUNDS}: none waits")
        free.append(load())
        report(f"holds, round {turn + 1} of {ROUNDS}: {HOLDS} wait")
        with _waiting_calls(gateway, HOLDS):
            waiting.append(load())
    gateway.stop()
    slower = median(a["p50_ms"] / b["p50_ms"] - 1 for a, b in zip(waiting, free, strict=True))
    lost = median(1 - a["requests_per_second"] / b["requests_per_second"] for a, b in zip(waiting, free, strict=True))
    change = {"p50_slower": slower, "throughput_lost": lost}
    return {"none waits": _medians(free), f"{HOLDS} wait": _medians(waiting), "change": change}


class _waiting_calls:
    """Calls that are held, each on a connection of its own."""

    def __init__(self, gateway: RunningGateway, count: int) -> None:
        self.gateway = gateway
        self.count = count
        self.children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> None:
        token = self.gateway.token("deleter", "platform")
        program = (
            "import asyncio, ssl, sys, urllib.parse\n"
            "async def one(url, ca, token, n):\n"
            "    u = urllib.parse.urlsplit(url)\n"
            "    r, w = await asyncio.open_connection(u.hostname, u.port, ssl=ssl.create_default_context(cafile=ca))\n"
            "    w.write(f'DELETE /api/v1/namespaces/held-{n} HTTP/1.1\\r\\nHost: x\\r\\n'\n"
            "            f'Authorization: Bearer {token}\\r\\n\\r\\n'.encode())\n"
            "    await r.read()\n"
            "async def main():\n"
            "    url, ca, count = sys.argv[1], sys.argv[2], int(sys.argv[3])\n"
            "    token = sys.stdin.readline().strip()\n"
            "    await asyncio.gather(*(one(url, ca, token, n) for n in range(count)))\n"
            "asyncio.run(main())\n"
        )
        command = [sys.executable, "-c", program, self.gateway.url, str(self.gateway.ca_file), str(self.count)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert child.stdin is not None
        child.stdin.write(token.encode() + b"\n")
        child.stdin.close()
        self.children.append(child)
        while self._pending() < self.count:
            time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        while self._pending():
            time.sleep(0.5)

    def _pending(self) -> int:
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(self.gateway.database, timeout=10)) as connection:
            (count,) = connection.execute("select count(*) from holds where state = 'pending'").fetchone()
            return int(count)


def measure_large_response(site: Site, report: Callable[[str], None]) -> dict[str, Any]:
    """Growth of the process over one response of about `MEGABYTES` MB."""
    report(f"filling the cluster with {MEGABYTES} MB of ConfigMaps")
    filler = "x" * 950_000
    with httpx.Client(
        base_url=site.cluster.server,
        verify=str(site.cluster.ca_file),
        headers={"Authorization": f"Bearer {site.token}"},
        timeout=60,
    ) as client:
        client.post("/api/v1/namespaces", json={"metadata": {"name": "demo-large"}}).raise_for_status()
        for number in range(MEGABYTES * 1_000_000 // len(filler) + 1):
            item = {"metadata": {"name": f"large-{number}"}, "data": {"filler": filler}}
            client.post("/api/v1/namespaces/demo-large/configmaps", json=item).raise_for_status()
    gateway = site.gateway("large")
    report("reading them in one response")
    with _Growth(gateway) as growth:
        got = site.run_load(
            f"{gateway.url}/api/v1/namespaces/demo-large/configmaps",
            gateway.ca_file,
            gateway.folder / "agent.token",
            *("-connections", "1", "-requests", "1"),
        )
    gateway.stop()
    return {"bytes": got["bytes"], "seconds": got["seconds"], **growth.figures()}


def measure_calls(site: Site, report: Callable[[str], None]) -> dict[str, Any]:
    """Growth of the process over `CALLS` calls, after a warm-up."""
    gateway = site.gateway("calls")
    report(f"{CALLS} calls")
    arguments = (gateway.url + PATH, gateway.ca_file, gateway.folder / "agent.token")
    site.run_load(*arguments, "-requests", "1000")
    with _Growth(gateway) as growth:
        got = site.run_load(*arguments, "-requests", str(CALLS))
    gateway.stop()
    return {"requests": got["requests"], "failures": got["failures"], **growth.figures()}


def measure_watch(site: Site, report: Callable[[str], None], minutes: float) -> dict[str, Any]:
    """Growth of the process over a watch, with a change every tenth of a second."""
    gateway = site.gateway("watch")
    seen: list[int] = []
    stop = threading.Event()

    def follow() -> None:
        headers = {"Authorization": f"Bearer {gateway.token('bench', 'agents')}"}
        url = f"{gateway.url}{PATH}?watch=1&timeoutSeconds={int(minutes * 60) + 60}"
        with httpx.stream("GET", url, verify=str(gateway.ca_file), headers=headers, timeout=None) as answer:  # noqa: S113
            for _ in answer.iter_lines():
                seen.append(1)
                if stop.is_set():
                    return

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follow)
        with (
            httpx.Client(
                base_url=site.cluster.server,
                verify=str(site.cluster.ca_file),
                headers={"Authorization": f"Bearer {site.token}", "Content-Type": "application/merge-patch+json"},
            ) as client,
            _Growth(gateway, settle=5) as growth,
        ):
            end, turn = time.monotonic() + minutes * 60, 0
            while time.monotonic() < end:
                report(f"a watch of {minutes:g} minutes: {len(seen)} events")
                client.patch(f"{PATH}/small-0", content=json.dumps({"data": {"turn": str(turn)}}))
                turn += 1
                time.sleep(0.1)
        stop.set()
        with httpx.Client(
            verify=str(site.cluster.ca_file), headers={"Authorization": f"Bearer {site.token}"}
        ) as client:
            client.delete(f"{site.cluster.server}{PATH}/small-1")
        following.result(30)
    gateway.stop()
    return {"minutes": minutes, "events": len(seen), **growth.figures()}


def profile(site: Site, report: Callable[[str], None], folder: Path) -> dict[str, Any]:
    """Where a request's CPU goes: cProfile over the gateway under load, by module."""
    import pstats

    report("a profile")
    file = folder / "profile.out"
    upstream_settings: dict[str, Any] = {}
    from running import RunningGateway, Upstream

    gateway = RunningGateway(
        site.folder / "profile",
        Upstream(site.cluster.server, site.cluster.ca_file, site.token),
        command=(sys.executable, "-m", "cProfile", "-o", str(file), "-m", "holdfast.cli", "serve"),
        settings=upstream_settings,
    ).start()
    (gateway.folder / "agent.token").write_text(gateway.token("bench", "agents"))
    got = site.run_load(gateway.url + PATH, gateway.ca_file, gateway.folder / "agent.token", "-requests", "3000")
    gateway.stop()
    stats = pstats.Stats(str(file))
    by_package: dict[str, float] = {}
    for (source, _, name), (_, _, own, _, _) in stats.stats.items():  # type: ignore[attr-defined]
        by_package[_package(source, name)] = by_package.get(_package(source, name), 0.0) + own
    total = sum(by_package.values())
    shares = sorted(by_package.items(), key=lambda item: -item[1])[:25]
    return {"requests": got["requests"], "seconds": total, "shares": {name: own / total for name, own in shares}}


class _Growth:
    """Watches the resident memory of a gateway."""

    def __init__(self, gateway: RunningGateway, settle: float = 1) -> None:
        assert gateway.process is not None
        self.process = psutil.Process(gateway.process.pid)
        self.settle = settle
        self.peak = 0.0
        self._over = threading.Event()

    def __enter__(self) -> _Growth:
        time.sleep(self.settle)
        self.before = self.peak = resident_megabytes(self.process)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(self.settle)
        self.after = resident_megabytes(self.process)
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.peak = max(self.peak, resident_megabytes(self.process))

    def figures(self) -> dict[str, float]:
        """Megabytes before, at the peak, after."""
        return {
            "before_mb": self.before,
            "peak_growth_mb": self.peak - self.before,
            "growth_mb": self.after - self.before,
        }


def _medians(measured: list[dict[str, float]]) -> dict[str, float]:
    return {key: median(one[key] for one in measured) for key in measured[0]}


def _ratios(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    pairs = zip(rounds["holdfast"], rounds["stock mitmdump"], strict=True)
    return {
        "holdfast to stock": {
            "throughput_ratio": median(a["requests_per_second"] / b["requests_per_second"] for a, b in pairs)
        }
    }


def _package(source: str, name: str) -> str:
    if source == "~":
        return f"built-in {name}"[:70]
    for package in ("holdfast", "mitmproxy", "sqlalchemy", "OpenSSL", "asyncio", "h11", "h2", "msgspec"):
        if f"/{package}/" in source:
            inside = source.split(f"/{package}/", 1)[1]
            return f"{package}/{inside}"
    return source.rsplit("/", 1)[-1]
