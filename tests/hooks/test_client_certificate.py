"""The gateway's client certificate is for its own connections to the API server, and for no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from holdfast.credential.layer import GatewayLayer
from holdfast.credential.sources import ClientCertificate, Credential
from holdfast.hooks.credential import Sealed

if TYPE_CHECKING:
    from cryptography import x509
    from mitmproxy.tls import TlsData

    from holdfast.hooks.gateway import Gateway


class Connection:
    """What OpenSSL's connection was told to use."""

    def __init__(self) -> None:
        self.used: list[object] = []

    def use_certificate(self, certificate: object) -> None:
        self.used.append(certificate)

    def use_privatekey(self, key: object) -> None:
        self.used.append(key)


def start_tls(credential: Credential, *layers: object) -> list[Any]:
    wire = SimpleNamespace(credential=lambda: credential)
    sealed = Sealed(cast("Gateway", SimpleNamespace(wire=wire)))
    connection = Connection()
    data = SimpleNamespace(context=SimpleNamespace(layers=list(layers)), ssl_conn=connection)
    sealed.tls_start_server(cast("TlsData", data))
    return connection.used


LEAF = cast("x509.Certificate", "leaf")
CERTIFICATE = Credential(certificate=ClientCertificate((LEAF,), cast("Any", "key")))
OURS = GatewayLayer.__new__(GatewayLayer)


def test_it_is_presented_on_the_gateways_own_connections() -> None:
    assert start_tls(CERTIFICATE, object(), OURS) == ["leaf", "key"]


def test_it_is_not_presented_on_connections_of_another_mode_or_a_replay() -> None:
    assert start_tls(CERTIFICATE, object()) == []
    assert start_tls(CERTIFICATE) == []


def test_without_one_nothing_is_presented() -> None:
    assert start_tls(Credential(token="t"), OURS) == []
