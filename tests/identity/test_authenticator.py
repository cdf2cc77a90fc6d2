"""From an Authorization header to an Identity, with a real issuer over HTTPS."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from holdfast.errors import ConfigurationError, Unauthorized
from holdfast.identity import authenticator as subject
from holdfast.identity.authenticator import REMEMBER_SECONDS, Authenticator
from holdfast.identity.dev_issuer import DevIssuer
from holdfast.identity.key_source import MAX_AGE_SECONDS, MIN_SECONDS_BETWEEN_REFRESHES
from holdfast.settings.identity import IdentitySection, Issuer
from identity.forging import MAPPINGS
from identity.saml.forging import trusting

URL = "https://issuer.example"


class CountingIssuer(DevIssuer):
    """Counts how often its keys are read."""

    reads = 0

    def jwks(self):
        self.reads += 1
        return super().jwks()


class JwksFile:
    """A development issuer whose keys are read from a file."""

    def __init__(self, file, clock, url: str = URL) -> None:
        self.issuer = DevIssuer(url, clock=clock)
        self.file = file
        self.settings = Issuer(url=url, audiences=("holdfast",), jwks_file=file)
        self.publish()

    def publish(self) -> None:
        self.file.write_text(json.dumps(self.issuer.jwks()))


@pytest.fixture
def published(tmp_path, clock) -> JwksFile:
    return JwksFile(tmp_path / "jwks.json", clock)


def trusting_all(*issuers: Issuer) -> IdentitySection:
    return IdentitySection.model_validate({"jwt": [{"issuer": it, "claimMappings": MAPPINGS} for it in issuers]})


@asynccontextmanager
async def started(clock, *issuers: Issuer):
    authenticator = Authenticator(trusting_all(*issuers), clock=clock)
    await authenticator.start()
    try:
        yield authenticator
    finally:
        await authenticator.close()


async def reason_for(authenticator: Authenticator, authorization: str | None) -> str:
    assert authenticator.cached(authorization) is None
    with pytest.raises(Unauthorized) as refusal:
        await authenticator.authenticate(authorization)
    return refusal.value.why


async def test_a_bearer_token_becomes_an_identity(clock, published):
    async with started(clock, published.settings) as authenticator:
        identity = await authenticator.authenticate("Bearer " + published.issuer.mint("ada", ["dev"]))
        assert (identity.issuer, identity.username, identity.groups) == (URL, "ada", ("dev",))


HEADERS = {
    "empty": "",
    "the scheme alone": "Bearer",
    "no token": "Bearer ",
    "another scheme": "Basic {}",
    "scheme in lower case": "bearer {}",
    "scheme in upper case": "BEARER {}",
    "no scheme": "{}",
    "two spaces": "Bearer  {}",
    "a tab": "Bearer\t{}",
    "a space before": " Bearer {}",
    "a space after": "Bearer {} ",
    "a newline after": "Bearer {}\n",
    "two tokens": "Bearer {} {}",
    "two values joined": "Bearer {}, Bearer {}",
    "a letter beyond ASCII": "Bearer {}é",
    "a byte that is no text": "Bearer {}\udcff",
    "a NUL": "Bearer {}\0",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
async def test_only_exactly_bearer_token_is_read(clock, published, header):
    async with started(clock, published.settings) as authenticator:
        token = published.issuer.mint("ada")
        await authenticator.authenticate(f"Bearer {token}")
        assert await reason_for(authenticator, header.replace("{}", token)) == "not_bearer"


async def test_no_header_is_told_where_a_token_comes_from(clock, published):
    async with started(clock, published.settings) as authenticator:
        with pytest.raises(Unauthorized, match=r"Bearer TOKEN` with a token from https://issuer\.example$") as refusal:
            await authenticator.authenticate(None)
        assert refusal.value.why == "no_token"
        assert authenticator.cached(None) is None


async def test_a_bad_token_is_refused_and_not_remembered(clock, published):
    async with started(clock, published.settings) as authenticator:
        for _ in range(2):
            assert await reason_for(authenticator, "Bearer x") == "malformed"
            stranger = DevIssuer("https://evil.example", clock=clock)
            assert await reason_for(authenticator, f"Bearer {stranger.mint('ada')}") == "unknown_issuer"
            impostor = DevIssuer(URL, clock=clock)
            assert await reason_for(authenticator, f"Bearer {impostor.mint('ada')}") == "unknown_key"
            other = published.issuer.mint("ada", audience="other")
            assert await reason_for(authenticator, f"Bearer {other}") == "wrong_audience"


async def test_each_issuer_vouches_with_its_own_keys_only(clock, published, tmp_path):
    other = JwksFile(tmp_path / "other.json", clock, "https://other.example")
    async with started(clock, published.settings, other.settings) as authenticator:
        for issuer in (published.issuer, other.issuer):
            assert (await authenticator.authenticate(f"Bearer {issuer.mint('ada')}")).issuer == issuer.url
        posing = other.issuer.mint("ada", claims={"iss": URL})
        assert await reason_for(authenticator, f"Bearer {posing}") == "unknown_key"


async def test_a_verified_token_is_remembered(clock, published):
    async with started(clock, published.settings) as authenticator:
        authorization = f"Bearer {published.issuer.mint('ada')}"
        assert authenticator.cached(authorization) is None
        identity = await authenticator.authenticate(authorization)
        assert authenticator.cached(authorization) is identity
        assert await authenticator.authenticate(authorization) is identity
        assert authenticator.cached(authorization[:-1]) is None


async def test_settings_that_are_read_again_remember_no_token_of_those_before(clock, published):
    """What is remembered belongs to the settings that it was verified by, names and rules included."""
    authorization = f"Bearer {published.issuer.mint('ada')}"
    mappings = {**MAPPINGS, "username": {"claim": "sub", "prefix": "ci:"}}
    changed = {"jwt": [{"issuer": published.settings, "claimMappings": mappings}]}
    async with started(clock, published.settings) as before:
        assert (await before.authenticate(authorization)).username == "ada"
        after = Authenticator(IdentitySection.model_validate(changed), clock=clock)
        await after.start()
        assert after.cached(authorization) is None
        assert (await after.authenticate(authorization)).username == "ci:ada"
        await after.close()


async def test_a_token_is_forgotten_after_five_minutes(clock, published):
    async with started(clock, published.settings) as authenticator:
        authorization = f"Bearer {published.issuer.mint('ada')}"
        first = await authenticator.authenticate(authorization)
        clock.now += REMEMBER_SECONDS - 1
        assert authenticator.cached(authorization) is first
        clock.now += 1
        assert authenticator.cached(authorization) is None
        assert await authenticator.authenticate(authorization) == first


async def test_a_remembered_token_still_expires_on_the_second(clock, published):
    async with started(clock, published.settings) as authenticator:
        authorization = f"Bearer {published.issuer.mint('ada', lifetime=60)}"
        await authenticator.authenticate(authorization)
        clock.now += 59.9
        assert authenticator.cached(authorization) is not None
        clock.now += 0.1
        assert await reason_for(authenticator, authorization) == "expired"


async def test_memory_is_bounded_and_forgets_what_was_used_longest_ago(monkeypatch, clock, published):
    monkeypatch.setattr(subject, "MAX_REMEMBERED", 3)
    async with started(clock, published.settings) as authenticator:
        headers = [f"Bearer {published.issuer.mint(f'user-{number}')}" for number in range(4)]
        for header in headers[:3]:
            await authenticator.authenticate(header)
        assert authenticator.cached(headers[0])
        await authenticator.authenticate(headers[3])
        assert [authenticator.cached(header) is not None for header in headers] == [True, False, True, True]


async def test_a_withdrawn_key_takes_its_tokens_with_it(clock, published):
    async with started(clock, published.settings) as authenticator:
        old = f"Bearer {published.issuer.mint('ada')}"
        await authenticator.authenticate(old)
        published.issuer = DevIssuer(URL, clock=clock)
        published.publish()
        clock.now += MIN_SECONDS_BETWEEN_REFRESHES
        await authenticator.authenticate(f"Bearer {published.issuer.mint('bob')}")
        assert await reason_for(authenticator, old) == "unknown_key"


async def test_a_file_is_read_again_for_a_new_key(clock, published):
    async with started(clock, published.settings) as authenticator:
        published.issuer.rotate()
        published.publish()
        new = f"Bearer {published.issuer.mint('ada')}"
        assert await reason_for(authenticator, new) == "unknown_key"
        clock.now += MIN_SECONDS_BETWEEN_REFRESHES
        assert (await authenticator.authenticate(new)).username == "ada"


async def test_a_file_that_is_gone_leaves_the_keys_for_a_day(clock, published):
    async with started(clock, published.settings) as authenticator:
        published.file.unlink()
        clock.now += MAX_AGE_SECONDS
        last = f"Bearer {published.issuer.mint('ada')}"
        await authenticator.authenticate(last)
        clock.now += 1
        assert await reason_for(authenticator, last) == "keys_unavailable"
        published.publish()
        clock.now += MIN_SECONDS_BETWEEN_REFRESHES
        assert (await authenticator.authenticate(last)).username == "ada"


def settings_of(issuer: DevIssuer, certificate) -> Issuer:
    return Issuer(url=issuer.url, audiences=("holdfast",), certificate_authority_file=certificate.authority)


async def test_a_rotation_is_followed_over_https(serve, serving_certificate, clock):
    issuer = CountingIssuer(clock=clock)
    async with serve(issuer), started(clock, settings_of(issuer, serving_certificate)) as authenticator:
        old = f"Bearer {issuer.mint('ada')}"
        await authenticator.authenticate(old)
        issuer.rotate()
        clock.now += MIN_SECONDS_BETWEEN_REFRESHES
        assert (await authenticator.authenticate(f"Bearer {issuer.mint('bob')}")).username == "bob"
        assert (await authenticator.authenticate(old)).username == "ada"
        assert issuer.reads == 2


async def test_a_flood_of_unknown_keys_reaches_the_issuer_once(serve, serving_certificate, clock):
    issuer = CountingIssuer(clock=clock)
    async with serve(issuer), started(clock, settings_of(issuer, serving_certificate)) as authenticator:
        clock.now += MIN_SECONDS_BETWEEN_REFRESHES
        forgers = [DevIssuer(issuer.url, clock=clock) for _ in range(40)]
        reasons = await asyncio.gather(*(reason_for(authenticator, f"Bearer {forger.mint('x')}") for forger in forgers))
        assert set(reasons) == {"unknown_key"}
        assert issuer.reads == 2


async def test_an_outage_is_survived(serve, serving_certificate, clock):
    issuer = DevIssuer(clock=clock)
    async with serve(issuer) as port:
        authenticator = Authenticator(trusting_all(settings_of(issuer, serving_certificate)), clock=clock)
        await authenticator.start()
    clock.now += MIN_SECONDS_BETWEEN_REFRESHES
    assert (await authenticator.authenticate(f"Bearer {issuer.mint('ada')}")).username == "ada"
    issuer.rotate()
    new = f"Bearer {issuer.mint('bob')}"
    assert await reason_for(authenticator, new) == "unknown_key"
    async with serve(issuer, port):
        clock.now += MIN_SECONDS_BETWEEN_REFRESHES
        assert (await authenticator.authenticate(new)).username == "bob"
        await authenticator.close()


async def test_a_start_fails_with_one_sentence_and_leaves_nothing_running(clock, published):
    unreachable = Issuer(url="https://127.0.0.1:1", audiences=("holdfast",))
    authenticator = Authenticator(trusting_all(unreachable), clock=clock)
    with pytest.raises(ConfigurationError, match=r"^issuer https://127\.0\.0\.1:1: cannot be reached \(.*\.$"):
        await authenticator.start()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_issuer_that_is_down_does_not_stop_the_others(clock, published, caplog):
    unreachable = Issuer(url="https://127.0.0.1:1", audiences=("holdfast",))
    async with started(clock, unreachable, published.settings) as authenticator:
        assert (await authenticator.authenticate(f"Bearer {published.issuer.mint('ada')}")).username == "ada"
        stranger = DevIssuer(unreachable.url, clock=clock)
        assert await reason_for(authenticator, f"Bearer {stranger.mint('eve')}") == "keys_unavailable"
    assert "Its tokens are refused until it answers: issuer https://127.0.0.1:1: cannot be reached" in caplog.text


async def test_an_issuer_that_is_down_does_not_stop_the_logins_of_a_saml_provider(clock, caplog):
    unreachable = Issuer(url="https://127.0.0.1:1", audiences=("holdfast",))
    section = trusting_all(unreachable).model_copy(update={"saml": (trusting(),)})
    authenticator = Authenticator(section, clock=clock)
    await authenticator.start()
    await authenticator.close()
    assert "Its tokens are refused until it answers: issuer https://127.0.0.1:1: cannot be reached" in caplog.text


async def test_an_issuer_that_was_down_at_start_is_taken_in_when_it_answers(
    serve, serving_certificate, clock, published
):
    issuer = DevIssuer(clock=clock)
    async with serve(issuer) as port:
        pass
    async with started(clock, settings_of(issuer, serving_certificate), published.settings) as authenticator:
        token = f"Bearer {issuer.mint('ada')}"
        assert await reason_for(authenticator, token) == "keys_unavailable"
        async with serve(issuer, port):
            clock.now += MIN_SECONDS_BETWEEN_REFRESHES
            assert (await authenticator.authenticate(token)).username == "ada"


async def test_a_fault_stops_the_start_though_another_issuer_is_up(clock, published):
    faulty = Issuer(url="https://other.example", audiences=("holdfast",), jwks_file="/nowhere.json")
    authenticator = Authenticator(trusting_all(published.settings, faulty), clock=clock)
    with pytest.raises(ConfigurationError, match=r"jwksFile /nowhere\.json cannot be read"):
        await authenticator.start()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_an_issuer_listed_twice_is_refused(published):
    with pytest.raises(ValueError, match=r"each issuer\.url once"):
        trusting_all(published.settings, published.settings)
