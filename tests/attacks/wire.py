"""A client that sends bytes as they are: what no HTTP library would send."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Answer:
    """One HTTP/1.1 answer; `code` 0 when the connection ended without any."""

    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def status(self) -> dict[str, Any]:
        """The metav1.Status that a refusal must be."""
        value = json.loads(self.body)
        assert value["kind"] == "Status"
        assert value["apiVersion"] == "v1"
        assert value["status"] == "Failure"
        assert value["code"] == self.code
        return dict(value)


NOTHING = Answer(0, {}, b"")


def connect(url: str, ca_file: Path, *alpn: str) -> ssl.SSLSocket:
    """A TLS connection to the gateway."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=str(ca_file))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    plain = connect_plain(url)
    return context.wrap_socket(plain, server_hostname=parts.hostname)


def connect_plain(url: str) -> socket.socket:
    """A TCP connection to the gateway, without TLS."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_SECONDS)


def read_answers(connection: socket.socket, *, at_most: int = 100) -> list[Answer]:
    """Every answer until the connection ends, or `at_most`; interim (1xx) answers are left out."""
    answers: list[Answer] = []
    buffer = b""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while len(answers) < at_most:
            one, buffer = _read_answer(connection, buffer)
            if one.code >= 200:
                answers.append(one)
    return answers


def read_answer(connection: socket.socket) -> Answer:
    """The next answer, or NOTHING when the connection ends first."""
    return next(iter(read_answers(connection, at_most=1)), NOTHING)


def _read_answer(connection: socket.socket, buffer: bytes) -> tuple[Answer, bytes]:
    while b"\r\n\r\n" not in buffer:
        buffer += _receive(connection)
    head, _, rest = buffer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    code = int(first.split()[1])
    length = int(headers.get("content-length", "0")) if code >= 200 else 0
    while len(rest) < length:
        rest += _receive(connection)
    return Answer(code, headers, rest[:length]), rest[length:]


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError
    return data
