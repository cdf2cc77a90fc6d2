"""Refusals read like the API server's own."""

import json

import pytest

from holdfast.errors import BadRequest, Forbidden, Unavailable
from holdfast.kube.canonical import canonicalize
from holdfast.kube.request_info import parse_request_info
from holdfast.kube.status import forbidden_message, render_status

MESSAGES = [
    (
        "GET",
        "/api/v1/namespaces/default/pods",
        'pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default": no',
    ),
    (
        "DELETE",
        "/apis/apps/v1/namespaces/default/deployments/web",
        'deployments.apps "web" is forbidden: User "x" cannot delete resource "deployments" in API group "apps" '
        'in the namespace "default": no',
    ),
    (
        "POST",
        "/api/v1/namespaces/default/pods/web/exec",
        'pods "web" is forbidden: User "x" cannot create resource "pods/exec" in API group "" '
        'in the namespace "default": no',
    ),
    (
        "DELETE",
        "/api/v1/nodes/n1",
        'nodes "n1" is forbidden: User "x" cannot delete resource "nodes" in API group "" at the cluster scope: no',
    ),
    ("GET", "/metrics", 'forbidden: User "x" cannot get path "/metrics": no'),
    ("GET", "/%3Cscript%3E", 'forbidden: User "x" cannot get path "/&lt;script&gt;": no'),
]


@pytest.mark.parametrize(("method", "target", "message"), MESSAGES)
def test_a_denial_is_worded_as_the_api_server_words_it(method: str, target: str, message: str) -> None:
    info = parse_request_info(method, canonicalize(target.encode()))
    assert forbidden_message(info, "x", "no") == message


def test_a_user_name_cannot_end_its_quotation() -> None:
    info = parse_request_info("GET", canonicalize(b"/metrics"))
    assert forbidden_message(info, 'a" cannot', "no").startswith('forbidden: User "a\\" cannot" cannot get path')


def test_a_status_says_what_it_is_about() -> None:
    info = parse_request_info("GET", canonicalize(b"/apis/apps/v1/namespaces/d/deployments/web"))
    assert json.loads(render_status(Forbidden("no"), info)) == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "no",
        "reason": "Forbidden",
        "details": {"name": "web", "group": "apps", "kind": "deployments"},
        "code": 403,
    }


def test_a_status_keeps_its_own_details() -> None:
    info = parse_request_info("GET", canonicalize(b"/api/v1/pods"))
    assert json.loads(render_status(Unavailable("later"), info))["details"] == {"kind": "pods", "retryAfterSeconds": 1}
    assert json.loads(render_status(Unavailable("later"), None))["details"] == {"retryAfterSeconds": 1}


def test_a_status_without_a_subject_has_no_details() -> None:
    info = parse_request_info("GET", canonicalize(b"/metrics"))
    for known in (info, None):
        assert "details" not in json.loads(render_status(BadRequest("no"), known))


def test_any_message_can_be_rendered() -> None:
    message = 'lone \ud800, quote ", é, <b>\n'
    assert json.loads(render_status(BadRequest(message), None))["message"] == message
