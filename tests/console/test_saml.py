"""SAML over HTTP: from the browser's first step to a token, and everything that may not become one."""

from __future__ import annotations

import base64
import os
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from uvicorn.protocols.http.h11_impl import DEFAULT_MAX_INCOMPLETE_EVENT_SIZE

from console.test_tokens import Writer
from holdfast.audit.record import Kind
from holdfast.console.application import ApprovalsAPI
from holdfast.console.refusals import Refusals
from holdfast.console.saml import AUTHORIZATION_CODE, CODE_SECONDS, LOGIN_SECONDS, SAML_BEARER, SLOTS, SAMLService
from holdfast.console.tokens import TokenService
from holdfast.database import Database
from holdfast.identity.authenticator import Authenticator
from holdfast.identity.denylist import Denylist, Revocation, Scope
from holdfast.identity.own_tokens import OwnTokenMapper
from holdfast.identity.saml.response import verify_assertion
from holdfast.identity.serialization import encode_base64url
from holdfast.identity.store import UsedAssertions
from holdfast.identity.token_keys import TokenKeys
from holdfast.login.authorization import authorization_url, begin_attempt
from holdfast.login.provider import Metadata, Provider
from holdfast.login.request import make_request
from holdfast.settings.identity import IdentitySection, Issuer, OwnTokens
from holdfast.settings.saml import SAMLProvider
from identity.saml.forging import IDP, NOW, grant, response_signed, trusting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from holdfast.identity.saml.assertion import SAMLIdentity


URL = "https://gateway.example"
SETTINGS = OwnTokens(url=URL)
CALLBACK = "http://127.0.0.1:41234/callback"
VERIFIER = "v" * 43
CHALLENGE = encode_base64url(sha256(VERIFIER.encode()).digest())
REQUEST_BYTES = 20
REQUEST_ID = f"_{bytes(REQUEST_BYTES).hex()}0"
LONG_STATE = "".join(sha256(bytes([n])).hexdigest() for n in range(150))
AUTHORIZE = {
    "response_type": "code",
    "client_id": "holdfast",
    "redirect_uri": CALLBACK,
    "state": "s-1",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


def known_bytes(size: int) -> bytes:
    """The ID of every request is the same, that of every code another."""
    return bytes(size) if size == REQUEST_BYTES else os.urandom(size)


@dataclass
class World:
    """The approvals API with a SAML provider, at a time that the tests turn."""

    folder: Path
    providers: tuple[SAMLProvider, ...] = field(default_factory=lambda: (trusting(),))
    now: float = float(NOW)

    def __post_init__(self) -> None:
        self.keys = TokenKeys(self.folder / "token-keys")
        self.keys.prepare(self.now, SETTINGS.lifetime_seconds)
        section = IdentitySection(tokens=SETTINGS, saml=self.providers)
        own = OwnTokenMapper(SETTINGS, self.keys.jwks_file, section.issuers)
        self.authenticator = Authenticator(section, own, clock=lambda: self.now)
        self.writer = Writer()
        self.database = Database.open(f"sqlite:///{self.folder / 'audit.db'}")
        used = UsedAssertions(self.database, lambda: self.now)
        refusals = Refusals(self.writer)
        saml = SAMLService(
            URL, self.providers, used, self.keys, refusals, clock=lambda: self.now, random_bytes=known_bytes
        )
        clock = lambda: datetime.fromtimestamp(self.now, UTC)  # noqa: E731
        service = TokenService(SETTINGS, self.keys, self.authenticator, self.writer, refusals, clock, saml)
        decisions: Any = None
        self.application = ApprovalsAPI(self.authenticator, decisions, service).application()
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.application), base_url=URL)

    async def begin(self, **changes: str) -> httpx.Response:
        return await self.client.get("/authorize", params={**AUTHORIZE, **changes})

    async def relay_state(self) -> str:
        """Begin a login."""
        answer = await self.begin()
        assert answer.status_code == 303
        query = parse_qs(urlsplit(answer.headers["location"]).query)
        return query["RelayState"][0]

    async def answer(self, relay_state: str, document: bytes) -> httpx.Response:
        form = {"SAMLResponse": base64.b64encode(document).decode(), "RelayState": relay_state}
        return await self.client.post("/saml/acs", data=form)

    async def redeem(self, code: str, **changes: str) -> httpx.Response:
        form = {
            "grant_type": AUTHORIZATION_CODE,
            "code": code,
            "redirect_uri": CALLBACK,
            "client_id": "holdfast",
            "code_verifier": VERIFIER,
        }
        return await self.client.post("/token", data={**form, **changes})


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[World]:
    world = World(folder, **options)
    await world.authenticator.start()
    yield world
    await world.client.aclose()
    await world.authenticator.close()
    world.database.close()


