"""Sets the stage: a cluster, an issuer, the gateway in front, and a kubeconfig for everybody who acts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from holdfast.credential.sources import open_source
from holdfast.settings import Upstream
from testcluster.building import find_assets
from testcluster.cluster import Cluster
from testcluster.processes import Process, free_ports, spawn

ROOT = Path(__file__).parents[2]
AUDIENCE = "holdfast"
AGENT, APPROVER = "build-agent", "alice"
NAMESPACES = ("demo", "demo-old", "demo-keep", "demo-slow")
SECRET_VALUE = "hunter2-" + "swordfish"
SERVICE_ACCOUNT = "holdfast-demo"
READY_SECONDS = 60

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "demo"},
    "spec": {
        "containers": [{"name": "web", "image": "busybox", "command": ["sh", "-c", "while sleep 1; do date; done"]}]
    },
}
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "database", "namespace": "demo"},
    "stringData": {"password": SECRET_VALUE},
}


@dataclass
class Stage:
    """Everything that runs, under `folder`; `close` ends what was started and removes what was made."""

    folder: Path
    report: Callable[[str], None]
    kubectl: Path = Path("kubectl")
    admin: tuple[str, ...] = ()
    gateway_url: str = ""
    mitmweb_url: str = ""
    issuer_url: str = ""
    _closing: ExitStack = field(default_factory=ExitStack)

    @property
    def config_file(self) -> Path:
        """The gateway's holdfast.yaml."""
        return self.folder / "holdfast.yaml"

    @property
    def mitmweb_config_file(self) -> Path:
        """The holdfast.yaml of a second gateway, for mitmweb: on the same cluster, with the same state."""
        return self.folder / "mitmweb.yaml"

    @property
    def flow_file(self) -> Path:
        """What the story exports of itself."""
        return self.folder / "story.flows"

    @property
    def gateway_ca(self) -> Path:
        """The authority of the gateway's certificate."""
        return self.folder / "state" / "listener" / "ca.crt"

    def set_up(self, kubeconfig: Path | None, context: str | None) -> None:
        """Bring everything up; raises ClusterError or RuntimeError with one sentence.

        Nothing that is in the cluster already is changed, then or later: where the demo needs its name, this raises.
        """
        if kubeconfig is None and context is None:
            self._start_cluster()
        else:
            self._use_cluster(kubeconfig or Path.home() / ".kube" / "config", context)
        self._prepare_cluster()
        self._start_issuer()
        self._start_gateway()

    def close(self) -> None:
        """End every process, and remove from the cluster what was made there."""
        self._closing.close()

    def token(self, user: str, *groups: str, audience: str = AUDIENCE, lifetime: int = 3600) -> str:
        """A token from the development issuer."""
        asked = {"username": user, "groups": list(groups), "audience": audience, "lifetime": lifetime}
        answer = httpx.post(f"{self.issuer_url}/token", json=asked, verify=str(self._issuer_ca))
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def kubeconfig(self, name: str) -> Path:
        """Where the kubeconfig of somebody who acts is."""
        return self.folder / f"{name}.kubeconfig"

    def write_kubeconfig(self, name: str, token: str | None, server: str | None = None) -> Path:
        """A kubeconfig for the gateway; with no token where it is None."""
        file = self.kubeconfig(name)
        cluster = {"server": server or self.gateway_url, "certificate-authority": str(self.gateway_ca)}
        file.touch(mode=0o600)
        file.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "holdfast", "cluster": cluster}],
                    "users": [{"name": name, "user": {"token": token} if token else {}}],
                    "contexts": [{"name": "holdfast", "context": {"cluster": "holdfast", "user": name}}],
                    "current-context": "holdfast",
                }
            )
        )
        return file

    def holdfast_environment(self, token: str | None = None) -> dict[str, str]:
        """The environment in which the `holdfast` command finds this gateway."""
        environment = {**os.environ, "HOLDFAST_CONFIG": str(self.config_file), "COLUMNS": "150"}
        return environment if token is None else {**environment, "HOLDFAST_TOKEN": token}

    def admin_run(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as the cluster's administrator, not through the gateway."""
        done = subprocess.run(
            [str(self.kubectl), *self.admin, *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if check and done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)} failed: {done.stderr.strip()}")
        return done.stdout

    @property
    def _issuer_ca(self) -> Path:
        return self.folder / "issuer" / "ca.crt"

    def _start_cluster(self) -> None:
        assets = find_assets(self.report)
        self.report("starting etcd, kube-apiserver, kube-controller-manager and a node")
        cluster = Cluster.start(self._folder("cluster"), assets, self.report)
        self._closing.callback(cluster.stop)
        self.kubectl = cluster.kubectl
        self.admin = ("--kubeconfig", str(cluster.admin_kubeconfig))

    def _use_cluster(self, kubeconfig: Path, context: str | None) -> None:
        self.admin = ("--kubeconfig", str(kubeconfig), *(("--context", context) if context else ()))
        self.admin_run("version")

    def _prepare_cluster(self) -> None:
        self._refuse_what_is_there()
        self.report("preparing namespaces, a pod, a Secret and the gateway's service account")
        account = f"system:serviceaccount:demo:{SERVICE_ACCOUNT}"
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": SERVICE_ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": account}],
        }
        namespaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in NAMESPACES]
        service_account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": SERVICE_ACCOUNT, "namespace": "demo"},
        }
        for made in (*namespaces, binding):
            self._create(made)
            self._closing.callback(self._remove, made)
        self._create(service_account)
        self._until(
            "the namespace's default service account",
            lambda: "default" in self.admin_run("get", "serviceaccounts", "-n", "demo", "-o", "name"),
        )
        self._create(POD, SECRET)
        self.admin_run("wait", "--for=condition=Ready", "pod/web", "-n", "demo", "--timeout=60s")

    def _refuse_what_is_there(self) -> None:
        named = (("namespace", *NAMESPACES), ("clusterrolebinding", SERVICE_ACCOUNT))
        found = [self.admin_run("get", *names, "--ignore-not-found", "-o", "name").split() for names in named]
        if names := ", ".join(name for names in found for name in names):
            raise RuntimeError(
                f"the cluster already has what the demo would make ({names}); play on another cluster, or without "
                "--context and --kubeconfig on one of its own"
            )

    def _create(self, *objects: dict[str, Any]) -> None:
        """Make objects; fails where one is there already."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.admin_run("create", "-f", "-", stdin=json.dumps(listed))

    def _remove(self, made: dict[str, Any]) -> None:
        kind, name = made["kind"].lower(), made["metadata"]["name"]
        self.admin_run("delete", kind, name, "--ignore-not-found", "--wait=false", check=False)

    def _start_issuer(self) -> None:
        self.report("starting the development issuer")
        (port,) = free_ports(1)
        command = ["dev-issuer", "--listen", f"127.0.0.1:{port}", "--state-dir", str(self._folder("issuer"))]
        issuer = self._start("issuer", command)
        self.issuer_url = f"https://127.0.0.1:{port}"
        self._until("the issuer", self._issuer_ca.exists, issuer)
        self._until("the issuer", lambda: _answers(self.issuer_url, self._issuer_ca), issuer)

    def _start_gateway(self) -> None:
        self.report("starting Holdfast")
        listen, approvals, mitmweb = free_ports(3)
        token_file = self.folder / "gateway.token"
        token_file.touch(mode=0o600)
        token_file.write_text(self.admin_run("create", "token", SERVICE_ACCOUNT, "-n", "demo", "--duration=8h"))
        self._write_config(self.config_file, listen, approvals, token_file)
        self._write_config(self.mitmweb_config_file, mitmweb, approvals, token_file)
        gateway = self._start("gateway", ["serve", "--config", str(self.config_file)])
        self.gateway_url, self.mitmweb_url = (f"https://127.0.0.1:{port}" for port in (listen, mitmweb))
        self._until("Holdfast", lambda: b"ready https://" in gateway.log.read_bytes(), gateway)
        self._until(
            "the approvals API", lambda: _answers(f"https://127.0.0.1:{approvals}/healthz", self.gateway_ca), gateway
        )

    def _write_config(self, file: Path, port: int, approvals: int, token_file: Path) -> None:
        server, authority = self._cluster_address()
        config = {
            "cluster": "demo",
            "listen": {"port": port},
            "upstream": {"server": server, "certificateAuthority": str(authority), "tokenFile": str(token_file)},
            "identity": {
                "jwt": [
                    {
                        "issuer": {
                            "url": self.issuer_url,
                            "audiences": [AUDIENCE],
                            "certificateAuthorityFile": str(self._issuer_ca),
                        },
                        "claimMappings": {
                            "username": {"claim": "sub", "prefix": ""},
                            "groups": {"claim": "groups", "prefix": ""},
                        },
                    }
                ]
            },
            "policies": [
                str(path) for path in sorted((ROOT / "policies").glob("*.yaml")) if ".cases." not in path.name
            ],
            "approvals": {"port": approvals},
        }
        file.write_text(json.dumps(config, indent=2))

    def _cluster_address(self) -> tuple[str, Path]:
        """The API server's URL and CA, read from the administrator's kubeconfig as the gateway would."""
        flat = self.folder / "admin.kubeconfig"
        flat.touch(mode=0o600)
        flat.write_text(self.admin_run("config", "view", "--raw", "--flatten", "--minify"))
        target = open_source(Upstream(kubeconfig=flat)).target
        authority = self.folder / "cluster-ca.crt"
        authority.write_bytes(target.ca_pem)
        flat.unlink()
        return target.url, authority

    def _start(self, name: str, arguments: list[str]) -> Process:
        command = [sys.executable, "-m", "holdfast.cli", *arguments]
        process = spawn(name, command, self.folder / f"{name}.log")
        self._closing.callback(process.stop)
        return process

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _until(self, what: str, is_there: Callable[[], bool], process: Process | None = None) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_there():
            if process is not None:
                process.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} was not there within {READY_SECONDS} s; see the logs in {self.folder}")
            time.sleep(0.1)


def _answers(url: str, authority: Path) -> bool:
    try:
        httpx.get(url, verify=str(authority), timeout=2)
    except httpx.HTTPError:
        return False
    return True
