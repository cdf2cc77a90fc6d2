"""The token endpoint: what is exchanged, what is refused and how, and that nothing is given that is not on record."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from console.world import ISSUER
from holdfast.audit.record import Kind
from holdfast.console.application import ApprovalsAPI
from holdfast.console.refusals import Refusals
from holdfast.console.tokens import TOKEN_EXCHANGE, TokenService
from holdfast.errors import Unavailable
from holdfast.identity.authenticator import Authenticator
from holdfast.identity.dev_issuer import DevIssuer
from holdfast.identity.own_tokens import OwnTokenMapper
from holdfast.identity.token_keys import TokenKeys
from holdfast.settings.identity import IdentitySection, OwnTokens
from running import trusted_issuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from holdfast.audit.record import Entry
    from holdfast.exchange import Identity

URL = "https://gateway.test:8444"
SETTINGS = OwnTokens(url=URL)
JWT = "urn:ietf:params:oauth:token-type:jwt"
ASK = {"grant_type": TOKEN_EXCHANGE, "subject_token_type": JWT}


class Writer:
    """Keeps what is appended, or fails."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.fault: Exception | None = None

    async def append(self, entry: Entry) -> object:
        if self.fault is not None:
            raise self.fault
        self.entries.append(entry)
        return None


class Endpoint:
    """The approvals API with the token endpoint, and an issuer that it trusts."""

    def __init__(self, folder: Path) -> None:
        now = time.time()  # and so it stays
        self.issuer = DevIssuer(ISSUER, clock=lambda: now)
        (folder / "jwks.json").write_text(json.dumps(self.issuer.jwks()))
        keys = TokenKeys(folder / "token-keys")
        keys.prepare(now, SETTINGS.lifetime_seconds)
        section = IdentitySection.model_validate({"jwt": [trusted_issuer(jwksFile=folder / "jwks.json")]})
        own = OwnTokenMapper(SETTINGS, keys.jwks_file, section.issuers)
        self.authenticator = Authenticator(section, own, clock=lambda: now)
        self.writer = Writer()
        moment = datetime.fromtimestamp(now, UTC)
        service = TokenService(
            SETTINGS,
            keys,
            self.authenticator,
            self.writer,
            Refusals(self.writer, monotonic=lambda: now),
            lambda: moment,
        )
        decisions: Any = None
        self.application = ApprovalsAPI(self.authenticator, decisions, service).application()

    async def ask(self, **form: str | None) -> httpx.Response:
        given = {**ASK, "subject_token": self.issuer.mint("ada", ["dev"], claims={"jti": "t-1"}), **form}
        return await self.post(data={name: value for name, value in given.items() if value is not None})

    async def post(self, **request: Any) -> httpx.Response:
        async with self.client() as client:
            return await client.post("/token", **request)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.application), base_url=URL)


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(folder)
    await endpoint.authenticator.start()
    yield endpoint
    await endpoint.authenticator.close()


async def test_a_token_of_a_trusted_issuer_becomes_one_of_ours(tmp_path: Path) -> None:
    async with started(tmp_path) as endpoint:
        answer = await endpoint.ask()
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        given = answer.json()
        assert set(given) == {"access_token", "issued_token_type", "token_type", "expires_in"}
        assert (given["token_type"], given["issued_token_type"]) == (
            "Bearer",
            "urn:ietf:params:oauth:token-type:access_token",
        )
        assert given["expires_in"] == 600
        found = await endpoint.authenticator.authenticate(f"Bearer {given['access_token']}")
        assert (found.issuer, found.username, found.groups) == (ISSUER, "ada", ("dev",))
        assert found.claims["jti"] == "t-1"
        (entry,) = endpoint.writer.entries
        record = entry.record
        assert record.kind is Kind.ISSUE
        assert record.identity is not None
        assert record.identity.username == "ada"
        assert record.issue is not None
        assert record.issue.grant == "token-exchange"
        assert given["access_token"] not in repr(entry)


@pytest.mark.parametrize("kind", ["jwt", "id_token", "access_token"])
async def test_every_kind_of_token_that_an_issuer_gives_is_taken(tmp_path: Path, kind: str) -> None:
    async with started(tmp_path) as endpoint:
        answer = await endpoint.ask(subject_token_type=f"urn:ietf:params:oauth:token-type:{kind}")
        assert answer.status_code == 200
        assert (await endpoint.ask(audience=URL, resource=URL, scope="anything")).status_code == 200


