"""Long steps are seen to go on: one line that updates itself, or in a log a line now and then."""

from __future__ import annotations

import pytest

from testcluster.progress import Progress, format_elapsed

TOLD = [(0, "building: 1"), (1, "building: 2"), (14, "building: 3"), (16, "building: 4"), (17, "starting")]


def tell(is_terminal: bool) -> str:
    """Return what is written when TOLD is told at its seconds, and the progress is then done."""
    written: list[str] = []
    seconds = iter([0, *(second for second, _ in TOLD)])
    progress = Progress(written.append, is_terminal, clock=lambda: next(seconds))
    for _, text in TOLD:
        progress(text)
    progress.done()
    return "".join(written)


def test_a_log_has_each_step_at_once_and_the_same_one_every_15_seconds() -> None:
    assert tell(is_terminal=False) == "building: 1 (0:00)\nbuilding: 4 (0:16)\nstarting (0:17)\n"


def test_a_terminal_has_one_line_that_is_gone_at_the_end() -> None:
    lines = tell(is_terminal=True).split("\r\x1b[K")
    assert lines == ["", *(f"{text} (0:{second:02d})" for second, text in TOLD), ""]


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (754, "12:34")])
def test_elapsed_time_is_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert format_elapsed(seconds) == shown
