"""What is asked, read as the API server reads it.

Follows k8s.io/apiserver `pkg/endpoints/request/requestinfo.go` step by step: `/api/v1/watch/...` and
`/api/v1/proxy/...` carry their verb in the path, HEAD is get, GET of a collection is list or watch, DELETE of a
collection is deletecollection, `namespaces/NAME` is both the namespace and the object.

It is stricter in three places, each where a caller would gain from the difference:

- exec, attach and port-forward of a pod are `create` whatever the HTTP method, as in Kubernetes 1.35 and later
  (before, a WebSocket GET needed only `get`), with or without an upgrade;
- methods outside `METHODS` are refused, and so is anything but a read under `/watch/`;
- a path that stops after `/watch` or `/proxy` is refused here (the API server answers it with a 500).

A `labelSelector` is not parsed: where it is wrong, the API server refuses the whole request by itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.errors import BadRequest
from holdfast.exchange import RequestInfo
from holdfast.kube.field_selector import exact_match, parse_field_selector

if TYPE_CHECKING:
    from holdfast.kube.canonical import CanonicalTarget

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_VERBS_IN_PATH = frozenset({"proxy", "watch"})
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_POD_CONNECTIONS = frozenset({"exec", "attach", "portforward"})
_INT64_PARAMETERS = ("limit", "timeoutSeconds")


def parse_request_info(method: str, target: CanonicalTarget, upgrade: str = "") -> RequestInfo:
    """Classify a request: its verb, group, version, resource, subresource, namespace and name.

    `upgrade` is the value of the `Upgrade` header, or empty. Raises BadRequest for a method or a path that no
    Kubernetes client sends.
    """
    if method not in METHODS:
        raise BadRequest(f"The method {method[:20]!r} is not one of {', '.join(sorted(METHODS))}.")
    info = RequestInfo(
        is_resource_request=False,
        method=method,
        target=target.target,
        path=target.path,
        verb=method.lower(),
        query=target.query,
        upgrade=upgrade.lower(),
    )
    segments = tuple(segment for segment in target.path.split("/") if segment)
    return _read_prefix(info, segments)


def is_exec_class(info: RequestInfo) -> bool:
    """Whether the call opens a way into a workload or a node: exec, attach, port-forward, and every proxy.

    A proxy counts because `nodes/proxy` and `pods/proxy` reach the kubelet's own exec.
    """
    return _is_pod_connection(info) or _is_proxy(info)


def is_long_running(info: RequestInfo) -> bool:
    """Whether the response may go on without end: watch, followed logs, exec-class calls, profiles."""
    if info.is_resource_request:
        follows = info.subresource == "log" and info.is_set("follow")
        return info.verb == "watch" or follows or is_exec_class(info)
    return info.path.startswith("/debug/pprof/")


def _is_pod_connection(info: RequestInfo) -> bool:
    return info.resource == "pods" and info.subresource in _POD_CONNECTIONS


def _is_proxy(info: RequestInfo) -> bool:
    return info.verb == "proxy" or info.subresource == "proxy"


def _read_prefix(info: RequestInfo, segments: tuple[str, ...]) -> RequestInfo:
    match segments:
        case "api", version, *rest if rest:
            return _read_resource(replace(info, api_prefix="api", api_version=version), rest)
        case "apis", group, version, *rest if rest:
            return _read_resource(replace(info, api_prefix="apis", api_group=group, api_version=version), rest)
        case "apis", _, _:
            return replace(info, api_prefix="apis")
    return info


def _read_resource(info: RequestInfo, segments: list[str]) -> RequestInfo:
    verb, segments = _take_verb(info.method, segments)
    namespace, parts = _take_namespace(segments)
    has_subresource = len(parts) > 2 and verb != "proxy"
    located = replace(
        info,
        is_resource_request=True,
        verb=verb,
        namespace=namespace,
        resource=parts[0],
        name=parts[1] if len(parts) > 1 else "",
        subresource=parts[2] if has_subresource else "",
        parts=tuple(parts),
    )
    return _settle_verb(located)


def _take_verb(method: str, segments: list[str]) -> tuple[str, list[str]]:
    verb, *rest = segments
    if verb not in _VERBS_IN_PATH:
        return _VERBS.get(method, ""), segments
    if not rest:
        raise BadRequest(f"The path names no resource after /{verb}: write /{verb}/RESOURCE.")
    if verb == "watch" and method not in {"GET", "HEAD"}:
        raise BadRequest(f"A path under /watch/ is read with GET, not {method}: leave out /watch to change something.")
    return verb, rest


def _take_namespace(segments: list[str]) -> tuple[str, list[str]]:
    match segments:
        case ["namespaces", namespace, below, *_] if below not in _NAMESPACE_SUBRESOURCES:
            return namespace, segments[2:]
        case ["namespaces", namespace, *_]:
            return namespace, segments
    return "", segments


def _settle_verb(info: RequestInfo) -> RequestInfo:
    if _is_pod_connection(info):
        return replace(info, verb="create")
    if info.name:
        return info
    if info.verb == "get":
        return replace(info, verb="watch" if info.is_set("watch") else "list", name=_selected_name(info))
    if info.verb == "delete":
        return replace(info, verb="deletecollection")
    return info


def _selected_name(info: RequestInfo) -> str:
    """The one object that `fieldSelector` asks for; empty when any list option is wrong, as in the API server."""
    if not all(_is_int64(value) for name, value in info.query if name in _INT64_PARAMETERS):
        return ""
    requirements = parse_field_selector(info.value("fieldSelector"))
    name = exact_match(requirements, "metadata.name") if requirements is not None else None
    return name if name and _is_path_segment_name(name) else ""


def _is_path_segment_name(name: str) -> bool:
    """As apimachinery's `content.IsPathSegmentName`."""
    return name not in {".", ".."} and "/" not in name and "%" not in name


def _is_int64(text: str) -> bool:
    """As Go's `strconv.ParseInt(text, 10, 64)`."""
    sign, digits = (text[0], text[1:]) if text[:1] in {"+", "-"} else ("+", text)
    if not (digits.isascii() and digits.isdigit()):
        return False
    significant = digits.lstrip("0")
    return len(significant) <= 19 and int(significant or "0") < (1 << 63) + (sign == "-")
