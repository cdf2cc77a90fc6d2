"""The loopback address that the browser comes back to (RFC 8252 sections 7.3 and 8.3).

It listens on 127.0.0.1, at a port that the system chooses, from just before the browser is sent away until the first
answer. What that was is decided by the caller; the page says only whether to go on in the terminal.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse
from starlette.routing import Route

from holdfast.login.provider import LoginFailed
from holdfast.serving import Server, Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

HOST = "127.0.0.1"
PATH = "/callback"
GONE = 410

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Connection": "close",
}
_PAGE = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Holdfast</title><h1>{}</h1><p>{}</p></html>'


@dataclass(frozen=True, slots=True)
class Callback:
    """Where the browser is to come back to, and the code that it brings; the future may hold a LoginFailed."""

    redirect_uri: str
    code: asyncio.Future[str]


@asynccontextmanager
async def await_callback(judge: Callable[[str], str]) -> AsyncIterator[Callback]:
    """Listen for one answer; `judge` turns its query into the code, or raises LoginFailed."""
    code: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def receive(request: Request) -> HTMLResponse:
        return _take(request.url.query, judge, code)

    application = Starlette(
        routes=[Route(PATH, receive, methods=["GET"])],
        # A page elsewhere can give 127.0.0.1 a name of its own (DNS rebinding), but not this one.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST])],
    )
    application.router.redirect_slashes = False
    service = Service("the login", "try again")
    with closing(service.bind(HOST, 0)) as listener:
        server = Server(service.configure(application), ignore_interrupt=False)
        listener.listen()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield Callback(service.url(listener) + PATH, code)
        finally:
            server.stop()
            await serving
            _forget(code)


def _take(query: str, judge: Callable[[str], str], code: asyncio.Future[str]) -> HTMLResponse:
    if code.done():
        return _page("There was an answer already", "Log in again if this was not you.", GONE)
    try:
        code.set_result(judge(query))
    except LoginFailed as failure:
        code.set_exception(failure)
        return _page("You are not logged in", "The terminal says why. You can close this window.", 400)
    return _page("Almost there", "The terminal says how it ended. You can close this window.", 200)


def _page(title: str, text: str, status: int) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(title, text), status, headers=_HEADERS)


def _forget(code: asyncio.Future[str]) -> None:
    """Whatever came too late is not reported as lost."""
    if not code.cancel() and not code.cancelled():
        code.exception()
