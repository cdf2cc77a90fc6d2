"""Fetching an issuer's key document, from a real HTTPS server and from files."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading

import pytest
from starlette.applications import Starlette
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from holdfast.errors import ConfigurationError
from holdfast.identity import discovery
from holdfast.identity.dev_issuer import DevIssuer
from holdfast.identity.discovery import (
    MAX_DOCUMENT_BYTES,
    METADATA_PATH,
    IssuerDown,
    choose_loader,
    fetch_jwks,
    read_jwks_file,
)
from holdfast.settings.identity import Issuer


class OddIssuer(DevIssuer):
    """Serves its metadata with some members changed; a member that is None is left out."""

    def __init__(self, url: str = "", **changes: object) -> None:
        super().__init__(url)
        self.changes = changes

    def discovery(self):
        return {name: value for name, value in {**super().discovery(), **self.changes}.items() if value is not None}


class OddServer(DevIssuer):
    """Answers requests for metadata with one fixed response."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        self.answer = answer

    def application(self) -> Starlette:
        async def respond(request):
            return self.answer

        return Starlette(routes=[Route(METADATA_PATH, respond)])


def settings_for(url: str, certificate: object) -> Issuer:
    return Issuer(url=url, audiences=("holdfast",), certificate_authority_file=certificate)


