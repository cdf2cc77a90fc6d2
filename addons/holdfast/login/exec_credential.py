"""What kubectl and its credential plugins say to each other (client.authentication.k8s.io/v1).

https://kubernetes.io/docs/reference/config-api/client-authentication.v1/: the plugin is told about the call in
`$KUBERNETES_EXEC_INFO` and prints an ExecCredential. A client keeps it until `expirationTimestamp`, or, without one,
until the server answers 401.

Part of the cached path, so nothing here needs more than the standard library.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from holdfast.login.plain_json import parse_json, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

API_VERSION = "client.authentication.k8s.io/v1"
KIND = "ExecCredential"
INFO_VARIABLE = "KUBERNETES_EXEC_INFO"


def render_credential(token: str, expires_at: int | None) -> str:
    """The ExecCredential that carries a token; `expires_at` is in seconds since the epoch, None when unknown."""
    status = f'"token": {quote(token)}'
    if expires_at is not None:
        status += time.strftime(', "expirationTimestamp": "%Y-%m-%dT%H:%M:%SZ"', time.gmtime(expires_at))
    return f'{{"apiVersion": "{API_VERSION}", "kind": "{KIND}", "status": {{{status}}}}}'


def allows_questions(environment: Mapping[str, str]) -> bool:
    """Whether the client that called lets its plugin talk to a person; so does a shell, which tells nothing.

    Raises ValueError when the client wants another version than v1, or says what cannot be read.
    """
    text = environment.get(INFO_VARIABLE)
    if not text:
        return True
    try:
        info = parse_json(text)
        version, interactive = info["apiVersion"], info["spec"]["interactive"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"${INFO_VARIABLE} is not an ExecCredential of {API_VERSION}") from None
    if version != API_VERSION:
        raise ValueError(f"the kubeconfig asks for {version!r:.80}; set the apiVersion of its exec to {API_VERSION}")
    return interactive is True
