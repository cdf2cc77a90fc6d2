"""A small HTTP service against those who connect and do not ask, or do not listen."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from holdfast.certificates import make_authority
from holdfast.errors import BadRequest
from holdfast.serving import Server, Service, read_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SECONDS = 60
ROOM = 4
LONGEST = 24 << 20
ASK = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_A_HEAD = b"GET /ok HTTP/1.1\r\nHost: x\r\nA: "
HALF_A_BODY = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\na"
UNREAD_BODY = b"POST /ok HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\na"


@asynccontextmanager
async def serving(slow: asyncio.Event, folder: Path | None = None) -> AsyncIterator[int]:
    async def wait(request: Request) -> PlainTextResponse:
        await slow.wait()
        return PlainTextResponse("slow")

    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    async def read(request: Request) -> PlainTextResponse:
        return PlainTextResponse(await read_body(request, 100))

    async def answer_at_length(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok" * 50_000)

    async def answer_at_great_length(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok" * (LONGEST // 2))

    paths = {"/longest": answer_at_great_length, "/long": answer_at_length, "/ok": answer, "/slow": wait, "/body": read}
    application = Starlette(routes=[Route(path, call, methods=["GET", "POST"]) for path, call in paths.items()])
    certificate = None if folder is None else make_certificate(folder)
    service = Service("the test", "", certificate, certificate)
    listener = service.bind("127.0.0.1", 0)
    server = Server(service.configure(application), ignore_interrupt=True)
    listener.listen()
    running = asyncio.create_task(server.serve(sockets=[listener]))
    yield listener.getsockname()[1]
    server.stop()
    await running
    listener.close()


def make_certificate(folder: Path) -> Path:
    now = datetime.now(UTC)
    pair = make_authority("test CA", now=now, days=2).issue("127.0.0.1", hosts=("127.0.0.1",), now=now, days=2)
    file = folder / "tls.pem"
    file.write_bytes(pair.key_pem + pair.certificate_pem)
    return file


def trusting_anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def send(
    port: int, *parts: bytes, trust: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send one part after the other, each after the first once something has come back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust)
    for place, part in enumerate(parts):
        if place:
            await reader.read(1)
        writer.write(part)
        await writer.drain()
    return reader, writer


async def status_of(port: int, trust: ssl.SSLContext | None = None) -> bytes:
    reader, writer = await send(port, ASK, trust=trust)
    line = await reader.readline()
    writer.close()
    return line


async def is_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends the connection; waits for as long as it does not."""
    try:
        await reader.read()
    except ConnectionError:
        return True
    return reader.at_eof()


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((), id="nothing"),
        pytest.param((HALF_A_HEAD,), id="half a head"),
        pytest.param((HALF_A_BODY,), id="half a body"),
        pytest.param((UNREAD_BODY,), id="half a body that nobody reads"),
        pytest.param((ASK, HALF_A_HEAD), id="half of a second call"),
        pytest.param((ASK + HALF_A_HEAD,), id="half of a second call at once"),
    ],
)
async def test_those_who_do_not_ask_are_sent_away(monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]) -> None:
    monkeypatch.setattr("holdfast.serving.connections.REQUEST_SECONDS", 0.5)
    async with asyncio.timeout(SECONDS), serving(asyncio.Event()) as port:
        reader, writer = await send(port, *parts)
        dripping = asyncio.create_task(drip(writer))
        assert await is_ended(reader)
        await dripping


@pytest.mark.parametrize("parts", [(), (HALF_A_HEAD,), (HALF_A_BODY,), (ASK, b"")], ids=str)
async def test_those_who_do_not_ask_keep_nobody_out(monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]) -> None:
    monkeypatch.setattr("holdfast.serving.connections.LARGEST_CONCURRENCY", ROOM)
    async with asyncio.timeout(SECONDS), serving(asyncio.Event()) as port:
        idle = [await send(port, *parts) for _ in range(2 * ROOM)]
        assert b"200" in await status_of(port)
        assert await is_ended(idle[0][0])


async def test_those_who_wait_for_an_answer_are_not_sent_away_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.serving.connections.LARGEST_CONCURRENCY", ROOM)
    slow = asyncio.Event()
    async with asyncio.timeout(SECONDS), serving(slow) as port:
        waiting = [await send(port, ASK.replace(b"/ok", b"/slow")) for _ in range(ROOM - 1)]
        assert b"503" in await status_of(port)
        slow.set()
        assert [b"200" in await reader.readline() for reader, _ in waiting] == [True] * (ROOM - 1)
        for _, writer in waiting:
            writer.close()


