"""The facts of k8s.io/apiserver `pkg/endpoints/request/requestinfo_test.go` as a table, and our own beside them."""

from typing import NamedTuple

import pytest

from holdfast.errors import BadRequest
from holdfast.exchange import RequestInfo
from holdfast.kube.canonical import canonicalize
from holdfast.kube.request_info import METHODS, is_exec_class, is_long_running, parse_request_info


def read(method: str, target: str, upgrade: str = "") -> RequestInfo:
    return parse_request_info(method, canonicalize(target.encode()), upgrade)


class Case(NamedTuple):
    method: str
    target: str
    verb: str
    group: str
    version: str
    namespace: str
    resource: str
    subresource: str
    name: str
    parts: str


CASES = [
    # Collections and objects
    Case("GET", "/api/v1/namespaces", "list", "", "v1", "", "namespaces", "", "", "namespaces"),
    Case("GET", "/api/v1/namespaces/other", "get", "", "v1", "other", "namespaces", "", "other", "namespaces/other"),
    Case("GET", "/api/v1/namespaces/other/pods", "list", "", "v1", "other", "pods", "", "", "pods"),
    Case("GET", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo", "pods/foo"),
    Case("HEAD", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo", "pods/foo"),
    Case("GET", "/api/v1/pods", "list", "", "v1", "", "pods", "", "", "pods"),
    Case("HEAD", "/api/v1/pods", "list", "", "v1", "", "pods", "", "", "pods"),
    # Verbs in the path and in the query
    Case("GET", "/api/v1/proxy/namespaces/other/pods/foo", "proxy", "", "v1", "other", "pods", "", "foo", "pods/foo"),
    Case(
        "GET",
        "/api/v1/proxy/namespaces/other/pods/foo/subpath/not/a/subresource",
        *("proxy", "", "v1", "other", "pods", "", "foo", "pods/foo/subpath/not/a/subresource"),
    ),
    Case("POST", "/api/v1/proxy/nodes/n1/exec", "proxy", "", "v1", "", "nodes", "", "n1", "nodes/n1/exec"),
    Case("GET", "/api/v1/watch/pods", "watch", "", "v1", "", "pods", "", "", "pods"),
    Case("GET", "/api/v1/watch/namespaces/other/pods", "watch", "", "v1", "other", "pods", "", "", "pods"),
    Case("GET", "/api/v1/watch/namespaces/o/pods/foo", "watch", "", "v1", "o", "pods", "", "foo", "pods/foo"),
    Case("GET", "/api/v1/pods?watch=true", "watch", "", "v1", "", "pods", "", "", "pods"),
    Case("GET", "/api/v1/pods?watch=false", "list", "", "v1", "", "pods", "", "", "pods"),
    Case("GET", "/api/v1/pods?watch=FALSE", "list", "", "v1", "", "pods", "", "", "pods"),
    Case("GET", "/api/v1/pods?watch=fal%C5%BFe", "list", "", "v1", "", "pods", "", "", "pods"),
    Case("GET", "/api/v1/pods?watch=no", "watch", "", "v1", "", "pods", "", "", "pods"),
    Case("GET", "/api/v1/pods?watch", "watch", "", "v1", "", "pods", "", "", "pods"),
    Case("GET", "/api/v1/pods?Watch=1", "list", "", "v1", "", "pods", "", "", "pods"),
    Case("GET", "/api/v1/namespaces/other/pods?watch=1", "watch", "", "v1", "other", "pods", "", "", "pods"),
    Case("GET", "/api/v1/namespaces/other/pods?watch=0", "list", "", "v1", "other", "pods", "", "", "pods"),
    Case("GET", "/api/v1/namespaces/o/pods/foo?watch=1", "get", "", "v1", "o", "pods", "", "foo", "pods/foo"),
    # Subresources
    Case(
        "GET",
        "/api/v1/namespaces/other/pods/foo/status",
        *("get", "", "v1", "other", "pods", "status", "foo", "pods/foo/status"),
    ),
    Case(
        "GET",
        "/api/v1/namespaces/other/pods/foo/proxy/subpath",
        *("get", "", "v1", "other", "pods", "proxy", "foo", "pods/foo/proxy/subpath"),
    ),
    Case(
        "PUT",
        "/api/v1/namespaces/other/finalize",
        *("update", "", "v1", "other", "namespaces", "finalize", "other", "namespaces/other/finalize"),
    ),
    Case(
        "PUT",
        "/api/v1/namespaces/other/status",
        *("update", "", "v1", "other", "namespaces", "status", "other", "namespaces/other/status"),
    ),
    Case(
        "POST",
        "/api/v1/namespaces/o/serviceaccounts/ci/token",
        *("create", "", "v1", "o", "serviceaccounts", "token", "ci", "serviceaccounts/ci/token"),
    ),
    # The verb of each method
    Case("PATCH", "/api/v1/namespaces/o/pods/foo", "patch", "", "v1", "o", "pods", "", "foo", "pods/foo"),
    Case("PUT", "/api/v1/namespaces/o/pods/foo", "update", "", "v1", "o", "pods", "", "foo", "pods/foo"),
    Case("DELETE", "/api/v1/namespaces/o/pods/foo", "delete", "", "v1", "o", "pods", "", "foo", "pods/foo"),
    Case("POST", "/api/v1/namespaces/other/pods", "create", "", "v1", "other", "pods", "", "", "pods"),
    Case("OPTIONS", "/api/v1/namespaces/other/pods", "", "", "v1", "other", "pods", "", "", "pods"),
    Case("PATCH", "/api/v1/namespaces/new", "patch", "", "v1", "new", "namespaces", "", "new", "namespaces/new"),
    Case("DELETE", "/api/v1/namespaces/old", "delete", "", "v1", "old", "namespaces", "", "old", "namespaces/old"),
    # DELETE of a collection
    Case("DELETE", "/api/v1/nodes", "deletecollection", "", "v1", "", "nodes", "", "", "nodes"),
    Case("DELETE", "/api/v1/namespaces", "deletecollection", "", "v1", "", "namespaces", "", "", "namespaces"),
    Case("DELETE", "/api/v1/namespaces/other/pods", "deletecollection", "", "v1", "other", "pods", "", "", "pods"),
    Case(
        "DELETE",
        "/apis/extensions/v1/namespaces/other/pods?fieldSelector=metadata.name=x",
        *("deletecollection", "extensions", "v1", "other", "pods", "", "", "pods"),
    ),
    # Groups and versions
    Case(
        "POST",
        "/apis/extensions/v1/namespaces/other/pods",
        *("create", "extensions", "v1", "other", "pods", "", "", "pods"),
    ),
    Case(
        "POST",
        "/apis/extensions/v1beta3/namespaces/other/pods",
        *("create", "extensions", "v1beta3", "other", "pods", "", "", "pods"),
    ),
    Case("GET", "/apis/batch/v1/job", "list", "batch", "v1", "", "job", "", "", "job"),
    Case("GET", "/apis/batch/v1/job/foo", "get", "batch", "v1", "", "job", "", "foo", "job/foo"),
    Case("GET", "/apis/batch/v1/job/foo/scale", "get", "batch", "v1", "", "job", "scale", "foo", "job/foo/scale"),
    Case("GET", "/api/version/resource", "list", "", "version", "", "resource", "", "", "resource"),
    Case("GET", "/apis/g/v/a/two%20words", "get", "g", "v", "", "a", "", "two words", "a/two words"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.target}")
def test_a_resource_request_is_read_as_the_api_server_reads_it(case: Case) -> None:
    info = read(case.method, case.target)
    assert info.is_resource_request
    assert info.api_prefix == case.target.split("/")[1]
    assert case[2:] == (
        info.verb,
        info.api_group,
        info.api_version,
        info.namespace,
        info.resource,
        info.subresource,
        info.name,
        "/".join(info.parts),
    )


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/api", "/apis", "/version", "/healthz", "/readyz/etcd", "/openapi/v3/apis/apps/v1"),
        *("/api/version/", "/api/version", "/apis/group/version/", "/apis/extensions/v1beta1", "/apis/apps"),
        *("/badprefix/version/resource", "/not-api/version/resource", "/apis/version/resource", "/API/v1/pods"),
    ],
)
def test_other_paths_are_not_about_a_resource_and_their_verb_is_the_method(path: str) -> None:
    for method in sorted(METHODS):
        info = read(method, path)
        assert not info.is_resource_request
        assert (info.verb, info.path, info.resource, info.parts) == (method.lower(), path, "", ())


COLLECTION = "/apis/group/version/resource"
SELECTORS = {
    "metadata.name=name1": "name1",
    "metadata.name==name1": "name1",
    "metadata.name%3Dname1": "name1",
    "metadata.name=name1&limit=500&timeoutSeconds=30": "name1",
    "metadata.name=name1,spec.nodeName=n": "name1",
    "a=b,metadata.name=name1": "name1",
    "metadata.name=z,metadata.name=a": "a",
    "metadata.name=a%5C,b": "a,b",
    ",metadata.name=name1,": "name1",
    "foo=bar": "",
    "metadata.name!=name1": "",
    "metadata.name=": "",
    "metadata.name=..": "",
    "metadata.name=a/b": "",
    "metadata.name=a%25": "",
    "metadata.name=name1,foo": "",
    "metadata.name===x": "",
    "metadata.name=a%5Cb": "",
    "metadata.name=a%5C": "",
    "metadata.name=name1&limit=many": "",
    "metadata.name=name1&limit=": "",
    "metadata.name=name1&limit=1_0": "",
    "metadata.name=name1&limit=9223372036854775808": "",
    "metadata.name=name1&limit=" + "9" * 5000: "",
    "metadata.name=name1&limit=" + "0" * 5000 + "9": "name1",
    "metadata.name=name1&limit=-1": "name1",
    "metadata.name=name1&limit=-9223372036854775808": "name1",
    "metadata.name=name1&limit=-9223372036854775809": "",
}


@pytest.mark.parametrize(("selector", "name"), SELECTORS.items(), ids=lambda text: text[:60])
def test_a_field_selector_names_the_object_of_a_list_or_watch(selector: str, name: str) -> None:
    listed = read("GET", f"{COLLECTION}?fieldSelector={selector}")
    watched = read("GET", f"{COLLECTION}?fieldSelector={selector}&watch=true")
    assert (listed.verb, listed.name) == ("list", name)
    assert (watched.verb, watched.name) == ("watch", name)


def test_a_field_selector_does_not_rename_an_object_or_a_watch_by_path() -> None:
    assert read("GET", f"{COLLECTION}/name?fieldSelector=metadata.name=x").name == "name"
    assert read("GET", "/apis/group/version/watch/resource?fieldSelector=metadata.name=x").name == ""


@pytest.mark.parametrize("subresource", ["exec", "attach", "portforward"])
@pytest.mark.parametrize(("method", "upgrade"), [("GET", "websocket"), ("POST", "SPDY/3.1"), ("GET", ""), ("PUT", "")])
def test_reaching_into_a_pod_is_create_whatever_the_method(method: str, upgrade: str, subresource: str) -> None:
    info = read(method, f"/api/v1/namespaces/default/pods/web/{subresource}?command=ls", upgrade)
    assert (info.verb, info.combined_resource, info.name) == ("create", f"pods/{subresource}", "web")
    assert info.upgrade == upgrade.lower()
    assert info.method == method
    assert info.is_mutating


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "get", "Get", "PROPFIND", "", "GET ", "A" * 500])
def test_other_methods_are_refused(method: str) -> None:
    with pytest.raises(BadRequest, match="is not one of"):
        read(method, "/api/v1/pods")


