"""A token of our own, from the process that gives it to the gateway that takes it."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx

from attacks.conftest import POD_PATH, free_port
from attacks.scripted_upstream import answer, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from attacks.conftest import Target

POD = b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}'
ASK = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
}


def test_a_token_of_our_own_is_the_caller_it_was_given_to_until_that_one_is_revoked(
    make_target: Callable[..., Target],
) -> None:
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    target = make_target(settings={"approvals": {"embedded": True, "port": port}, "identity": {"tokens": {"url": url}}})
    target.upstream.acts[POD_PATH.encode()] = send(answer(POD))
    context = ssl.create_default_context(cafile=str(target.gateway.ca_file))
    with httpx.Client(base_url=url, verify=context) as client:

        def answers() -> bool:
            try:
                return client.get("/healthz").status_code == 200
            except httpx.HTTPError:
                return False

        target.settle(answers, 40)
        subject = target.gateway.token("agent", "agents", jti="t-1")
        given = client.post("/token", data={**ASK, "subject_token": subject}).json()
        refused = client.post("/token", data={**ASK, "subject_token": subject[:-4] + "AAAA"})
    token = given["access_token"]
    assert refused.status_code == 400
    assert target.call("GET", POD_PATH, token=token).content == POD
    assert target.call("GET", POD_PATH, token=token[:-4] + "AAAA").status_code == 401
    caller = target.outcomes(POD_PATH)[0]["identity"]
    assert (caller["username"], caller["groups"], caller["claims"]["jti"]) == ("agent", ["agents"], "t-1")
    assert token.encode() not in target.gateway.database.read_bytes()
    done = target.gateway.holdfast("identity", "revoke", "--token-id", "t-1", "--reason", "leaked")
    assert done.returncode == 0, done.stderr
    target.settle(lambda: target.call("GET", POD_PATH, token=token).status_code == 401)
    assert target.gateway.holdfast("audit", "verify").returncode != 10
