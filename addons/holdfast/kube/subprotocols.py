"""The subprotocols that a WebSocket handshake offers, and the bearer token that a browser may put among them.

Browsers cannot set `Authorization` on a WebSocket, so Kubernetes takes the token as one more subprotocol,
`base64url.bearer.authorization.k8s.io.` and the token in base64url without padding (k8s.io/apiserver
`pkg/authentication/request/websocket/protocol.go`). It must not be the only one: the answer has to name one of those
offered, and never names this.

What the API server would take and we do not: a second spelling of the same bytes (stray bits, line ends), an empty
token, and entries that are no token of RFC 6455 section 4.1, which it would trim or pass on with the secret in them.
A `/` is let pass, because `SPDY/3.1+portforward.k8s.io` has one.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from holdfast.errors import BadRequest, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Sequence

BEARER = "base64url.bearer.authorization.k8s.io."
WHY = "websocket_bearer"
"""The reason code of every `Unauthorized` that is raised here."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^`|~_0-9A-Za-z/]+")
_LOOKALIKE = "bearer.authorization"


def split_bearer(values: Sequence[bytes]) -> tuple[str | None, tuple[str, ...]]:
    """The bearer token among the subprotocols that these fields offer, if there is one, and the others in order.

    Raises BadRequest where an entry is none, or looks like a bearer token and is not spelled as one; Unauthorized where
    the API server refuses too: several tokens, one that is not base64url, one without another subprotocol beside it.
    No message repeats an entry.
    """
    offered = [entry.strip(b" \t") for value in values for entry in value.split(b",")]
    subprotocols = [_read(entry) for entry in offered if entry]
    bearers = [entry.removeprefix(BEARER) for entry in subprotocols if entry.startswith(BEARER)]
    others = tuple(entry for entry in subprotocols if not entry.startswith(BEARER))
    if not bearers:
        return None, others
    if len(bearers) > 1:
        raise Unauthorized("there are several bearer tokens in sec-websocket-protocol; send one", WHY)
    if not others:
        raise Unauthorized(
            "the bearer token in sec-websocket-protocol is the only subprotocol; offer another beside it, as "
            "v5.channel.k8s.io",
            WHY,
        )
    return _decode(bearers[0]), others


def _read(entry: bytes) -> str:
    if not _TOKEN.fullmatch(entry):
        raise BadRequest("The header sec-websocket-protocol has an entry that is no token (RFC 6455 section 4.1).")
    text = entry.decode("ascii")
    if _LOOKALIKE in text.lower() and not text.startswith(BEARER):
        raise BadRequest(f"The header sec-websocket-protocol has what looks like a bearer token; it begins {BEARER!r}.")
    return text


def _decode(encoded: str) -> str:
    try:
        token = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        is_canonical = base64.urlsafe_b64encode(token).rstrip(b"=").decode("ascii") == encoded
        if token and is_canonical:
            return token.decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise Unauthorized("the bearer token in sec-websocket-protocol is not base64url without padding", WHY)
