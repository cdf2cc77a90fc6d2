"""An OpenID provider of the tests' own: npm oidc-provider, over HTTPS on loopback (tests/idp), and its browser.

Its people are alice (groups platform and sre) and bob (agents), its clients `kubectl`, a public native one, and `ci`,
which has a secret and takes client credentials.
"""

from __future__ import annotations

import re
import secrets
import ssl
import sys
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from services.node_server import NodeServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.login.request import LoginRequest

MAX_STEPS = 20
CLIENT = "kubectl"
AUDIENCE = "https://gateway.test"

_FORM = re.compile(r"<form[^>]*\saction=\"([^\"]*)\"[^>]*>(.*?)</form>", re.DOTALL)
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)"')
_ABORT = re.compile(r'<a href="([^"]*/abort)"')


@dataclass
class IdentityProvider(NodeServer):
    """One provider, with its files in `folder`."""

    client_secret: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    def start(self, report: Callable[[str], None] = lambda _: None) -> IdentityProvider:
        """Start it; returns when it takes connections. Raises services.npm.NodeFailed."""
        self.run("server.js", environment={"CLIENT_SECRET": self.client_secret}, report=report)
        return self

    def client(self) -> httpx.Client:
        """An HTTP client that trusts it, and keeps cookies."""
        return httpx.Client(verify=ssl.create_default_context(cafile=self.ca_file), trust_env=False, timeout=30)

    def control(self, what: str, **wanted: Any) -> dict[str, Any]:
        """Turn one of the knobs under /test, which tests/idp/server.js tells."""
        with self.client() as client:
            answer: dict[str, Any] = client.post(f"{self.url}/test/{what}", json=wanted).raise_for_status().json()
        return answer

    def answer_next(self, path: str, *answers: tuple[int, Any], **headers: str) -> None:
        """Give these answers (status, JSON or text) to the next requests for `path`, in place of its own."""
        listed = [{"path": path, "status": status, "body": body, "headers": headers} for status, body in answers]
        self.control("answers", answers=listed)

    def client_credentials(self, audience: str = AUDIENCE) -> str:
        """A token for the program `ci`."""
        form = {"grant_type": "client_credentials", "resource": audience}
        with self.client() as client:
            answer = client.post(f"{self.url}/token", data=form, auth=("ci", self.client_secret))
        return str(answer.raise_for_status().json()["access_token"])

    def revoke(self, token: str) -> None:
        """End the grant of a refresh token (RFC 7009), as an administrator would."""
        with self.client() as client:
            client.post(f"{self.url}/token/revocation", data={"token": token, "client_id": CLIENT}).raise_for_status()

    def authorize(self, url: str, user: str = "alice", *, consent: bool = True) -> str:
        """Where a person's browser is sent who opens `url`, logs in, and agrees or not: an address on loopback."""
        with self.client() as client:
            page = _walk(client, client.get(url), user, consent)
        assert page.has_redirect_location, page.text
        return str(page.headers["location"])

    def browse(self, url: str, user: str = "alice", *, consent: bool = True) -> httpx.Response:
        """As `authorize`, and then the page that the browser finds there."""
        return httpx.get(self.authorize(url, user, consent=consent), trust_env=False, timeout=30)

    def enter_code(self, address: str, code: str, user: str = "alice", *, consent: bool = True) -> httpx.Response:
        """What a person does with a device code: open the address, enter it, confirm, log in, agree or not."""
        with self.client() as client:
            action, hidden = _read_form(client.get(address))
            return _walk(client, client.post(action, data=hidden | {"user_code": code}), user, consent)


def login_request(provider: IdentityProvider, **more: Any) -> LoginRequest:
    """A request for the provider's public client; `more` as `make_request` takes it."""
    from holdfast.login.request import make_request

    return make_request(provider.url, CLIENT, **more)


def write_browser(provider: IdentityProvider, folder: Path, user: str = "alice") -> Path:
    """A program that is this person's browser, for `$BROWSER`; it prints, as browsers do."""
    tests = Path(__file__).parents[1]
    program = folder / f"browser-of-{user}"
    program.write_text(
        f"""#!{sys.executable}
import sys
sys.path[:0] = [{str(tests)!r}, {str(tests / "cluster")!r}]
from pathlib import Path
from services.identity_provider import IdentityProvider
print("browser says hello", flush=True)
IdentityProvider(Path({str(provider.folder)!r}), {provider.url!r}).browse(sys.argv[1], {user!r})
"""
    )
    program.chmod(0o700)
    return program


def _walk(client: httpx.Client, response: httpx.Response, user: str, consent: bool) -> httpx.Response:
    """Follow redirects and fill in forms, up to what is not the provider's: a page without a form, or the way back."""
    for _ in range(MAX_STEPS):
        if response.has_redirect_location and response.headers["location"].startswith("http://"):
            return response
        if response.has_redirect_location:
            response = client.get(response.url.join(response.headers["location"]))
        elif 'name="prompt"' in response.text and 'value="consent"' in response.text and not consent:
            response = client.get(response.url.join(unescape(_ABORT.findall(response.text)[0])))
        elif "<form" in response.text and "op.deviceInputForm" not in response.text:
            action, form = _read_form(response)
            response = client.post(response.url.join(action), data=form | {"login": user, "password": "any"})
        else:
            return response
    raise AssertionError(f"no end of pages: {response.url}")


def _read_form(page: httpx.Response) -> tuple[str, dict[str, str]]:
    forms = _FORM.findall(page.text)
    assert forms, page.text
    action, fields = forms[0]
    return unescape(action), {name: unescape(value) for name, value in _HIDDEN.findall(fields)}
