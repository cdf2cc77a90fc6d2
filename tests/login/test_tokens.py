"""What a provider's answer must be like to be kept: claims that no honest one gives, and what it may leave out."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from holdfast.identity.dev_issuer import DevIssuer
from holdfast.identity.keys import parse_key_set
from holdfast.login.cache import Tokens
from holdfast.login.provider import LoginFailed
from holdfast.login.request import make_request
from holdfast.login.tokens import read_tokens
from holdfast.settings.identity import ALGORITHMS, Issuer

URL = "https://id.example.com"
PROVIDER = DevIssuer(URL)
KEYS = parse_key_set(json.dumps(PROVIDER.jwks()).encode(), ALGORITHMS)
BEFORE = Tokens("alice", "old", 1, "old-refresh-token")


def mint(audience: str = "kubectl", **claims: Any) -> str:
    return PROVIDER.mint("alice", ["sre"], audience=audience, claims=claims)


def read(answer: dict[str, Any], kind: str = "id", audience: str = "", **bound: Any) -> Tokens:
    request = make_request(URL, "kubectl", kind=kind, audience=audience)
    issuer = Issuer(url=URL, audiences=(audience or "kubectl",))
    return read_tokens({"token_type": "Bearer"} | answer, request, issuer, KEYS, now=time.time(), **bound)


def test_the_kind_that_was_asked_for_is_kept() -> None:
    answer = {"id_token": mint(), "access_token": mint("gateway"), "refresh_token": "r"}
    assert read(answer) == ("alice", answer["id_token"], read(answer).expires_at, "r")
    assert read(answer, kind="access", audience="gateway").token == answer["access_token"]


def test_a_type_of_token_has_no_case() -> None:
    assert read({"id_token": mint(), "token_type": "bearer"}).subject == "alice"


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"azp": "other"}, r"another client \(azp\)"),
        ({"audience": "other"}, "wrong_audience"),
        ({"iss": "https://evil.example.com"}, "unknown_issuer"),
        ({"exp": 1}, "expired"),
        ({"cnf": {"jkt": "k"}}, "proof_required"),
        ({"nonce": "other"}, "another login"),
        ({"nonce": ["n"]}, "another login"),
        ({}, "another login"),
    ],
)
def test_a_token_for_somebody_or_something_else_is_refused(claims: dict[str, Any], why: str) -> None:
    with pytest.raises(LoginFailed, match=why):
        read({"id_token": mint(**claims)}, nonce="n")


def test_a_token_of_this_login_and_client_is_not() -> None:
    assert read({"id_token": mint(nonce="n", azp="kubectl")}, nonce="n").subject == "alice"


def test_an_access_token_that_is_no_jwt_is_refused() -> None:
    with pytest.raises(LoginFailed, match=r"access token cannot be used \(malformed\)"):
        read({"access_token": "opaque"}, kind="access", audience="gateway")


def test_a_renewal_without_a_refresh_token_goes_on_with_the_one_before() -> None:
    assert read({"id_token": mint()}, before=BEFORE).refresh_token == "old-refresh-token"
    assert read({"id_token": mint(), "refresh_token": "new"}, before=BEFORE).refresh_token == "new"


def test_a_renewal_without_an_id_token_says_what_to_do() -> None:
    with pytest.raises(LoginFailed, match="renews access tokens only: use --token-type access"):
        read({"access_token": mint()}, before=BEFORE)


@pytest.mark.parametrize("refresh_token", ["two words", 1, None, "a\nb"])
def test_a_refresh_token_that_is_none_is_refused(refresh_token: Any) -> None:
    with pytest.raises(LoginFailed, match="refresh token cannot be used"):
        read({"id_token": mint(), "refresh_token": refresh_token})
