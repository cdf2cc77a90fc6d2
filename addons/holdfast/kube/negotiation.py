"""Media types: which encodings are asked for, and which encoding a body is in.

The gateway reads and masks JSON, so a resource request's `Accept` is narrowed to JSON. Every Kubernetes client
decodes a response by its Content-Type, and lists JSON or takes it anyway, so this is safe (client-go
`rest/request.go`). What narrows is the encoding only: `as=Table`, `as=PartialObjectMetadata`, `g`, `v`, `q` and
`stream` stay. Sources: RFC 9110 section 12.5.1; k8s.io/apiserver `pkg/endpoints/handlers/negotiation`.
"""

from __future__ import annotations

JSON = "application/json"
JSON_PATCH = "application/json-patch+json"
YAML = "application/yaml"

_KEPT_RANGES = frozenset({JSON, "*/*"})


def json_accept(value: str) -> str:
    """Keep the JSON ranges and `*/*` of an `Accept` value, in order; `application/json` when none is left."""
    ranges = [media_range.strip() for media_range in value.split(",")]
    kept = [media_range for media_range in ranges if _essence(media_range) in _KEPT_RANGES]
    return ", ".join(kept) or JSON


def is_json(content_type: str) -> bool:
    """Whether a body of this type is JSON text: `application/json`, or a type that ends in `+json`."""
    essence = _essence(content_type)
    return essence == JSON or essence.endswith("+json")


def is_json_patch(content_type: str) -> bool:
    """Whether a body of this type is a list of JSON Patch operations (RFC 6902)."""
    return _essence(content_type) == JSON_PATCH


def is_yaml(content_type: str) -> bool:
    """Whether a body of this type is YAML: `application/yaml`, or server-side apply's `+yaml`."""
    essence = _essence(content_type)
    return essence == YAML or essence.endswith("+yaml")


def _essence(media_type: str) -> str:
    """The type without its parameters, lower case."""
    return media_type.partition(";")[0].strip().lower()
