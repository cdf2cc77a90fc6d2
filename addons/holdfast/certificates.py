"""A small certificate authority: EC P-256, one level, for the listener where no certificate is given.

And, for those who meet a peer's certificate, the fault that was found in it (`find_certificate_error`).

The profile is RFC 5280's (sections 4.2.1.1 to 4.2.1.12: key identifiers, key usage, subject alternative names,
basic constraints, extended key usage), kept closely enough for OpenSSL's X509_V_FLAG_X509_STRICT, which Python
turns on by default from 3.13. Everything is PEM; keys are unencrypted PKCS #8, so write them with `write_private`.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class IssuedPair:
    """A certificate and its key, both PEM. The key stays out of `repr`."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """A self-signed CA that issues leaf certificates, both PEM. The key stays out of `repr`."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes) -> Authority:
        """Return the authority that these two make, as `make_authority` wrote them.

        Raises:
            ConfigurationError: either cannot be read, they do not belong together, or it is no CA.
        """
        authority = cls(certificate_pem, key_pem)
        certificate = _read_certificate(certificate_pem)
        if certificate.public_key() != _read_key(key_pem).public_key():
            raise ConfigurationError("The CA's private key belongs to another certificate; give the pair of one CA.")
        if not _is_authority(certificate):
            raise ConfigurationError("The certificate is not a CA's (basicConstraints CA:TRUE); give a CA certificate.")
        return authority

    def issue(
        self,
        common_name: str,
        *,
        hosts: Sequence[str] = (),
        organizations: Sequence[str] = (),
        client: bool = False,
        now: datetime,
        days: int = 365,
    ) -> IssuedPair:
        """Issue a leaf: for servers at `hosts` (DNS names, IP addresses), for a client, or for both.

        Kubernetes reads a client's user name from `common_name` and its groups from `organizations`. Valid from
        five minutes before `now`, for clocks that lag, until `days` after it.

        Raises:
            ConfigurationError: neither hosts nor client was asked for, or a host is no name or address.
        """
        if not hosts and not client:
            raise ConfigurationError(f"A certificate for {common_name!r} needs host names, or to be a client's.")
        issuer, key = _read_certificate(self.certificate_pem), _read_key(self.key_pem)
        leaf = ec.generate_private_key(ec.SECP256R1())
        builder = _start(_name(common_name, organizations), issuer.subject, leaf, now, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(_purposes(server=bool(hosts), client=client), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        if hosts:
            names = x509.SubjectAlternativeName([_alternative_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return IssuedPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(leaf))


def make_authority(common_name: str, *, now: datetime, days: int = 3650) -> Authority:
    """Make a new CA, valid from five minutes before `now` until `days` after it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(common_name)
    builder = _start(subject, subject, key, now, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    return Authority(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def write_private(path: Path, content: bytes) -> None:
    """Write `content` at `path`, readable by the owner only; a reader finds the old content or all of the new.

    Raises OSError, which names the file, or the folder that is missing or in which nothing can be made.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp opens with 0600
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path.parent)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def find_certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return what OpenSSL found wrong with a peer's certificate, from `error` or its causes; None when that is not it.

    HTTP clients raise errors of their own, with OpenSSL's as a cause or a context.
    """
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def _start(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str, organizations: Sequence[str] = ()) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigurationError(f"{host!r}: expected an IP address or a DNS name (ASCII, IDNA-encoded).") from error


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _purposes(*, server: bool, client: bool) -> x509.ExtendedKeyUsage:
    wanted = {ExtendedKeyUsageOID.SERVER_AUTH: server, ExtendedKeyUsageOID.CLIENT_AUTH: client}
    return x509.ExtendedKeyUsage([purpose for purpose, is_wanted in wanted.items() if is_wanted])


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _read_certificate(pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise ConfigurationError("The CA certificate cannot be read; expected one PEM certificate.") from error


def _read_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError("The CA's key cannot be read; expected an unencrypted PEM private key.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError("The CA's key is of another kind; expected an elliptic-curve (EC) private key.")
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
