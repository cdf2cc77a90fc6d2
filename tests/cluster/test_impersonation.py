"""Impersonation against the real API server: its own audit log and RBAC see each caller, and the gateway beside."""

from __future__ import annotations

import json
import ssl
import time
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from holdfast.audit.reconcile import SELF_QUESTIONS
from kubectl import Kubectl
from running import RunningGateway, Upstream, trusted_issuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Admin
    from testcluster import Cluster

NAMESPACE = "demo-impersonation"
ACCOUNT = "impersonator"
GATEWAY = f"system:serviceaccount:kube-system:{ACCOUNT}"
PATIENCE_SECONDS = 20

NARROW = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "narrow"},
    "rules": [
        {
            "apiGroups": [group],
            "resources": [resource],
            "verbs": ["impersonate"],
            "resourceNames": [name],
        }
        for group, resource, name in (
            ("", "groups", "system:authenticated"),
            ("authentication.k8s.io", "userextras/holdfast.dev/issuer", "https://issuer.test"),
        )
    ],
}
"""A role for the names that are certain to be asked for, and no others."""

type AsCaller = Callable[..., Kubectl]


def make_settings() -> dict[str, Any]:
    """The usual issuer, whose tokens also give a uid and a tenant."""
    issuer = trusted_issuer(jwksFile="jwks.json")
    issuer["claimMappings"]["uid"] = {"expression": "claims.?oid.orValue('')"}
    tenant = {"key": "example.com/tenant", "valueExpression": "claims.?tenant.orValue('')"}
    issuer["claimMappings"]["extra"] = [tenant]
    return {"upstream": {"impersonate": True}, "identity": {"jwt": [issuer]}}


def diagnose(gateway: RunningGateway) -> tuple[str, str]:
    """State and finding of the doctor's check of impersonation."""
    checks = json.loads(gateway.holdfast("doctor", "-o", "json").stdout)
    (check,) = [check for check in checks if check["name"] == "impersonation"]
    return check["state"], check["found"]


@pytest.fixture(scope="module")
def impersonating(cluster: Cluster, admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway whose credential may do nothing but impersonate, by the role that the doctor prints."""
    token = cluster.service_account_token(ACCOUNT, "kube-system", "system:basic-user")
    upstream = Upstream(cluster.server, cluster.ca_file, token)
    gateway = RunningGateway(tmp_path_factory.mktemp("impersonating"), upstream, settings=make_settings())
    gateway.write_config()
    role = gateway.holdfast("doctor", "--rbac", "--service-account", f"kube-system:{ACCOUNT}")
    applied = admin("apply", "-f", "-", stdin=role.stdout)
    assert applied.returncode == 0, applied.stderr
    gateway.start()
    yield gateway
    gateway.stop()
    admin("delete", "clusterrolebinding", "holdfast-impersonator")


@pytest.fixture(scope="module", autouse=True)
def namespace(admin: Admin) -> Iterator[None]:
    """A pod, a ConfigMap, and the group `shop-editors`, which RBAC lets look and exec."""
    admin("create", "namespace", NAMESPACE)
    admin("run", "shell", "-n", NAMESPACE, "--image=none")
    admin("create", "configmap", "seen", "-n", NAMESPACE, "--from-literal=a=b")
    admin("create", "role", "look", "-n", NAMESPACE, "--verb=get,list,watch", "--resource=configmaps,pods")
    admin("create", "role", "enter", "-n", NAMESPACE, "--verb=create,get", "--resource=pods/exec")
    for role in ("look", "enter"):
        admin("create", "rolebinding", role, "-n", NAMESPACE, f"--role={role}", "--group=shop-editors")
    admin("wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/shell", "--timeout=30s")
    yield
    admin("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def user() -> str:
    """Somebody whom no other test knows."""
    return f"someone-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def as_caller(impersonating: RunningGateway, cluster: Cluster, tmp_path: Path) -> AsCaller:
    def make(username: str, *groups: str, **claims: Any) -> Kubectl:
        token = impersonating.token(username, "agents", *groups, **claims)
        return Kubectl(cluster.kubectl, impersonating.kubeconfig(username, token=token), NAMESPACE, tmp_path)

    return make


def events_of(cluster: Cluster, user: str, uri: str) -> list[dict[str, Any]]:
    """The audit events of what this user did there, as soon as there are any."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = [
            event
            for event in cluster.audit_events()
            if event.get("impersonatedUser", {}).get("username") == user and event["requestURI"].startswith(uri)
        ]
        if found:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_clusters_audit_log_has_the_gateway_and_whom_it_spoke_for(
    cluster: Cluster, as_caller: AsCaller, user: str
) -> None:
    kubectl = as_caller(user, "shop-editors", "a,b", oid="u-1", tenant="72", run_id="99", jti="t-1")
    assert "seen" in kubectl.ok("get", "configmap", "seen")
    for event in events_of(cluster, user, f"/api/v1/namespaces/{NAMESPACE}/configmaps/seen"):
        assert event["user"]["username"] == GATEWAY
        assert event["impersonatedUser"] == {
            "username": user,
            "uid": "u-1",
            "groups": ["agents", "shop-editors", "a,b", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/credential-id": ["JTI=t-1"],
                "example.com/tenant": ["72"],
                "holdfast.dev/issuer": ["https://issuer.test"],
                "holdfast.dev/run-id": ["99"],
            },
        }


