"""The development issuer: what it signs, what it publishes, where it listens."""

from __future__ import annotations

import ssl

import httpx
import pytest

from holdfast.errors import ConfigurationError, Unauthorized
from holdfast.identity.dev_issuer import DevIssuer, serve_dev_issuer
from holdfast.identity.keys import parse_key_set
from holdfast.identity.token import parse_token, verify_token
from holdfast.settings.identity import Issuer
from identity.forging import trusting

NOW = 1_800_000_000
URL = "https://issuer.example"


def verify(issuer: DevIssuer, token: str, now: float = NOW):
    mapper = trusting(Issuer(url=issuer.url, audiences=("holdfast",)))
    document = httpx.Response(200, json=issuer.jwks()).content
    return verify_token(parse_token(token), mapper, parse_key_set(document, mapper.issuer.algorithms), now)


async def post(issuer: DevIssuer, **request_body) -> httpx.Response:
    transport = httpx.ASGITransport(issuer.application())
    async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
        return await client.post("/token", **request_body)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_its_tokens_verify_with_its_keys(algorithm):
    issuer = DevIssuer(URL, algorithm=algorithm)
    identity = verify(issuer, issuer.mint("ada", ["dev"], now=NOW, lifetime=60, claims={"repository": "org/app"}))
    assert (identity.username, identity.groups, identity.expires_at) == ("ada", ("dev",), NOW + 60)
    assert identity.claims["repository"] == "org/app"


def test_it_publishes_no_private_key():
    for algorithm in ("RS256", "ES256"):
        for key in DevIssuer(URL, algorithm=algorithm).jwks()["keys"]:
            assert key.keys() <= {"kty", "crv", "x", "y", "n", "e", "kid", "use", "alg"}


def test_a_rotated_key_is_published_once_more_and_then_not():
    issuer = DevIssuer(URL)
    token = issuer.mint("ada", now=NOW)
    issuer.rotate()
    assert verify(issuer, token).username == "ada"
    assert verify(issuer, issuer.mint("bob", now=NOW)).username == "bob"
    issuer.rotate()
    with pytest.raises(Unauthorized):
        verify(issuer, token)


ASKED = {"username": "ada", "groups": ["dev", "ops"], "audience": "holdfast", "lifetime": 90}


@pytest.mark.parametrize(
    "request_body",
    [
        {"json": ASKED},
        {"data": ASKED},
        {"content": "username=ada&groups=dev&groups=ops&lifetime=90"},
    ],
    ids=["JSON", "form", "form without a content type"],
)
async def test_a_token_is_had_for_the_asking(request_body):
    issuer = DevIssuer(URL, clock=lambda: NOW)
    answer = await post(issuer, **request_body)
    assert answer.headers["cache-control"] == "no-store"
    assert (answer.json()["token_type"], answer.json()["expires_in"]) == ("Bearer", 90)
    identity = verify(issuer, answer.json()["access_token"])
    assert (identity.username, identity.groups, identity.expires_at) == ("ada", ("dev", "ops"), NOW + 90)


@pytest.mark.parametrize(
    ("request_body", "fault"),
    [
        ({"json": {}}, "username"),
        ({"json": {"username": "ada", "admin": True}}, "admin"),
        ({"json": {"username": 1}}, "username"),
        ({"json": {"username": "ada", "lifetime": "long"}}, "lifetime"),
        ({"content": b"", "headers": {"content-type": "application/json"}}, "data"),
        ({"content": b"\xff"}, "utf-8"),
        ({"content": b"username"}, "username"),
        ({"data": {"username": "ada", "lifetime": "long"}}, "lifetime"),
    ],
)
async def test_a_bad_request_is_answered_with_what_is_wrong(request_body, fault):
    answer = await post(DevIssuer(URL), **request_body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"
    assert fault in answer.json()["error_description"]


async def test_it_is_named_by_where_it_listens(serve, serving_certificate):
    issuer = DevIssuer()
    async with serve(issuer) as port:
        assert issuer.url == f"https://127.0.0.1:{port}"
        trust = ssl.create_default_context(cafile=serving_certificate.authority)
        async with httpx.AsyncClient(verify=trust, trust_env=False) as client:
            metadata = (await client.get(f"{issuer.url}/.well-known/openid-configuration")).json()
            assert (await client.get(metadata["jwks_uri"])).json() == issuer.jwks()


ELSEWHERE = ["::", "::1", "127.0.0.2", "", "192.0.2.1", "example.com", "127.0.0.1.example.com"]


@pytest.mark.parametrize("host", [*ELSEWHERE, "0.0.0.0"])  # noqa: S104
async def test_it_listens_on_loopback_only(host, serving_certificate):
    with pytest.raises(ConfigurationError, match="signs tokens for anyone"):
        await serve_at(host, 0, serving_certificate.certificate, serving_certificate.private_key)


async def test_a_taken_port_is_one_sentence(serve, serving_certificate):
    async with serve(DevIssuer()) as port:
        with pytest.raises(ConfigurationError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            await serve_at("127.0.0.1", port, serving_certificate.certificate, serving_certificate.private_key)


async def test_a_certificate_that_cannot_be_used_is_one_sentence(serving_certificate, tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot use .*missing\.pem"):
        await serve_at("127.0.0.1", 0, tmp_path / "missing.pem", serving_certificate.private_key)
    with pytest.raises(ConfigurationError, match="cannot use"):
        await serve_at("127.0.0.1", 0, serving_certificate.private_key, serving_certificate.certificate)


async def serve_at(host, port, certificate, private_key):
    def ready(_port):
        raise AssertionError("it must not listen")

    await serve_dev_issuer(
        DevIssuer(URL), host=host, port=port, certificate=certificate, private_key=private_key, ready=ready
    )