def answering() -> bytes:
    """A good response, to the request whose ID `opened` has chosen."""
    return response_signed(("_request-1", REQUEST_ID))


def told(answer: httpx.Response) -> dict[str, str]:
    """What the browser takes to the loopback interface."""
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith(f"{CALLBACK}?")
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


async def test_a_person_logs_in(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        back = told(await world.answer(await world.relay_state(), answering()))
        assert (back["state"], back["iss"]) == ("s-1", URL)
        given = (await world.redeem(back["code"])).json()
        found = await world.authenticator.authenticate(f"Bearer {given['access_token']}")
        assert found.issuer == IDP
        assert found.claims["nameIDFormat"]
        (entry,) = world.writer.entries
        assert entry.record.kind is Kind.ISSUE
        assert entry.record.issue is not None
        assert entry.record.issue.grant == "saml-login"


async def test_a_code_is_good_once_for_a_minute_and_for_whom_it_was_made(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        code = told(await world.answer(await world.relay_state(), answering()))["code"]
        assert (await world.redeem("another")).json()["error"] == "invalid_grant"
        assert (await world.redeem(code)).status_code == 200
        assert (await world.redeem(code)).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": ""},
        {"client_id": "other"},
        {"redirect_uri": "http://127.0.0.1:1/callback"},
        {"audience": "https://other.example"},
    ],
)
async def test_a_stolen_code_is_worth_nothing_and_is_used_up(tmp_path: Path, changes: dict[str, str]) -> None:
    async with opened(tmp_path) as world:
        code = told(await world.answer(await world.relay_state(), answering()))["code"]
        refused = await world.redeem(code, **changes)
        assert refused.status_code == 400
        if "audience" not in changes:
            assert (await world.redeem(code)).json()["error"] == "invalid_grant"
        assert world.writer.entries == [] or "audience" in changes


