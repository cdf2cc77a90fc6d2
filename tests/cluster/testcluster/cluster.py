"""One cluster: etcd, kube-apiserver, kube-controller-manager and the node, on free ports of 127.0.0.1.

The API server's audit log (https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/) is on, at level Metadata
and for every stage: the independent witness of what reached the cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testcluster.building import Assets
from testcluster.credentials import Credentials, write_credentials
from testcluster.errors import ClusterError
from testcluster.processes import PortTaken, Process, free_ports, spawn

if TYPE_CHECKING:
    from collections.abc import Callable


_ATTEMPTS = 5
_READY_SECONDS = 180.0
_AUDIT_POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
# Pod IPs are on loopback here, which endpoints may not be: these controllers would only complain.
_NO_ENDPOINTS = "*,-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller"


@dataclass(frozen=True)
class Cluster:
    """A running cluster; all its files are under `folder`."""

    folder: Path
    assets: Assets
    port: int
    credentials: Credentials
    _processes: list[Process] = field(default_factory=list)

    @classmethod
    def start(cls, folder: Path, assets: Assets, report: Callable[[str], None] = lambda _: None) -> Cluster:
        """Start a cluster in `folder` and return it when it is ready: 10 to 20 seconds.

        Nothing is left running when this raises, whatever it raises.

        Raises:
            ClusterError: a process ended or the cluster was not ready in time; the message has the log's end.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return cls._start_once(folder, assets, report)
            except PortTaken:
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    @classmethod
    def _start_once(cls, folder: Path, assets: Assets, report: Callable[[str], None]) -> Cluster:
        shutil.rmtree(folder / "etcd", ignore_errors=True)
        (folder / "audit.log").unlink(missing_ok=True)
        port, *etcd_ports = free_ports(3)
        credentials = write_credentials(folder / "credentials", f"https://127.0.0.1:{port}", datetime.now(UTC))
        cluster = cls(folder, assets, port, credentials)
        try:
            cluster._bring_up(etcd_ports, report)
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The CA that the API server's certificate chains to, PEM."""
        return self.credentials.certificate("ca")

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig that may do everything (group system:masters)."""
        return self.credentials.kubeconfig("admin")

    @property
    def kubectl(self) -> Path:
        """The kubectl of the cluster's own version."""
        return self.assets.kubectl

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, one audit.k8s.io/v1 Event a line."""
        return self.folder / "audit.log"

    def audit_events(self) -> list[dict[str, Any]]:
        """Return the events that the audit log holds now, oldest first."""
        complete, _, _ = self.audit_log.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in complete.splitlines()]

    def run_kubectl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator and return what came of it, whatever that is."""
        command: list[str | Path] = [self.kubectl, "--kubeconfig", self.admin_kubeconfig, *arguments]
        # Ports come again, so discovery that is kept in the home folder could be another cluster's.
        environment = {**os.environ, "KUBECACHEDIR": str(self.folder / "kubectl-cache")}
        return subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True)

    def service_account_token(self, name: str, namespace: str, role: str) -> str:
        """Make the service account, bind it to the ClusterRole `role`, and return a token good for a day."""
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        role_reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        self._apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}})
        self._apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{namespace}:{name}:{role}"},
                "subjects": [subject],
                "roleRef": role_reference,
            }
        )
        return self._demand("create", "token", name, "--namespace", namespace, "--duration=24h").strip()

    def check(self) -> None:
        """Raise ClusterError if one of the processes has ended."""
        for process in self._processes:
            process.check()

    def stop(self) -> None:
        """End every process; nothing is worth saving, but the node ends what runs in pods."""
        for process in reversed(self._processes):
            if process.name == "node":
                process.stop()
            else:
                process.kill()
        self._processes.clear()

    def _apply(self, manifest: dict[str, Any]) -> None:
        self._demand("apply", "-f", "-", stdin=json.dumps(manifest))

    def _demand(self, *arguments: str, stdin: str = "") -> str:
        done = self.run_kubectl(*arguments, stdin=stdin)
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _bring_up(self, etcd_ports: list[int], report: Callable[[str], None]) -> None:
        etcd, peer = (f"http://127.0.0.1:{port}" for port in etcd_ports)
        self._spawn("etcd", [self.assets.etcd, *self._etcd_flags(etcd, peer)])
        self._spawn("kube-apiserver", [self.assets.kube_apiserver, *self._api_server_flags(etcd)])
        self._wait("the API server", self._is_serving, report)
        self._spawn("kube-controller-manager", [self.assets.kube_controller_manager, *self._controller_flags()])
        self._spawn("node", [self.assets.node, *self._node_flags()], signal.SIGTERM)
        self._wait("the node", self._has_ready_node, report)
        self._wait("the default service account", self._has_default_account, report)

    def _spawn(self, name: str, command: list[str | Path], death_signal: signal.Signals = signal.SIGKILL) -> None:
        log = self.folder / f"{name}.log"
        self._processes.append(spawn(name, command, log, death_signal=death_signal))

    def _wait(self, what: str, is_there: Callable[[], bool], report: Callable[[str], None]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not is_there():
            report(f"Starting the test cluster, waiting for {what}")
            self.check()
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} was not there after {_READY_SECONDS:.0f} s; see the logs in {self.folder}")
            time.sleep(0.2)

    def _is_serving(self) -> bool:
        return self.run_kubectl("get", "--raw=/readyz").returncode == 0

    def _has_ready_node(self) -> bool:
        ready = '-o=jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
        return self.run_kubectl("get", "nodes", ready).stdout == "True"

    def _has_default_account(self) -> bool:
        return self.run_kubectl("get", "serviceaccount", "default", "--namespace=default").returncode == 0

    def _etcd_flags(self, client: str, peer: str) -> list[str]:
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ]

    def _api_server_flags(self, etcd: str) -> list[str]:
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(_AUDIT_POLICY))
        files = self.credentials
        return [
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--tls-cert-file={files.certificate('server')}",
            f"--tls-private-key-file={files.key('server')}",
            f"--client-ca-file={files.certificate('ca')}",
            f"--service-account-issuer={self.server}",
            f"--service-account-key-file={files.certificate('service-accounts')}",
            f"--service-account-signing-key-file={files.key('service-accounts')}",
            f"--kubelet-certificate-authority={files.certificate('ca')}",
            f"--kubelet-client-certificate={files.certificate('kubelet-client')}",
            f"--kubelet-client-key={files.key('kubelet-client')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={files.certificate('ca')}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
        ]

    def _controller_flags(self) -> list[str]:
        files = self.credentials
        return [
            f"--kubeconfig={files.kubeconfig('controller-manager')}",
            "--secure-port=0",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--service-account-private-key-file={files.key('service-accounts')}",
            f"--root-ca-file={files.certificate('ca')}",
            f"--cluster-signing-cert-file={files.certificate('ca')}",
            f"--cluster-signing-key-file={files.key('ca')}",
            f"--controllers={_NO_ENDPOINTS}",
        ]

    def _node_flags(self) -> list[str]:
        files = self.credentials
        return [
            f"--kubeconfig={files.kubeconfig('node')}",
            f"--certificate={files.certificate('node')}",
            f"--key={files.key('node')}",
            f"--client-ca={files.certificate('ca')}",
            f"--root={self.folder / 'containers'}",
        ]
