"""The exit status of an exec, found in streams that this file encodes by itself, in any chunks, and in hostile ones."""

import base64
import json
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.kube.channels import WebSocketExecObserver
from holdfast.kube.exit_status import MAX_STATUS_BYTES, ExitStatus, parse_exit_status
from holdfast.kube.spdy import HEADER_DICTIONARY, SpdyExecObserver

SUCCESS = b'{"metadata":{},"status":"Success"}'


def failure(code: str, reason: str = "NonZeroExitCode", cause: str = "ExitCode") -> bytes:
    causes = [{"reason": "Other", "message": "9"}, {"reason": cause, "message": code}]
    status = {"status": "Failure", "message": "it failed", "reason": reason, "details": {"causes": causes}}
    return json.dumps(status).encode()


STATUSES = {
    SUCCESS: ExitStatus(0),
    SUCCESS + b"\n": ExitStatus(0),
    failure("1"): ExitStatus(1, "it failed"),
    failure("137"): ExitStatus(137, "it failed"),
    failure("255"): ExitStatus(255, "it failed"),
    failure("256"): None,
    failure("-1"): None,
    failure("+1"): None,
    failure("1_0"): None,
    failure("\u0663"): None,
    failure(""): None,
    failure("1", cause="Else"): None,
    failure("1", reason="InternalError"): ExitStatus(None, "it failed"),
    b'{"status":"Failure","message":"no such container"}': ExitStatus(None, "no such container"),
    b'{"status":"Failure","reason":"NonZeroExitCode"}': None,
    b'{"status":"Else"}': None,
    b"{}": None,
    b"": None,
    b"null": None,
    b"[]": None,
    b"command terminated with exit code 3": None,
    b'{"status":"Success"': None,
    b'{"status":0}': None,
    b'{"status":"\xff"}': None,
    b"[" * 60000: None,
    b'{"details":' * 5000: None,
    b'{"x":' + b"[" * 60000: None,
}


@pytest.mark.parametrize(("data", "status"), STATUSES.items(), ids=lambda value: str(value)[:60])
def test_a_status_is_read_as_client_go_reads_it(data: bytes, status: ExitStatus | None) -> None:
    assert parse_exit_status(data) == status


# WebSocket: an encoder of our own, RFC 6455 section 5.2, server to client (unmasked).


def frame(payload: bytes, opcode: int = 2, fin: bool = True) -> bytes:
    first, size = opcode | fin << 7, len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 1 << 16:
        return bytes([first, 126]) + struct.pack(">H", size) + payload
    return bytes([first, 127]) + struct.pack(">Q", size) + payload


PING, CLOSE = frame(b"\x03now", opcode=9), frame(struct.pack(">H", 1000), opcode=8)
OPENING = b"".join(frame(bytes([channel])) for channel in range(5))


def plain(output: int) -> bytes:
    stdout, stderr = frame(b"\x01" + b"x" * output), frame(b"\x02\x03{}")
    return OPENING + stdout + PING + stderr + frame(b"\x03" + failure("7")) + CLOSE


PLAIN = plain(output=66000)
FRAGMENTED = (
    frame(b"\x01out", fin=False)
    + frame(b"\x03{not an error", opcode=0, fin=False)
    + PING
    + frame(b"more", opcode=0)
    + frame(b"\x03" + failure("7")[:10], fin=False)
    + frame(failure("7")[10:40], opcode=0, fin=False)
    + frame(failure("7")[40:], opcode=0)
)
SPLIT = frame(b"\x03" + failure("7")[:20]) + frame(b"\x01\x03") + frame(b"\x03" + failure("7")[20:])
BASE64 = frame(b"1" + base64.b64encode(b"out"), opcode=1) + frame(b"3" + base64.b64encode(failure("7")), opcode=1)

SEVEN = ExitStatus(7, "it failed")


def websocket(data: bytes, subprotocol: str = "v5.channel.k8s.io", step: int | None = None) -> ExitStatus | None:
    observer = WebSocketExecObserver(subprotocol)
    for chunk in chunks(data, step):
        observer.feed_server(chunk)
    return observer.result()


def chunks(data: bytes, step: int | None) -> Iterator[bytes]:
    size = step or len(data) or 1
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("step", [None, 1, 3, 1000])
@pytest.mark.parametrize(
    ("data", "subprotocol"),
    [
        (PLAIN, "v5.channel.k8s.io"),
        (PLAIN, "v4.channel.k8s.io"),
        (FRAGMENTED, "v5.channel.k8s.io"),
        (SPLIT, "v4.channel.k8s.io"),
        (BASE64, "v4.base64.channel.k8s.io"),
    ],
)
def test_a_websocket_ends_with_its_exit_code_however_it_is_cut(data: bytes, subprotocol: str, step: int | None) -> None:
    assert websocket(data, subprotocol, step) == SEVEN