async def test_what_takes_too_long_is_over(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        relay_state = await world.relay_state()
        world.now += LOGIN_SECONDS + 1
        assert (await world.answer(relay_state, answering())).status_code == 400
        world.now = float(NOW)
        code = told(await world.answer(relay_state, answering()))["code"]
        world.now += CODE_SECONDS + 1
        assert (await world.redeem(code)).json()["error"] == "invalid_grant"


async def test_a_response_is_good_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        assert "code" in told(await world.answer(await world.relay_state(), answering()))
        again = told(await world.answer(await world.relay_state(), answering()))
        assert (again["error"], again["state"]) == ("access_denied", "s-1")
        assert "used before" in again["error_description"]


@pytest.mark.parametrize(
    "document",
    [
        response_signed(),  # it answers another request
        response_signed(("_request-1", REQUEST_ID), ("Success", "Responder")),
        b"<x/>",
        b"",
    ],
)
async def test_what_is_refused_goes_back_as_an_error_and_without_a_code(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, document: bytes
) -> None:
    async with opened(tmp_path) as world:
        back = told(await world.answer(await world.relay_state(), document))
        assert back["error"] == "access_denied"
        assert "code" not in back
        (entry,) = world.writer.entries
        assert entry.record.refusal.why
        assert f"refused: saml-login, {entry.record.refusal.why};" in caplog.text


@pytest.mark.parametrize("relay_state", ["", "unknown"])
async def test_a_response_that_nobody_asked_for_is_refused(tmp_path: Path, relay_state: str) -> None:
    async with opened(tmp_path) as world:
        await world.relay_state()
        answer = await world.answer(relay_state, answering())
        assert answer.status_code == 400
        assert "no login is under way" in answer.json()["message"]


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "https://evil.example/callback",
        "http://evil.example:80/callback",
        "http://127.0.0.1/callback",
        "http://127.0.0.1.evil.example:80/callback",
        "http://127.0.0.1:80@evil.example:80/callback",
        "http://evil.example\\@127.0.0.1:80/",
        "http://127.0.0.1:41234/callback?x=1",
        "http://127.0.0.1:41234/callback#x",
        "http://127.0.0.1:99999/callback",
        "http://[::1/callback",
        "javascript:alert(1)",
        "http://127.0.0.1:1/\r\nX: y",
        "http://127.0.0.1:1/callback\n",
        "http://127.0.0.1:1/callback?",
        "http://127.0.0.1:1/callback/",
        "http://evil.example[::1]:1/callback",
        "http://@127.0.0.1:1/callback",
        "http://127.0.0.1:\u0661/callback",
        # Of kubectl's proxy, which passes everything on to whoever runs a service in the cluster.
        "http://127.0.0.1:8001/api/v1/namespaces/evil/services/drop:80/proxy/callback",
        "",
    ],
)
async def test_nobody_is_sent_anywhere_but_to_the_callback_of_a_login(tmp_path: Path, redirect_uri: str) -> None:
    async with opened(tmp_path) as world:
        answer = await world.begin(redirect_uri=redirect_uri)
        assert answer.status_code == 400
        assert "location" not in answer.headers
        assert (await world.begin(client_id="other")).status_code == 400


@pytest.mark.parametrize(
    "redirect_uri", ["http://[::1]:1/callback", "http://localhost:1/callback", "http://127.0.0.1:65535/callback"]
)
async def test_the_loopback_interface_has_several_names(tmp_path: Path, redirect_uri: str) -> None:
    async with opened(tmp_path) as world:
        assert (await world.begin(redirect_uri=redirect_uri)).status_code == 303


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": "\u00e4" * 43}, "invalid_request"),
        ({"code_challenge": "B" * 43}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"idp": "https://other.example"}, "invalid_request"),
        ({"state": LONG_STATE}, "invalid_request"),
    ],
)
async def test_a_login_that_cannot_begin_goes_back_with_why(
    tmp_path: Path, changes: dict[str, str], error: str
) -> None:
    async with opened(tmp_path) as world:
        back = told(await world.begin(**changes))
        assert (back["error"], back["state"], back["iss"]) == (error, changes.get("state", "s-1"), URL)


async def test_a_person_says_at_which_of_several_providers_they_log_in(tmp_path: Path) -> None:
    """With the address that `holdfast login --idp` sends the browser to."""
    second = trusting(entityID="https://second.example", singleSignOnURL="https://second.example/sso")
    known = Metadata(f"{URL}/token", f"{URL}/jwks", f"{URL}/authorize", None)
    attempt = begin_attempt(secrets.token_bytes)
    async with opened(tmp_path, providers=(trusting(), second)) as world:
        provider = Provider(Issuer(url=URL, audiences=(URL,)), known, world.client)

        async def begin(idp: str) -> httpx.Response:
            request = make_request(URL, "holdfast", audience=URL, kind="access", idp=idp)
            return await world.client.get(authorization_url(f"{URL}/authorize", provider, request, attempt, CALLBACK))

        assert (await begin(second.entity_id)).headers["location"].startswith("https://second.example/sso?")
        assert (await begin(IDP)).headers["location"].startswith(trusting().single_sign_on_url)
        assert told(await begin(""))["error_description"] == f"idp: expected one of {IDP}, {second.entity_id}"