def test_every_call_is_the_callers_and_none_the_gateways_own(cluster: Cluster, as_caller: AsCaller, user: str) -> None:
    as_caller(user, "shop-editors").ok("get", "pods,configmaps")
    for event in cluster.audit_events():
        if event["user"].get("username") == GATEWAY and "impersonatedUser" not in event:
            assert event["stage"] == "RequestReceived" or event["requestURI"] in SELF_QUESTIONS


def test_rbac_is_the_callers_and_its_refusal_is_passed_on(as_caller: AsCaller, user: str) -> None:
    assert "seen" in as_caller(user, "shop-editors").ok("get", "configmaps")
    refused = as_caller(f"{user}-2").fails("get", "configmaps")
    assert f'configmaps is forbidden: User "{user}-2" cannot list resource "configmaps"' in refused
    both = as_caller(f"{user}-3", "x,shop-editors").fails("get", "configmaps")
    assert "is forbidden" in both


def test_policy_narrows_what_rbac_grants(admin: Admin, as_caller: AsCaller, user: str) -> None:
    admin("create", "rolebinding", f"all-{user}", "-n", NAMESPACE, "--clusterrole=admin", f"--user={user}")
    refused = as_caller(user).fails("create", "rolebinding", "more", "--clusterrole=view", f"--user={user}")
    assert 'rule "deny-rbac-writes"' in refused