@pytest.mark.parametrize(
    ("data", "subprotocol"),
    [
        (b"", "v5.channel.k8s.io"),
        (OPENING, "v5.channel.k8s.io"),
        (PLAIN[:-30], "v5.channel.k8s.io"),
        (PLAIN, "channel.k8s.io"),
        (PLAIN, "SPDY/3.1+portforward.k8s.io"),
        (PLAIN, ""),
        (BASE64, "v5.channel.k8s.io"),
        (PLAIN, "v4.base64.channel.k8s.io"),
        (frame(b"3not base64!", opcode=1), "v4.base64.channel.k8s.io"),
        (frame(b"\x03" + SUCCESS, opcode=3), "v5.channel.k8s.io"),
        (b"\xf2" + frame(b"\x03" + SUCCESS)[1:], "v5.channel.k8s.io"),
        (frame(b"\x03" + SUCCESS) + frame(b"", opcode=0), "v5.channel.k8s.io"),
        (frame(b"\x03" + SUCCESS) + frame(b"\xff", opcode=1), "v5.channel.k8s.io"),
        (frame(b"\x03" + b" " * MAX_STATUS_BYTES + SUCCESS), "v5.channel.k8s.io"),
        (frame(b"3" + b"IA==" * MAX_STATUS_BYTES, opcode=1), "v4.base64.channel.k8s.io"),
        (CLOSE + frame(b"\x03" + SUCCESS), "v5.channel.k8s.io"),
        (b"\x82\xfe" + frame(b"\x03" + SUCCESS), "v5.channel.k8s.io"),
    ],
)
def test_a_websocket_that_cannot_be_followed_has_no_result(data: bytes, subprotocol: str) -> None:
    assert websocket(data, subprotocol) is None
    assert websocket(data, subprotocol, step=7) is None


def test_what_a_client_sends_does_not_count() -> None:
    observer = WebSocketExecObserver("v5.channel.k8s.io")
    observer.feed_client(frame(b"\x03" + SUCCESS))
    assert observer.result() is None


# SPDY: an encoder of our own, draft 3.1 section 2.2.


class SpdyClient:
    """One direction's frames; `deflate` is shared by all its header blocks."""

    def __init__(self) -> None:
        self.deflate = zlib.compressobj(zdict=HEADER_DICTIONARY)

    def control(self, kind: int, payload: bytes, version: int = 3) -> bytes:
        return struct.pack(">HHI", 0x8000 | version, kind, len(payload)) + payload

    def block(self, headers: dict[str, str]) -> bytes:
        plain = struct.pack(">I", len(headers))
        for text in (text for pair in headers.items() for text in pair):
            plain += struct.pack(">I", len(text)) + text.encode()
        return self.deflate.compress(plain) + self.deflate.flush(zlib.Z_SYNC_FLUSH)

    def syn_stream(self, stream: int, **headers: str) -> bytes:
        return self.control(1, struct.pack(">IIBB", stream, 0, 0, 0) + self.block(headers))

    def headers(self, stream: int, **headers: str) -> bytes:
        return self.control(8, struct.pack(">I", stream) + self.block(headers))


def spdy_data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">II", stream, flags << 24 | len(payload)) + payload


def client_side(error_stream: int = 1, **extra: str) -> bytes:
    client = SpdyClient()
    return (
        client.control(4, struct.pack(">III", 1, 7, 65536))
        + client.syn_stream(error_stream, streamtype="error", **extra)
        + client.headers(error_stream, other="header")
        + client.syn_stream(error_stream + 2, streamtype="stdin")
        + spdy_data(error_stream + 2, b"x" * 500)
        + client.syn_stream(error_stream + 4, streamtype="stdout")
        + client.control(6, struct.pack(">I", 1))
    )


def server_side(error_stream: int = 1, output: int = 66000) -> bytes:
    status = failure("7")
    server = SpdyClient()
    return (
        server.control(2, struct.pack(">I", error_stream) + server.block({}))
        + spdy_data(error_stream, b"")
        + spdy_data(error_stream + 4, b"y" * output)
        + spdy_data(error_stream, status[:15])
        + spdy_data(error_stream + 4, SUCCESS)
        + spdy_data(error_stream, status[15:])
        + spdy_data(error_stream, b"", flags=1)
        + server.control(7, struct.pack(">II", error_stream + 4, 0))
    )