async def test_a_provider_that_takes_posts_gets_a_form(tmp_path: Path) -> None:
    provider = trusting(binding="HTTP-POST")
    async with opened(tmp_path, providers=(provider,)) as world:
        page = await world.begin()
        assert page.status_code == 200
        assert f'action="{provider.single_sign_on_url}"' in page.text
        assert 'name="SAMLRequest"' in page.text
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'nonce-")


async def test_an_assertion_is_exchanged_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        form = {"grant_type": SAML_BEARER, "assertion": encode_base64url(grant())}
        given = (await world.client.post("/token", data=form)).json()
        found = await world.authenticator.authenticate(f"Bearer {given['access_token']}")
        assert found.issuer == IDP
        again = await world.client.post("/token", data=form)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        first, second = world.writer.entries
        assert (first.record.issue.grant, second.record.refusal.why) == ("saml2-bearer", "replayed")


async def test_an_assertion_may_come_from_a_file_but_must_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        form = {"grant_type": SAML_BEARER, "assertion": encode_base64url(grant()) + "\r\n"}
        (await world.client.post("/token", data=form)).raise_for_status()
        for nothing in ({}, {"assertion": ""}, {"assertion": "\n"}):
            answer = await world.client.post("/token", data={"grant_type": SAML_BEARER, **nothing})
            told = {"error": "invalid_request", "error_description": "assertion: is missing"}
            assert (answer.status_code, answer.json()) == (400, told)
        assert len(world.writer.entries) == 1


