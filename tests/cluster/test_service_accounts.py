"""Workloads of the cluster itself: tokens that its own issuer signs, bound to a pod, for the gateway's audience."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from attacks.conftest import read_records
from running import RunningGateway, Upstream

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from testcluster import Cluster

    Admin = Callable[..., subprocess.CompletedProcess[str]]

NAMESPACE = "workloads"
POLICY = """
apiVersion: holdfast.dev/v1
kind: Policy
metadata: {name: workloads}
rules:
- name: robots-read
  effect: allow
  subjects:
  - issuers: ["*"]
    claims: {kubernetes.io.namespace: [workloads], kubernetes.io.serviceaccount.name: [robot]}
  verbs: [get, list]
  apiGroups: [""]
  resources: [configmaps]
  namespaces: [workloads]
"""
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "runner"},
    "spec": {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "none"}]},
}


@pytest.fixture(scope="module")
def trusting(cluster: Cluster, admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway that trusts the cluster's issuer, as README has it for service accounts."""
    folder = tmp_path_factory.mktemp("trusting")
    issuer = json.loads(admin("get", "--raw", "/.well-known/openid-configuration").stdout)["issuer"]
    (folder / "cluster.jwks").write_text(admin("get", "--raw", "/openid/v1/jwks").stdout)
    (folder / "policy.yaml").write_text(POLICY)
    admin("create", "namespace", NAMESPACE)
    for name in ("robot", "other"):
        admin("create", "serviceaccount", name, "-n", NAMESPACE)
    admin("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(POD))
    entry = {
        "issuer": {"url": issuer, "audiences": ["holdfast"], "jwksFile": str(folder / "cluster.jwks")},
        "claimMappings": {
            "username": {"claim": "sub", "prefix": "cluster-a:"},
            "groups": {"expression": "['cluster-a:' + claims['kubernetes.io'].namespace]"},
            "uid": {"expression": "claims['kubernetes.io'].serviceaccount.uid"},
        },
    }
    token = cluster.service_account_token("holdfast", "kube-system", "cluster-admin")
    running = RunningGateway(
        folder / "gateway",
        Upstream(cluster.server, cluster.ca_file, token),
        policies=(folder / "policy.yaml",),
        settings={"identity": {"jwt": [entry]}},
    )
    running.start()
    yield running
    running.stop()


def token_of(admin: Admin, account: str, *more: str) -> str:
    return admin("create", "token", account, "-n", NAMESPACE, *more).stdout.strip()


def call(gateway: RunningGateway, token: str) -> httpx.Response:
    context = ssl.create_default_context(cafile=str(gateway.ca_file))
    path = f"{gateway.url}/api/v1/namespaces/{NAMESPACE}/configmaps"
    return httpx.get(path, headers={"Authorization": f"Bearer {token}"}, verify=context)


def caller_of(gateway: RunningGateway) -> dict[str, Any]:
    (*_, last) = read_records(gateway.database)
    return last["identity"]


def test_a_token_that_is_bound_to_a_pod_is_its_service_account(trusting: RunningGateway, admin: Admin) -> None:
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", "runner")
    answer = call(trusting, token_of(admin, "robot", "--audience", "holdfast", *bound))
    assert answer.status_code == 200
    assert answer.json()["kind"] == "ConfigMapList"
    caller = caller_of(trusting)
    assert caller["username"] == f"cluster-a:system:serviceaccount:{NAMESPACE}:robot"
    assert caller["groups"] == [f"cluster-a:{NAMESPACE}"]
    assert caller["claims"]["kubernetes.io"]["pod"]["name"] == "runner"
    assert caller["uid"] == caller["claims"]["kubernetes.io"]["serviceaccount"]["uid"]


def test_another_service_account_is_denied(trusting: RunningGateway, admin: Admin) -> None:
    assert call(trusting, token_of(admin, "other", "--audience", "holdfast")).status_code == 403


def test_a_token_for_the_api_server_is_none_for_the_gateway(trusting: RunningGateway, admin: Admin) -> None:
    answer = call(trusting, token_of(admin, "robot"))
    assert answer.status_code == 401
    assert "for another audience" in answer.json()["message"]


def test_a_token_that_was_touched_is_refused(trusting: RunningGateway, admin: Admin) -> None:
    token = token_of(admin, "robot", "--audience", "holdfast")
    assert call(trusting, token[:-6] + "AAAAAA").status_code == 401
