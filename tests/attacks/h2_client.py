"""A client that speaks HTTP/2 and checks nothing of what it sends."""

from __future__ import annotations

import ssl
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

POD_PATH = "/api/v1/namespaces/demo/pods/p"
Fields = list[tuple[str, str]]


@dataclass
class H2Client:
    """A client that checks nothing of what it sends."""

    connection: ssl.SSLSocket
    token: str
    codes: dict[int, int] = field(default_factory=dict)
    heads: dict[int, dict[str, str]] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=lambda: defaultdict(bytes))
    ended: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        assert self.connection.selected_alpn_protocol() == "h2"
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what is due."""
        self.connection.sendall(self.h2.data_to_send())

    def open(self, fields: Fields, *, end: bool = True) -> int:
        """Begin a request with exactly these fields."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, fields, end_stream=end)
        self.flush()
        return stream

    def head(self, path: str = POD_PATH, method: str = "GET", *more: tuple[str, str]) -> Fields:
        """The fields of an ordinary request."""
        pseudo = [(":method", method), (":scheme", "https"), (":authority", "h"), (":path", path)]
        return [*pseudo, ("authorization", f"Bearer {self.token}"), *more]

    def wait(self, *streams: int) -> None:
        """Read until these streams, or the connection, have ended."""
        with suppress(ConnectionError, h2.exceptions.ProtocolError, ssl.SSLError):
            while not set(streams) <= self.ended:
                data = self.connection.recv(65536)
                if not data:
                    return
                for event in self.h2.receive_data(data):
                    self._see(event)
                self.flush()

    def _see(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.heads[event.stream_id] = dict(event.headers)
            self.codes[event.stream_id] = int(self.heads[event.stream_id][":status"])
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            self.ended.add(event.stream_id)

    def code(self, fields: Fields) -> int:
        """The answer to one request; 0 when there is none."""
        stream = self.open(fields)
        self.wait(stream)
        return self.codes.get(stream, 0)