async def test_an_assertion_that_ends_while_it_is_looked_at_is_not_exchanged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verified in the last moment, looked up among the used ones in the next: for as long as the database is busy."""

    def verify_slowly(*arguments: Any) -> SAMLIdentity:
        found = verify_assertion(*arguments)
        world.now = found.not_on_or_after + 5
        return found

    async with opened(tmp_path) as world:
        form = {"grant_type": SAML_BEARER, "assertion": encode_base64url(grant())}
        (await world.client.post("/token", data=form)).raise_for_status()
        monkeypatch.setattr("holdfast.console.saml.verify_assertion", verify_slowly)
        again = await world.client.post("/token", data=form)
        assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
        assert world.writer.entries[1].record.refusal.why == "replayed"


@pytest.mark.parametrize(
    "assertion",
    [
        "!",
        encode_base64url(b"<x/>"),
        encode_base64url(b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>"),
        encode_base64url(response_signed()),
        encode_base64url(grant((IDP, "https://evil.example/metadata"))),
        base64.b64encode(grant()).decode(),
    ],
)
async def test_what_is_no_assertion_for_us_is_refused(tmp_path: Path, assertion: str) -> None:
    async with opened(tmp_path) as world:
        answer = await world.client.post("/token", data={"grant_type": SAML_BEARER, "assertion": assertion})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        (entry,) = world.writer.entries
        assert (entry.record.kind, entry.record.issue) == (Kind.ISSUE, None)
        assert entry.record.refusal.why


async def test_somebody_who_is_revoked_gets_no_token(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        other = grant(("_assertion-1", "_assertion-2"))
        form = {"grant_type": SAML_BEARER, "assertion": encode_base64url(other)}
        (await world.client.post("/token", data=form)).raise_for_status()
        name_id = world.writer.entries[0].record.identity.claims["nameID"]
        at = datetime.fromtimestamp(NOW, UTC)
        world.authenticator.denylist = Denylist([Revocation("r", IDP, Scope.SUBJECT, name_id, "", "", at)])
        back = told(await world.answer(await world.relay_state(), answering()))
        refused = await world.redeem(back["code"])
        assert (refused.json()["error"], "revoked" in refused.json()["error_description"]) == ("invalid_grant", True)
        assert world.writer.entries[1].record.refusal.why == "revoked"


async def test_metadata_is_published(tmp_path: Path) -> None:
    second = trusting(entityID="https://second.example")
    async with opened(tmp_path, providers=(trusting(), second)) as world:
        assert (await world.client.get("/saml/metadata")).status_code == 400
        answer = await world.client.get("/saml/metadata", params={"idp": IDP})
        assert answer.headers["content-type"] == "application/samlmetadata+xml"
        assert b"AssertionConsumerService" in answer.content
        metadata = (await world.client.get("/.well-known/openid-configuration")).json()
        assert metadata["authorization_endpoint"] == f"{URL}/authorize"
        assert metadata["grant_types_supported"][1:] == [SAML_BEARER, AUTHORIZATION_CODE]


async def test_every_process_goes_on_with_a_login(tmp_path: Path) -> None:
    """Begun at one, answered at another, redeemed at a third, once at any."""
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        relay_state = await first.relay_state()
        second.client.cookies = first.client.cookies
        code = told(await second.answer(relay_state, answering()))["code"]
        assert (await first.redeem(code)).status_code == 200
        assert (await second.redeem(code)).json()["error"] == "invalid_grant"


async def test_a_login_is_bound_to_the_browser_in_which_it_began(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        relay_state = await world.relay_state()
        ((name, cookie),) = world.client.cookies.items()
        world.client.cookies.clear()
        assert (await world.answer(relay_state, answering())).status_code == 400
        for kept in (cookie[:-8] + "AAAAAAA=", ""):
            world.client.cookies.set(name, kept)
            assert (await world.answer(relay_state, answering())).status_code == 400
        assert world.writer.entries == []


async def test_a_cookie_is_for_its_own_login_and_is_no_code(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        await world.relay_state()
        ((_, cookie),) = world.client.cookies.items()
        world.client.cookies.set("__Host-holdfast_2", cookie)
        assert (await world.answer("_2", answering())).status_code == 400
        assert (await world.redeem(cookie)).json()["error"] == "invalid_grant"


async def test_the_cookie_is_only_for_the_way_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        begun = (await world.begin()).headers["set-cookie"]
        for attribute in (
            "__Host-holdfast_0=",
            "HttpOnly",
            "Max-Age=600",
            "Path=/",
            "SameSite=none",
            "Secure",
        ):
            assert attribute in begun
        assert "Domain" not in begun
        await world.answer(REQUEST_ID, answering())
        assert not world.client.cookies


async def test_a_code_shows_nobody_who_it_is_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        code = told(await world.answer(await world.relay_state(), answering()))["code"]
        (await world.redeem(code)).raise_for_status()
        name_id = world.writer.entries[0].record.identity.claims["nameID"]
        assert name_id.encode() not in base64.urlsafe_b64decode(code)


async def test_a_provider_that_is_trusted_no_more_ends_no_login(tmp_path: Path) -> None:
    other = trusting(entityID="https://second.example")
    async with opened(tmp_path) as before, opened(tmp_path, providers=(other,)) as after:
        relay_state = await before.relay_state()
        after.client.cookies = before.client.cookies
        assert (await after.answer(relay_state, answering())).status_code == 400


async def test_a_login_survives_the_next_key(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        relay_state = await world.relay_state()
        world.keys._make_key(world.now - 120)
        code = told(await world.answer(relay_state, answering()))["code"]
        assert (await world.redeem(code)).status_code == 200


async def test_logins_that_other_sites_begin_keep_nobody_from_logging_in(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        for n in range(100):
            begun = await world.begin(state=LONG_STATE[n : n + 600])
            assert begun.headers["set-cookie"].startswith("__Host-holdfast_")
        relay_state = await world.relay_state()
        request = world.client.build_request("POST", "/saml/acs")
        assert len(request.headers["cookie"]) < DEFAULT_MAX_INCOMPLETE_EVENT_SIZE * 0.7
        assert "code" in told(await world.answer(relay_state, answering()))


async def test_several_logins_are_under_way_in_a_browser(tmp_path: Path) -> None:
    async with opened(tmp_path) as world:
        relay_state = await world.relay_state()
        others = {await world.relay_state() for _ in range(len(SLOTS) - 1)}
        assert len(others | {relay_state}) == len(world.client.cookies) == len(SLOTS)
        assert "code" in told(await world.answer(relay_state, answering()))
