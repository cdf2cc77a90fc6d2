"""The browser of the person at this machine, if there is one."""

from __future__ import annotations

import asyncio
import os
import threading
import webbrowser
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_REMOTE = ("SSH_CONNECTION", "SSH_TTY")
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")


def has_desktop(environment: Mapping[str, str], platform: str) -> bool:
    """Whether a browser that is opened here appears before the person; `$BROWSER` says so too.

    `platform` is `sys.platform`. Over SSH it would open on the wrong machine, and could not come back to 127.0.0.1.
    """
    if environment.get("BROWSER"):
        return True
    if any(environment.get(name) for name in _REMOTE):
        return False
    return platform in {"darwin", "win32"} or any(environment.get(name) for name in _DISPLAYS)


def open_browser(url: str) -> bool:
    """Open `url`; whether a browser was found. Some return at once, others when the person closes them."""
    try:
        return webbrowser.open(url)
    except (webbrowser.Error, OSError):
        return False


def open_in_background(open_url: Callable[[str], bool], url: str) -> asyncio.Future[bool]:
    """What `open_url` returns, when it does; it does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[bool] = loop.create_future()

    def open_it() -> None:
        found = open_url(url)
        with suppress(RuntimeError):  # the loop is closed: the login ended before the browser did
            loop.call_soon_threadsafe(_settle, opened, found)

    threading.Thread(target=open_it, name="holdfast-browser", daemon=True).start()
    return opened


@contextmanager
def nothing_on_stdout() -> Iterator[None]:
    """Send what child processes print to standard error, so that it does not get between the lines kubectl reads."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _settle(opened: asyncio.Future[bool], found: bool) -> None:
    if not opened.done():
        opened.set_result(found)