@pytest.mark.parametrize("target", ["/api/v1/watch", "/api/v1/proxy", "/apis/apps/v1/watch", "/apis/apps/v1/proxy"])
def test_a_path_that_stops_after_its_verb_is_refused(target: str) -> None:
    with pytest.raises(BadRequest, match="names no resource"):
        read("GET", target)


@pytest.mark.parametrize("method", sorted(METHODS - {"GET", "HEAD"}))
def test_a_change_cannot_pass_as_a_watch(method: str) -> None:
    with pytest.raises(BadRequest, match="leave out /watch"):
        read(method, "/api/v1/watch/namespaces/default/pods/web")


EXEC_CLASS = [
    "/api/v1/namespaces/d/pods/web/exec",
    "/api/v1/namespaces/d/pods/web/attach",
    "/api/v1/namespaces/d/pods/web/portforward",
    "/api/v1/namespaces/d/pods/web/proxy",
    "/api/v1/namespaces/d/services/web/proxy/admin",
    "/api/v1/nodes/n1/proxy/exec/d/web/c",
    "/api/v1/proxy/nodes/n1/run/d/web/c",
    "/api/v1/proxy/namespaces/d/services/web",
]
LONG_RUNNING = [
    *EXEC_CLASS,
    "/api/v1/pods?watch=1",
    "/api/v1/watch/pods",
    "/api/v1/namespaces/d/pods/web/log?follow=true",
    "/api/v1/namespaces/d/pods/web/log?follow",
    "/debug/pprof/profile",
]
SHORT = [
    "/api/v1/pods",
    "/api/v1/namespaces/d/pods/web",
    "/api/v1/namespaces/d/pods/exec",
    "/api/v1/namespaces/exec/pods/attach/status",
    "/api/v1/namespaces/d/pods/web/log",
    "/api/v1/namespaces/d/pods/web/log?follow=false",
    "/api/v1/namespaces/d/pods/web/log?follow=0",
    "/api/v1/namespaces/d/pods/web?follow=true",
    "/proxy/exec",
    "/apis",
]


def test_exec_class_is_what_opens_a_way_into_a_workload() -> None:
    assert [path for path in EXEC_CLASS + LONG_RUNNING + SHORT if is_exec_class(read("GET", path))] == EXEC_CLASS * 2


def test_long_running_is_what_may_never_end() -> None:
    assert [path for path in LONG_RUNNING + SHORT if is_long_running(read("GET", path))] == LONG_RUNNING
