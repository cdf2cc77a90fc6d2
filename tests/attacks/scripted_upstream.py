"""An upstream that keeps every byte and answers some paths as a script says: half, never, or with nonsense."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdfast.certificates import Authority, make_authority
from recording_upstream import RecordingUpstream

if TYPE_CHECKING:
    from pathlib import Path

Act = Callable[[ssl.SSLSocket], None]


@dataclass
class ScriptedUpstream(RecordingUpstream):
    """`acts` answers a path instead of the recording upstream; `certificates` are what callers presented."""

    acts: dict[bytes, Act] = field(default_factory=dict)
    release: threading.Event = field(default_factory=threading.Event)
    certificates: list[bytes | None] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> ScriptedUpstream:
        """Listen on a free port, with a certificate of an authority of its own."""
        now = datetime.now(UTC)
        return self.start_as(make_authority("upstream-ca", now=now, days=2), "127.0.0.1", 0)

    def start_as(self, authority: Authority, name: str, port: int) -> ScriptedUpstream:
        """Listen on this port, with a certificate of `authority` for `name`."""
        self.authority = authority
        pair = authority.issue("upstream", hosts=(name,), now=datetime.now(UTC), days=2)
        self.ca_file = self.folder / f"{name}-ca.crt"
        self.ca_file.write_bytes(authority.certificate_pem)
        certificate = self.folder / f"{name}.pem"
        certificate.write_bytes(pair.key_pem + pair.certificate_pem)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.server = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening; a thread that still accepts would keep the port."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def demand_certificate(self, authority: Path) -> None:
        """Take only connections that present a certificate of `authority`."""
        self._tls.load_verify_locations(authority)
        self._tls.verify_mode = ssl.CERT_REQUIRED

    def forget(self) -> None:
        """Start afresh, for the next test."""
        self.requests.clear()
        self.answers.clear()
        self.acts.clear()
        self.release.clear()
        self.delay = None

    def calls(self) -> list[bytes]:
        """The requests that are not the gateway's own probe, each with head and body."""
        return [request for request in self.requests if not self._is_probe(request)]

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self._tls.wrap_socket(plain, server_side=True) as connection:
                self.certificates.append(connection.getpeercert(binary_form=True))
                buffer = b""
                while True:
                    buffer = self._serve_one(connection, buffer)
        except (OSError, EOFError, ValueError):
            return

    def _serve_one(self, connection: ssl.SSLSocket, buffer: bytes) -> bytes:
        head, buffer = self._read_until(connection, buffer)
        length = _content_length(head)
        while len(buffer) < length:
            data = connection.recv(65536)
            if not data:
                raise EOFError
            buffer += data
        with self._lock:
            self.requests.append(head + b"\r\n\r\n" + buffer[:length])
        if self.delay is not None and not self._is_probe(head):
            self.delay.wait(30)
        act = self.acts.get(head.split(b" ")[1].split(b"?")[0])
        if act is None:
            connection.sendall(self._answer(head))
        else:
            act(connection)
        return buffer[length:]


def _content_length(head: bytes) -> int:
    lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return int(lines[0].split(b":")[1]) if lines else 0


def send(data: bytes, *, close: bool = False) -> Act:
    """Answer with exactly these bytes."""

    def act(connection: ssl.SSLSocket) -> None:
        connection.sendall(data)
        if close:
            raise EOFError

    return act


def answer(body: bytes, *, code: int = 200, media_type: bytes = b"application/json", headers: bytes = b"") -> bytes:
    """A whole HTTP/1.1 answer."""
    head = b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n" % (
        code, media_type, len(body), headers,
    )  # fmt: skip
    return head + body
