"""How long `holdfast get-token` takes when a token is at hand: kubectl starts it for every command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from holdfast.login.cache import TokenCache, Tokens, find_folder
from holdfast.login.request import make_request, request_options

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 100
NEVER = 2**40
REQUEST = make_request("https://id.example.com", "kubectl", scopes=["groups"])


def measure_get_token(report: Callable[[str], None], runs: int = RUNS) -> dict[str, dict[str, float]]:
    """Milliseconds and CPU of a start, in turn: an interpreter that does nothing, the cached path, `--version`."""
    holdfast = str(Path(sys.executable).with_name("holdfast"))
    ways = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "holdfast get-token, cached": [holdfast, "get-token", *request_options(REQUEST)],
        "holdfast --version": [holdfast, "--version"],
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        environment = {"XDG_CACHE_HOME": folder, "PATH": os.environ["PATH"]}
        TokenCache(find_folder(environment)).write(REQUEST, Tokens("alice", "x" * 1200, NEVER, "refresh"))
        for turn in range(runs + 1):
            report(f"starting, {turn} of {runs} times")
            for name, command in ways.items():
                figures = _start(command, environment)
                if turn:  # the first one writes byte code
                    measured[name].append(figures)
    return {name: _describe(figures) for name, figures in measured.items()}


def _start(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return wall * 1000, cpu * 1000


def _describe(figures: list[tuple[float, float]]) -> dict[str, float]:
    walls = sorted(wall for wall, _ in figures)
    return {
        "median_ms": median(walls),
        "p95_ms": walls[int(len(walls) * 0.95)],
        "least_ms": walls[0],
        "cpu_ms": sum(cpu for _, cpu in figures) / len(figures),
    }
