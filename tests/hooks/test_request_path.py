"""The path as a whole: every hook is guarded, and nothing is left out or out of order."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from mitmproxy import hooks
from mitmproxy.test import taddons

from holdfast.errors import ConfigurationError
from holdfast.hooks.request_path import request_path

if TYPE_CHECKING:
    from holdfast.hooks.gateway import Gateway
    from holdfast.hooks.lifecycle import Lifecycle

UNGUARDED = {("Sealed", "tls_start_server")}
"""Shows no flow; without it there is no client certificate, so it fails closed by itself."""

NAMES = ["Asked", "Identified", "Decided", "Masked", "Held", "Recorded", "Streamed", "Sealed"]


def make_path() -> list[Any]:
    return request_path(cast("Gateway", SimpleNamespace()))


def test_the_path_is_the_documented_one() -> None:
    assert [type(addon).__name__ for addon in make_path()] == ["Lifecycle", *NAMES]


def test_every_flow_hook_of_every_stage_is_guarded() -> None:
    _, *stages = make_path()
    found = [(type(stage).__name__, name) for stage in stages for name in hooks.all_hooks if hasattr(stage, name)]
    guarded = [
        (type(stage).__name__, name)
        for stage in stages
        for name in hooks.all_hooks
        if hasattr(getattr(type(stage), name, None), "__wrapped__")
    ]
    assert set(found) - set(guarded) == UNGUARDED
    assert len(guarded) >= 13


def load(chain: list[Any], lifecycle: Lifecycle) -> None:
    """What mitmdump has loaded when it is running: a script is an addon that holds addons."""
    with taddons.context(loadcore=False) as addons:
        addons.master.addons.chain = [SimpleNamespace(addons=chain)]
        lifecycle._require_path()


def test_the_whole_path_is_accepted() -> None:
    path = make_path()
    load(path, path[0])


@pytest.mark.parametrize("missing", range(1, 9))
def test_a_path_without_one_stage_is_refused(missing: int) -> None:
    path = make_path()
    with pytest.raises(ConfigurationError, match="not whole"):
        load(path[:missing] + path[missing + 1 :], path[0])


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(range(1, 9), 2)))
def test_a_path_with_two_stages_swapped_is_refused(one: int, other: int) -> None:
    path = make_path()
    swapped = list(path)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    with pytest.raises(ConfigurationError, match="out of order"):
        load(swapped, path[0])


def test_a_stage_of_another_gateway_does_not_fill_the_gap() -> None:
    path, other = make_path(), make_path()
    with pytest.raises(ConfigurationError):
        load([*path[:-1], other[-1]], path[0])
