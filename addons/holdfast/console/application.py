"""The approvals API over HTTP: routes, authentication, errors as metav1.Status.

    GET  /healthz                    ok, without a token
    GET  /v1/holds?state=pending     {"items": [...]}; `state` may be left out or be given again
    GET  /v1/holds/{id}
    POST /v1/holds/{id}/approve      {"reason": "..."}; the reason may be left out
    POST /v1/holds/{id}/deny         {"reason": "..."}

and, where tokens of our own are given, those of `tokens`. All of these here but the first want `Authorization: Bearer
TOKEN`, of a trusted issuer. No cookie says who somebody is (those of `saml` say which login is under way, and no more),
and there are no CORS headers, so a web page elsewhere can do nothing in a person's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from holdfast.console.views import render_hold
from holdfast.errors import BadRequest, HoldfastError, Internal
from holdfast.exchange import HoldState
from holdfast.serving import read_body

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from holdfast.console.decisions import Decisions
    from holdfast.console.tokens import TokenService
    from holdfast.exchange import Identity

LARGEST_BODY = 16 << 10
NO_STORE = {"Cache-Control": "no-store"}


class Authenticating(Protocol):
    """What is needed of `Authenticator`."""

    async def authenticate(self, authorization: str | None) -> Identity:
        """Verify `Bearer TOKEN`. Raises Unauthorized."""


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent with a decision."""

    reason: str = ""


class ApprovalsAPI:
    """The endpoints over `decisions`."""

    def __init__(self, authenticator: Authenticating, decisions: Decisions, tokens: TokenService | None = None) -> None:
        self._authenticator = authenticator
        self._decisions = decisions
        self._tokens = tokens

    def application(self) -> Starlette:
        """Return the ASGI application."""
        return Starlette(
            routes=[
                Route("/healthz", _get_health),
                Route("/v1/holds", self._list_holds),
                Route("/v1/holds/{id}", self._get_hold),
                Route("/v1/holds/{id}/approve", self._approve, methods=["POST"]),
                Route("/v1/holds/{id}/deny", self._deny, methods=["POST"]),
                *(self._tokens.routes() if self._tokens is not None else ()),
            ],
            exception_handlers={
                HoldfastError: _answer_error,
                HTTPException: _answer_http_exception,
                Exception: _answer_error,
            },
        )

    async def _list_holds(self, request: Request) -> JSONResponse:
        viewer = await self._identify(request)
        holds = await self._decisions.list(viewer, _read_states(request.query_params.getlist("state")))
        return _answer({"items": [render_hold(hold, viewer) for hold in holds]})

    async def _get_hold(self, request: Request) -> JSONResponse:
        viewer = await self._identify(request)
        return _answer(render_hold(await self._decisions.get(viewer, request.path_params["id"]), viewer))

    async def _approve(self, request: Request) -> JSONResponse:
        return await self._decide(request, approve=True)

    async def _deny(self, request: Request) -> JSONResponse:
        return await self._decide(request, approve=False)

    async def _decide(self, request: Request, *, approve: bool) -> JSONResponse:
        by = await self._identify(request)
        statement = await _read_statement(request)
        decided = await self._decisions.decide(by, request.path_params["id"], approve=approve, reason=statement.reason)
        return _answer(render_hold(decided, by))

    async def _identify(self, request: Request) -> Identity:
        sent = request.headers.getlist("authorization")
        if len(sent) > 1:
            raise BadRequest("expected one Authorization header")
        return await self._authenticator.authenticate(sent[0] if sent else None)


async def _get_health(request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok\n", headers=NO_STORE)


def _read_states(names: list[str]) -> frozenset[HoldState] | None:
    try:
        return frozenset(map(HoldState, names)) or None
    except ValueError as error:
        raise BadRequest(f"there is no such state; expected one of {', '.join(HoldState)}") from error


async def _read_statement(request: Request) -> Statement:
    body = await read_body(request, LARGEST_BODY)
    if not body:
        return Statement()
    try:
        return msgspec.json.decode(body, type=Statement)
    except ValueError as error:
        raise BadRequest(f'the body must be JSON as {{"reason": "..."}}: {error}') from error


def _answer(content: Any) -> JSONResponse:
    return JSONResponse(content, headers=NO_STORE)


def _answer_error(request: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, HoldfastError) else Internal("the approvals API failed; see its log")
    headers = dict(NO_STORE)
    if refusal.code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(refusal.retry_after)
    return JSONResponse(refusal.status(), status_code=refusal.code, headers=headers)


def _answer_http_exception(request: Request, error: Exception) -> Response:
    """No such path, or no such method on it."""
    code = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(NO_STORE) | dict((isinstance(error, HTTPException) and error.headers) or {})
    reason = {404: "NotFound", 405: "MethodNotAllowed"}.get(code, "BadRequest")
    what = "there is no such endpoint"
    if "Allow" in headers:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))  # a set, in starlette
        what = f"it takes {headers['Allow']}"
    status = Internal(f"{request.method} {request.url.path}: {what}").status()
    return JSONResponse(status | {"reason": reason, "code": code}, status_code=code, headers=headers)
