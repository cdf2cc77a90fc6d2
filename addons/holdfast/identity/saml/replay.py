"""An assertion is good once (SAML profiles 4.1.4.5, RFC 7522 section 3 item 7): who uses it again is refused.

What was used is kept where all replicas of the gateway see it; here is what they ask of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from holdfast.errors import Unauthorized

if TYPE_CHECKING:
    from holdfast.identity.saml.assertion import SAMLIdentity


class UsedAssertions(Protocol):
    """The assertions that were used, of every provider."""

    def remember(self, assertion_id: str, issuer: str, until: float) -> bool:
        """Remember the assertion until then (seconds since the epoch); whether it was not remembered yet.

        Of two who ask at once, exactly one is told yes.
        """


def require_first_use(identity: SAMLIdentity, used: UsedAssertions) -> None:
    """Use up the verified assertion. Raises Unauthorized when it was used before, and whatever `used` raises."""
    if not used.remember(identity.assertion_id, identity.issuer, identity.not_on_or_after):
        raise Unauthorized("the SAML message was used before; log in again", "replayed")
