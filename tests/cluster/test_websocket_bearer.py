"""A token among the subprotocols, as a browser sends it: the API server takes it, and so does the gateway."""

from __future__ import annotations

import base64
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import websocket

from holdfast.audit.store import AuditStore, Filters
from holdfast.database import Database
from holdfast.kube.subprotocols import BEARER
from running import read_stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Admin
    from running import RunningGateway
    from testcluster import Cluster

NAMESPACE = "demo-browser"
EXEC = f"/api/v1/namespaces/{NAMESPACE}/pods/shell/exec?command=echo&command=hello&stdout=true&stderr=true"
STDOUT, STATUS = 1, 3


@pytest.fixture(scope="module", autouse=True)
def namespace(admin: Admin) -> Iterator[None]:
    admin("create", "namespace", NAMESPACE)
    admin("run", "shell", "-n", NAMESPACE, "--image=none")
    admin("wait", "-n", NAMESPACE, "--for=condition=Ready", "pod/shell", "--timeout=30s")
    yield
    admin("delete", "namespace", NAMESPACE, "--wait=false")


def encode(token: str) -> str:
    return BEARER + base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def run(server: str, ca_file: Any, *subprotocols: str) -> tuple[str | None, dict[int, bytes]]:
    """The subprotocol that is chosen, and what comes on each channel of an exec until its end."""
    trust = {"ca_certs": str(ca_file), "cert_reqs": ssl.CERT_REQUIRED}
    session = websocket.create_connection(
        server.replace("https://", "wss://") + EXEC, subprotocols=list(subprotocols), sslopt=trust, timeout=30
    )
    channels: dict[int, bytes] = {}
    while True:
        code, data = session.recv_data()
        if code == websocket.ABNF.OPCODE_CLOSE:
            return session.getsubprotocol(), channels
        if data:
            channels[data[0]] = channels.get(data[0], b"") + data[1:]


def test_the_api_server_and_the_gateway_take_it_alike(gateway: RunningGateway, cluster: Cluster) -> None:
    account = cluster.service_account_token("browser", "kube-system", "cluster-admin")
    user = gateway.token("browser-user", "agents")
    direct = run(cluster.server, cluster.ca_file, "v5.channel.k8s.io", encode(account))
    through = run(gateway.url, gateway.ca_file, "v5.channel.k8s.io", encode(user))
    assert through == direct
    assert through[0] == "v5.channel.k8s.io"
    assert through[1][STDOUT] == b"hello\n"
    assert b'"status":"Success"' in through[1][STATUS]
    database = Database.open_readonly(f"sqlite:///{gateway.database}")
    (row,) = AuditStore(database).list_calls(Filters(user="browser-user"))
    database.close()
    assert (row.resource, row.subresource, row.name) == ("pods", "exec", "shell")
    kept = b"".join([*read_stored(gateway.database).values(), cluster.audit_log.read_bytes()])
    assert user.encode() not in kept
    assert encode(user).encode() not in kept


def test_what_the_api_server_refuses_the_gateway_refuses_alike(gateway: RunningGateway, cluster: Cluster) -> None:
    account = cluster.service_account_token("browser", "kube-system", "cluster-admin")
    user = gateway.token("browser-user", "agents")
    for server, ca_file, token in (
        (cluster.server, cluster.ca_file, encode(account)),
        (gateway.url, gateway.ca_file, encode(user)),
    ):
        for offered in ([token], ["v5.channel.k8s.io", token, token], ["v5.channel.k8s.io", token + "."]):
            with pytest.raises(websocket.WebSocketBadStatusException) as refused:
                run(server, ca_file, *offered)
            assert refused.value.status_code == 401
