"""A real HTTPS server for issuers, with a certificate authority made for the run."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest

from holdfast.certificates import make_authority
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


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture(scope="session")
def serving_certificate(tmp_path_factory: pytest.TempPathFactory) -> ServingCertificate:
    folder = tmp_path_factory.mktemp("tls")
    files = ServingCertificate(folder / "ca.pem", folder / "tls.pem", folder / "tls.key")
    now = datetime.now(UTC)
    authority = make_authority("test CA", now=now, days=2)
    pair = authority.issue("127.0.0.1", hosts=("127.0.0.1",), now=now, days=2)
    files.authority.write_bytes(authority.certificate_pem)
    files.certificate.write_bytes(pair.certificate_pem)
    files.private_key.write_bytes(pair.key_pem)
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
