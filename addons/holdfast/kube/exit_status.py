"""How a command run by exec or attach ended, read from the stream's error channel without touching the stream.

From `v4.channel.k8s.io` on, the last thing on the error channel is a metav1.Status: `Success`, or `Failure`
with reason `NonZeroExitCode` and the code in a cause called `ExitCode`. Older protocols send plain text, which
has no code in it. Sources: k8s.io/apimachinery `pkg/util/remotecommand`, client-go `tools/remotecommand/v4.go`.

An observer never raises and never holds more than `MAX_STATUS_BYTES` of a stream: what it cannot follow, it
stops following, and then it has no result.
"""

from __future__ import annotations

import msgspec

from holdfast.exchange import ExitStatus

MAX_STATUS_BYTES = 64 << 10

_EXIT_CODE_REASON = "NonZeroExitCode"
_EXIT_CODE_CAUSE = "ExitCode"


class StatusCollector:
    """The bytes of an error channel, up to `MAX_STATUS_BYTES`; more than that is no Status."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._overflowed = False

    def add(self, data: bytes) -> None:
        """Take the next bytes of the channel."""
        self._overflowed = self._overflowed or len(self._data) + len(data) > MAX_STATUS_BYTES
        if not self._overflowed:
            self._data += data

    def exit_status(self) -> ExitStatus | None:
        """What the channel says so far."""
        return None if self._overflowed else parse_exit_status(bytes(self._data))


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


class _Status(msgspec.Struct):
    status: str = ""
    reason: str = ""
    message: str = ""
    details: _Details | None = None


def parse_exit_status(data: bytes) -> ExitStatus | None:
    """Read a metav1.Status; None when it is not one, or claims an exit code without giving it."""
    try:
        status = msgspec.json.decode(data, type=_Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if status.status == "Success":
        return ExitStatus(0)
    if status.status != "Failure":
        return None
    if status.reason != _EXIT_CODE_REASON:
        return ExitStatus(None, status.message)
    code = _exit_code(status.details)
    return None if code is None else ExitStatus(code, status.message)


def _exit_code(details: _Details | None) -> int | None:
    causes = details.causes if details is not None else []
    text = next((cause.message for cause in causes if cause.reason == _EXIT_CODE_CAUSE), "")
    if not (text.isascii() and text.isdigit() and len(text) <= 3):
        return None
    return int(text) if int(text) <= 255 else None