async def fault_of(url: str, authority: object) -> str:
    with pytest.raises(ConfigurationError) as error:
        await fetch_jwks(settings_for(url, authority))
    sentence = str(error.value)
    assert sentence.startswith(f"issuer {url}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


async def test_the_document_is_found_where_the_metadata_says(serve, serving_certificate):
    issuer = DevIssuer()
    async with serve(issuer):
        document = await fetch_jwks(settings_for(issuer.url, serving_certificate.authority))
    assert json.loads(document) == issuer.jwks()


async def test_an_issuer_may_end_in_a_slash(serve, serving_certificate):
    issuer = DevIssuer()
    async with serve(issuer):
        issuer.url += "/"
        issuer.discovery = lambda: {"issuer": issuer.url, "jwks_uri": f"{issuer.url}jwks"}
        assert await fetch_jwks(settings_for(issuer.url, serving_certificate.authority))


METADATA_FAULTS = {
    "another issuer": ({"issuer": "https://evil.example"}, r"names the issuer 'https://evil\.example'"),
    "no issuer": ({"issuer": None}, "names the issuer None"),
    "an endless issuer": ({"issuer": "x" * 100_000}, "names the issuer 'xxx"),
    "keys over http": ({"jwks_uri": "http://127.0.0.1/jwks"}, "'http://127.0.0.1/jwks', expected https://"),
    "keys in a file": ({"jwks_uri": "file:///etc/passwd"}, "expected https://"),
    "no keys": ({"jwks_uri": None}, "names the jwks_uri None"),
    "keys at a list": ({"jwks_uri": ["https://a"]}, "expected https://"),
    "keys nowhere": ({"jwks_uri": "https://"}, "is no https:// address"),
    "keys at a bad port": ({"jwks_uri": "https://127.0.0.1:99999/"}, "is no https:// address"),
    "keys at no answer": ({"jwks_uri": "https://127.0.0.1:1/jwks"}, "cannot be reached"),
}


@pytest.mark.parametrize(("changes", "fault"), METADATA_FAULTS.values(), ids=METADATA_FAULTS)
async def test_odd_metadata_is_one_sentence(serve, serving_certificate, changes, fault):
    issuer = OddIssuer(**changes)
    async with serve(issuer):
        assert re.search(fault, await fault_of(issuer.url, serving_certificate.authority))


async def test_an_issuer_that_differs_by_a_slash_is_another(serve, serving_certificate):
    issuer = DevIssuer()
    async with serve(issuer):
        fault = await fault_of(issuer.url + "/", serving_certificate.authority)
    assert f"names the issuer '{issuer.url}'; url must be exactly that" in fault


ODD_ANSWERS = {
    "not found": (Response(status_code=404), "answered 404, expected 200"),
    "broken": (Response(status_code=500), "answered 500, expected 200"),
    "empty": (Response(b""), "discovery document cannot be read"),
    "a web page": (Response(b"<html>"), "discovery document cannot be read"),
    "a list": (Response(b"[]"), "discovery document cannot be read: not a JSON object"),
    "duplicate issuer": (Response(b'{"issuer": 1, "issuer": 2}'), "duplicate member"),
    "deep": (Response(b"[" * 100_000), "nested deeper"),
    "too long": (Response(b" " * (MAX_DOCUMENT_BYTES + 1)), "is longer than 1 MiB"),
    "compressed": (Response(b"\x1f\x8b", headers={"content-encoding": "gzip"}), "discovery document cannot be read"),
    "redirect to http": (RedirectResponse("http://127.0.0.1/"), "'http://127.0.0.1/' is no https:// address"),
    "redirect to itself": (RedirectResponse(METADATA_PATH), "redirects"),
}


@pytest.mark.parametrize(("answer", "fault"), ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_an_odd_answer_is_one_sentence(serve, serving_certificate, answer, fault):
    server = OddServer(answer)
    async with serve(server):
        assert fault in await fault_of(server.url, serving_certificate.authority)


async def test_a_redirect_over_https_is_followed(serve, serving_certificate):
    issuer = DevIssuer()
    async with serve(issuer) as port:
        front = OddServer(RedirectResponse(f"https://127.0.0.1:{port}{METADATA_PATH}"))
        async with serve(front):
            behind, issuer.url = issuer.url, front.url
            issuer.discovery = lambda: {"issuer": front.url, "jwks_uri": f"{behind}/jwks"}
            assert json.loads(await fetch_jwks(settings_for(front.url, serving_certificate.authority)))


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(serve):
    issuer = DevIssuer()
    async with serve(issuer):
        fault = await fault_of(issuer.url, None)
    assert "its certificate is not trusted" in fault
    assert "set certificateAuthority or certificateAuthorityFile to its CA" in fault


async def test_a_certificate_for_another_name_is_not_trusted(serve, serving_certificate):
    async with serve(DevIssuer()) as port:
        fault = await fault_of(f"https://localhost:{port}", serving_certificate.authority)
    assert "its certificate is not trusted" in fault


async def test_nobody_there_is_one_sentence(serve, serving_certificate):
    async with serve(DevIssuer()) as port:
        pass
    fault = await fault_of(f"https://127.0.0.1:{port}", serving_certificate.authority)
    assert "cannot be reached" in fault


async def test_a_server_without_tls_is_one_sentence(serving_certificate):
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert "cannot be reached" in await fault_of(f"https://127.0.0.1:{port}", serving_certificate.authority)


async def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch, serving_certificate):
    monkeypatch.setattr(discovery, "TIMEOUT_SECONDS", 0.05)
    silent = asyncio.Event()

    async def say_nothing(reader, writer):
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        fault = await fault_of(f"https://127.0.0.1:{port}", serving_certificate.authority)
        assert "did not answer within" in fault
    finally:
        silent.set()
        server.close()


async def test_a_name_that_nobody_resolves_is_not_waited_for(monkeypatch):
    answered = threading.Event()

    def resolve(*wanted, **options):
        answered.wait()
        raise OSError("no such name")

    trust = ssl.create_default_context()  # which takes its time, too
    monkeypatch.setattr(discovery, "_open_trust", lambda issuer: trust)
    monkeypatch.setattr(discovery, "TIMEOUT_SECONDS", 1)
    monkeypatch.setattr("socket.getaddrinfo", resolve)
    load = choose_loader(settings_for("https://issuer.example", None))
    try:
        async with asyncio.timeout(10):
            with pytest.raises(IssuerDown, match="did not answer within"):
                await load()
    finally:
        answered.set()


async def test_what_an_issuer_sends_is_taken_apart_away_from_the_calls_of_others(monkeypatch):
    loops = []

    async def fetch(issuer):
        loops.append(asyncio.get_running_loop())
        return b"{}"

    monkeypatch.setattr(discovery, "fetch_jwks", fetch)
    assert await choose_loader(settings_for("https://issuer.example", None))() == b"{}"
    assert loops[0] is not asyncio.get_running_loop()


async def test_issuers_that_say_nothing_leave_the_threads_that_the_database_is_asked_on(monkeypatch):
    asked = asyncio.Semaphore(0)
    loop, answered = asyncio.get_running_loop(), threading.Event()

    async def say_nothing(issuer):
        loop.call_soon_threadsafe(asked.release)
        answered.wait()
        return b"{}"

    monkeypatch.setattr(discovery, "fetch_jwks", say_nothing)
    load = choose_loader(settings_for("https://issuer.example", None))
    reads = [asyncio.create_task(load()) for _ in range(40)]
    try:
        async with asyncio.timeout(30):
            for _ in reads:
                await asked.acquire()
            assert await asyncio.to_thread(lambda: "revocations") == "revocations"
    finally:
        answered.set()
    assert await asyncio.gather(*reads) == [b"{}"] * 40


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "holds no certificate in PEM"),
        (b"not a certificate", "holds no certificate in PEM"),
    ],
)
async def test_an_authority_that_cannot_be_read_is_one_sentence(tmp_path, content, why):
    authority = tmp_path / "ca.pem"
    if content is not None:
        authority.write_bytes(content)
    fault = await fault_of("https://127.0.0.1:1", authority)
    assert f"its CA {authority} {why}" in fault
    assert fault.endswith("; set certificateAuthority or certificateAuthorityFile to its CA.")


async def test_an_issuer_on_this_machine_is_reached_past_any_proxy(monkeypatch, serve, serving_certificate):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    issuer = DevIssuer()
    async with serve(issuer):
        assert await fetch_jwks(settings_for(issuer.url, serving_certificate.authority))


async def test_a_file_is_read_where_one_is_given(tmp_path):
    file = tmp_path / "jwks.json"
    file.write_bytes(b'{"keys": []}')
    load = choose_loader(Issuer(url="https://issuer.example", audiences=("holdfast",), jwks_file=file))
    assert await load() == b'{"keys": []}'


async def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"issuer https://i: jwksFile .*gone\.json cannot be read: No such file"
    ):
        await read_jwks_file("https://i", tmp_path / "gone.json")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        await read_jwks_file("https://i", tmp_path)


async def test_a_file_is_bounded(tmp_path):
    file = tmp_path / "jwks.json"
    file.write_bytes(b" " * MAX_DOCUMENT_BYTES)
    assert len(await read_jwks_file("https://i", file)) == MAX_DOCUMENT_BYTES
    file.write_bytes(b" " * (MAX_DOCUMENT_BYTES + 1))
    with pytest.raises(ConfigurationError, match="longer than 1 MiB"):
        await read_jwks_file("https://i", file)
