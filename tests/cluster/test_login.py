"""People and jobs get in: a real provider, known by discovery, and a real kubectl with its credential plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kubectl import TIMEOUT_SECONDS, Kubectl, find_versions
from running import RunningGateway, Upstream, trusted_issuer
from services.identity_provider import AUDIENCE, CLIENT, write_browser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from services.identity_provider import IdentityProvider
    from testcluster import Cluster

    Admin = Callable[..., subprocess.CompletedProcess[str]]

PROGRAMS = Path(sys.executable).parent
NAMESPACE = "demo-login"


@pytest.fixture(scope="module")
def gateway(
    cluster: Cluster, admin: Admin, identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A gateway that trusts the provider's ID tokens for kubectl, and its access tokens for the gateway."""
    upstream = Upstream(
        cluster.server, cluster.ca_file, cluster.service_account_token("login", "kube-system", "cluster-admin")
    )
    trusted = trusted_issuer(
        identity_provider.url,
        [CLIENT, AUDIENCE],
        audienceMatchPolicy="MatchAny",
        certificateAuthorityFile=str(identity_provider.ca_file),
    )
    policy = {
        "apiVersion": "holdfast.dev/v1",
        "kind": "Policy",
        "metadata": {"name": "login"},
        "rules": [
            {
                "name": "read",
                "effect": "allow",
                "subjects": [{"groups": ["platform", "jobs"]}],
                "verbs": ["get", "list"],
                "apiGroups": ["*"],
                "resources": ["*"],
                "namespaces": [NAMESPACE],
            },
            {
                "name": "discover",
                "effect": "allow",
                "subjects": [{"groups": ["*"]}],
                "verbs": ["get"],
                "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*"],
            },
        ],
    }
    folder = tmp_path_factory.mktemp("login-gateway")
    (folder / "login.yaml").write_text(json.dumps(policy))
    admin("create", "namespace", NAMESPACE)
    admin("create", "configmap", "there", "-n", NAMESPACE)
    running = RunningGateway(
        folder, upstream, policies=(folder / "login.yaml",), settings={"identity": {"jwt": [trusted]}}
    ).start()
    yield running
    running.stop()
    admin("delete", "namespace", NAMESPACE, "--wait=false")


class Desk:
    """One person's machine: a kubeconfig that was given to them, and the two commands."""

    def __init__(self, gateway: RunningGateway, provider: IdentityProvider, folder: Path, user: str) -> None:
        self.environment = {
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "BROWSER": f"{write_browser(provider, folder, user)} %s",
        }
        self.options = [
            f"--issuer={provider.url}",
            f"--client-id={CLIENT}",
            "--scope=groups",
            f"--issuer-ca={provider.ca_file}",
        ]
        self.kubeconfig = folder / f"{user}.kubeconfig"
        self.written = gateway.holdfast(
            *("kubeconfig", "--user-name", user, "--server", gateway.url, "-f", str(self.kubeconfig)),
            *("--login", *self.options),
        )
        assert self.written.returncode == 0, self.written.stderr

    def holdfast(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAMS / "holdfast", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **self.environment},
        )

    def kubectl(self, path: Path) -> Kubectl:
        return Kubectl(path, self.kubeconfig, NAMESPACE, self.kubeconfig.parent)


@pytest.fixture
def desk(gateway: RunningGateway, identity_provider: IdentityProvider, tmp_path: Path) -> Desk:
    return Desk(gateway, identity_provider, tmp_path, "alice")


@pytest.mark.parametrize("version", ["built", *find_versions()])
def test_who_has_logged_in_gets_in_by_kubectl_alone(
    desk: Desk, gateway: RunningGateway, kubectls: list[tuple[str, Path]], version: str
) -> None:
    kubectl = desk.kubectl(dict(kubectls)[version])
    refused = kubectl.run("get", "configmaps", **desk.environment)
    assert refused.returncode == 1
    assert b"nobody is logged in at https://" in refused.stderr
    logged_in = desk.holdfast("login", *desk.options)
    assert logged_in.returncode == 0, logged_in.stderr
    assert "configmap/there" in kubectl.ok("get", "configmaps", "-o", "name", **desk.environment)
    call = list_calls(gateway)[0]
    assert (call["username"], call["verb"], call["verdict"]) == ("alice", "list", "allowed")


def list_calls(gateway: RunningGateway) -> list[dict[str, Any]]:
    """Newest first."""
    listed = gateway.holdfast("audit", "list", "--resource", "configmaps", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    calls: list[dict[str, Any]] = json.loads(listed.stdout)["calls"]
    return calls


def test_who_may_do_nothing_is_known_all_the_same(
    gateway: RunningGateway, identity_provider: IdentityProvider, cluster: Cluster, tmp_path: Path
) -> None:
    desk = Desk(gateway, identity_provider, tmp_path, "bob")
    assert desk.holdfast("login", *desk.options).returncode == 0
    refused = desk.kubectl(cluster.kubectl).run("get", "configmaps", **desk.environment)
    assert (refused.returncode, b"Forbidden" in refused.stderr) == (1, True)


def test_the_gateway_takes_a_rotated_key_and_then_no_token_of_the_old_one(
    desk: Desk, identity_provider: IdentityProvider, cluster: Cluster
) -> None:
    kubectl = desk.kubectl(cluster.kubectl)
    assert desk.holdfast("login", *desk.options).returncode == 0
    kubectl.ok("get", "configmaps", **desk.environment)
    old = json.loads(desk.holdfast("get-token", *desk.options).stdout)["status"]["token"]
    identity_provider.control("rotate")
    assert desk.holdfast("login", *desk.options).returncode == 0
    _await_success(lambda: kubectl.run("get", "configmaps", **desk.environment))
    refused = kubectl.run("get", "configmaps", **desk.environment, HOLDFAST_TOKEN=old)
    assert (refused.returncode, b"the token is not valid; get a new one" in refused.stderr) == (1, True), refused.stderr


def _await_success(run: Callable[[], subprocess.CompletedProcess[bytes]]) -> None:
    """The gateway looks for new keys every 30 s at most, and the last time may have been just now."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while (done := run()).returncode != 0:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(1)


def test_a_job_gets_in_with_a_token_of_its_own(
    desk: Desk, gateway: RunningGateway, identity_provider: IdentityProvider, cluster: Cluster, tmp_path: Path
) -> None:
    token = identity_provider.client_credentials()
    kubectl = desk.kubectl(cluster.kubectl)
    kubectl.ok("get", "configmaps", **desk.environment, HOLDFAST_TOKEN=token)
    assert list_calls(gateway)[0]["username"] == "ci"
    file = tmp_path / "job.token"
    file.write_text(identity_provider.client_credentials())
    kubectl.ok("get", "configmaps", **desk.environment, HOLDFAST_TOKEN_FILE=str(file))
