"""Long steps say what they do and for how long: one line that updates itself, or in a log a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

QUIET_SECONDS = 15.0


@dataclass
class Progress:
    """Call it with what is happening now, as often as you like; `done` ends the line.

    `write` takes text as it is; `is_terminal` says whether a carriage return goes back to the line's start.
    """

    write: Callable[[str], object]
    is_terminal: bool
    clock: Callable[[], float] = time.monotonic
    _began: float = field(init=False)
    _last: float = field(init=False, default=float("-inf"))
    _step: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self._began = self.clock()

    def __call__(self, text: str) -> None:
        """Show `text` with the elapsed time; off a terminal, a new step at once, the same one every 15 seconds."""
        now = self.clock()
        line = f"{text} ({format_elapsed(now - self._began)})"
        step = text.partition(":")[0]
        if self.is_terminal:
            self.write(f"\r\x1b[K{line}")
        elif step != self._step or now - self._last >= QUIET_SECONDS:
            self.write(f"{line}\n")
            self._last = now
        self._step = step

    def done(self) -> None:
        """Clear the self-updating line."""
        if self.is_terminal and self._step:
            self.write("\r\x1b[K")
        self._step = ""


def format_elapsed(seconds: float) -> str:
    """Return minutes and seconds: `0:07`, `12:30`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
