"""The upstream probe against a TLS server that answers as an API server does, and as others do."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from holdfast.certificates import Authority, IssuedPair, make_authority, write_private
from holdfast.credential.probe import find_lacking_rights, probe_upstream
from holdfast.credential.rights import Right
from holdfast.credential.sources import Credential, CredentialSource, Target
from holdfast.errors import ConfigurationError
from holdfast.serving import Server, Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from starlette.requests import Request

NOW = datetime.now(UTC)
AUTHORITY = make_authority("cluster CA", now=NOW)
OTHER_AUTHORITY = make_authority("other CA", now=NOW)
PAIR = AUTHORITY.issue("kube-apiserver", hosts=("kubernetes", "127.0.0.1"), now=NOW)
VERSION = JSONResponse({"gitVersion": "v1.36.0"})
REVIEWED = JSONResponse({"status": {"userInfo": {"username": "system:serviceaccount:holdfast:gateway"}}}, 201)
ANONYMOUS = JSONResponse({"status": {"userInfo": {"username": "system:anonymous"}}}, 201)
UNAUTHORIZED = JSONResponse({"kind": "Status", "message": "Unauthorized", "code": 401}, 401)
TOKEN = "a-secret-token"

type Start = Callable[..., Awaitable[CredentialSource]]


def forbidden(user: str) -> JSONResponse:
    message = f'selfsubjectreviews.authentication.k8s.io is forbidden: User "{user}" cannot create resource'
    return JSONResponse({"kind": "Status", "message": message, "code": 403}, 403)


def answering(version: Response, review: Response, access: Response | None) -> Starlette:
    async def get_version(request: Request) -> Response:
        return version

    async def post_review(request: Request) -> Response:
        return review if request.headers.get("authorization") == f"Bearer {TOKEN}" else UNAUTHORIZED

    async def post_access(request: Request) -> Response:
        attributes = (await request.json())["spec"]["resourceAttributes"]
        return access or JSONResponse({"status": {"allowed": attributes["resource"] == "users"}}, 201)

    reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    return Starlette(
        routes=[
            Route("/version", get_version),
            Route(reviews, post_review, methods=["POST"]),
            Route("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", post_access, methods=["POST"]),
        ]
    )


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def run(
            version: Response = VERSION,
            review: Response = REVIEWED,
            *,
            access: Response | None = None,
            pair: IssuedPair = PAIR,
            trusted: Authority = AUTHORITY,
            server_name: str = "127.0.0.1",
        ) -> CredentialSource:
            write_private(tmp_path / "tls.crt", pair.certificate_pem)
            write_private(tmp_path / "tls.key", pair.key_pem)
            service = Service("the API server", "", tmp_path / "tls.crt", tmp_path / "tls.key")
            server = Server(service.configure(answering(version, review, access)), ignore_interrupt=True)
            listener = stack.enter_context(service.bind("127.0.0.1", 0))
            listener.listen()
            running = asyncio.create_task(server.serve(sockets=[listener]))
            stack.push_async_callback(asyncio.wait, [running])
            stack.callback(server.stop)
            target = Target("127.0.0.1", listener.getsockname()[1], server_name, trusted.certificate_pem)
            return CredentialSource(target, Credential(token=TOKEN))

        yield run


@pytest.mark.parametrize(
    ("version", "review", "found"),
    [
        (VERSION, REVIEWED, "v1.36.0"),
        (VERSION, forbidden("system:serviceaccount:holdfast:gateway"), "v1.36.0"),
        (VERSION, JSONResponse({"kind": "Status", "code": 404}, 404), "v1.36.0"),
        (forbidden("gateway"), REVIEWED, "unknown version"),
    ],
    ids=["reviewed", "known but forbidden", "older than the review", "version kept to itself"],
)
async def test_an_api_server_that_obeys_tells_its_version(
    start: Start, version: Response, review: Response, found: str
) -> None:
    assert await probe_upstream(await start(version, review)) == found


async def test_the_certificate_is_checked_for_the_server_name(start: Start) -> None:
    assert await probe_upstream(await start(server_name="kubernetes")) == "v1.36.0"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"review": UNAUTHORIZED}, "does not accept the gateway's token"),
        ({"version": UNAUTHORIZED}, "does not accept the gateway's token"),
        ({"review": ANONYMOUS}, "does not accept the gateway's token"),
        ({"review": forbidden("system:anonymous")}, "does not accept the gateway's token"),
        ({"version": PlainTextResponse("hello")}, "not how a Kubernetes API server answers"),
        ({"version": JSONResponse({"gitVersion": "v1"}, 500)}, "not how a Kubernetes API server answers"),
        ({"trusted": OTHER_AUTHORITY}, "its certificate is not trusted"),
        ({"server_name": "elsewhere"}, "its certificate is not for elsewhere"),
        ({"server_name": "127.0.0.9"}, "its certificate is not for 127.0.0.9"),
        (
            {"pair": AUTHORITY.issue("old", hosts=("127.0.0.1",), now=NOW - timedelta(days=9), days=1)},
            "its certificate has expired",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_wrong_is_said_in_one_sentence(start: Start, arguments: dict[str, Any], sentence: str) -> None:
    source = await start(**arguments)
    with pytest.raises(ConfigurationError) as raised:
        await probe_upstream(source)
    message = str(raised.value)
    assert message.startswith(f"upstream {source.target.url}: ")
    assert sentence in message
    assert message.endswith(".")
    assert TOKEN not in message


async def test_nobody_there_is_said_plainly() -> None:
    target = Target("127.0.0.1", 1, "127.0.0.1", AUTHORITY.certificate_pem)
    with pytest.raises(ConfigurationError, match="cannot be reached"):
        await probe_upstream(CredentialSource(target, Credential(token=TOKEN)))


async def test_rights_that_are_lacking_are_told(start: Start) -> None:
    users, groups = Right("", "users"), Right("", "groups", name="system:authenticated")
    assert await find_lacking_rights(await start(), (users, groups)) == [groups]


@pytest.mark.parametrize(
    ("access", "sentence"),
    [
        (UNAUTHORIZED, "does not accept the gateway's token"),
        (forbidden("gateway"), "answered 403 when asked what the gateway may do"),
        (JSONResponse({"status": {"allowed": "yes"}}, 201), "answered 201 when asked"),
    ],
)
async def test_an_api_server_that_does_not_tell_of_rights_is_no_yes(
    start: Start, access: Response, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        await find_lacking_rights(await start(access=access), (Right("", "users"),))
