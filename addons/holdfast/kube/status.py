"""Refusals in the API server's voice, so that kubectl prints them as it prints the API server's own.

The wording is that of k8s.io/apiserver `pkg/endpoints/handlers/responsewriters/errors.go` and apimachinery
`pkg/api/errors` (`NewForbidden`); the body is a metav1.Status in JSON.
"""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.errors import HoldfastError
    from holdfast.exchange import RequestInfo


def render_status(error: HoldfastError, info: RequestInfo | None) -> bytes:
    """Return the response body of a refusal; what it is about goes into `details` where it is known."""
    status = error.status()
    given = status.get("details")
    details = (_subject(info) if info is not None else {}) | (given if isinstance(given, dict) else {})
    if details:
        status["details"] = details
    return json.dumps(status, separators=(",", ":")).encode() + b"\n"


def forbidden_message(info: RequestInfo, username: str, why: str) -> str:
    """Say who may not do what, and why, in the sentence that the API server's own authorizer would use."""
    sentence = f"{escape(_denial(info, username), quote=False)}: {why}"
    if not info.is_resource_request:
        return f"forbidden: {sentence}"
    qualified = f"{info.resource}.{info.api_group}" if info.api_group else info.resource
    name = f" {_quoted(info.name)}" if info.name else ""
    return f"{qualified}{name} is forbidden: {sentence}"


def _denial(info: RequestInfo, username: str) -> str:
    user = f"User {_quoted(username)} cannot {info.verb}"
    if not info.is_resource_request:
        return f"{user} path {_quoted(info.path)}"
    what = f"{user} resource {_quoted(info.combined_resource)} in API group {_quoted(info.api_group)}"
    return f"{what} in the namespace {_quoted(info.namespace)}" if info.namespace else f"{what} at the cluster scope"


def _subject(info: RequestInfo) -> dict[str, object]:
    """The Status details; the API server puts the resource where the type says kind."""
    details = {"name": info.name, "group": info.api_group, "kind": info.resource}
    return {key: value for key, value in details.items() if value}


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
