"""A real HTTPS server for issuers, with a certificate authority made for the run."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from holdfast.identity.dev_issuer import DevIssuer, serve_dev_issuer
from identity.forging import NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


class ServingCertificate(NamedTuple):
    """PEM files: the authority, and a certificate for 127.0.0.1 signed by it, with its key."""

    authority: Path
    certificate: Path
    private_key: Path


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def build_certificate(
    subject: str, public_key: ec.EllipticCurvePublicKey, issuer: str, *, is_authority: bool
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture(scope="session")
def serving_certificate(tmp_path_factory: pytest.TempPathFactory) -> ServingCertificate:
    folder = tmp_path_factory.mktemp("tls")
    files = ServingCertificate(folder / "ca.pem", folder / "tls.pem", folder / "tls.key")
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    authority = (
        build_certificate("test CA", authority_key.public_key(), "test CA", is_authority=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .add_extension(x509.KeyUsage(*[False] * 5, True, True, False, False), critical=True)
    )
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = (
        build_certificate("127.0.0.1", key.public_key(), "test CA", is_authority=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(signed_by, critical=False)
    )
    files.authority.write_bytes(authority.sign(authority_key, SHA256()).public_bytes(Encoding.PEM))
    files.certificate.write_bytes(leaf.sign(authority_key, SHA256()).public_bytes(Encoding.PEM))
    files.private_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.fixture
def serve(
    serving_certificate: ServingCertificate,
) -> Callable[..., AbstractAsyncContextManager[int]]:
    """`async with serve(issuer)` serves it over TLS on loopback and gives the port."""

    @asynccontextmanager
    async def serving(issuer: DevIssuer, port: int = 0) -> AsyncIterator[int]:
        bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        _, certificate, private_key = serving_certificate
        task = asyncio.create_task(
            serve_dev_issuer(
                issuer,
                host="127.0.0.1",
                port=port,
                certificate=certificate,
                private_key=private_key,
                ready=bound.set_result,
            )
        )
        try:
            await asyncio.wait([task, bound], return_when=asyncio.FIRST_COMPLETED)
            yield bound.result() if bound.done() else await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return serving
