"""For `mitmdump -s`: the gateway, with a fault inside whichever hook the file $FAULT names at the moment."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from mitmproxy import hooks

from holdfast.hooks.gateway import Gateway
from holdfast.hooks.request_path import request_path
from holdfast.settings import load_settings

FAULT = Path(os.environ["FAULT"])


def make_faulty(stage: object, name: str) -> None:
    """Put the fault inside the guard, where a mistake of ours would be."""
    guarded = getattr(type(stage), name)
    cell = guarded.__closure__[guarded.__code__.co_freevars.index("hook")]
    cell.cell_contents = _faulty(cell.cell_contents, f"{type(stage).__name__}.{name}")


def _faulty(hook: Any, place: str) -> Any:
    @functools.wraps(hook)
    def maybe(*arguments: Any) -> Any:
        if FAULT.read_text() == place:
            raise RuntimeError("-".join(("message", "of", "the", "fault")))
        return hook(*arguments)

    return maybe


def prepare_path() -> list[object]:
    """The path, each flow hook prepared."""
    path = request_path(Gateway(load_settings()))
    for stage in path[1:]:
        for name in hooks.all_hooks:
            if hasattr(getattr(type(stage), name, None), "__wrapped__"):
                make_faulty(stage, name)
    return path


addons = prepare_path()
