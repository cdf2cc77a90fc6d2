"""Keys, certificates and kubeconfigs of one cluster: one authority, and a leaf for each party."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.certificates import Authority, IssuedPair, make_authority, write_private

if TYPE_CHECKING:
    from datetime import datetime

HOSTS = ("127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True)
class Credentials:
    """The files under one folder: NAME.crt and NAME.key for each certificate, NAME.kubeconfig for each client."""

    folder: Path

    def certificate(self, name: str) -> Path:
        """Return the certificate of `ca`, `server`, `service-accounts`, `kubelet-client` or `node`."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Return the key of a certificate."""
        return self.folder / f"{name}.key"

    def kubeconfig(self, name: str) -> Path:
        """Return the kubeconfig of `admin`, `controller-manager` or `node`."""
        return self.folder / f"{name}.kubeconfig"


def write_credentials(folder: Path, server: str, now: datetime) -> Credentials:
    """Make everything that the API server at the URL `server` and its clients need."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    credentials = Credentials(folder)
    authority = make_authority("holdfast test cluster", now=now, days=30)
    pairs = {
        "ca": IssuedPair(authority.certificate_pem, authority.key_pem),
        "server": authority.issue("kube-apiserver", hosts=HOSTS, now=now, days=30),
        "node": authority.issue("system:node:node-1", hosts=("127.0.0.1",), now=now, days=30),
        "kubelet-client": authority.issue("kube-apiserver-kubelet-client", client=True, now=now, days=30),
        "service-accounts": authority.issue("service-accounts", client=True, now=now, days=30),
    }
    for name, pair in pairs.items():
        write_private(credentials.certificate(name), pair.certificate_pem)
        write_private(credentials.key(name), pair.key_pem)
    for name, user, groups in [
        ("admin", "admin", ["system:masters"]),
        ("controller-manager", "system:kube-controller-manager", []),
        ("node", "test-node", ["system:masters"]),  # it binds pods too, which a kubelet's own group may not
    ]:
        pair = authority.issue(user, organizations=groups, client=True, now=now, days=30)
        write_private(credentials.kubeconfig(name), _kubeconfig(server, authority, name, pair))
    return credentials


def _kubeconfig(server: str, authority: Authority, name: str, pair: IssuedPair) -> bytes:
    """Return a kubeconfig (client.config v1); JSON is YAML."""
    cluster = {"server": server, "certificate-authority-data": _base64(authority.certificate_pem)}
    user = {"client-certificate-data": _base64(pair.certificate_pem), "client-key-data": _base64(pair.key_pem)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testcluster", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "testcluster", "context": {"cluster": "testcluster", "user": name}}],
        "current-context": "testcluster",
    }
    return json.dumps(config, indent=2).encode()


def _base64(pem: bytes) -> str:
    return base64.b64encode(pem).decode()
