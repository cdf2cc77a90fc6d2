"""One root error; every subclass knows the `metav1.Status` that tells a caller what to do next.

A refusal on the wire is always a Status (apimachinery `pkg/apis/meta/v1/types.go`), so that kubectl prints it
as it prints the API server's own. Messages are written for the caller: what was wrong, what was expected, and
how to go on; they never carry a token, a credential or a masked value.
"""

from __future__ import annotations

from typing import ClassVar

LONGEST_DETAIL = 200


class HoldfastError(Exception):
    """The root. `code` is the HTTP status, `reason` the Status reason, `str(error)` the message."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"
    retry_after: int | None = None

    def status(self) -> dict[str, object]:
        """Return the metav1.Status of this refusal."""
        body: dict[str, object] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }
        if self.retry_after is not None:
            body["details"] = {"retryAfterSeconds": self.retry_after}
        return body


class ConfigurationError(HoldfastError):
    """A setting, file, database or peer is not as it must be; the command says so and exits with code 2."""


class BadRequest(HoldfastError):
    """The request can be read in two ways, or carries what only the gateway may set."""

    code = 400
    reason = "BadRequest"


class Unauthorized(HoldfastError):
    """No identity: the message is what the caller may know; `why`, a reason code, and `detail` are for the record.

    `detail` says what was found, or which rule it was. Callers choose much of it, so it is one line of printable text
    of at most `LONGEST_DETAIL` characters, whatever is given.
    """

    code = 401
    reason = "Unauthorized"

    def __init__(self, message: str, why: str, detail: str = "") -> None:
        super().__init__(message)
        self.why = why
        self.detail = _on_one_line(detail)


def _on_one_line(text: str) -> str:
    cut = " ".join(text[: 4 * LONGEST_DETAIL].split())
    shown = "".join(character if character.isprintable() else "\ufffd" for character in cut)
    return shown if len(shown) <= LONGEST_DETAIL else f"{shown[: LONGEST_DETAIL - 3]}..."


class Forbidden(HoldfastError):
    """Policy, or a person, said no."""

    code = 403
    reason = "Forbidden"


class NotFound(HoldfastError):
    """There is no such hold or call."""

    code = 404
    reason = "NotFound"


class Conflict(HoldfastError):
    """What was asked no longer fits the state of things, as when a hold was decided before."""

    code = 409
    reason = "Conflict"


class TooLarge(HoldfastError):
    """More than the API server itself would take."""

    code = 413
    reason = "RequestEntityTooLarge"


class UnsupportedMediaType(HoldfastError):
    """A body that a rule must read is in an encoding that cannot be read."""

    code = 415
    reason = "UnsupportedMediaType"


class Invalid(HoldfastError):
    """The body cannot be written, as when it carries a mask back. `field` is the place in it, `why` what is wrong.

    Both are told as a cause, because causes are all that kubectl prints of a 422.
    """

    code = 422
    reason = "Invalid"

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.cause = {"reason": "FieldValueInvalid", "field": field, "message": why}

    def status(self) -> dict[str, object]:
        """Return the metav1.Status, with the one cause."""
        return super().status() | {"details": {"causes": [self.cause]}}


class HeadersTooLarge(HoldfastError):
    """The header section is longer than any Kubernetes client sends."""

    code = 431
    reason = "RequestHeaderFieldsTooLarge"


class Internal(HoldfastError):
    """The gateway itself failed; nothing was forwarded."""


class BadGateway(HoldfastError):
    """The API server's answer could not be shown safely."""

    code = 502
    reason = "BadGateway"


class Unavailable(HoldfastError):
    """The store, or the API server, cannot be reached; the call may be tried again."""

    code = 503
    reason = "ServiceUnavailable"
    retry_after = 1


class Superseded(Unavailable):
    """The log is not as this writer left it: another process writes it, it was dropped, or the database put back."""
