"""Says what happens, shows the commands and what they print, and keeps count of what came out wrong."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from testcluster.progress import format_elapsed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHOWN_LINES = 18
SHOWN_COLUMNS = 160


@dataclass
class Narrator:
    """Prints to standard output; `faults` names every expectation that was not met."""

    kubectl: Path
    began: float = field(default_factory=time.monotonic)
    faults: list[str] = field(default_factory=list)

    def act(self, title: str) -> None:
        """Begin a part of the story."""
        print(f"\n━━ {title} ({format_elapsed(time.monotonic() - self.began)})", flush=True)

    def say(self, text: str) -> None:
        """One sentence of the story."""
        print(f"   {text}", flush=True)

    def show(self, text: str) -> None:
        """What a program printed, indented and not too long."""
        lines = [part for line in text.rstrip().splitlines() for part in textwrap.wrap(line, SHOWN_COLUMNS) or [""]]
        for line in lines[:SHOWN_LINES]:
            print(f"   │ {line}", flush=True)
        if len(lines) > SHOWN_LINES:
            print(f"   │ … {len(lines) - SHOWN_LINES} more lines", flush=True)

    def expect(self, what: str, came_true: bool) -> None:
        """Note an expectation; the demo's exit code tells of those not met."""
        print(f"   {'✓' if came_true else '✗'} {what}", flush=True)
        if not came_true:
            self.faults.append(what)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        shown: str,
        environment: Mapping[str, str] | None = None,
        timeout: float = 120,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, showing it and what it prints."""
        print(f"   $ {shown}", flush=True)
        done = subprocess.run(
            [str(part) for part in command],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
        )
        self.show(done.stdout + done.stderr)
        return done

    def kubectl_run(self, kubeconfig: Path, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the owner of `kubeconfig`."""
        shown = shlex.join(["kubectl", *arguments])
        return self.run([self.kubectl, "--kubeconfig", kubeconfig, *arguments], shown=shown, timeout=timeout)

    def kubectl_start(self, kubeconfig: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start kubectl and leave it running."""
        print(f"   $ {shlex.join(['kubectl', *arguments])} &", flush=True)
        return subprocess.Popen(
            [str(self.kubectl), "--kubeconfig", str(kubeconfig), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def has(text: str, pattern: str) -> bool:
    """Whether `pattern` occurs in `text`."""
    return re.search(pattern, text) is not None


def is_terminal() -> bool:
    """Whether somebody watches."""
    return sys.stdout.isatty()
