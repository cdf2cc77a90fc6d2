"""Child processes that end with us, whatever happens to us.

Each is a session of its own, so that Ctrl-C at the terminal reaches us only and we end them in order; each reads
from /dev/null and writes to a file; and the kernel ends them when we are killed (`launch.py`). That signal comes
when the *thread* that started them ends, so start them from one that stays.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testcluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LAUNCH = Path(__file__).with_name("launch.py")
_TAIL_BYTES = 4000
_PATIENCE_SECONDS = 5.0


class PortTaken(ClusterError):
    """Another process took a port between our finding it free and the use of it."""


@dataclass(frozen=True)
class Process:
    """One running child and the file that holds what it prints."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    def check(self) -> None:
        """Raise ClusterError if it has ended by itself, with the end of its log."""
        if self.child.poll() is None:
            return
        tail = self.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        error = PortTaken if "address already in use" in tail else ClusterError
        raise error(f"{self.name} ended with code {self.child.returncode}; {self.log} ends with:\n{tail}")

    def stop(self) -> None:
        """End it: what asked for a chance to clean up gets SIGTERM first; its whole group ends in any case."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(_PATIENCE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it and its group at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def spawn(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    death_signal: signal.Signals = signal.SIGKILL,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Process:
    """Start `command`, with its output in `log`; `death_signal` is what it gets when this process dies."""
    launcher: list[str | Path] = [sys.executable, "-I", "-S", _LAUNCH, str(int(death_signal)), str(os.getpid())]
    with log.open("wb") as output:
        child = subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            cwd=folder,
        )
    return Process(name, child, log)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
