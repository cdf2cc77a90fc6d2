"""A time-stamping authority that really runs: `openssl ts` behind a small HTTP server, with certificates of its own."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from pathlib import Path

TST_INFO = "1.2.840.113549.1.9.16.1.4"
CONFIG = """
[tsa]
default_tsa = this
[this]
serial = {folder}/serial
default_policy = 1.2.3.4
digests = {digests}
signer_digest = sha256
"""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_pair(
    name: str, issuer: Pair | None = None, *, is_authority: bool = False, purpose: x509.ObjectIdentifier | None = None
) -> Pair:
    """A certificate that `issuer` signs, or that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=10))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


class TimestampAuthority:
    """`respond` may be replaced, by something that answers a query otherwise."""

    def __init__(self, folder: Path, digests: str = "sha256") -> None:
        self.folder = folder
        folder.mkdir()
        self.root = make_pair("root", is_authority=True)
        self.intermediate = make_pair("intermediate", self.root, is_authority=True)
        # So long a name that DER wants the intermediate's certificate first; OpenSSL puts the signer's there.
        self.signer = make_pair("signer" * 10, self.intermediate, purpose=ExtendedKeyUsageOID.TIME_STAMPING)
        for name in ("root", "intermediate", "signer"):
            self.write(name, getattr(self, name))
        (folder / "config").write_text(CONFIG.format(folder=folder, digests=digests))
        self.queries: list[bytes] = []
        self.respond = self.sign
        self.status = 200
        self.port = 0
        self.server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/tsa"

    @property
    def root_file(self) -> Path:
        return self.folder / "root.pem"

    def write(self, name: str, pair: Pair) -> None:
        """Write a certificate and its key as NAME.pem and NAME.key."""
        (self.folder / f"{name}.pem").write_bytes(pair.certificate.public_bytes(Encoding.PEM))
        key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{name}.key").write_bytes(key)

    def sign(self, query: bytes) -> bytes:
        """What OpenSSL replies to a query, the chain included."""
        (self.folder / "query").write_bytes(query)
        self.openssl(
            "ts", "-reply", "-config", "config", "-queryfile", "query", "-signer", "signer.pem", "-inkey", "signer.key",
            "-chain", "intermediate.pem", "-out", "reply",
        )  # fmt: skip
        return (self.folder / "reply").read_bytes()

    def sign_as(self, pair: Pair, reply: bytes) -> bytes:
        """A reply that tells the same, signed by another certificate."""
        self.write("other", pair)
        (self.folder / "reply").write_bytes(reply)
        self.openssl("ts", "-reply", "-config", "config", "-in", "reply", "-token_out", "-out", "token")
        self.openssl("cms", "-verify", "-noverify", "-inform", "DER", "-in", "token", "-out", "told")
        self.openssl(
            "cms", "-sign", "-binary", "-nodetach", "-econtent_type", TST_INFO, "-in", "told", "-signer", "other.pem",
            "-inkey", "other.key", "-certfile", "intermediate.pem", "-outform", "DER", "-out", "token",
        )  # fmt: skip
        content = bytes.fromhex("3003020100") + (self.folder / "token").read_bytes()
        return b"\x30\x82" + len(content).to_bytes(2, "big") + content

    def openssl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run OpenSSL in the authority's folder."""
        return subprocess.run(
            ["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, text=True, timeout=60
        )

    def start(self) -> None:
        """Listen, on the port of the time before where there was one."""
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/timestamp-query"
                authority.queries.append(query)
                reply = authority.respond(query)
                self.send_response(authority.status)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
