"""The path of one request: the ordered list of addons.

`requestheaders` and `request` run down this list on the way to the API server; the response runs down it on the
way back. A stage that says no ends the path; what is missing from the list, or out of order, leaves a part of
the story empty, and the credential layer lets nothing out without all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.hooks.approval import Held
from holdfast.hooks.audit import Recorded
from holdfast.hooks.credential import Sealed
from holdfast.hooks.identity import Identified
from holdfast.hooks.kube import Asked
from holdfast.hooks.lifecycle import Lifecycle
from holdfast.hooks.masking import Masked
from holdfast.hooks.policy import Decided
from holdfast.hooks.streaming import Streamed

if TYPE_CHECKING:
    from holdfast.hooks.gateway import Gateway


def request_path(gateway: Gateway) -> list[object]:
    """Every stage, in the order in which a request meets them."""
    stages = (
        Asked(gateway),  # what is asked
        Identified(gateway),  # who asks
        Decided(gateway),  # may it
        Masked(gateway),  # what must not be seen; a mask must not be written back
        Held(gateway),  # must somebody sign
        Recorded(gateway),  # the intent, then the outcome, durable
        Streamed(gateway),  # what passes unbuffered
        Sealed(gateway),  # the verdict, without which there is no credential
    )
    return [
        Lifecycle(gateway, stages),  # opens the gateway before the listener, closes it after
        *stages,
    ]