@pytest.mark.parametrize(
    ("form", "code", "sentence"),
    [
        ({"grant_type": None}, "unsupported_grant_type", "grant_type: expected"),
        ({"grant_type": "password"}, "unsupported_grant_type", "grant_type: expected"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type", "grant_type: expected"),
        ({"subject_token_type": None}, "invalid_request", "subject_token_type: expected one of"),
        (
            {"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
            "invalid_request",
            "subject_token_t",
        ),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "invalid_request", "requested_"),
        ({"actor_token": "x"}, "invalid_request", "actor_token"),
        ({"audience": "https://other.test"}, "invalid_target", "audience, resource: tokens are for"),
        ({"resource": "https://other.test"}, "invalid_target", "audience, resource: tokens are for"),
        ({"subject_token": "x.y.z"}, "invalid_request", "subject_token: the token is not valid"),
        ({"subject_token": "\u00e4"}, "invalid_request", "subject_token: "),
        ({"subject_token": "x" * 20_000}, "invalid_request", "subject_token: the token is too large"),
    ],
)
async def test_what_is_not_exchanged_is_told_as_oauth_tells_it(
    tmp_path: Path, form: dict[str, str | None], code: str, sentence: str
) -> None:
    async with started(tmp_path) as endpoint:
        answer = await endpoint.ask(**form)
        assert answer.status_code == 400
        assert answer.json()["error"] == code
        assert answer.json()["error_description"].startswith(sentence)
        told = [entry.record.refusal.why for entry in endpoint.writer.entries if entry.record.refusal]
        assert len(told) == len(endpoint.writer.entries) == sentence.startswith("subject_token:")


@pytest.mark.parametrize("nothing", [None, "", " \r\n"])
async def test_a_token_that_is_missing_is_not_called_one_that_is_not_valid(tmp_path: Path, nothing: str | None) -> None:
    async with started(tmp_path) as endpoint:
        answer = await endpoint.ask(subject_token=nothing)
        told = {"error": "invalid_request", "error_description": "subject_token: is missing"}
        assert (answer.status_code, answer.json()) == (400, told)
        assert endpoint.writer.entries == []


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
async def test_the_line_end_of_a_file_is_no_part_of_the_token(tmp_path: Path, end: str) -> None:
    async with started(tmp_path) as endpoint:
        assert (await endpoint.ask(subject_token=f"{end}{endpoint.issuer.mint('ada')}{end}")).status_code == 200


async def test_a_stranger_and_one_of_ours_get_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with started(tmp_path) as endpoint:
        ours = (await endpoint.ask()).json()["access_token"]
        for token in (DevIssuer(ISSUER).mint("ada"), DevIssuer("https://evil.test").mint("ada"), ours):
            answer = await endpoint.ask(subject_token=token)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        told = [entry.record.refusal.why for entry in endpoint.writer.entries if entry.record.refusal]
        assert told == ["unknown_key", "unknown_issuer", "own_token"]
        (line,) = caplog.messages
        assert line == "refused: token-exchange, unknown_key; `holdfast identity log` tells more"


async def test_nothing_is_given_that_is_not_on_record(tmp_path: Path) -> None:
    async with started(tmp_path) as endpoint:
        endpoint.writer.fault = Unavailable("the audit database is away")
        answer = await endpoint.ask()
        assert answer.status_code == 503
        assert answer.json() == {"error": "temporarily_unavailable", "error_description": "the audit database is away"}


async def test_a_gateway_that_cannot_sign_says_so_and_not_where_its_keys_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with started(tmp_path) as endpoint:
        await endpoint.ask()  # afterwards it looks for keys only, and makes none
        folder = tmp_path / "token-keys"
        for key in folder.glob("*.pem"):
            key.rename(key.with_suffix(".gone"))
        answer = await endpoint.ask()
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert str(folder) not in answer.text
        assert f"no token can be signed: {folder}: has no key" in caplog.text


@pytest.mark.parametrize(
    "request_body",
    [
        {"json": ASK},
        {"content": "grant_type=a&grant_type=b", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"content": b"\xff=\xff", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"content": "no form", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"content": "a=%ff", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {
            "content": "&".join(f"a{i}=b" for i in range(99)),
            "headers": {"content-type": "application/x-www-form-urlencoded"},
        },
        {"content": "a=" + "b" * 70_000, "headers": {"content-type": "application/x-www-form-urlencoded"}},
    ],
)
async def test_what_is_no_form_is_refused(tmp_path: Path, request_body: dict[str, Any]) -> None:
    async with started(tmp_path) as endpoint:
        answer = await endpoint.post(**request_body)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_metadata_and_keys_are_published(tmp_path: Path) -> None:
    async with started(tmp_path) as endpoint, endpoint.client() as client:
        metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
        assert (metadata["issuer"], metadata["token_endpoint"]) == (URL, f"{URL}/token")
        keys = (await client.get(metadata["jwks_uri"].removeprefix(URL))).json()["keys"]
        assert [set(key) for key in keys] == [{"kty", "crv", "x", "y", "kid", "alg", "use"}]
        refused = await client.get("/token")
        assert (refused.status_code, refused.json()["message"]) == (405, "GET /token: it takes POST")


async def test_without_the_setting_there_is_no_such_endpoint() -> None:
    class Nobody:
        async def authenticate(self, authorization: str | None) -> Identity:
            raise AssertionError

    decisions: Any = None
    application = ApprovalsAPI(Nobody(), decisions).application()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url=URL) as client:
        assert (await client.post("/token")).status_code == 404
        assert (await client.get("/jwks")).status_code == 404
