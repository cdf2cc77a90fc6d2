"""The gateway's credential in all its kinds, against an upstream that demands it."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from attacks.conftest import POD_PATH, Target
from recording_upstream import POD, TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from attacks.scripted_upstream import ScriptedUpstream

type Start = Callable[..., Target]


@pytest.fixture
def client_pair(tmp_path: Path, upstream: ScriptedUpstream) -> tuple[Path, Path]:
    """A client certificate and its key; the upstream takes no connection without one."""
    private, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    signed = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(private, hashes.SHA256())
    )
    certificate, key = tmp_path / "client.crt", tmp_path / "client.key"
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    upstream.demand_certificate(certificate)
    return certificate, key


def kubeconfig(tmp_path: Path, upstream: ScriptedUpstream, user: dict[str, Any]) -> dict[str, Any]:
    """Settings that take everything from a kubeconfig."""
    file = tmp_path / "kubeconfig"
    authority = base64.b64encode(upstream.ca_file.read_bytes()).decode()
    cluster = {"server": upstream.server, "certificate-authority-data": authority}
    file.write_text(
        json.dumps(
            {
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    absent = {"server": None, "certificateAuthority": None, "tokenFile": None}
    return {"upstream": {**absent, "kubeconfig": str(file), "context": "c"}}


def assert_certificate_alone(target: Target) -> None:
    assert target.call("GET", POD_PATH).content == POD
    (request,) = target.upstream.calls()
    assert b"authorization" not in request.lower()
    assert target.upstream.certificates
    assert None not in target.upstream.certificates


def test_a_client_certificate_is_presented_and_no_token(make_target: Start, client_pair: tuple[Path, Path]) -> None:
    certificate, key = client_pair
    settings = {"tokenFile": None, "clientCertificate": str(certificate), "clientKey": str(key)}
    assert_certificate_alone(make_target(settings={"upstream": settings}))


def test_a_client_certificate_in_a_kubeconfig_is_presented(
    make_target: Start, tmp_path: Path, upstream: ScriptedUpstream, client_pair: tuple[Path, Path]
) -> None:
    certificate, key = (base64.b64encode(file.read_bytes()).decode() for file in client_pair)
    user = {"client-certificate-data": certificate, "client-key-data": key}
    assert_certificate_alone(make_target(settings=kubeconfig(tmp_path, upstream, user)))


def test_a_token_in_a_kubeconfig_is_used(make_target: Start, tmp_path: Path, upstream: ScriptedUpstream) -> None:
    target = make_target(settings=kubeconfig(tmp_path, upstream, {"token": TOKEN}))
    assert target.call("GET", POD_PATH).content == POD
    assert b"authorization: Bearer " + TOKEN.encode() in upstream.calls()[-1]


def test_a_token_that_rotates_is_used_without_a_restart(make_target: Start, upstream: ScriptedUpstream) -> None:
    target = make_target()
    assert target.call("GET", POD_PATH).status_code == 200
    rotated = target.gateway.token_file.with_suffix(".new")
    rotated.write_text("rotated-credential\n")
    rotated.replace(target.gateway.token_file)

    def uses_it() -> bool:
        target.call("GET", POD_PATH)
        return b"authorization: Bearer rotated-credential\r\n" in upstream.calls()[-1]

    target.settle(uses_it, 10)
    target.gateway.token_file.write_text("")
    assert target.call("GET", POD_PATH).status_code == 200
    assert b"rotated-credential" in upstream.calls()[-1]
