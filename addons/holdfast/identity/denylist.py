"""Who is let in no more, though a token of theirs is good: by token, by subject, or by user name.

Issuers cannot take back a token before it expires. A revocation refuses one token (its `jti`), all tokens of a
subject (its `sub`), or of whoever is mapped to a user name, always of one issuer, until it is lifted or its time is
over; of SAML's, the assertion's ID and NameID. A token of our own goes by its own `jti` and by that of its proof, and
by the issuer of that. A revocation counts for what a caller sends from then on, and ends what the caller still has
under way.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from holdfast.errors import Unauthorized
from holdfast.exchange import CREDENTIAL_ID, CREDENTIAL_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast.exchange import Identity

ID_PREFIX = "r-"
REVOKED = "the token was revoked; ask the gateway's operators why"


class Scope(enum.StrEnum):
    """What a revocation names."""

    TOKEN = "token"  # noqa: S105  a word, not a secret
    SUBJECT = "subject"
    USER = "user"


NAMING = {Scope.TOKEN: ("jti", "assertionID"), Scope.SUBJECT: ("sub", "nameID")}
"""The claim that has what is named: of a token, and where there is none, of a SAML assertion."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One of them. `value` is a jti, a sub or a user name of `issuer`; without `until` it holds until it is lifted."""

    id: str
    issuer: str
    scope: Scope
    value: str
    reason: str
    revoked_by: str
    revoked_at: datetime
    until: datetime | None = None

    def holds_at(self, now: float) -> bool:
        """Whether its time is not over; `now` is in seconds since the epoch."""
        return self.until is None or now < self.until.timestamp()

    def outlasts(self, other: Revocation) -> bool:
        """Whether it ends later than another, or never and the other does."""
        return other.until is not None and (self.until is None or other.until < self.until)


class Denylist:
    """Revocations, found by what they name."""

    def __init__(self, revocations: Iterable[Revocation] = ()) -> None:
        self._found = {(each.issuer, each.scope, each.value): each for each in revocations}

    def find(self, identity: Identity, now: float) -> Revocation | None:
        """The revocation that refuses this identity, if there is one; `now` is in seconds since the epoch."""
        if not self._found:
            return None
        token, subject = NAMING[Scope.TOKEN], NAMING[Scope.SUBJECT]
        named = (
            (Scope.TOKEN, identity.claims.get(token[0], identity.claims.get(token[1]))),
            *((Scope.TOKEN, value.removeprefix(CREDENTIAL_PREFIX)) for value in identity.extra.get(CREDENTIAL_ID, ())),
            (Scope.SUBJECT, identity.claims.get(subject[0], identity.claims.get(subject[1]))),
            (Scope.USER, identity.username),
        )
        for scope, value in named:
            if isinstance(value, str):
                found = self._found.get((identity.issuer, scope, value))
                if found is not None and found.holds_at(now):
                    return found
        return None

    def require_allowed(self, identity: Identity, now: float) -> None:
        """Raise Unauthorized when something refuses this identity; `now` is in seconds since the epoch."""
        found = self.find(identity, now)
        if found is not None:
            raise Unauthorized(REVOKED, "revoked", f"{found.id}: {found.scope} {found.value!r}")
