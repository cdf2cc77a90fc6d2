"""The authenticator, as the settings say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from holdfast.identity.authenticator import Authenticator
from holdfast.identity.own_tokens import OwnTokenMapper
from holdfast.identity.token_keys import TokenKeys

if TYPE_CHECKING:
    from holdfast.settings import Settings


def open_authenticator(settings: Settings, *, make_keys: bool = True) -> Authenticator:
    """Every trusted issuer, and ourselves where we sign tokens. Blocking. Raises ConfigurationError.

    Without `make_keys` nothing is written, and where there are no keys yet, no token of ours is known.
    """
    own = settings.identity.tokens
    keys = TokenKeys(settings.token_key_folder)
    if own is None or not (make_keys or keys.jwks_file.exists()):
        return Authenticator(settings.identity)
    if make_keys:
        keys.prepare(time.time(), own.lifetime_seconds)
    return Authenticator(settings.identity, OwnTokenMapper(own, keys.jwks_file, settings.identity.issuers))
