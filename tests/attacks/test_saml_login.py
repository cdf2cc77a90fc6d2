"""A person at a SAML provider that is not ours: `holdfast login`, a browser, and a call through the gateway."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from attacks.conftest import POD_PATH, free_port
from attacks.scripted_upstream import answer, send
from services.saml_provider import ENTITY_ID, SAMLTestProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from attacks.conftest import Target

HOLDFAST = Path(sys.executable).with_name("holdfast")
POD = b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}'
POLICY = """
apiVersion: holdfast.dev/v1
kind: Policy
metadata: {name: people}
rules:
- name: platform-reads
  effect: allow
  subjects: [{groups: ["saml:platform"], issuers: ["https://saml.test/metadata"]}]
  verbs: [get]
  apiGroups: [""]
  resources: [pods]
"""


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def saml_provider(tmp_path: Path, port: int) -> Iterator[SAMLTestProvider]:
    folder = tmp_path / "provider"
    folder.mkdir()
    provider = SAMLTestProvider(folder).start(f"https://127.0.0.1:{port}/saml/acs", "https://gateway.test/saml")
    yield provider
    provider.stop()


@pytest.mark.parametrize("signed", ["assertion", "response"])
def test_a_person_logs_in_at_a_saml_provider(
    make_target: Callable[..., Target], saml_provider: SAMLTestProvider, port: int, tmp_path: Path, signed: str
) -> None:
    url = f"https://127.0.0.1:{port}"
    saml = {
        "entityID": ENTITY_ID,
        "certificatesFile": str(saml_provider.signing_certificate),
        "singleSignOnURL": f"{saml_provider.url}/sso?sign={signed}",
        "serviceProviderEntityID": "https://gateway.test/saml",
        "assertionConsumerServiceURL": f"{url}/saml/acs",
        "tokenURL": f"{url}/token",
        "mappings": {"username": {"prefix": "saml:"}, "groups": {"attribute": "groups", "prefix": "saml:"}},
    }
    (tmp_path / "policy.yaml").write_text(POLICY)
    target = make_target(
        settings={
            "approvals": {"embedded": True, "port": port},
            "identity": {"tokens": {"url": url}, "saml": [saml]},
            "upstream": {"impersonate": True},
        },
        policies=(tmp_path / "policy.yaml",),
    )
    target.upstream.acts[POD_PATH.encode()] = send(answer(POD))
    target.settle(lambda: is_up(target, url), 40)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "BROWSER": f"{saml_provider.write_browser(tmp_path, target.gateway.ca_file)} %s",
    }
    options = ["--issuer", url, "--client-id", "holdfast", "--token-type", "access", "--audience", url]
    options += ["--issuer-ca", str(target.gateway.ca_file)]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([HOLDFAST, *arguments], capture_output=True, text=True, env=environment, timeout=120)

    logged_in = run("login", *options)
    assert logged_in.returncode == 0, logged_in.stderr + "".join(target.gateway.output)
    token = run("get-token", *options, "--bare").stdout.strip()
    assert target.call("GET", POD_PATH, token=token).content == POD
    (call,) = target.upstream.calls()
    for field in ("User: saml:alice@example.com", "Group: saml:platform", "Group: saml:sre"):
        assert f"\r\nImpersonate-{field}\r\n".encode().lower() in call.lower()
    assert target.call("DELETE", POD_PATH, token=token).status_code == 403
    caller = target.outcomes(POD_PATH)[0]["identity"]
    assert (caller["issuer"], caller["username"]) == (ENTITY_ID, "saml:alice@example.com")
    assert caller["groups"] == ["saml:platform", "saml:sre"]


def is_up(target: Target, url: str) -> bool:
    context = ssl.create_default_context(cafile=str(target.gateway.ca_file))
    try:
        return httpx.get(f"{url}/healthz", verify=context).status_code == 200
    except httpx.HTTPError:
        return False
