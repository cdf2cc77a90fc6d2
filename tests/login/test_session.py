"""Logging in at a real provider, renewing, and when either is left."""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from holdfast.errors import ConfigurationError
from holdfast.identity.discovery import IssuerDown
from holdfast.identity.serialization import decode_base64url, parse_object
from holdfast.login.browser import has_desktop
from holdfast.login.provider import LoginFailed
from holdfast.login.session import Session, Way, choose_way
from services.identity_provider import AUDIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from holdfast.login.cache import TokenCache, Tokens
    from login.conftest import Person
    from services.identity_provider import IdentityProvider

    OpenSession = Callable[..., Session]


def claims(tokens: Tokens) -> Mapping[str, Any]:
    return parse_object(decode_base64url(tokens.token.split(".")[1]))


def secrets_of(tokens: Tokens) -> tuple[str, str]:
    return tokens.token, tokens.refresh_token


# -- by browser --------------------------------------------------------------------------------------------------


async def test_a_person_logs_in_by_browser(open_session: OpenSession, person: Person, cache: TokenCache) -> None:
    session = open_session()
    tokens = await session.log_in()
    assert (tokens.subject, claims(tokens)["aud"], claims(tokens)["groups"]) == (
        "alice",
        "kubectl",
        ("platform", "sre"),
    )
    assert tokens.expires_at == claims(tokens)["exp"]
    assert tokens.refresh_token
    assert cache.read(session.request) == tokens
    assert "close this window" in person.pages[0]
    assert not any(secret in text for secret in secrets_of(tokens) for text in person.told)


async def test_an_access_token_for_the_gateway_can_be_what_is_kept(open_session: OpenSession) -> None:
    tokens = await open_session(kind="access", audience=AUDIENCE).log_in()
    assert (claims(tokens)["aud"], claims(tokens)["sub"], claims(tokens)["client_id"]) == (AUDIENCE, "alice", "kubectl")


async def test_an_access_token_of_nobody_knows_whom_is_not_asked_for(open_session: OpenSession) -> None:
    with pytest.raises(ConfigurationError, match="needs --audience"):
        await open_session(kind="access").log_in()


async def test_without_a_browser_here_the_address_is_printed(open_session: OpenSession, person: Person) -> None:
    def hear(text: str) -> None:
        (address,) = re.findall(r"https://\S+", text)
        asyncio.get_running_loop().run_in_executor(None, person.open_browser, address)

    person.hears = hear
    assert (await open_session(Way.ADDRESS).log_in()).subject == "alice"
    assert person.told[0].startswith("Open this address")


async def refuse_login(session: Session, why: str, fault: type[Exception] = LoginFailed) -> None:
    """Nothing is kept of a login that failed."""
    with pytest.raises(fault, match=why):
        await session.log_in()
    assert session.cache.read(session.request) is None


async def test_the_person_says_no(open_session: OpenSession, person: Person) -> None:
    person.consents = False
    await refuse_login(open_session(), r"the provider refused: access_denied \(End-User aborted interaction\)\.")
    assert "not logged in" in person.pages[0]


