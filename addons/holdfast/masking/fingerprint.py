r"""The mask: `masked:v1:RULE:FINGERPRINT`.

RULE is the mask's name in the policy. FINGERPRINT is the first 16 hexadecimal digits of an HMAC-SHA256 under
the gateway's mask key, over JSON arrays that no two places share and the 32 bytes of the value's SHA-256:

    store view    ["store"] SHA-256(value)
    caller view   ["caller", issuer, username, resource, namespace, name] [path...] SHA-256(value)

In the store equal secrets have equal fingerprints, so an auditor sees where one secret went. What a caller
sees is bound to the caller and to the place of the value: were it not, a caller could write guesses into an
object of his own and compare. Whoever may write the very field that is masked can still try guesses there, at
the price of the value he guesses at. The value of a base64 field is what it decodes to.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

PREFIX = b"masked:v1:"
"""How every mask begins."""

MASK = re.compile(rb"masked:v1:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,62}):[0-9a-f]{16}")
"""One whole mask."""

_DIGITS = 16
_SHORTEST_KEY = 32


def is_mask(value: bytes, names: Collection[str]) -> bool:
    """Whether `value` is a mask of one of `names` and nothing else, so that it is not masked again."""
    found = MASK.fullmatch(value) if value.startswith(PREFIX) else None
    return found is not None and found["name"].decode() in names


@dataclass(frozen=True, slots=True)
class Fingerprinter:
    """Fingerprints under one key of at least 32 random bytes. Raises ConfigurationError on a shorter key."""

    key: bytes = field(repr=False)
    _keyed: hmac.HMAC = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.key) < _SHORTEST_KEY:
            raise ConfigurationError(
                f"the mask key has {len(self.key)} bytes; expected at least {_SHORTEST_KEY} random ones."
            )
        object.__setattr__(self, "_keyed", hmac.new(self.key, digestmod="sha256"))

    def fingerprint(self, message: bytes) -> str:
        """Return 16 hexadecimal digits for `message`."""
        keyed = self._keyed.copy()
        keyed.update(message)
        return keyed.hexdigest()[:_DIGITS]


@dataclass(frozen=True, slots=True)
class Views:
    """Makes both masks of a value: for one caller, and for the store.

    `resource` is the resource with its group and subresource; `namespace` and `name` are those of the request,
    for values in no object that names itself.
    """

    fingerprinter: Fingerprinter
    issuer: str
    username: str
    resource: str
    namespace: str = ""
    name: str = ""

    def place(self, namespace: str = "", name: str = "") -> bytes:
        """Return what binds the caller's masks to him and to an object; the request's own where none is named."""
        parts = (self.issuer, self.username, self.resource, namespace or self.namespace, name or self.name)
        return msgspec.json.encode(("caller", *parts))

    def masks(self, rule: str, value: bytes, place: bytes, path: Sequence[str | int]) -> tuple[bytes, bytes]:
        """Return the caller's and the store's mask of `value`, found at `path` in the object at `place`."""
        digest = hashlib.sha256(value).digest()
        caller = self.fingerprinter.fingerprint(place + msgspec.json.encode(path) + digest)
        store = self.fingerprinter.fingerprint(_STORE + digest)
        return f"masked:v1:{rule}:{caller}".encode(), f"masked:v1:{rule}:{store}".encode()


_STORE = msgspec.json.encode(("store",))
