"""One request's typed story: what is asked, who asks, what was decided, what became of it.

Every stage takes and gives these values. They are frozen, except `Exchange`, which is the one place where the
story of a request is put together while it is on the wire: each stage fills in its own part and reads the
parts before it. A part that is missing is `None`, and nothing downstream treats `None` as permission.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from types import MappingProxyType
from typing import Any, NewType

from holdfast.errors import HoldfastError

AuditID = NewType("AuditID", str)
"""Names one call in our record and, sent as `Audit-ID`, in the API server's own audit log (a UUID)."""

CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
"""The key in `Identity.extra` under which Kubernetes keeps a token's jti, as `JTI=...` (KEP-4193)."""
CREDENTIAL_PREFIX = "JTI="

HoldID = NewType("HoldID", str)
"""Names one hold; short enough to read aloud (`h-` and ten characters)."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as it arrived, before anything was understood.

    `target` is the raw request target (path and query), `headers` the raw fields in order with names as sent (a token
    is among them), `tls` whether the client's connection is encrypted, `peer` its address.
    """

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    tls: bool
    peer: str
    http_version: str = "HTTP/1.1"


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What is asked, in the API server's own words (k8s.io/apiserver `pkg/endpoints/request/requestinfo.go`).

    `target` is the canonical path and query: the bytes that were classified and the bytes that are forwarded.
    `verb` is the authorizer's verb, except that exec, attach and port-forward are always `create`, whatever the
    HTTP method (Kubernetes does the same from 1.35 on). `upgrade` is the protocol asked for in `Upgrade`,
    lower case, or empty.
    """

    is_resource_request: bool
    method: str
    target: bytes
    path: str
    verb: str
    query: tuple[tuple[str, str], ...] = ()
    api_prefix: str = ""
    api_group: str = ""
    api_version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    parts: tuple[str, ...] = ()
    upgrade: str = ""

    @property
    def combined_resource(self) -> str:
        """RBAC's spelling: `pods`, `pods/exec`."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    @property
    def is_mutating(self) -> bool:
        """Whether the call can change the cluster or run something in it; unknown verbs, upgrades and proxies can."""
        reads = self.verb in {"get", "list", "watch", "head", "options"}
        return not reads or bool(self.upgrade) or self.subresource == "proxy"

    def value(self, name: str) -> str:
        """The first query value called `name`, or an empty string."""
        return next((value for key, value in self.query if key == name), "")

    def is_set(self, name: str) -> bool:
        """Kubernetes' reading of a boolean query parameter: set unless absent, `0` or `false`; empty counts as set."""
        values = [value for key, value in self.query if key == name]
        return bool(values) and values[0].casefold() not in {"0", "false"}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks: made only from a token whose signature, issuer, audience and lifetime were verified."""

    issuer: str
    username: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    claims: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    expires_at: float = 0.0


def flatten_claims(claims: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The claims as names and texts, as policies match them and records are found by them.

    A scalar stands by itself, a list for each of its members, an object for its members under dotted names
    (`kubernetes.io.namespace`), in the order of their names. What is null or no whole number has no text.
    """
    return _flatten("", claims)


def _flatten(name: str, value: Any) -> Iterator[tuple[str, str]]:
    match value:
        case Mapping():
            for key, member in sorted(value.items(), key=itemgetter(0)):
                yield from _flatten(f"{name}.{key}" if name else str(key), member)
        case list() | tuple():
            for member in value:
                yield from _flatten(name, member)
        case bool():
            yield name, "true" if value else "false"
        case str() | int():
            yield name, str(value)


class Effect(enum.IntEnum):
    """What policy says. The zero value is deny: nothing means no."""

    DENY = 0
    HOLD = 1
    ALLOW = 2


