"""Where the gateway's own credential comes from: a token file, a client certificate, or a kubeconfig context.

The credential is read off the event loop and kept in memory; a token file is read again every few seconds,
because kubelets rotate projected tokens in place (KEP-1205). Nothing here is ever printed: the dataclasses
keep secrets out of their `repr`, and errors name files, not contents.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from holdfast.errors import ConfigurationError
from holdfast.settings.section import read_file, read_yaml

if TYPE_CHECKING:
    from holdfast.settings import Upstream

REREAD_SECONDS = 5.0
"""How soon a rotated token is noticed."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate chain, leaf first, and its key."""

    chain: tuple[x509.Certificate, ...]
    key: RSAPrivateKey | EllipticCurvePrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credential:
    """What makes the API server obey: a bearer token or a client certificate."""

    token: str | None = field(default=None, repr=False)
    certificate: ClientCertificate | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Target:
    """The API server: where it listens, the name that its certificate must carry, and who signs that."""

    host: str
    port: int
    server_name: str
    ca_pem: bytes = field(repr=False)

    @property
    def url(self) -> str:
        """`https://HOST:PORT`, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


class CredentialSource:
    """The API server and its credential; `current` never blocks and never touches a file."""

    def __init__(self, target: Target, credential: Credential, token_file: Path | None = None) -> None:
        self.target = target
        self._credential = credential
        self._token_file = token_file
        self._task: asyncio.Task[None] | None = None

    def current(self) -> Credential:
        """The credential as last read."""
        return self._credential

    def start(self) -> None:
        """Begin to follow the token file, where there is one."""
        if self._token_file is not None and self._task is None:
            self._task = asyncio.create_task(self._follow(self._token_file))

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self, file: Path) -> None:
        while True:
            await asyncio.sleep(REREAD_SECONDS)
            with contextlib.suppress(ConfigurationError):
                # A half-written or vanished file keeps the last token; the API server says when that has expired.
                token = await asyncio.to_thread(read_token, file)
                self._credential = replace(self._credential, token=token)


def open_source(upstream: Upstream) -> CredentialSource:
    """Read the configured credential. Raises ConfigurationError naming the file and what was expected."""
    if upstream.kubeconfig is not None:
        return _from_kubeconfig(upstream.kubeconfig, upstream.context)
    if upstream.server is None or upstream.certificate_authority is None:
        raise ConfigurationError("upstream: expected server and certificateAuthority, or kubeconfig.")
    target = _target(
        upstream.server, read_file(upstream.certificate_authority), "", str(upstream.certificate_authority)
    )
    if upstream.token_file is not None:
        return CredentialSource(target, Credential(token=read_token(upstream.token_file)), upstream.token_file)
    if upstream.client_certificate is None or upstream.client_key is None:
        raise ConfigurationError("upstream: expected tokenFile, or clientCertificate with clientKey.")
    pair = _certificate(
        read_file(upstream.client_certificate), read_file(upstream.client_key), str(upstream.client_certificate)
    )
    return CredentialSource(target, Credential(certificate=pair))


def read_token(file: Path) -> str:
    """One bearer token from a file, surrounding white space removed."""
    token = read_file(file).decode("ascii", "replace").strip()
    if not token or any(not "!" <= character <= "~" for character in token):
        raise ConfigurationError(f"{file}: expected one bearer token on one line.")
    return token


def client_context(source: CredentialSource) -> ssl.SSLContext:
    """A verifying TLS context for our own calls to the API server (start-up checks, doctor)."""
    context = ssl.create_default_context(cadata=source.target.ca_pem.decode())
    certificate = source.current().certificate
    if certificate is not None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "client.pem")
            file.touch(mode=0o600)
            file.write_bytes(_key_pem(certificate) + _chain_pem(certificate))
            context.load_cert_chain(file)
    return context


def _from_kubeconfig(file: Path, context_name: str | None) -> CredentialSource:
    document = read_yaml(file)
    if not isinstance(document, dict):
        raise ConfigurationError(f"{file}: expected a kubeconfig.")
    name = context_name or document.get("current-context")
    context = _named(document, "contexts", "context", name, file)
    cluster = _named(document, "clusters", "cluster", context.get("cluster"), file)
    user = _named(document, "users", "user", context.get("user"), file)
    if cluster.get("insecure-skip-tls-verify"):
        raise ConfigurationError(
            f"{file}: context {name!r} skips TLS verification; give certificate-authority instead."
        )
    ca_pem = _inline_or_file(cluster, "certificate-authority", file)
    if ca_pem is None:
        raise ConfigurationError(f"{file}: context {name!r} names no certificate-authority.")
    target = _target(str(cluster.get("server", "")), ca_pem, str(cluster.get("tls-server-name", "")), str(file))
    return _kubeconfig_source(target, user, file, str(name))


def _kubeconfig_source(target: Target, user: dict[str, Any], file: Path, name: str) -> CredentialSource:
    if "exec" in user or "auth-provider" in user:
        raise ConfigurationError(
            f"{file}: context {name!r} runs a program for its credential; expected a token, a tokenFile or a "
            "client certificate: make a service-account token for the gateway (kubectl create token)."
        )
    if user.get("tokenFile"):
        token_file = file.parent / str(user["tokenFile"])
        return CredentialSource(target, Credential(token=read_token(token_file)), token_file)
    if user.get("token"):
        return CredentialSource(target, Credential(token=str(user["token"])))
    certificate, key = _inline_or_file(user, "client-certificate", file), _inline_or_file(user, "client-key", file)
    if certificate is None or key is None:
        raise ConfigurationError(
            f"{file}: context {name!r} has no credential: expected token, tokenFile or client-certificate."
        )
    return CredentialSource(target, Credential(certificate=_certificate(certificate, key, str(file))))


def _named(document: dict[str, Any], section: str, key: str, name: object, file: Path) -> dict[str, Any]:
    for entry in document.get(section) or ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(key), dict):
            return dict(entry[key])
    known = [entry.get("name") for entry in document.get(section) or () if isinstance(entry, dict)]
    raise ConfigurationError(f"{file}: {section}: there is none called {name!r}; there are {known}.")


def _inline_or_file(section: dict[str, Any], key: str, file: Path) -> bytes | None:
    inline = section.get(f"{key}-data")
    if inline is not None:
        try:
            return base64.b64decode(str(inline), validate=True)
        except ValueError as error:
            raise ConfigurationError(f"{file}: {key}-data: expected base64.") from error
    return read_file(file.parent / str(section[key])) if section.get(key) else None


def _target(server: str, ca_pem: bytes, server_name: str, origin: str) -> Target:
    url = urlsplit(server)
    if url.scheme != "https" or not url.hostname or url.path.strip("/") or url.query:
        raise ConfigurationError(f"{origin}: server: found {server!r}; expected https://HOST:PORT without a path.")
    try:
        x509.load_pem_x509_certificates(ca_pem)
    except ValueError as error:
        raise ConfigurationError(f"{origin}: expected a CA certificate in PEM.") from error
    return Target(url.hostname, url.port or 443, server_name or url.hostname, ca_pem)


def _certificate(certificate_pem: bytes, key_pem: bytes, origin: str) -> ClientCertificate:
    try:
        chain = tuple(x509.load_pem_x509_certificates(certificate_pem))
        key = serialization.load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"{origin}: expected a client certificate and its key in PEM.") from error
    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey) or chain[0].public_key() != key.public_key():
        raise ConfigurationError(f"{origin}: the client key does not belong to the client certificate.")
    if chain[0].not_valid_after_utc < datetime.now(UTC):
        raise ConfigurationError(
            f"{origin}: the client certificate expired on {chain[0].not_valid_after_utc:%Y-%m-%d}; give a new one."
        )
    return ClientCertificate(chain, key)


def _chain_pem(certificate: ClientCertificate) -> bytes:
    return b"".join(link.public_bytes(serialization.Encoding.PEM) for link in certificate.chain)


def _key_pem(certificate: ClientCertificate) -> bytes:
    return certificate.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