def test_whoami_and_can_i_answer_for_the_caller(as_caller: AsCaller, user: str) -> None:
    kubectl = as_caller(user, "shop-editors", oid="u-2")
    who = json.loads(kubectl.ok("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert (who["username"], who["uid"]) == (user, "u-2")
    assert who["groups"] == ["agents", "shop-editors", "system:authenticated"]
    assert who["extra"]["holdfast.dev/issuer"] == ["https://issuer.test"]
    assert kubectl.ok("auth", "can-i", "list", "configmaps") == "yes\n"
    assert kubectl.run("auth", "can-i", "list", "secrets").stdout == b"no\n"


@pytest.mark.parametrize("name", ["zoë", "日本", "Å b", "a:b/c@d|e"])
def test_a_name_arrives_as_it_is_beyond_ascii_too(as_caller: AsCaller, user: str, name: str) -> None:
    kubectl = as_caller(f"{name}-{user}", f"{name}-group", tenant=name)
    who = json.loads(kubectl.ok("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert who["username"] == f"{name}-{user}"
    assert f"{name}-group" in who["groups"]
    assert who["extra"]["example.com/tenant"] == [name]


def test_as_many_groups_as_are_sent_arrive(as_caller: AsCaller, user: str) -> None:
    groups = [f"g-{number:03}" for number in range(500)]
    who = json.loads(as_caller(user, *groups).ok("auth", "whoami", "-o", "json"))["status"]["userInfo"]
    assert who["groups"] == ["agents", *groups, "system:authenticated"]


@pytest.mark.parametrize("web_sockets", ["true", "false"], ids=["WebSocket", "SPDY"])
def test_exec_is_the_callers(cluster: Cluster, as_caller: AsCaller, user: str, web_sockets: str) -> None:
    kubectl = as_caller(user, "shop-editors")
    environment = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": web_sockets}
    assert kubectl.ok("exec", "shell", "--", "echo", "hello", **environment) == "hello\n"
    events = events_of(cluster, user, f"/api/v1/namespaces/{NAMESPACE}/pods/shell/exec")
    assert {event["user"]["username"] for event in events} == {GATEWAY}
    stranger = as_caller(f"{user}-2").run("exec", "shell", "--", "echo", "hello", **environment)
    assert stranger.returncode == 1
    assert f'User "{user}-2" cannot' in stranger.stderr.decode()


def test_a_watch_is_the_callers(cluster: Cluster, impersonating: RunningGateway, user: str) -> None:
    trust = ssl.create_default_context(cafile=impersonating.ca_file)
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    target = f"{impersonating.url}{path}?watch=1&timeoutSeconds=2"
    for groups, code, kind in ((("shop-editors",), 200, '"ADDED"'), ((), 403, '"Forbidden"')):
        token = impersonating.token(user, "agents", *groups)
        answer = httpx.get(target, verify=trust, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert answer.status_code == code
        assert kind in answer.text.replace(" ", "")
    assert {event["verb"] for event in events_of(cluster, user, path)} == {"watch"}


def test_a_caller_cannot_impersonate_beside_us(as_caller: AsCaller, user: str) -> None:
    kubectl = as_caller(user, "shop-editors")
    kubectl.ok("get", "configmaps")  # so that it knows the server: of a refused discovery it does not tell the message
    refused = kubectl.fails("get", "configmaps", "--as=system:admin")
    assert "who asks is taken from the token only" in refused


def test_the_record_and_the_clusters_audit_log_agree(
    cluster: Cluster, impersonating: RunningGateway, as_caller: AsCaller, user: str
) -> None:
    as_caller(user, "shop-editors").ok("get", "configmap", "seen")
    diagnose(impersonating)
    done = impersonating.holdfast("audit", "reconcile", str(cluster.audit_log), "-o", "json")
    found = json.loads(done.stdout)["differences"]
    assert [call for call in found if call["difference"] in {"misused", "unseen"} or call["user"] == user] == []


def test_the_doctor_tells_whether_the_credential_may(
    cluster: Cluster, admin: Admin, impersonating: RunningGateway, tmp_path: Path
) -> None:
    assert diagnose(impersonating) == ("ok", "the credential may impersonate callers")
    token = cluster.service_account_token("powerless", "kube-system", "system:basic-user")
    upstream = Upstream(cluster.server, cluster.ca_file, token)
    powerless = RunningGateway(tmp_path, upstream, settings=make_settings())
    powerless.write_config()
    state, found = diagnose(powerless)
    assert state == "fail"
    assert found == (
        "the credential may not impersonate groups system:authenticated, uids, userextras/holdfast.dev/issuer "
        "https://issuer.test"
    )
    admin("apply", "-f", "-", stdin=json.dumps(NARROW))
    admin("create", "clusterrolebinding", "narrow", "--clusterrole=narrow", "--serviceaccount=kube-system:powerless")
    assert diagnose(powerless) == ("fail", "the credential may not impersonate uids")
    uids = {"apiGroups": ["authentication.k8s.io"], "resources": ["uids"], "verbs": ["impersonate"]}
    admin("apply", "-f", "-", stdin=json.dumps({**NARROW, "rules": [*NARROW["rules"], uids]}))
    state, found = diagnose(powerless)
    assert state == "warn"
    assert found.startswith("the credential may not impersonate any users, groups, userextras/")