def spdy(client: bytes, server: bytes, step: int | None = None) -> ExitStatus | None:
    observer = SpdyExecObserver()
    for chunk in chunks(client, step):
        observer.feed_client(chunk)
    for chunk in chunks(server, step):
        observer.feed_server(chunk)
    return observer.result()


@pytest.mark.parametrize("step", [None, 1, 3, 1000])
@pytest.mark.parametrize("error_stream", [1, 127, 129, 70001, 0x7FFFFFF1])
def test_spdy_ends_with_its_exit_code_however_it_is_cut(error_stream: int, step: int | None) -> None:
    assert spdy(client_side(error_stream), server_side(error_stream), step) == SEVEN


RECORDED_CLIENT = (
    "gAMAAQAAACkAAAABAAAAAAAAePnjxqfCYmBgYASns5Ki1MRcaFHCmgoKaAAAAAD//4ADAAEAAAAXAAAAAwAAAAAAAMIuVVySkpkH"
    "AAAA//+AAwABAAAAGQAAAAUAAAAAAADCKsVWXJKSX1oCAAAA//+AAwABAAAAFQAAAAcAAAAAAADCKZdaVAQAAAD//4ADAAYAAAAE"
    "AAAAAQAAAAMAAAAHZXhpdCA3Cg=="
)
RECORDED_SERVER = (
    "gAMAAgAAABQAAAABePnjxqfCYmBgYAAAAAD//4ADAAIAAAAMAAAAAwJhAAAAAP//gAMAAgAAAAwAAAAFAmEAAAAA//+AAwACAAAA"
    "DAAAAAcCYQAAAAD//wAAAAUAAAAGaGVsbG8KAAAAAQAAAK97Im1ldGFkYXRhIjp7fSwic3RhdHVzIjoiRmFpbHVyZSIsIm1lc3Nh"
    "Z2UiOiJjb21tYW5kIHRlcm1pbmF0ZWQgd2l0aCBub24temVybyBleGl0IGNvZGUiLCJyZWFzb24iOiJOb25aZXJvRXhpdENvZGUi"
    "LCJkZXRhaWxzIjp7ImNhdXNlcyI6W3sicmVhc29uIjoiRXhpdENvZGUiLCJtZXNzYWdlIjoiNyJ9XX19AAAAAQEAAACAAwAHAAAA"
    "CAAAAAcAAAAA"
)


@pytest.mark.parametrize("step", [None, 1, 5])
def test_spdy_frames_written_by_spdystream_are_read(step: int | None) -> None:
    """Written by moby/spdystream's own Framer, the encoder of kubectl and the kubelet."""
    client, server = base64.b64decode(RECORDED_CLIENT), base64.b64decode(RECORDED_SERVER)
    assert spdy(client, server, step) == ExitStatus(7, "command terminated with non-zero exit code")


def test_the_spdy_dictionary_is_the_one_that_zlib_streams_name() -> None:
    assert (len(HEADER_DICTIONARY), zlib.adler32(HEADER_DICTIONARY)) == (1423, 0xE3C6A7C2)


def syn_stream_of(plain: bytes) -> bytes:
    client = SpdyClient()
    block = client.deflate.compress(plain) + client.deflate.flush(zlib.Z_SYNC_FLUSH)
    return client.control(1, struct.pack(">IIBB", 1, 0, 0, 0) + block)


ERROR_STREAM = struct.pack(">II", 1, 10) + b"streamtype" + struct.pack(">I", 5) + b"error"


def headers_that_end_the_zlib_stream() -> bytes:
    client = SpdyClient()
    return client.control(8, bytes(4) + client.block({}) + client.deflate.flush())


def two_error_streams() -> bytes:
    client = SpdyClient()
    return client.syn_stream(1, streamtype="error") + client.syn_stream(3, streamtype="error")


HOSTILE_SPDY = {
    "no stream": b"",
    "no error stream": SpdyClient().syn_stream(1, streamtype="stderr"),
    "two error streams": two_error_streams(),
    "version 2": SpdyClient().control(4, b"", version=2) + client_side(),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n" + client_side(),
    "no zlib stream": SpdyClient().control(1, bytes(10) + b"plain") + client_side(),
    "no header block": SpdyClient().control(1, bytes(4)) + client_side(),
    "a frame too long": SpdyClient().control(1, bytes(1 << 17)) + client_side(),
    "a block that inflates too far": SpdyClient().syn_stream(1, streamtype="error", x="0" * (1 << 20)),
    "an ended zlib stream": headers_that_end_the_zlib_stream() + client_side(),
    "a block with a long tail": syn_stream_of(ERROR_STREAM + bytes(1 << 20)),
    "a name cut short": syn_stream_of(struct.pack(">II", 1, 99) + b"x") + client_side(),
    "a value cut short": syn_stream_of(ERROR_STREAM.replace(b"\x05error", b"\x06error")),
    "an error stream by HEADERS": SpdyClient().headers(1, streamtype="error"),
    "too many headers": syn_stream_of(struct.pack(">I", 0xFFFFFFFF)) + client_side(),
}


