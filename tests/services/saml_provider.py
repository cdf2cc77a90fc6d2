"""A SAML provider of the tests' own: npm samlp on express, over HTTPS on loopback (tests/idp/saml.js)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from services.node_server import NodeServer

if TYPE_CHECKING:
    from pathlib import Path

ENTITY_ID = "https://saml.test/metadata"


@dataclass
class SAMLTestProvider(NodeServer):
    """One provider, with its files in `folder`."""

    @property
    def signing_certificate(self) -> Path:
        """What its assertions are verified with."""
        return self.folder / "signing.crt"

    def start(self, acs_url: str, audience: str) -> SAMLTestProvider:
        """Start it; returns when it takes connections. Raises services.npm.NodeFailed."""
        certificate, key = _make_signing_pair(datetime.now(UTC))
        signing_key = self.folder / "signing.key"
        self.signing_certificate.write_bytes(certificate)
        signing_key.write_bytes(key)
        self.run("saml.js", self.signing_certificate, signing_key, acs_url, audience)
        return self

    def write_browser(self, folder: Path, *authorities: Path) -> Path:
        """A program that is alice's browser, for `$BROWSER`: it follows redirects and posts the provider's form."""
        trusted = folder / "browser-authorities.pem"
        trusted.write_bytes(b"".join(file.read_bytes() for file in (self.ca_file, *authorities)))
        program = folder / "browser-of-alice"
        program.write_text(f"#!{sys.executable}\n{_BROWSER % {'trusted': str(trusted)}}")
        program.chmod(0o700)
        return program


_BROWSER = r"""
import re, ssl, sys
from html import unescape
import httpx
context = ssl.create_default_context(cafile=%(trusted)r)
with httpx.Client(verify=context, trust_env=False, follow_redirects=True, timeout=30) as client:
    page = client.get(sys.argv[1])
    action = re.search(r'<form[^>]* action="([^"]*)"', page.text)
    fields = re.findall(r'<input type="hidden"\s+name="([^"]*)"\s+value="([^"]*)"', page.text)
    client.post(unescape(action[1]), data={name: unescape(value) for name, value in fields})
"""


def _make_signing_pair(now: datetime) -> tuple[bytes, bytes]:
    """Certificate and key, PEM; RSA, since samlp knows nothing else."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "saml.test")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=2))
        .sign(key, SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), pem
