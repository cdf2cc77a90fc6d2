"""exec and attach over WebSocket: channels in messages, observed for the exit status.

Each message begins with its channel: 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize. In the plain protocols it
is one byte and the payload follows as it is; in the base64 ones it is an ASCII digit and the payload is base64.
Only the server's messages on channel 3 matter here. Source: k8s.io/streaming `pkg/httpstream/wsstream`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from wsproto.frame_protocol import Frame, FrameProtocol, Opcode, ParseFailed

from holdfast.kube.exit_status import MAX_STATUS_BYTES, StatusCollector

if TYPE_CHECKING:
    from holdfast.exchange import ExitStatus

_PLAIN = frozenset({"v4.channel.k8s.io", "v5.channel.k8s.io"})
_BASE64 = frozenset({"v4.base64.channel.k8s.io"})
_ERROR_CHANNEL = {False: b"\x03", True: b"3"}


class WebSocketExecObserver:
    """Follows a WebSocket whose handshake chose `subprotocol`; protocols without exit codes have no result."""

    def __init__(self, subprotocol: str) -> None:
        self._base64 = subprotocol in _BASE64
        self._frames: FrameProtocol | None = None
        if self._base64 or subprotocol in _PLAIN:
            self._frames = FrameProtocol(client=True, extensions=[])
        self._failed = False
        self._channel = b""
        self._text = bytearray()
        self._status = StatusCollector()

    def feed_client(self, data: bytes) -> None:
        """See bytes from the client: they say nothing about the exit status."""

    def feed_server(self, data: bytes) -> None:
        """See bytes from the server, after the handshake's response."""
        if self._frames is None:
            return
        try:
            self._frames.receive_bytes(data)
            for frame in self._frames.received_frames():
                self._follow(frame)
        except (ParseFailed, binascii.Error):
            self._failed, self._frames = True, None

    def result(self) -> ExitStatus | None:
        """How the command ended, or None."""
        return None if self._failed else self._status.exit_status()

    def _follow(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._frames = None
        elif not frame.opcode.iscontrol():
            self._take(_payload(frame), frame.message_finished)

    def _take(self, payload: bytes, finished: bool) -> None:
        if not self._channel:
            self._channel, payload = payload[:1], payload[1:]
        if self._channel == _ERROR_CHANNEL[self._base64]:
            self._take_error(payload, finished)
        if finished:
            self._channel = b""

    def _take_error(self, payload: bytes, finished: bool) -> None:
        if not self._base64:
            self._status.add(payload)
            return
        self._text += payload
        if len(self._text) > 2 * MAX_STATUS_BYTES:
            raise ParseFailed("a Status is shorter than this")
        if finished:
            self._status.add(base64.b64decode(self._text, validate=True))
            self._text.clear()


def _payload(frame: Frame) -> bytes:
    if isinstance(frame.payload, str):
        return frame.payload.encode()
    return frame.payload if isinstance(frame.payload, bytes) else b""