@pytest.mark.parametrize("client", HOSTILE_SPDY.values(), ids=HOSTILE_SPDY)
def test_spdy_that_cannot_be_followed_has_no_result(client: bytes) -> None:
    assert spdy(client, server_side()) is None
    assert spdy(client, server_side(output=300), step=3) is None


def test_a_second_error_stream_makes_the_first_one_and_itself_worthless() -> None:
    assert spdy(two_error_streams(), server_side(1)) is None
    assert spdy(two_error_streams(), server_side(3)) is None
    assert spdy(syn_stream_of(ERROR_STREAM), server_side(1)) == SEVEN


def test_spdy_with_a_status_too_long_has_no_result() -> None:
    assert spdy(client_side(), spdy_data(1, b" " * MAX_STATUS_BYTES) + spdy_data(1, SUCCESS)) is None


type ExecObserver = WebSocketExecObserver | SpdyExecObserver

OBSERVERS: list[Callable[[], ExecObserver]] = [
    lambda: WebSocketExecObserver("v5.channel.k8s.io"),
    lambda: WebSocketExecObserver("v4.base64.channel.k8s.io"),
    SpdyExecObserver,
]
STREAMS = [b"", plain(output=300), FRAGMENTED, BASE64, client_side(), server_side(output=300)]


@settings(deadline=None)
@given(st.sampled_from(OBSERVERS), st.data())
def test_no_bytes_make_an_observer_raise_and_chunks_do_not_matter(
    make: Callable[[], ExecObserver], data: st.DataObject
) -> None:
    client, server = (mangle(data.draw(st.sampled_from(STREAMS)), data) for _ in range(2))
    whole, cut = make(), make()
    whole.feed_client(client)
    whole.feed_server(server)
    step = data.draw(st.integers(1, 400))
    for chunk in chunks(client, step):
        cut.feed_client(chunk)
    for chunk in chunks(server, step):
        cut.feed_server(chunk)
    assert whole.result() == cut.result()


def mangle(stream: bytes, data: st.DataObject) -> bytes:
    start = data.draw(st.integers(0, min(len(stream), 300)))
    return stream[:start] + data.draw(st.binary(max_size=20)) + stream[start + data.draw(st.integers(0, 20)) :]


MEBI = 1 << 20
LONG_FRAME = b"\x82\x7f" + struct.pack(">Q", 16 * MEBI)
LONG = {
    "stdout": (OBSERVERS[0], b"", LONG_FRAME + b"\x01"),
    "a status": (OBSERVERS[0], b"", LONG_FRAME + b"\x03"),
    "a base64 status": (OBSERVERS[1], b"", b"\x81" + LONG_FRAME[1:] + b"3"),
    "bytes after the end": (OBSERVERS[0], b"", CLOSE),
    "bytes that are no frame": (OBSERVERS[0], b"", b"\xff"),
    "another protocol": (lambda: WebSocketExecObserver(""), b"", b""),
    "SPDY stdout": (OBSERVERS[2], client_side(), struct.pack(">II", 5, 0xFFFFFF)),
    "a SPDY status": (OBSERVERS[2], client_side(), struct.pack(">II", 1, 0xFFFFFF)),
    "a SPDY header block": (OBSERVERS[2], SpdyClient().control(1, b"")[:5] + b"\xff\xff\xff", b""),
    "a SPDY ping": (OBSERVERS[2], SpdyClient().control(6, b"")[:5] + b"\xff\xff\xff", b""),
}


@pytest.mark.parametrize(("make", "client", "server"), LONG.values(), ids=LONG)
def test_long_payloads_are_passed_over_without_being_kept(
    make: Callable[[], ExecObserver], client: bytes, server: bytes
) -> None:
    observer = make()
    observer.feed_client(client)
    observer.feed_server(server)
    chunk = b"1" * 65536
    tracemalloc.start()
    for _ in range(10 * MEBI // len(chunk)):
        observer.feed_client(chunk)
        observer.feed_server(chunk)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < MEBI // 2
    assert observer.result() is None
