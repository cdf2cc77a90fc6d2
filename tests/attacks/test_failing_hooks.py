"""A stage that fails, is left out, or is taken away while the gateway runs: the API server sees nothing."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from attacks.conftest import POD_PATH, ScriptedGateway, Target, pending_holds
from attacks.mitmweb import MitmwebGateway
from attacks.scripted_upstream import ScriptedUpstream, send
from recording_upstream import POD, TOKEN
from running import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PODS_PATH = "/api/v1/namespaces/demo/pods"
BEFORE_THE_WIRE = [
    "Asked.requestheaders",
    "Identified.requestheaders",
    "Decided.requestheaders",
    "Masked.request_body",
    "Held.request",
    "Recorded.request",
    "Sealed.request",
]
AFTER_THE_WIRE = ["Held.responseheaders", "Streamed.responseheaders", "Masked.response_body", "Recorded.response_body"]


@dataclass
class Faulty(Target):
    """A gateway under mitmdump whose hooks fail on demand."""

    fault: Path

    def break_hook(self, place: str) -> None:
        """Let this hook raise from now on."""
        self.fault.write_text(place)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """One process for all faults."""
    folder = tmp_path_factory.mktemp("faults")
    upstream = ScriptedUpstream(folder)
    upstream.start()
    fault = folder / "fault"
    fault.write_text("")
    gateway = ScriptedGateway(
        folder / "gateway",
        Upstream(upstream.server, upstream.ca_file, TOKEN),
        script=Path(__file__).with_name("faulty_gateway.py"),
        environment={"FAULT": str(fault)},
    )
    yield Faulty(gateway.start(), upstream, fault)
    gateway.stop()
    upstream.stop()


@pytest.fixture
def faulty(running: Faulty) -> Iterator[Faulty]:
    """The process, whole again."""
    running.upstream.forget()
    running.break_hook("")
    yield running
    running.break_hook("")


def assert_internal_error(response: httpx.Response) -> None:
    assert response.status_code == 500
    status = response.json()
    assert (status["kind"], status["reason"], status["code"]) == ("Status", "InternalError", 500)
    assert "message-of-the-fault" not in response.text
    assert "demo" not in response.text


def test_without_a_fault_the_call_goes_through(faulty: Faulty) -> None:
    assert faulty.call("POST", PODS_PATH, json={"kind": "Pod"}).status_code == 200
    assert len(faulty.upstream.calls()) == 1


@pytest.mark.parametrize("place", BEFORE_THE_WIRE)
def test_a_fault_before_the_wire_forwards_nothing(faulty: Faulty, place: str) -> None:
    faulty.break_hook(place)
    response = faulty.call("POST", PODS_PATH, json={"kind": "Pod"})
    assert_internal_error(response)
    assert faulty.upstream.calls() == []
    assert "message-of-the-fault" not in "".join(faulty.gateway.output)
    recorded = faulty.records()[-1]
    assert (recorded["kind"], recorded["refusal"]["code"]) == ("outcome", 500)


@pytest.mark.parametrize("place", AFTER_THE_WIRE)
def test_a_fault_on_the_way_back_lets_nothing_of_the_answer_through(faulty: Faulty, place: str) -> None:
    faulty.break_hook(place)
    response = faulty.call("GET", POD_PATH)
    assert_internal_error(response)
    assert POD not in response.content


def test_a_fault_where_a_long_answer_becomes_a_stream_lets_nothing_of_it_through(faulty: Faulty) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    faulty.upstream.acts[POD_PATH.encode()] = send(head + chunk * 80 + b"0\r\n\r\n")
    faulty.break_hook("Streamed.response_overflow")
    response = faulty.call("GET", POD_PATH)
    assert_internal_error(response)


def test_a_fault_while_a_refusal_is_recorded_still_refuses(faulty: Faulty) -> None:
    faulty.break_hook("Recorded.response")
    assert_internal_error(faulty.call("DELETE", "/api/v1/namespaces/kube-system/pods/p"))
    assert faulty.upstream.calls() == []


def test_the_gateway_works_again_when_the_fault_is_gone(faulty: Faulty) -> None:
    for place in (*BEFORE_THE_WIRE, *AFTER_THE_WIRE):
        faulty.break_hook(place)
        faulty.call("GET", POD_PATH)
    faulty.break_hook("")
    faulty.upstream.forget()
    assert faulty.call("GET", POD_PATH).content == POD
    assert len(faulty.upstream.calls()) == 1


@pytest.mark.parametrize(
    "stages",
    [
        "[stage for stage in path if type(stage).__name__ != 'Recorded']",
        "[stage for stage in path if type(stage).__name__ != 'Masked']",
        "[path[0], *reversed(path[1:])]",
    ],
)
def test_a_script_that_leaves_a_stage_out_or_reorders_them_never_listens(
    tmp_path: Path, upstream: ScriptedUpstream, stages: str
) -> None:
    script = tmp_path / "gateway.py"
    script.write_text(
        "from holdfast.hooks.gateway import Gateway\nfrom holdfast.hooks.request_path import request_path\n"
        "from holdfast.settings import load_settings\n"
        f"path = request_path(Gateway(load_settings()))\naddons = {stages}\n"
    )
    gateway = ScriptedGateway(tmp_path / "gateway", Upstream(upstream.server, upstream.ca_file, TOKEN), script=script)
    with pytest.raises(AssertionError):
        gateway.start(timeout=30)
    gateway.stop()
    assert upstream.requests == []
    assert gateway.process is not None
    assert gateway.process.returncode == 2
    assert "the request path is not whole" in "".join(gateway.output)


@pytest.mark.parametrize(
    ("program", "damage"),
    [
        ("mitmdump", "deleted"),
        ("mitmdump", "syntax error"),
        ("mitmdump", "emptied"),
        ("mitmweb", "deleted"),
        ("mitmweb", "syntax error"),
    ],
)
def test_a_script_that_is_damaged_while_it_runs_ends_the_program_and_forwards_nothing_meanwhile(
    make_target: Callable[..., Target], tmp_path: Path, program: str, damage: str
) -> None:
    script = tmp_path / "gateway.py"
    script.write_text(
        "from holdfast.hooks.gateway import Gateway\nfrom holdfast.hooks.request_path import request_path\n"
        "from holdfast.settings import load_settings\naddons = request_path(Gateway(load_settings()))\n"
    )
    kind = MitmwebGateway if program == "mitmweb" else ScriptedGateway
    target = make_target(kind, script=script)
    assert target.call("GET", POD_PATH).status_code == 200
    target.upstream.forget()
    _damage(script, damage)
    answers = _call_until_it_ends(target)
    assert target.gateway.process is not None
    target.settle(lambda: target.gateway.process.poll() is not None)  # type: ignore[union-attr]
    whole = [request for request in target.upstream.calls() if TOKEN.encode() in request]
    assert target.upstream.calls() == whole
    # One call may have had its verdict when the script went.
    assert answers.count(200) <= len(whole) <= answers.count(200) + 1


def _damage(script: Path, damage: str) -> None:
    if damage == "deleted":
        script.unlink()
    else:
        script.write_text({"syntax error": "def (", "emptied": ""}[damage])


def _call_until_it_ends(target: Target) -> list[int]:
    """Call without a pause until nobody listens; the codes that came back."""
    answers: list[int] = []
    process = target.gateway.process
    assert process is not None
    while process.poll() is None:
        try:
            answers.append(target.call("GET", POD_PATH).status_code)
        except httpx.HTTPError:
            answers.append(0)
        assert len(answers) < 5000
    return answers


def test_a_call_that_is_held_when_the_script_is_damaged_is_not_forwarded(
    make_target: Callable[..., Target], tmp_path: Path
) -> None:
    script = tmp_path / "gateway.py"
    script.write_text(
        "from holdfast.hooks.gateway import Gateway\nfrom holdfast.hooks.request_path import request_path\n"
        "from holdfast.settings import load_settings\naddons = request_path(Gateway(load_settings()))\n"
    )
    target = make_target(ScriptedGateway, script=script)
    ended = threading.Event()

    def call() -> None:
        try:
            assert target.call("DELETE", "/api/v1/namespaces/demo").status_code >= 400
        except httpx.HTTPError:
            pass
        finally:
            ended.set()

    threading.Thread(target=call, daemon=True).start()
    target.settle(lambda: pending_holds(target.gateway.database))
    script.write_text("def (")
    assert ended.wait(20)
    target.settle(lambda: target.gateway.process.poll() is not None)  # type: ignore[union-attr]
    assert target.upstream.calls() == []
