"""What goes out with the browser, and what may come back."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from holdfast.login.authorization import Attempt, authorization_url, begin_attempt, read_callback, token_form
from holdfast.login.provider import LoginFailed, Metadata, Provider
from holdfast.login.request import make_request
from holdfast.settings.identity import Issuer

ISSUER = "https://id.example.com"
REDIRECT = "http://127.0.0.1:1/callback"
ATTEMPT = Attempt("the-state", "the-nonce", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")


def make_provider(**metadata: Any) -> Provider:
    known = Metadata(f"{ISSUER}/token", f"{ISSUER}/jwks", f"{ISSUER}/auth", None, **metadata)
    return Provider(Issuer(url=ISSUER, audiences=("kubectl",)), known, httpx.AsyncClient())


def sent(
    endpoint: str = f"{ISSUER}/auth", scopes_supported: tuple[str, ...] = (), **wanted: Any
) -> dict[str, list[str]]:
    provider = make_provider(scopes_supported=scopes_supported)
    request = make_request(ISSUER, "kubectl", **wanted)
    return parse_qs(urlsplit(authorization_url(endpoint, provider, request, ATTEMPT, REDIRECT)).query)


def test_the_challenge_is_that_of_rfc_7636_appendix_b() -> None:
    assert ATTEMPT.challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_each_attempt_has_three_secrets_of_its_own() -> None:
    counter = itertools.count(1)
    attempt = begin_attempt(lambda length: next(counter).to_bytes(length))
    assert len({attempt.state, attempt.nonce, attempt.verifier}) == 3
    assert [len(text) for text in (attempt.state, attempt.nonce, attempt.verifier)] == [43, 43, 43]
    assert attempt.verifier not in repr(attempt)


def test_the_browser_carries_no_verifier() -> None:
    assert sent() == {
        "response_type": ["code"],
        "client_id": ["kubectl"],
        "redirect_uri": [REDIRECT],
        "scope": ["openid"],
        "state": ["the-state"],
        "nonce": ["the-nonce"],
        "code_challenge": [ATTEMPT.challenge],
        "code_challenge_method": ["S256"],
    }


def test_a_refresh_token_is_asked_for_where_the_provider_knows_how() -> None:
    query = sent(scopes_supported=("openid", "offline_access"), scopes=["groups"])
    assert (query["scope"], query["prompt"]) == (["openid groups offline_access"], ["consent"])


@pytest.mark.parametrize(
    ("audience", "told"),
    [
        ("gateway", {"audience": ["gateway"]}),
        ("https://gw.example", {"audience": ["https://gw.example"], "resource": ["https://gw.example"]}),
        ("urn:gw", {"audience": ["urn:gw"], "resource": ["urn:gw"]}),
    ],
)
def test_the_provider_is_told_whom_the_token_is_for(audience: str, told: dict[str, list[str]]) -> None:
    query = sent(audience=audience, kind="access")
    assert {name: query[name] for name in ("audience", "resource") if name in query} == told
    form = token_form(make_request(ISSUER, "kubectl", audience=audience, kind="access"), ATTEMPT, REDIRECT, "code")
    assert {name: [form[name]] for name in told} == told


def test_the_gateway_is_told_which_saml_provider() -> None:
    assert sent(idp="https://id.test/saml?a=b c")["idp"] == ["https://id.test/saml?a=b c"]
    assert "idp" not in sent()


def test_what_an_endpoint_s_address_has_is_kept() -> None:
    query = sent(f"{ISSUER}/auth?tenant=a%26b")
    assert (query["tenant"], query["client_id"]) == (["a&b"], ["kubectl"])


def test_a_code_is_taken() -> None:
    assert read_callback("code=c&state=the-state", ATTEMPT, make_provider()) == "c"
    assert read_callback(f"iss={ISSUER}&code=c&state=the-state", ATTEMPT, make_provider()) == "c"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("code=c", "another login's state"),
        ("code=c&state=", "another login's state"),
        ("code=c&state=other", "another login's state"),
        ("code=c&state=the-state%00", "another login's state"),
        ("code=c&state=th%C3%A9-state", "another login's state"),
        ("error=access_denied&state=other", "another login's state"),
        ("code=c&state=the-state&state=the-state", "a parameter twice"),
        ("code=c&code=d&state=the-state", "a parameter twice"),
        ("code=c&state=the-state&iss=https://evil.example", "another issuer"),
        ("code=c&state=the-state&iss=", "another issuer"),
        ("state=the-state", "without a code"),
        ("code=&state=the-state", "without a code"),
        ("code=%FF&state=the-state", "cannot be read"),
        ("&".join(f"a{number}=1" for number in range(40)), "cannot be read"),
        ("error=access_denied&state=the-state", "the provider refused: access_denied."),
        (
            "error=access_denied&error_description=Ask+your+admin.&state=the-state",
            r"the provider refused: access_denied \(Ask your admin\.\)\.",
        ),
        (
            "error=x&error_description=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_the-state&state=the-state",
            "the provider refused: x",
        ),
    ],
)
def test_what_comes_back_is_refused(query: str, why: str) -> None:
    with pytest.raises(LoginFailed, match=why):
        read_callback(query, ATTEMPT, make_provider())


def test_a_provider_that_names_itself_always_must_do_so() -> None:
    with pytest.raises(LoginFailed, match="another issuer"):
        read_callback("code=c&state=the-state", ATTEMPT, make_provider(names_issuer_in_callback=True))
