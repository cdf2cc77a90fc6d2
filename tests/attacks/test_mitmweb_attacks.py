"""Whoever sits at mitmweb can edit flows, replay them and change options; none of it reaches the API server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from attacks.conftest import POD_PATH, Target, approve, running_target, wait_until
from attacks.mitmweb import MitmwebGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

EDITS: list[dict[str, Any]] = [
    {"method": "DELETE"},
    {"path": "/api/v1/namespaces/kube-system/secrets"},
    {"path": POD_PATH + "?x=1"},
    {"host": "other.test"},
    {"port": 1},
    {"scheme": "http"},
    {"content": '{"kind":"Pod"}'},
]
HELD_PATH = "/api/v1/namespaces/demo"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """One mitmweb for the tests that leave it as it was."""
    with running_target(tmp_path_factory.mktemp("mitmweb"), MitmwebGateway) as target:
        yield target


@pytest.fixture
def at_mitmweb(running: Target) -> Iterator[tuple[Target, MitmwebGateway]]:
    """The gateway, and its user at mitmweb."""
    running.upstream.forget()
    assert isinstance(running.gateway, MitmwebGateway)
    running.gateway.post("/clear")
    yield running, running.gateway
    running.gateway.set_options(intercept="", map_remote=[], modify_body=[])


def _edit_intercepted(target: Target, web: MitmwebGateway, edit: dict[str, Any]) -> Any:
    web.set_options(intercept="~q")
    with ThreadPoolExecutor() as pool:
        call = pool.submit(target.call, "GET", POD_PATH)
        flow = web.flow(POD_PATH, intercepted=True)
        web.edit(flow["id"], **edit)
        web.post(f"/flows/{flow['id']}/resume")
        return call.result()


def test_an_intercepted_call_that_is_not_edited_goes_on(at_mitmweb: tuple[Target, MitmwebGateway]) -> None:
    target, web = at_mitmweb
    assert _edit_intercepted(target, web, {}).status_code == 200
    assert len(target.upstream.calls()) == 1


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: "-".join(edit))
def test_a_call_edited_after_its_verdict_is_not_forwarded(
    at_mitmweb: tuple[Target, MitmwebGateway], edit: dict[str, Any]
) -> None:
    target, web = at_mitmweb
    answer = _edit_intercepted(target, web, edit)
    assert answer.status_code == 500
    assert "edited" in answer.json()["message"]
    assert target.upstream.calls() == []


@pytest.mark.parametrize(
    "edit", [{"path": "/api/v1/namespaces/kube-system"}, {"host": "other.test"}, {"method": "GET"}]
)
def test_a_call_edited_while_it_is_held_is_not_forwarded_though_approved(
    at_mitmweb: tuple[Target, MitmwebGateway], edit: dict[str, Any]
) -> None:
    target, web = at_mitmweb
    with ThreadPoolExecutor() as pool:
        call = pool.submit(target.call, "DELETE", HELD_PATH)
        flow = web.flow(HELD_PATH)
        web.edit(flow["id"], **edit)
        approve(target)
        answer = call.result()
    assert answer.status_code == 500
    assert "edited" in answer.json()["message"]
    assert target.upstream.calls() == []


def test_a_held_call_that_is_approved_and_not_edited_is_forwarded_once(
    at_mitmweb: tuple[Target, MitmwebGateway],
) -> None:
    target, web = at_mitmweb
    with ThreadPoolExecutor() as pool:
        call = pool.submit(target.call, "DELETE", HELD_PATH)
        web.flow(HELD_PATH)
        approve(target)
        assert call.result().status_code == 200
    (request,) = target.upstream.calls()
    assert request.startswith(b"DELETE /api/v1/namespaces/demo HTTP/1.1\r\n")


def test_mitmweb_can_kill_a_held_call_but_not_release_it(at_mitmweb: tuple[Target, MitmwebGateway]) -> None:
    target, web = at_mitmweb
    with ThreadPoolExecutor() as pool:
        call = pool.submit(target.call, "DELETE", HELD_PATH)
        flow = web.flow(HELD_PATH)
        web.post(f"/flows/{flow['id']}/resume")
        web.post("/flows/resume")
        assert not call.done()
        approve(target, deny="no")
        assert call.result().status_code == 403
    assert target.upstream.calls() == []


def test_a_replayed_or_duplicated_flow_is_not_forwarded(at_mitmweb: tuple[Target, MitmwebGateway]) -> None:
    target, web = at_mitmweb
    assert target.call("GET", POD_PATH).status_code == 200
    original = web.flow(POD_PATH)["id"]
    web.post(f"/flows/{original}/duplicate")
    flows = [flow["id"] for flow in web.get("/flows").json()]
    assert len(flows) == 2
    for flow_id in flows:
        web.post(f"/flows/{flow_id}/replay")
    wait_until(lambda: all(flow.get("response", {}).get("status_code") == 500 for flow in web.get("/flows").json()), 10)
    assert len(target.upstream.calls()) == 1


def test_mitmwebs_own_rewriting_does_not_reach_the_api_server(at_mitmweb: tuple[Target, MitmwebGateway]) -> None:
    target, web = at_mitmweb
    assert web.set_options(map_remote=["|.*|https://other.test/x"]).status_code == 200
    assert target.call("GET", POD_PATH).status_code == 500
    assert web.set_options(map_remote=[], modify_body=["|~q|.*|evil"]).status_code == 200
    assert target.call("POST", "/api/v1/namespaces/demo/pods", json={"kind": "Pod"}).status_code == 500
    assert target.upstream.calls() == []


def answers(target: Target) -> bool:
    """Whether calls pass: mitmproxy takes the listener down and up again before it hears that it must not."""
    try:
        return target.call("GET", POD_PATH).status_code == 200
    except httpx.ConnectError:
        return False


@pytest.mark.parametrize(
    "options",
    [
        {"ssl_insecure": True},
        {"ssl_verify_upstream_trusted_ca": None},
        {"ssl_verify_upstream_trusted_confdir": "/tmp"},  # noqa: S108
        {"keep_host_header": True},
        {"validate_inbound_headers": False},
        {"connection_strategy": "eager"},
        {"store_streamed_bodies": True},
        {"proxy_debug": True},
        {"certs": []},
        {"client_certs": "/tmp"},  # noqa: S108
        {"mode": ["regular"]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_an_option_that_the_gateway_relies_on_cannot_be_changed(
    at_mitmweb: tuple[Target, MitmwebGateway], options: dict[str, Any]
) -> None:
    target, web = at_mitmweb
    answer = web.set_options(**options)
    assert answer.status_code == 400
    assert "Holdfast" in answer.text
    target.settle(lambda: answers(target))
