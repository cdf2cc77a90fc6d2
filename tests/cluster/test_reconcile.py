"""`holdfast audit reconcile` against a real API server's audit log."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from kubectl import Kubectl

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Admin
    from running import RunningGateway
    from testcluster import Cluster


@pytest.fixture
def calls(gateway: RunningGateway, cluster: Cluster, admin: Admin, tmp_path: Path) -> dict[str, str]:
    """Four calls: through the gateway, refused by it, around it, and with its own credential; names by kind."""
    names = {kind: f"{kind}-{uuid.uuid4().hex[:8]}" for kind in ("through", "around", "stolen")}
    admin("create", "namespace", names["around"])
    agent = Kubectl(cluster.kubectl, gateway.kubeconfig("reconciled", "agents"), "default", tmp_path)
    agent.fails("get", "configmap", names["through"])
    agent.fails("get", "configmaps", "-n", "kube-system", "--as=somebody")
    trust = ssl.create_default_context(cafile=cluster.ca_file)
    credential = {"Authorization": f"Bearer {gateway.upstream.token}"}
    answer = httpx.get(
        f"{cluster.server}/api/v1/namespaces/default/configmaps/{names['stolen']}", verify=trust, headers=credential
    )
    assert answer.status_code == 404
    return names


def reconcile(gateway: RunningGateway, log: Path) -> tuple[int, dict[str, Any]]:
    """The command's exit code, and the differences that are about names of this test, by target."""
    command = [sys.executable, "-m", "holdfast.cli", "audit", "reconcile", str(log), "-o", "json"]
    done = subprocess.run([*command, "--config", str(gateway.config_file)], capture_output=True, text=True)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)["differences"]
    return done.returncode, {call["target"].partition("?")[0].rpartition("/")[2]: call for call in found}


def test_what_went_around_the_gateway_is_named_and_what_went_through_is_not(
    gateway: RunningGateway, cluster: Cluster, calls: dict[str, str]
) -> None:
    code, found = reconcile(gateway, cluster.audit_log)
    assert code == 10
    assert found[calls["stolen"]]["difference"] == "misused"
    assert calls["through"] not in found
    around = found[calls["around"]] if calls["around"] in found else found["namespaces"]
    assert (around["difference"], around["verb"]) == ("bypassed", "create")


def test_a_recorded_call_that_the_log_lacks_is_named(
    gateway: RunningGateway, cluster: Cluster, admin: Admin, tmp_path: Path
) -> None:
    agent = Kubectl(cluster.kubectl, gateway.kubeconfig("reconciled", "agents"), "default", tmp_path)
    name = f"erased-{uuid.uuid4().hex[:8]}"
    time.sleep(6)  # so that the log covers the call whatever came before
    agent.fails("get", "configmap", name)
    time.sleep(6)
    admin("get", "namespaces")
    cut = tmp_path / "audit.log"
    kept = [line for line in cluster.audit_log.read_text().splitlines() if name not in line]
    cut.write_text("\n".join(kept) + "\n")
    _, found = reconcile(gateway, cut)
    assert found[name]["difference"] == "unseen"
    assert name not in reconcile(gateway, cluster.audit_log)[1]