@dataclass(frozen=True, slots=True)
class Approvers:
    """Who may decide a hold: user names and groups, exactly as the identity stage names them."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mask:
    """What must not be seen: JSONPath `fields` over objects, RE2 `patterns` over text.

    `base64` fields hold base64 (a Secret's `data`), so their mask is base64 too.
    """

    name: str
    fields: tuple[str, ...] = ()
    base64_fields: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The authorizer's answer: the effect, the rule that said so, and the masks that apply."""

    effect: Effect = Effect.DENY
    rule: str = ""
    reason: str = ""
    policy_hash: str = ""
    masks: tuple[Mask, ...] = ()
    approvers: Approvers = Approvers()
    wait_seconds: float = 0.0


class HoldState(enum.StrEnum):
    """A hold's life: pending -> approved | denied | expired | cancelled; approved -> released."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Hold:
    """One request that waits, or waited, for a person. Times are UTC.

    `digest` is `binding_digest` of the request: an approval is good for these bytes, this identity, once.
    `uri` and `body` are what an approver reads (masked), `kubectl` the client's own name for its command (display
    only).
    """

    id: HoldID
    audit_id: AuditID
    digest: str
    state: HoldState
    rule: str
    reason: str
    issuer: str
    username: str
    groups: tuple[str, ...]
    verb: str
    api_group: str
    resource: str
    namespace: str
    name: str
    uri: str
    body: str
    kubectl: str
    approvers: Approvers
    created_at: datetime
    expires_at: datetime
    decided_by: str = ""
    decided_at: datetime | None = None
    decision_reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Permission to attach the credential, once, to the request whose `flow_digest` is this one.

    Made by the last stage before the wire, when every stage before it has filled in its part.
    """

    audit_id: AuditID
    flow_digest: str


@dataclass(frozen=True, slots=True)
class ClientHints:
    """What the client says of itself: for grouping and display only, never for authority."""

    user_agent: str = ""
    kubectl_command: str = ""
    kubectl_session: str = ""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a command run by exec ended: its exit code, or None when it failed before it could have one."""

    code: int | None
    message: str = ""


@dataclass(slots=True)
class Response:
    """The API server's answer, and what was made of it.

    `body` is what arrived (buffered responses only), `caller_view` what is sent on, `store_view` what is kept;
    `withheld` says why a body is not kept. Byte counts are of the wire, streams included.
    """

    code: int = 0
    media_type: str = ""
    streamed: bool = False
    upgraded: bool = False
    subprotocol: str = ""
    body: bytes = b""
    caller_view: bytes = b""
    store_view: bytes | None = None
    withheld: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    started_mono: float = 0.0
    exit_status: ExitStatus | None = None


@dataclass(slots=True, weakref_slot=True, eq=False)
class Exchange:
    """The story so far.

    `left` is set as soon as the caller has gone. `cut` names why a running stream must end now. `outcome_begun`
    is set when the call's last record is handed to the writer, `finished` once it is durable, `over` then too and when
    it cannot be made so: nothing is tried again. `receipt` is what the answer's `Audit-Receipt` says: of the record
    that had to be durable before the answer.
    """

    audit_id: AuditID
    wire: WireRequest
    received_at: datetime
    received_mono: float
    left: asyncio.Event = field(default_factory=asyncio.Event)
    info: RequestInfo | None = None
    forward_headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: str = ""
    client: ClientHints = ClientHints()
    identity: Identity | None = None
    decision: Decision | None = None
    request_body: bytes = b""
    request_view: bytes = b""
    request_withheld: str = ""
    mask_counts: dict[str, int] = field(default_factory=dict)
    hold: Hold | None = None
    held_seconds: float = 0.0
    refusal: HoldfastError | None = None
    intent_recorded: bool = False
    verdict: Verdict | None = None
    response: Response = field(default_factory=Response)
    cut: str = ""
    error: str = ""
    outcome_begun: bool = False
    finished: bool = False
    over: bool = False
    receipt: str = ""

    @property
    def is_refused(self) -> bool:
        """Whether some stage said no; the stages after it then have nothing to do."""
        return self.refusal is not None


def binding_digest(cluster: str, identity: Identity, info: RequestInfo, body: bytes) -> str:
    """What an approval is bound to: SHA-256 over length-prefixed cluster, identity, call and body.

    The HTTP method of an upgraded call is left out: kubectl follows a refused WebSocket GET with a SPDY POST,
    and the two are one command.
    """
    method = "UPGRADE" if info.upgrade else info.method
    parts = (
        cluster.encode(),
        identity.issuer.encode(),
        identity.username.encode(),
        method.encode(),
        info.target,
        body,
    )
    return _digest(parts)


def flow_digest(method: str, scheme: str, host: str, port: int, target: bytes, shown_body: bytes) -> str:
    """What a verdict is bound to: the request as mitmproxy shows it, so that an edit there undoes the verdict."""
    parts = (method.encode(), scheme.encode(), host.encode(), str(port).encode(), target, shown_body)
    return _digest(parts)


def _digest(parts: tuple[bytes, ...]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()
