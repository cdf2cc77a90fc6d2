"""The loopback address: one answer is taken, from a browser that was sent here."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest

from holdfast.login.callback import await_callback
from holdfast.login.provider import LoginFailed


def judge(query: str) -> str:
    if query != "code=good":
        raise LoginFailed("not good")
    return query


async def get(url: str, **arguments: object) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url, **arguments)  # type: ignore[arg-type]


async def test_the_first_answer_is_taken_and_the_second_is_not() -> None:
    async with await_callback(judge) as callback:
        assert urlsplit(callback.redirect_uri).hostname == "127.0.0.1"
        assert urlsplit(callback.redirect_uri).path == "/callback"
        first = await get(f"{callback.redirect_uri}?code=good")
        second = await get(f"{callback.redirect_uri}?code=other")
        assert await callback.code == "code=good"
    assert (first.status_code, second.status_code) == (200, 410)
    assert "close this window" in first.text
    with pytest.raises(httpx.ConnectError):
        await get(f"{callback.redirect_uri}?code=good")


async def test_a_wrong_answer_ends_it_and_is_not_repeated_on_the_page() -> None:
    async with await_callback(judge) as callback:
        page = await get(f"{callback.redirect_uri}?code=<script>")
        with pytest.raises(LoginFailed, match="not good"):
            await callback.code
    assert page.status_code == 400
    assert "script" not in page.text
    assert page.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "host", "method", "status"),
    [
        ("/favicon.ico", "127.0.0.1", "GET", 404),
        ("/", "127.0.0.1", "GET", 404),
        ("/callback/", "127.0.0.1", "GET", 404),
        ("/callback", "127.0.0.1", "POST", 405),
        ("/callback", "attacker.example", "GET", 400),
        ("/callback", "localhost", "GET", 400),
    ],
)
async def test_other_requests_are_no_answer(path: str, host: str, method: str, status: int) -> None:
    async with await_callback(judge) as callback, httpx.AsyncClient(trust_env=False, follow_redirects=False) as client:
        at = urlsplit(callback.redirect_uri)
        url = f"http://127.0.0.1:{at.port}{path}?code=good"
        answer = await client.request(method, url, headers={"Host": f"{host}:{at.port}"})
        assert answer.status_code == status
        assert not callback.code.done()
