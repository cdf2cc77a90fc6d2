"""The authenticator, as the settings say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from holdfast.identity.authenticator import Authenticator
from holdfast.identity.own_tokens import OwnTokenMapper
from holdfast.identity.token_keys import TokenKeys

if TYPE_CHECKING:
    from holdfast.settings import Settings


def open_authenticator(settings: Settings) -> Authenticator:
    """Every trusted issuer, and ourselves where we sign tokens. Blocking. Raises ConfigurationError."""
    own = settings.identity.tokens
    if own is None:
        return Authenticator(settings.identity)
    keys = TokenKeys(settings.token_key_folder)
    keys.prepare(time.time(), own.lifetime_seconds)
    return Authenticator(settings.identity, OwnTokenMapper(own, keys.jwks_file))
