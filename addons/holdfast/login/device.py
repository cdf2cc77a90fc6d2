"""The device flow (RFC 8628): a code that a person enters in a browser anywhere, and a program that waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from holdfast.identity.discovery import IssuerDown
from holdfast.login.provider import LoginFailed, Refused, target_parameters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from holdfast.login.provider import Provider
    from holdfast.login.request import LoginRequest

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:device_code"
DEFAULT_INTERVAL_SECONDS = 5
SLOWER_BY_SECONDS = 5

_ENDINGS = {
    "access_denied": "the login was denied in the browser.",
    "expired_token": "the code expired before anybody entered it; log in again.",
}


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A code that waits to be entered. `expires_in` and `interval` are in seconds."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str | None
    expires_in: int
    interval: int


async def begin_device_flow(provider: Provider, request: LoginRequest, endpoint: str) -> DeviceCode:
    """Ask for a code (section 3.1). Raises Refused, LoginFailed, IssuerDown, ConfigurationError."""
    form = {"client_id": request.client_id, "scope": provider.scope(request), **target_parameters(request)}
    return _read_device_code(await provider.post(endpoint, form))


async def await_device(
    provider: Provider,
    request: LoginRequest,
    code: DeviceCode,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> Mapping[str, Any]:
    """Poll until the code was entered (sections 3.4 and 3.5); the token endpoint's answer.

    `clock` and `sleep` are in seconds. Raises LoginFailed when it was denied or has expired, Refused,
    ConfigurationError. A provider that is down for a while is asked less often.
    """
    form = {"grant_type": GRANT_TYPE, "device_code": code.device_code, "client_id": request.client_id}
    form |= target_parameters(request)
    interval, until = code.interval, clock() + code.expires_in
    while (left := until - clock()) > 0:
        await sleep(min(interval, left))
        try:
            return await provider.post(provider.metadata.token_endpoint, form)
        except IssuerDown:
            interval = interval * 2
        except Refused as refusal:
            interval = _next_interval(refusal, interval)
    raise LoginFailed(_ENDINGS["expired_token"])


def _next_interval(refusal: Refused, interval: int) -> int:
    if refusal.error == "authorization_pending":
        return interval
    if refusal.error == "slow_down":
        return interval + SLOWER_BY_SECONDS
    if refusal.error in _ENDINGS:
        raise LoginFailed(_ENDINGS[refusal.error]) from refusal
    raise refusal


def _read_device_code(answer: Mapping[str, Any]) -> DeviceCode:
    device_code, user_code, address = (answer.get(name) for name in ("device_code", "user_code", "verification_uri"))
    complete, expires_in = answer.get("verification_uri_complete"), answer.get("expires_in")
    interval = answer.get("interval", DEFAULT_INTERVAL_SECONDS)
    if not (_is_token(device_code) and _is_token(user_code) and _is_address(address)):
        raise LoginFailed("the provider's answer holds no code to enter and no https:// address to enter it at.")
    if not (_is_seconds(expires_in) and _is_seconds(interval)):
        raise LoginFailed("the provider's answer does not say in whole seconds how long its code is good.")
    return DeviceCode(
        device_code, user_code, address, complete if _is_address(complete) else None, expires_in, interval
    )


def _is_token(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)


def _is_address(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.startswith("https://")


def _is_seconds(value: object) -> TypeGuard[int]:
    return type(value) is int and value > 0