async def drip(writer: asyncio.StreamWriter) -> None:
    """Send something every now and then until the connection is ended."""
    while not writer.is_closing():
        writer.write(b"a")
        await asyncio.sleep(0.05)


async def test_who_has_asked_may_wait_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.serving.connections.REQUEST_SECONDS", 0.1)
    slow = asyncio.Event()
    async with asyncio.timeout(SECONDS), serving(slow) as port:
        waiting, writer = await send(port, ASK.replace(b"/ok", b"/slow"))
        other, _ = await send(port, HALF_A_HEAD)
        assert await is_ended(other)
        slow.set()
        assert b"200" in await waiting.readline()
        writer.close()


async def test_who_does_not_take_the_answers_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.serving.connections.REQUEST_SECONDS", 0.5)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(SECONDS), serving(asyncio.Event()) as port:
        with socket.socket() as deaf:
            deaf.setblocking(False)
            await loop.sock_connect(deaf, ("127.0.0.1", port))
            with pytest.raises(ConnectionError):
                await loop.sock_sendall(deaf, ASK.replace(b"/ok", b"/long") * 500_000)


@pytest.mark.parametrize("is_secure", [False, True])
async def test_who_takes_an_answer_slowly_gets_all_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_secure: bool
) -> None:
    monkeypatch.setattr("holdfast.serving.connections.REQUEST_SECONDS", 0.5)
    trust = trusting_anybody() if is_secure else None
    async with asyncio.timeout(SECONDS), serving(asyncio.Event(), tmp_path if is_secure else None) as port:
        reader, writer = await send(port, ASK.replace(b"/ok", b"/longest"), trust=trust)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(LONGEST >> 20):
            await reader.readexactly(1 << 20)
            await asyncio.sleep(0.1)
        writer.close()


async def say_and_stay(port: int, call: bytes) -> tuple[socket.socket, ssl.SSLObject]:
    """Ask over TLS and take the answer to its end, but never say that the connection is over."""
    loop = asyncio.get_running_loop()
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting_anybody().wrap_bio(received, sent)
    raw = socket.socket()
    raw.setblocking(False)
    await loop.sock_connect(raw, ("127.0.0.1", port))
    steps = [tls.do_handshake, lambda: tls.write(call), lambda: tls.read(1 << 14)]
    while steps:
        try:
            steps[0]()
            steps.pop(0)
        except ssl.SSLWantReadError:
            await loop.sock_sendall(raw, sent.read())
            received.write(await loop.sock_recv(raw, 1 << 16))
        await loop.sock_sendall(raw, sent.read())
    return raw, tls


@pytest.mark.parametrize("call", [ASK.replace(b"x\r\n", b"x\r\nConnection: close\r\n"), b"?\r\n\r\n"], ids=str)
async def test_those_who_leave_a_connection_half_closed_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: bytes
) -> None:
    monkeypatch.setattr("holdfast.serving.connections.LARGEST_CONCURRENCY", ROOM)
    async with asyncio.timeout(SECONDS), serving(asyncio.Event(), tmp_path) as port:
        staying = [await say_and_stay(port, call) for _ in range(2 * ROOM)]
        assert b"200" in await status_of(port, trusting_anybody())
        for raw, _ in staying:
            raw.close()


async def test_those_who_do_not_shake_hands_are_sent_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("holdfast.serving.connections.REQUEST_SECONDS", 0.5)
    async with asyncio.timeout(SECONDS / 2), serving(asyncio.Event(), tmp_path) as port:
        reader, writer = await send(port)
        assert await is_ended(reader)
        writer.close()


@pytest.mark.parametrize("parts", [(), (b"\x16\x03\x01\x02\x00",)], ids=["nothing", "half a hello"])
async def test_those_who_do_not_shake_hands_take_no_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, parts: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr("holdfast.serving.connections.LARGEST_CONCURRENCY", ROOM)
    async with asyncio.timeout(SECONDS / 4), serving(asyncio.Event(), tmp_path) as port:
        idle = [await send(port, *parts) for _ in range(2 * ROOM)]
        assert b"200" in await status_of(port, trusting_anybody())
        assert await is_ended(idle[0][0])
        for _, writer in idle:
            writer.close()


async def test_who_goes_away_amid_a_call_is_told_no_fault_of_ours() -> None:
    """It has an answer like any other bad call: what has none is logged, with all of the stack, at strangers' will."""
    messages = iter([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> dict[str, object]:
        return next(messages)

    with pytest.raises(BadRequest, match="went away"):
        await read_body(Request({"type": "http", "headers": []}, receive), 100)
