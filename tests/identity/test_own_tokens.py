"""Tokens of our own: what they say, how long they live, with which key, and who is refused."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from joserfc import jws as joserfc_jws
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

from holdfast.errors import BadRequest, ConfigurationError, Unauthorized
from holdfast.exchange import CREDENTIAL_ID, Identity
from holdfast.identity.authenticator import Authenticator
from holdfast.identity.own_tokens import OwnTokenMapper, mint
from holdfast.identity.serialization import MAX_DEPTH, parse_object
from holdfast.identity.token import parse_token
from holdfast.identity.token_keys import ROTATE_SECONDS, SETTLE_SECONDS, TokenKeys
from holdfast.settings.identity import IdentitySection, OwnTokens
from identity.forging import ISSUER, JWKS, MAPPINGS, NOW, claiming

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from identity.conftest import Clock

type Open = Callable[[], Awaitable[Authenticator]]

SETTINGS = OwnTokens(url="https://gateway.test:8444", lifetime_seconds=600)
CALLER = Identity(
    issuer=ISSUER.url,
    username="github:repo:org/app",
    groups=("github:org",),
    uid="u-1",
    extra={"example.com/x": ("a", "b")},
    claims={"sub": "repo:org/app", "jti": "t-1", "nested": {"list": ("a", 1, None, True)}},
    expires_at=NOW + 3600.0,
)


@pytest.fixture
def keys(tmp_path: Path) -> TokenKeys:
    keys = TokenKeys(tmp_path / "token-keys")
    keys.prepare(NOW, SETTINGS.lifetime_seconds)
    return keys


def made(keys: TokenKeys, identity: Identity = CALLER, now: float = NOW) -> str:
    return mint(identity, SETTINGS, keys.signing_key(now), now=now, token_id="o-1").text


@pytest.fixture
def trusting(keys: TokenKeys, clock: Clock, tmp_path: Path) -> Callable[[], Awaitable[Authenticator]]:
    """Opens what trusts an issuer, and ourselves."""
    clock.now = NOW
    jwks = tmp_path / "jwks.json"
    jwks.write_text(json.dumps(JWKS))
    jwt = [{"issuer": ISSUER.model_copy(update={"jwks_file": jwks}), "claimMappings": MAPPINGS}]
    section = IdentitySection.model_validate({"jwt": jwt})

    async def start() -> Authenticator:
        authenticator = Authenticator(section, OwnTokenMapper(SETTINGS, keys.jwks_file, section.issuers), clock=clock)
        await authenticator.start()
        return authenticator

    return start


def test_neither_a_key_nor_a_token_is_in_a_repr(keys: TokenKeys) -> None:
    key = keys.signing_key(NOW)
    token = mint(CALLER, SETTINGS, key, now=NOW, token_id="o-1")
    assert "PRIVATE KEY" not in repr(key)
    assert token.text.rpartition(".")[2] not in repr([token, parse_token(token.text)])


async def test_the_identity_comes_back_as_it_was(keys: TokenKeys, trusting: Open) -> None:
    authenticator = await trusting()
    found = await authenticator.authenticate(f"Bearer {made(keys)}")
    assert replace(found, expires_at=0.0) == replace(CALLER, expires_at=0.0, extra=found.extra, claims=found.claims)
    ids = (*CALLER.extra.get(CREDENTIAL_ID, ()), "JTI=o-1")
    assert {key: tuple(values) for key, values in found.extra.items()} == {**CALLER.extra, CREDENTIAL_ID: ids}
    assert json.dumps(found.claims, default=dict) == json.dumps(CALLER.claims, default=dict)
    assert found.expires_at == NOW + 600
    assert authenticator.cached(f"Bearer {made(keys)}") is None  # another signature, another token
    await authenticator.close()


async def test_a_revocation_of_whom_it_was_made_for_counts(keys: TokenKeys, trusting: Open) -> None:
    from datetime import UTC, datetime

    from holdfast.identity.denylist import Denylist, Revocation, Scope

    authenticator = await trusting()
    token = f"Bearer {made(keys)}"
    await authenticator.authenticate(token)
    for scope, value in (
        (Scope.TOKEN, "t-1"),
        (Scope.TOKEN, "o-1"),
        (Scope.SUBJECT, "repo:org/app"),
        (Scope.USER, CALLER.username),
    ):
        at = datetime.fromtimestamp(NOW, UTC)
        authenticator.denylist = Denylist([Revocation("r", CALLER.issuer, scope, value, "", "", at)])
        assert authenticator.cached(token) is None
        with pytest.raises(Unauthorized, match="revoked"):
            await authenticator.authenticate(token)
    await authenticator.close()


async def test_who_is_trusted_no_more_takes_along_what_was_made_of_it(keys: TokenKeys, trusting: Open) -> None:
    authenticator = await trusting()
    for issuer in ("https://struck-off.test", SETTINGS.url, ""):
        with pytest.raises(Unauthorized) as refusal:
            await authenticator.authenticate(f"Bearer {made(keys, replace(CALLER, issuer=issuer))}")
        assert refusal.value.why == "unknown_issuer"
    await authenticator.close()


def test_another_library_reads_it_as_rfc_9068_says(keys: TokenKeys) -> None:
    published = KeySet.import_key_set(json.loads(keys.jwks_file.read_bytes()))
    token = joserfc_jwt.decode(made(keys), published, algorithms=["ES256"])
    assert token.header["typ"] == "at+jwt"
    assert (token.claims["iss"], token.claims["aud"]) == (SETTINGS.url, SETTINGS.url)
    assert (token.claims["sub"], token.claims["jti"]) == (CALLER.username, "o-1")
    assert (token.claims["iat"], token.claims["exp"]) == (NOW, NOW + 600)


def test_it_never_outlives_the_token_it_was_made_from(keys: TokenKeys) -> None:
    token = mint(replace(CALLER, expires_at=NOW + 30.9), SETTINGS, keys.signing_key(NOW), now=NOW, token_id="o-1")
    assert token.expires_at == NOW + 30


def test_claims_that_fit_into_no_token_are_refused(keys: TokenKeys) -> None:
    with pytest.raises(BadRequest, match="too much for a token"):
        made(keys, replace(CALLER, claims={"x": "x" * 16_000}))


@pytest.mark.parametrize(("levels", "fits"), [(MAX_DEPTH - 3, True), (MAX_DEPTH - 2, False), (MAX_DEPTH - 1, False)])
async def test_claims_that_are_too_deep_for_a_token_are_refused(
    keys: TokenKeys, trusting: Open, levels: int, fits: bool
) -> None:
    """Of a token that is good itself: `levels` are those beneath its claims."""
    deep = {"x": parse_object(f'{{"x": {"[" * levels}{"]" * levels}}}'.encode())["x"]}
    authenticator = await trusting()
    if fits:
        found = await authenticator.authenticate(f"Bearer {made(keys, replace(CALLER, claims=deep))}")
        assert found.claims["x"] == deep["x"]
    else:
        with pytest.raises(BadRequest, match="too much for a token"):
            made(keys, replace(CALLER, claims=deep))
    await authenticator.close()


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("bad_claim", {"identity": None}),
        ("bad_claim", {"sub": 7}),
        ("bad_claim", {"jti": 7}),
        ("wrong_audience", {"aud": "holdfast"}),
        ("lifetime_too_long", {"exp": NOW + 601}),
        ("expired", {"exp": NOW}),
    ],
)
async def test_what_is_signed_and_yet_none_of_ours_is_refused(
    keys: TokenKeys, trusting: Open, why: str, change: dict[str, Any]
) -> None:
    key = keys.signing_key(NOW)
    claims = {
        "iss": SETTINGS.url,
        "aud": SETTINGS.url,
        "sub": "x",
        "iat": NOW,
        "exp": NOW + 600,
        "identity": {"issuer": ISSUER.url, "groups": [], "uid": "", "extra": {}, "claims": {}},
        **change,
    }
    from joserfc.jwk import ECKey

    header = {"alg": "ES256", "kid": key.key_id, "typ": "at+jwt"}
    token = joserfc_jws.serialize_compact(header, json.dumps(claims).encode(), ECKey.import_key(key.pem))
    authenticator = await trusting()
    with pytest.raises(Unauthorized) as refusal:
        await authenticator.authenticate(f"Bearer {token}")
    assert refusal.value.why == why
    await authenticator.close()


async def test_a_token_of_a_trusted_issuer_cannot_speak_for_another_one(trusting: Open) -> None:
    """What would be an identity in one of ours is an ordinary claim in theirs."""
    authenticator = await trusting()
    forged = claiming(iss=SETTINGS.url, aud=SETTINGS.url, identity={"issuer": "x", "groups": ["system:masters"]})
    with pytest.raises(Unauthorized) as refusal:
        await authenticator.authenticate(f"Bearer {forged}")
    assert refusal.value.why == "unknown_key"
    await authenticator.close()


async def test_one_of_ours_is_not_exchanged_again(keys: TokenKeys, trusting: Open) -> None:
    authenticator = await trusting()
    with pytest.raises(Unauthorized) as refusal:
        await authenticator.identify(made(keys))
    assert refusal.value.why == "own_token"
    await authenticator.close()


# -- the keys ----------------------------------------------------------------------------------------------------


def key_ids(keys: TokenKeys) -> list[str]:
    return [key["kid"] for key in json.loads(keys.jwks_file.read_bytes())["keys"]]


def test_only_public_halves_are_published_and_private_ones_are_for_their_owner(keys: TokenKeys) -> None:
    (key,) = json.loads(keys.jwks_file.read_bytes())["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.folder.glob("*.pem")} == {0o600}
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700


def test_a_key_is_followed_by_the_next_which_signs_once_everybody_has_read_it(keys: TokenKeys) -> None:
    (first,) = key_ids(keys)
    later = NOW + ROTATE_SECONDS
    keys.prepare(later - 1, 600)
    assert key_ids(keys) == [first]
    keys.prepare(later, 600)
    assert len(key_ids(keys)) == 2
    (second,) = set(key_ids(keys)) - {first}
    assert keys.signing_key(later + SETTLE_SECONDS - 1).key_id == first
    assert keys.signing_key(later + SETTLE_SECONDS).key_id == second
    keys.prepare(later + SETTLE_SECONDS + 600, 600)
    assert set(key_ids(keys)) == {first, second}
    keys.prepare(later + SETTLE_SECONDS + 601, 600)
    assert key_ids(keys) == [second]


async def test_a_token_of_the_key_before_is_good_after_the_change(
    keys: TokenKeys, trusting: Open, clock: Clock
) -> None:
    later = NOW + ROTATE_SECONDS
    keys.prepare(later, 600)
    clock.now = later + SETTLE_SECONDS + 1
    old = made(keys, replace(CALLER, expires_at=later + 3600), later + SETTLE_SECONDS - 1)
    new = made(keys, replace(CALLER, expires_at=later + 3600), clock.now)
    authenticator = await trusting()
    clock.now = later + SETTLE_SECONDS + 1
    for token in (old, new):
        assert (await authenticator.authenticate(f"Bearer {token}")).username == CALLER.username
    await authenticator.close()


def test_preparing_twice_changes_nothing(keys: TokenKeys) -> None:
    before = key_ids(keys)
    keys.prepare(NOW + 5, 600)
    assert key_ids(keys) == before


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_told(keys: TokenKeys, content: bytes) -> None:
    (keys.folder / "x.pem").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"x\.pem: is no private key"):
        keys.prepare(NOW, 600)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        TokenKeys(tmp_path / "file" / "keys").prepare(NOW, 600)


def test_without_a_key_nothing_is_signed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no key"):
        TokenKeys(tmp_path).signing_key(NOW)


def test_a_key_that_goes_while_it_is_read_is_told(keys: TokenKeys) -> None:
    (keys.folder / "gone.pem").mkdir()
    os.utime(keys.folder / "gone.pem", (0, 0))
    with pytest.raises(ConfigurationError, match=r"gone\.pem"):
        keys.secrets(NOW + SETTLE_SECONDS)
