"""The certificate that callers see: the configured one, or one of our own making."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from holdfast.certificates import Authority, make_authority, write_private
from holdfast.errors import ConfigurationError
from holdfast.settings.section import read_file

if TYPE_CHECKING:
    from holdfast.settings import Settings

SERVING_DAYS = 365
AUTHORITY_DAYS = 3650
RENEW_DAYS = 30


@dataclass(frozen=True, slots=True)
class ListenerCertificates:
    """What callers see: chain and key as files, and the authority that they verify it with (PEM).

    `authority` is that authority's file; None where the settings name the certificate alone.
    """

    certificate: Path
    private_key: Path
    authority_pem: bytes
    authority: Path | None = None


def listener_certificates(settings: Settings) -> ListenerCertificates:
    """The configured certificate, or one that we make (and renew) under `stateDir`."""
    listen = settings.listen
    if listen.certificate is not None and listen.private_key is not None:
        _require_pair(listen.certificate, listen.private_key)
        authority = listen.certificate_authority or listen.certificate
        return ListenerCertificates(
            listen.certificate, listen.private_key, read_file(authority), listen.certificate_authority
        )
    folder = settings.state_dir / "listener"
    make_private_folder(folder)
    own = _own_authority(folder)
    made = ListenerCertificates(folder / "tls.crt", folder / "tls.key", own.certificate_pem, folder / "ca.crt")
    if not _is_current(made.certificate, listen.hosts):
        now = datetime.now(UTC)
        pair = own.issue("holdfast", hosts=listen.hosts, now=now, days=SERVING_DAYS)
        write_private(made.private_key, pair.key_pem)
        write_private(made.certificate, pair.certificate_pem)  # last: while it is old or missing, both are made again
    return made


def _require_pair(certificate: Path, private_key: Path) -> None:
    try:
        # An empty password, or OpenSSL would ask for one on the terminal.
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, private_key, password="")
    except OSError as error:
        raise ConfigurationError(
            f"listen.certificate: {certificate} and {private_key}: expected a certificate chain and its unencrypted "
            f"key, both PEM ({error.strerror or error})."
        ) from error


def listener_bundle(settings: Settings, certificates: ListenerCertificates) -> Path:
    """Key and chain in one file, as mitmproxy wants them."""
    file = settings.state_dir / "listener" / "bundle.pem"
    make_private_folder(file.parent)
    write_private(file, read_file(certificates.private_key) + read_file(certificates.certificate))
    return file


def _own_authority(folder: Path) -> Authority:
    certificate_file, key_file = folder / "ca.crt", folder / "ca.key"
    if certificate_file.exists() and key_file.exists():
        return Authority.load(certificate_file.read_bytes(), key_file.read_bytes())
    made = make_authority("holdfast", now=datetime.now(UTC), days=AUTHORITY_DAYS)
    write_private(certificate_file, made.certificate_pem)
    write_private(key_file, made.key_pem)
    return made


def _is_current(file: Path, hosts: tuple[str, ...]) -> bool:
    if not file.exists():
        return False
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    covered = {str(name.value) for name in names}
    return covered >= set(hosts) and (certificate.not_valid_after_utc - datetime.now(UTC)).days > RENEW_DAYS


def make_private_folder(folder: Path) -> None:
    """Make `folder` (0700) where it is missing. Raises ConfigurationError when it cannot be written."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be written: {error.strerror}; set stateDir.") from error
