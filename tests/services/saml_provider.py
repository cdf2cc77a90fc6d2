"""A SAML provider of the tests' own: npm samlp on express, over HTTPS on loopback (tests/idp/saml.js)."""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from holdfast.certificates import make_authority
from services.npm import find_node, install_packages
from testcluster.processes import Process, spawn

HOST = "127.0.0.1"
ENTITY_ID = "https://saml.test/metadata"
PROJECT = Path(__file__).parents[1] / "idp"
START_SECONDS = 60


@dataclass
class SAMLTestProvider:
    """One provider, with its files in `folder`."""

    folder: Path
    url: str = ""
    _process: Process | None = None

    @property
    def ca_file(self) -> Path:
        """What its HTTPS is verified with."""
        return self.folder / "ca.crt"

    @property
    def signing_certificate(self) -> Path:
        """What its assertions are verified with."""
        return self.folder / "signing.crt"

    def start(self, acs_url: str, audience: str) -> SAMLTestProvider:
        """Start it; returns when it takes connections. Raises services.npm.NodeFailed."""
        packages = install_packages(PROJECT, lambda _: None)
        self._issue_certificates()
        for name in ("saml.js", "package.json"):
            shutil.copy(PROJECT / name, self.folder)
        (self.folder / "node_modules").symlink_to(packages)
        files = [self.folder / name for name in ("tls.crt", "tls.key", "signing.crt", "signing.key")]
        log = self.folder / "log"
        command = [find_node(), self.folder / "saml.js", *files, acs_url, audience]
        self._process = spawn("samlp", command, log, environment=dict(os.environ), folder=self.folder)
        deadline = time.monotonic() + START_SECONDS
        while not self.url:
            self._process.check()
            ready = [line for line in log.read_text().splitlines() if line.startswith("ready ")]
            assert time.monotonic() < deadline, log.read_text()
            self.url = ready[0].split()[1] if ready else ""
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.stop()

    def write_browser(self, folder: Path, *authorities: Path) -> Path:
        """A program that is alice's browser, for `$BROWSER`: it follows redirects and posts the provider's form."""
        trusted = folder / "browser-authorities.pem"
        trusted.write_bytes(b"".join(file.read_bytes() for file in (self.ca_file, *authorities)))
        program = folder / "browser-of-alice"
        program.write_text(f"#!{sys.executable}\n{_BROWSER % {'trusted': str(trusted)}}")
        program.chmod(0o700)
        return program

    def _issue_certificates(self) -> None:
        now = datetime.now(UTC)
        authority = make_authority("SAML provider of the tests", now=now, days=2)
        pair = authority.issue(HOST, hosts=(HOST,), now=now, days=2)
        self.ca_file.write_bytes(authority.certificate_pem)
        (self.folder / "tls.crt").write_bytes(pair.certificate_pem)
        (self.folder / "tls.key").write_bytes(pair.key_pem)
        certificate, key = _make_signing_pair(now)
        self.signing_certificate.write_bytes(certificate)
        (self.folder / "signing.key").write_bytes(key)


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
    from datetime import timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import NameOID

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