async def test_an_answer_with_another_state_ends_the_login(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    def open_with_another_state(url: str) -> bool:
        back = provider.authorize(url)
        return httpx.get(back.replace("state=", "state=x"), trust_env=False).status_code == 400

    person.opens = open_with_another_state
    await refuse_login(open_session(), "another login's state")
    assert provider.control("given") == {}


async def test_a_code_of_another_login_is_worth_nothing(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    """What PKCE is for: whoever is made to redeem somebody else's code cannot."""

    def open_with_another_challenge(url: str) -> bool:
        challenge = parse_qs(urlsplit(url).query)["code_challenge"][0]
        return provider.browse(url.replace(challenge, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")).is_success

    person.opens = open_with_another_challenge
    await refuse_login(open_session(), "the provider refused: invalid_grant")
    assert provider.control("given") == {"authorization_code invalid_grant": 1}


async def test_an_id_token_of_another_login_is_not_kept(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    def open_with_another_nonce(url: str) -> bool:
        nonce = parse_qs(urlsplit(url).query)["nonce"][0]
        return provider.browse(url.replace(nonce, "other")).is_success

    person.opens = open_with_another_nonce
    await refuse_login(open_session(), r"belongs to another login \(nonce\)")


async def test_a_browser_that_does_not_come_back_is_not_waited_for_forever(
    open_session: OpenSession, person: Person
) -> None:
    person.opens = lambda _: True
    await refuse_login(open_session(login_seconds=0.01), r"did not come back within 0\.01 s")


async def test_where_no_browser_opens_a_code_is_given(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    person.opens = lambda _: False
    person.hears = lambda text: enter_code(provider, text)
    assert (await open_session().log_in()).subject == "alice"
    assert person.told[1] == "No browser could be opened."


# -- what a provider may answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((400, {"error": "invalid_client", "error_description": "who?"}), r"refused: invalid_client \(who\?\)\."),
        ((400, {"error": ["invalid_client"]}), "refused without saying why"),
        ((200, {"access_token": "a", "token_type": "DPoP", "id_token": "x"}), "no bearer token"),
        ((200, {"access_token": "a", "token_type": "Bearer"}), "holds no ID token"),
        ((200, {"access_token": "a", "token_type": "Bearer", "id_token": "a.b.c"}), r"cannot be used \(malformed\)"),
        ((200, {"access_token": "a", "token_type": "Bearer", "id_token": 1}), r"cannot be used \(malformed\)"),
    ],
)
async def test_a_bad_answer_is_not_kept(
    open_session: OpenSession, provider: IdentityProvider, answer: tuple[int, Any], why: str
) -> None:
    provider.answer_next("/token", answer)
    await refuse_login(open_session(), why)


@pytest.mark.parametrize(
    ("answer", "why", "fault"),
    [
        ((502, "<html>"), "answered 502, expected 200", IssuerDown),
        ((404, "<html>"), "answered 404 without readable JSON", ConfigurationError),
        ((200, '{"a":1,"a":2}'), "answered 200 without readable JSON", ConfigurationError),
        ((200, "x" * (1 << 20) + "y"), "longer than 1 MiB", ConfigurationError),
    ],
)
async def test_an_unreadable_answer_is_not_kept(
    open_session: OpenSession, provider: IdentityProvider, answer: tuple[int, Any], why: str, fault: type[Exception]
) -> None:
    provider.answer_next("/token", answer)
    await refuse_login(open_session(), why, fault)


async def test_a_code_is_not_sent_on_to_where_the_token_endpoint_points(
    open_session: OpenSession, provider: IdentityProvider
) -> None:
    provider.answer_next("/token", (307, ""), Location=f"{provider.url}/token")
    await refuse_login(open_session(), "answered 307 without readable JSON", ConfigurationError)
    assert provider.control("given") == {}


async def test_a_token_of_a_key_that_is_not_the_provider_s_is_not_kept(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    provider.answer_next("/jwks", (200, {"keys": []}))
    await refuse_login(open_session(), r"ID token cannot be used \(unknown_key\)")


async def test_a_token_that_is_from_the_past_says_so(open_session: OpenSession, person: Person) -> None:
    person.now += 10_000
    await refuse_login(open_session(), r"ID token cannot be used \(expired\)")


async def test_what_was_sent_in_confidence_is_not_told_when_the_provider_repeats_it(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    session = open_session()
    tokens = await session.log_in()
    repeated = {"error": "invalid_grant", "error_description": f"no such token: {tokens.refresh_token}"}
    provider.answer_next("/token", (400, repeated))
    person.now = tokens.expires_at
    with pytest.raises(LoginFailed, match="for a reason that repeats what was sent") as failure:
        await session.get_tokens(may_ask=False)
    assert tokens.refresh_token not in str(failure.value)


async def test_a_provider_whose_certificate_is_not_trusted(open_session: OpenSession) -> None:
    session = open_session()
    stranger = Session(session.request, session.cache, None, session.way, session.around)
    with pytest.raises(ConfigurationError, match=r"its certificate is not trusted .*; give its CA with --issuer-ca"):
        await stranger.log_in()


async def test_a_ca_that_cannot_be_read(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session()
    lost = Session(session.request, session.cache, tmp_path / "lost.crt", session.way, session.around)
    with pytest.raises(ConfigurationError, match=r"lost\.crt cannot be read: .*; give its CA with --issuer-ca\."):
        await lost.log_in()


async def test_a_ca_that_is_no_certificate_is_called_so(open_session: OpenSession, tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    session = open_session()
    for content in ("no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        file.write_text(content)
        with pytest.raises(ConfigurationError) as fault:
            await Session(session.request, session.cache, file, session.way, session.around).log_in()
        told = f"issuer {session.request.issuer}: its CA {file} holds no certificate in PEM; "
        assert str(fault.value) == f"{told}give its CA with --issuer-ca."


async def test_an_issuer_of_another_name_is_mended_by_the_option(
    open_session: OpenSession, provider: IdentityProvider
) -> None:
    session = open_session()
    other = session.request._replace(issuer=f"{provider.url}/")
    with pytest.raises(ConfigurationError) as fault:
        await Session(other, session.cache, provider.ca_file, session.way, session.around).log_in()
    told = f"issuer {provider.url}/: its discovery document names the issuer '{provider.url}'; "
    assert str(fault.value) == f"{told}--issuer must be exactly that."


@pytest.mark.parametrize(
    "issuer", ["http://127.0.0.1:1", "127.0.0.1", "https://u:p@id.example", "https://id.example?a"]
)
async def test_an_issuer_is_an_https_address(open_session: OpenSession, issuer: str) -> None:
    session = open_session()
    request = session.request._replace(issuer=issuer)
    with pytest.raises(ConfigurationError, match=r"--issuer: found .* expected an https:// address"):
        await Session(request, session.cache, None, session.way, session.around).log_in()


async def test_metadata_that_leads_away_from_https_is_refused(
    open_session: OpenSession, provider: IdentityProvider
) -> None:
    found = {
        "issuer": provider.url,
        "jwks_uri": f"{provider.url}/jwks",
        "token_endpoint": "http://127.0.0.1/token",
        "authorization_endpoint": f"{provider.url}/auth",
    }
    provider.answer_next("/.well-known/openid-configuration", (200, found))
    await refuse_login(open_session(), "names the token_endpoint 'http://.* expected https://", ConfigurationError)


# -- by device code ----------------------------------------------------------------------------------------------


def enter_code(provider: IdentityProvider, text: str, user: str = "alice", *, consent: bool = True) -> None:
    """What the person does who reads `text`, if it has a code."""
    for address, code in re.findall(r"Open (https://\S+) in any browser[\s\S]*code (\S+) within", text):
        provider.enter_code(address, code, user, consent=consent)


async def test_a_person_logs_in_with_a_code(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    person.hears = lambda text: enter_code(provider, text, "bob")
    tokens = await open_session(Way.DEVICE).log_in()
    assert (tokens.subject, claims(tokens)["groups"]) == ("bob", ("agents",))
    assert "Enter it only if it was you" in person.told[0]


async def test_polling_keeps_the_interval_and_slows_down_when_told(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    pending, slow_down = ({"error": error} for error in ("authorization_pending", "slow_down"))
    provider.answer_next("/token", (400, pending), (400, slow_down), (400, pending), (503, "down"))
    person.hears = lambda text: enter_code(provider, text)
    assert (await open_session(Way.DEVICE).log_in()).subject == "alice"
    assert person.slept == [5, 5, 10, 10, 20]


async def test_a_code_that_nobody_enters_expires(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    provider.control("settings", deviceCode=12)
    await refuse_login(open_session(Way.DEVICE), "the code expired before anybody entered it")
    assert person.slept == [5, 5, 2]
    assert provider.control("given") == {"urn:ietf:params:oauth:grant-type:device_code authorization_pending": 3}


async def test_a_provider_that_says_that_a_code_has_expired_is_believed(
    open_session: OpenSession, provider: IdentityProvider
) -> None:
    provider.answer_next("/token", (400, {"error": "expired_token"}))
    await refuse_login(open_session(Way.DEVICE), "the code expired before anybody entered it")


async def test_the_person_denies_the_code(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    person.hears = lambda text: enter_code(provider, text, consent=False)
    await refuse_login(open_session(Way.DEVICE), "the login was denied in the browser")


@pytest.mark.parametrize(
    "spoilt",
    [
        {"device_code": ""},
        {"user_code": 1},
        {"verification_uri": "http://id.example"},
        {"expires_in": "600"},
        {"interval": 0},
    ],
)
async def test_an_answer_without_a_usable_code(
    open_session: OpenSession, provider: IdentityProvider, spoilt: dict[str, Any]
) -> None:
    good = {"device_code": "d", "user_code": "u", "verification_uri": "https://id.example", "expires_in": 600}
    provider.answer_next("/device/auth", (200, good | spoilt))
    await refuse_login(open_session(Way.DEVICE), "the provider's answer")


# -- which way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "no_browser", "desktop", "way"),
    [
        (False, False, True, Way.BROWSER),
        (False, False, False, Way.HEADLESS),
        (False, True, True, Way.ADDRESS),
        (True, False, True, Way.DEVICE),
        (True, True, True, Way.DEVICE),
    ],
)
def test_the_way_that_is_chosen(device: bool, no_browser: bool, desktop: bool, way: Way) -> None:
    assert choose_way(device=device, no_browser=no_browser, desktop=desktop) is way


@pytest.mark.parametrize(
    ("environment", "platform", "is_desktop"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "1"}, "linux", False),
        ({}, "darwin", True),
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", False),
        ({"BROWSER": "lynx", "SSH_TTY": "/dev/pts/1"}, "linux", True),
    ],
)
def test_where_a_browser_would_be_seen(environment: dict[str, str], platform: str, is_desktop: bool) -> None:
    assert has_desktop(environment, platform) is is_desktop


# -- renewing ----------------------------------------------------------------------------------------------------


async def test_a_token_is_renewed_in_its_last_minute_and_not_before(
    open_session: OpenSession, person: Person, provider: IdentityProvider, cache: TokenCache
) -> None:
    session = open_session()
    provider.control("settings", idToken=600)
    first = await session.log_in()
    person.now = first.expires_at - 60
    assert await session.get_tokens(may_ask=False) == first
    person.now = first.expires_at - 59
    provider.control("settings", idToken=1200)
    second = await session.get_tokens(may_ask=False)
    assert provider.control("given") == {"authorization_code given": 1, "refresh_token given": 1}
    assert second.expires_at > first.expires_at
    assert second.refresh_token != first.refresh_token
    assert cache.read(session.request) == second


async def test_a_login_that_was_revoked_says_what_to_run(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    session = open_session()
    tokens = await session.log_in()
    provider.revoke(tokens.refresh_token)
    person.now = tokens.expires_at
    with pytest.raises(LoginFailed) as failure:
        await session.get_tokens(may_ask=False)
    assert str(failure.value) == (
        f"the login at {provider.url} is over: the provider refused: invalid_grant (grant request is invalid); "
        f"run `holdfast login --issuer={provider.url} --client-id=kubectl --scope=groups "
        f"--issuer-ca={provider.ca_file}`."
    )
    provider.control("settings", idToken=1200)
    assert (await session.get_tokens(may_ask=True)).subject == "alice"
    assert person.told[-2].startswith(f"The login at {provider.url} is over")


# -- logging out -------------------------------------------------------------------------------------------------


async def test_logging_out_ends_the_login_at_the_provider_too(
    open_session: OpenSession, person: Person, cache: TokenCache
) -> None:
    session = open_session()
    tokens = await session.log_in()
    assert await session.log_out()
    assert cache.read(session.request) is None
    assert not await session.log_out()
    cache.write(session.request, tokens)  # a copy that somebody had made
    person.now = tokens.expires_at
    with pytest.raises(LoginFailed, match="is over: the provider refused: invalid_grant"):
        await session.get_tokens(may_ask=False)


@pytest.mark.parametrize(
    ("path", "answers", "why"),
    [
        ("/.well-known/openid-configuration", [(503, "down")], "answered 503"),
        ("/token/revocation", [(503, "down")], "answered 503"),
        ("/token/revocation", [(400, {"error": "invalid_client"})], "the provider refused: invalid_client"),
        ("/token/revocation", [(404, "<html>")], "answered 404 without readable JSON"),
    ],
)
async def test_what_could_not_be_ended_at_the_provider_is_forgotten_here_and_told(
    open_session: OpenSession,
    cache: TokenCache,
    provider: IdentityProvider,
    path: str,
    answers: list[tuple[int, Any]],
    why: str,
) -> None:
    session = open_session()
    tokens = await session.log_in()
    provider.answer_next(path, *answers)
    with pytest.raises(LoginFailed, match="forgotten here, but a copy could still be renewed") as failure:
        await session.log_out()
    assert why in str(failure.value)
    assert not any(secret in str(failure.value) for secret in secrets_of(tokens))
    assert cache.read(session.request) is None


async def test_a_provider_that_ends_no_logins_is_told_of(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    session = open_session()
    await session.log_in()
    found = {"issuer": provider.url, "jwks_uri": f"{provider.url}/jwks", "token_endpoint": f"{provider.url}/token"}
    provider.answer_next("/.well-known/openid-configuration", (200, found))
    assert await session.log_out()
    assert person.told[-1] == (f"{provider.url} has no way to end a login: a copy of the tokens can still be renewed.")


async def test_a_refresh_token_goes_only_to_the_provider(open_session: OpenSession, provider: IdentityProvider) -> None:
    session = open_session()
    await session.log_in()
    provider.answer_next("/token/revocation", (307, ""), location=f"{provider.url}/elsewhere")
    with pytest.raises(LoginFailed, match="answered 307"):
        await session.log_out()


async def test_a_renewal_in_another_name_is_refused(
    open_session: OpenSession, person: Person, cache: TokenCache
) -> None:
    session = open_session()
    tokens = await session.log_in()
    cache.write(session.request, tokens._replace(subject="bob"))
    person.now = tokens.expires_at - 30
    with pytest.raises(LoginFailed, match="in another person's name"):
        await session.get_tokens(may_ask=False)


async def test_a_provider_that_is_down_does_not_take_a_token_that_is_good(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    session = open_session()
    tokens = await session.log_in()
    person.now = tokens.expires_at - 30
    provider.answer_next("/.well-known/openid-configuration", (503, "down"), (503, "down"))
    assert await session.get_tokens(may_ask=False) == tokens
    person.now = tokens.expires_at
    with pytest.raises(IssuerDown, match="answered 503"):
        await session.get_tokens(may_ask=False)


async def test_a_provider_that_is_not_trusted_does_not_take_a_token_that_is_good(
    open_session: OpenSession, person: Person
) -> None:
    session = open_session()
    tokens = await session.log_in()
    stranger = Session(session.request, session.cache, None, session.way, session.around)
    person.now = tokens.expires_at - 30
    assert await stranger.get_tokens(may_ask=False) == tokens
    assert person.told[-1].startswith("The token is still good, but could not be renewed: issuer https://")
    person.now = tokens.expires_at
    with pytest.raises(ConfigurationError, match="its certificate is not trusted"):
        await stranger.get_tokens(may_ask=False)


async def test_keys_that_cannot_be_had_do_not_cost_the_refresh_token(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    session = open_session()
    tokens = await session.log_in()
    provider.control("given")
    person.now = tokens.expires_at
    provider.answer_next("/jwks", (503, "down"))
    with pytest.raises(IssuerDown):
        await session.get_tokens(may_ask=False)
    assert provider.control("given") == {}


async def test_a_login_without_a_refresh_token_is_good_to_its_last_second(
    open_session: OpenSession, person: Person, provider: IdentityProvider
) -> None:
    provider.control("settings", refreshTokens=False)
    session = open_session()
    tokens = await session.log_in()
    assert tokens.refresh_token == ""
    person.now = tokens.expires_at - 1
    assert await session.get_tokens(may_ask=False) == tokens
    person.now = tokens.expires_at
    with pytest.raises(LoginFailed, match="nobody is logged in"):
        await session.get_tokens(may_ask=False)


async def test_nobody_is_asked_who_cannot_answer(open_session: OpenSession, person: Person, tmp_path: Path) -> None:
    with pytest.raises(LoginFailed, match=r"nobody is logged in at https://.*; run `holdfast login --issuer=https://"):
        await open_session().get_tokens(may_ask=False)
    assert (person.addresses, person.told) == ([], [])
    assert os.listdir(tmp_path) == []


async def test_who_can_answer_is_asked_once(open_session: OpenSession, person: Person) -> None:
    session = open_session()
    tokens = await session.get_tokens(may_ask=True)
    assert await session.get_tokens(may_ask=True) == tokens
    assert len(person.addresses) == 1


async def test_tokens_that_are_not_trusted_are_told_and_replaced(
    open_session: OpenSession, person: Person, cache: TokenCache
) -> None:
    session = open_session()
    first = await session.log_in()
    _spoil(cache.path(session.request))
    with pytest.raises(LoginFailed, match="nobody is logged in"):
        await session.get_tokens(may_ask=False)
    assert person.told[-1].endswith("is not what a login writes.")
    second = await session.get_tokens(may_ask=True)
    assert cache.read(session.request) == second != first


def _spoil(file: str) -> None:
    with open(file, "a") as stream:
        stream.write("}")
