"""A stand-in for the API server that keeps every byte it receives: for asserting that nothing arrived.

It speaks just enough HTTP/1.1 over TLS. What is true of Kubernetes is tested against the real API server.
"""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from holdfast.certificates import make_authority

TOKEN = "upstream-credential-5d1f0c7a"
VERSION = b'{"major":"1","minor":"37","gitVersion":"v1.37.0"}'
POD = b'{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p","namespace":"demo"}}'


@dataclass
class RecordingUpstream:
    """Listens on loopback; `requests` holds the head and body of each request, `respond` makes the answers."""

    folder: Path
    requests: list[bytes] = field(default_factory=list)
    answers: dict[bytes, bytes] = field(default_factory=dict)
    delay: threading.Event | None = None

    def start(self) -> RecordingUpstream:
        """Listen on a free port."""
        now = datetime.now(UTC)
        authority = make_authority("upstream-ca", now=now, days=2)
        pair = authority.issue("upstream", hosts=("127.0.0.1",), now=now, days=2)
        self.ca_file = self.folder / "upstream-ca.crt"
        self.ca_file.write_bytes(authority.certificate_pem)
        certificate = self.folder / "upstream.pem"
        certificate.write_bytes(pair.key_pem + pair.certificate_pem)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.server = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening."""
        self._listener.close()

    @property
    def received(self) -> bytes:
        """Every byte of every request except the gateway's own probe."""
        return b"".join(request for request in self.requests if not self._is_probe(request))

    @staticmethod
    def _is_probe(request: bytes) -> bool:
        return request.split(b" ")[1] in {b"/version", b"/apis/authentication.k8s.io/v1/selfsubjectreviews"}

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self._tls.wrap_socket(plain, server_side=True) as connection:
                buffer = b""
                while True:
                    head, buffer = self._read_until(connection, buffer)
                    length = next(
                        (
                            int(line.split(b":")[1])
                            for line in head.split(b"\r\n")
                            if line.lower().startswith(b"content-length:")
                        ),
                        0,
                    )
                    while len(buffer) < length:
                        buffer += connection.recv(65536)
                    self.requests.append(head + b"\r\n\r\n" + buffer[:length])
                    buffer = buffer[length:]
                    if self.delay is not None and not self._is_probe(head):
                        self.delay.wait(30)
                    connection.sendall(self._answer(head))
        except (OSError, EOFError):
            return

    @staticmethod
    def _read_until(connection: ssl.SSLSocket, buffer: bytes) -> tuple[bytes, bytes]:
        while b"\r\n\r\n" not in buffer:
            data = connection.recv(65536)
            if not data:
                raise EOFError
            buffer += data
        head, _, rest = buffer.partition(b"\r\n\r\n")
        return head, rest

    def _answer(self, head: bytes) -> bytes:
        path = head.split(b" ")[1].split(b"?")[0]
        body = self.answers.get(path, VERSION if path == b"/version" else POD)
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
