"""The OpenID provider of the tests: it is strict about PKCE, rotates refresh tokens, and its keys can be changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from services.identity_provider import IdentityProvider


def metadata(provider: IdentityProvider) -> dict[str, object]:
    with provider.client() as client:
        found: dict[str, object] = client.get(f"{provider.url}/.well-known/openid-configuration").json()
    return found


def test_it_knows_the_flows_that_are_tested(identity_provider: IdentityProvider) -> None:
    found = metadata(identity_provider)
    assert found["issuer"] == identity_provider.url
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert str(found["device_authorization_endpoint"]).startswith(identity_provider.url)


def test_a_public_client_gets_nowhere_without_pkce(identity_provider: IdentityProvider) -> None:
    query = "response_type=code&client_id=kubectl&scope=openid&redirect_uri=http://127.0.0.1:1/callback"
    with identity_provider.client() as client:
        answer = client.get(f"{identity_provider.url}/auth?{query}")
    assert "error=invalid_request" in answer.headers["location"]
    assert "PKCE" in answer.headers["location"]


def test_rotation_leaves_the_new_key_only(identity_provider: IdentityProvider) -> None:
    kid = identity_provider.control("rotate")["kid"]
    with identity_provider.client() as client:
        assert [key["kid"] for key in client.get(f"{identity_provider.url}/jwks").json()["keys"]] == [kid]


def test_answers_are_given_once(identity_provider: IdentityProvider) -> None:
    identity_provider.answer_next("/jwks", (503, "down"))
    with identity_provider.client() as client:
        assert [client.get(f"{identity_provider.url}/jwks").status_code for _ in range(2)] == [503, 200]


def test_a_program_s_token_is_a_jwt_for_the_audience_that_it_named(identity_provider: IdentityProvider) -> None:
    assert identity_provider.client_credentials().count(".") == 2


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_the_browser_is_sent_back_with_a_code(identity_provider: IdentityProvider, user: str) -> None:
    query = (
        "response_type=code&client_id=kubectl&scope=openid&redirect_uri=http://127.0.0.1:1/callback&state=s"
        "&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256"
    )
    back = identity_provider.authorize(f"{identity_provider.url}/auth?{query}", user)
    assert back.startswith("http://127.0.0.1:1/callback?code=")
