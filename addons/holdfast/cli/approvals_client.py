"""An HTTP client of the approvals API; it knows nothing of the database behind it."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from holdfast.errors import (
    BadRequest,
    ConfigurationError,
    Conflict,
    Forbidden,
    HoldfastError,
    Internal,
    Invalid,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIMEOUT_SECONDS = 15

_REFUSALS: dict[int, type[HoldfastError]] = {
    kind.code: kind for kind in (BadRequest, Forbidden, NotFound, Conflict, TooLarge, Invalid, Unavailable)
}


class ApprovalsClient:
    """Calls the API at `server`, trusting `authority_pem` (or the system's CAs), with the token of the moment.

    Every method raises Unavailable when the API cannot be reached, ConfigurationError when it cannot be trusted, and
    the refusal that it answers with, as the same subclass of HoldfastError.
    """

    def __init__(self, server: str, authority_pem: str | None, read_token: Callable[[], str]) -> None:
        self._server = server
        self._read_token = read_token
        context = ssl.create_default_context(cadata=authority_pem)
        self._http = httpx.Client(base_url=server, verify=context, timeout=TIMEOUT_SECONDS, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def list(self, states: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the holds in these states, or in any, that the token's owner may see; newest first."""
        items: list[dict[str, Any]] = self._call("GET", "/v1/holds", params={"state": list(states)})["items"]
        return items

    def get(self, hold_id: str) -> dict[str, Any]:
        """Return one hold by its ID, or by a beginning of it (with or without `h-`) that is unique.

        What still waits goes before what is over: a beginning need be unique among those only.
        """
        try:
            return self._call("GET", f"/v1/holds/{quote(hold_id, safe='')}")
        except NotFound:
            return self._find(hold_id)

    def decide(self, hold_id: str, *, approve: bool, reason: str) -> dict[str, Any]:
        """Approve or deny a hold; `hold_id` may be abbreviated."""
        whole = self.get(hold_id)["id"]
        return self._call("POST", f"/v1/holds/{whole}/{'approve' if approve else 'deny'}", json={"reason": reason})

    def _find(self, beginning: str) -> dict[str, Any]:
        wanted = beginning if beginning.startswith("h-") else f"h-{beginning}"
        found = [hold for hold in self.list() if hold["id"].startswith(wanted)]
        pending = [hold for hold in found if hold["state"] == "pending"]
        found = pending if len(pending) == 1 else found
        if not found:
            raise NotFound(f"there is no hold {beginning!r} that you may see.")
        if len(found) > 1:
            named = ", ".join(f"{hold['id']} ({hold['state']})" for hold in found)
            raise Conflict(f"{beginning!r} is the beginning of {named}; give more.")
        return found[0]

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._read_token()}"}
        try:
            response = self._http.request(method, path, headers=headers, **arguments)
            answer = response.json()
        except httpx.HTTPError as error:
            raise _failure(f"approvals API {self._server}", error) from error
        except ValueError as error:
            raise ConfigurationError(f"approvals API {self._server}: is something else; check --server.") from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response.status_code, answer)
        return dict(answer)


def _refusal(code: int, status: Any) -> HoldfastError:
    said = status.get("message") if isinstance(status, dict) else None
    message = f"{str(said or f'the approvals API answered {code}').rstrip('.')}."
    if code == Unauthorized.code:
        return Unauthorized(message, "approvals_api")
    return _REFUSALS.get(code, Internal)(message)


def _failure(api: str, error: httpx.HTTPError) -> HoldfastError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            advice = "give its CA with --certificate-authority."
            return ConfigurationError(f"{api}: its certificate is not trusted ({cause.verify_message}); {advice}")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(f"{api}: did not answer within {TIMEOUT_SECONDS} s.")
    return Unavailable(f"{api}: cannot be reached ({error}); is `holdfast serve` or `holdfast console` running there?")
