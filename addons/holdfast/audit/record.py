"""The record: what is kept of a call, and the exact bytes that are kept.

A call leaves one record or several, in this order, told apart by `kind`:

    hold      a person is being waited for
    decision  a person decided; `identity` is that person, not the caller
    intent    a mutating call is about to be forwarded; durable before it is
    open      a stream is about to begin; durable before its first byte is released
    chunk     a piece of that stream; `bytesUp` and `bytesDown` count the wire up to the end of the piece
    outcome   how the call ended, refusals included; durable before the caller is answered

A reading call that is not streamed leaves an outcome only. An intent without an outcome means that the gateway
does not know how the call ended.

A leaf is the UTF-8 JSON of one record: keys sorted, no white space, parts that have nothing to say left out,
times as RFC 3339 text in UTC with microseconds, and integers below 2^53 in place of floats, so that the bytes
equal RFC 8785's. Payloads are named by the SHA-256 of what is stored, which has been masked before it comes
here. The URI and a command run by exec are kept as they were sent: a password typed as an argument is in them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Any

import msgspec

from holdfast.errors import HoldfastError, Internal, Unauthorized
from holdfast.exchange import AuditID, Decision, Hold, Identity, RequestInfo

LARGEST_INTEGER = 2**53 - 1
Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_INTEGER)]


class Kind(enum.StrEnum):
    """What a record tells of its call."""

    INTENT = "intent"
    OUTCOME = "outcome"
    OPEN = "open"
    CHUNK = "chunk"
    HOLD = "hold"
    DECISION = "decision"


class Part(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What every part of a record shares: camelCase keys, nothing unknown, silence where there is nothing to say."""


class Caller(Part, frozen=True):
    """Who asked, as the identity stage verified it."""

    issuer: str
    username: str
    groups: tuple[str, ...] = ()
    claims: dict[str, Any] = {}


class Call(Part, frozen=True):
    """What was asked, in the API server's words; only `method` and `uri` where it could not be understood."""

    method: str
    uri: str
    verb: str = ""
    api_group: str = ""
    api_version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    is_resource: bool = False


class Client(Part, frozen=True):
    """The client's address, and what it says of itself."""

    peer: str
    user_agent: str = ""
    kubectl_command: str = ""
    kubectl_session: str = ""


class Ruling(Part, frozen=True):
    """What policy said: the effect, the rule, and how often each mask was applied."""

    effect: str
    rule: str = ""
    reason: str = ""
    policy_hash: str = ""
    masks: dict[str, Count] = {}


class Held(Part, frozen=True):
    """The hold as it stood when the record was made."""

    id: str
    state: str
    decided_by: str = ""
    decision_reason: str = ""


class Refusal(Part, frozen=True):
    """The Status that the gateway answered with; `why` is for the record only."""

    code: Count
    reason: str
    message: str
    why: str = ""


class Answer(Part, frozen=True):
    """The API server's response; `bytes` is its length on the wire."""

    code: Count
    content_type: str = ""
    bytes: Count = 0


class Exec(Part, frozen=True):
    """A command run in a container, and the exit code it ended with."""

    command: tuple[str, ...] = ()
    exit_code: int | None = None


class Timing(Part, frozen=True):
    """When the call arrived, and durations in microseconds: all of it, upstream, and waiting for a person."""

    received_at: str
    total: Count | None = None
    upstream: Count | None = None
    held: Count | None = None


class Payload(Part, frozen=True):
    """A stored body: its hash, size in bytes and media type; or the reason why it is not stored."""

    sha256: str = ""
    size: Count = 0
    media_type: str = ""
    withheld: str = ""


class Record(Part, frozen=True, tag_field="version", tag=1):
    """One record. `call` names the call it belongs to, `at` is when it was made (see `timestamp`)."""

    kind: Kind
    call: AuditID
    at: str
    identity: Caller | None = None
    what: Call | None = None
    client: Client | None = None
    decision: Ruling | None = None
    hold: Held | None = None
    refusal: Refusal | None = None
    response: Answer | None = None
    exec: Exec | None = None
    timing: Timing | None = None
    streamed: bool = False
    bytes_up: Count = 0
    bytes_down: Count = 0
    error: str = ""
    request_body: Payload | None = None
    response_body: Payload | None = None


class CallRow(msgspec.Struct, frozen=True):
    """One call as lists show and filter it; derived from its latest record, and from nothing else.

    Absent text is empty. `code` is the HTTP status the caller got, `duration_us` in microseconds; both are
    None, and `complete` is false, until the outcome is known.
    """

    audit_id: str
    received_at: str
    username: str
    issuer: str
    verb: str
    api_group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    uri: str
    effect: str
    rule: str
    verdict: str
    code: int | None
    hold_id: str
    duration_us: int | None
    user_agent: str
    complete: bool


@dataclass(frozen=True)
class Entry:
    """One record and the payload bytes that it refers to, ready for the writer."""

    record: Record
    payloads: tuple[bytes, ...] = ()

    @cached_property
    def leaf(self) -> bytes:
        """The record's exact bytes, encoded once. Raises Internal when it holds what JSON cannot."""
        return encode(self.record)

    @property
    def size(self) -> int:
        """Bytes to be stored."""
        return len(self.leaf) + sum(map(len, self.payloads))


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """Return the leaf of `record`. Raises Internal when it holds what JSON cannot (a lone surrogate)."""
    try:
        return _encoder.encode(record)
    except (UnicodeEncodeError, TypeError) as error:
        raise Internal("the audit record of this call cannot be encoded, so the call was stopped") from error


def decode(leaf: bytes) -> Record:
    """Read a leaf back. Raises Internal when it is not the leaf of a record of this version."""
    try:
        return _decoder.decode(leaf)
    except msgspec.MsgspecError as error:
        raise Internal(f"a record in the audit database cannot be read: {error}") from error


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with exactly six decimals, so that text order is time order. `moment` must be aware."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def describe_caller(identity: Identity) -> Caller:
    """Take over an identity; claims keep their shape, numbers that are no safe integers become text."""
    return Caller(
        issuer=identity.issuer,
        username=identity.username,
        groups=identity.groups,
        claims={key: _without_floats(value) for key, value in identity.claims.items()},
    )


def describe_call(info: RequestInfo, uri: str) -> Call:
    """Take over what was understood; `uri` is the canonical path and query, as sent."""
    return Call(
        method=info.method,
        uri=uri,
        verb=info.verb,
        api_group=info.api_group,
        api_version=info.api_version,
        resource=info.resource,
        subresource=info.subresource,
        namespace=info.namespace,
        name=info.name,
        is_resource=info.is_resource_request,
    )


def describe_decision(decision: Decision, mask_counts: Mapping[str, int]) -> Ruling:
    """Take over a decision, with every mask that applied and how often it replaced something."""
    return Ruling(
        effect=decision.effect.name.lower(),
        rule=decision.rule,
        reason=decision.reason,
        policy_hash=decision.policy_hash,
        masks={mask.name: mask_counts.get(mask.name, 0) for mask in decision.masks},
    )


def describe_hold(hold: Hold) -> Held:
    """Take over a hold as it stands."""
    return Held(id=hold.id, state=hold.state.value, decided_by=hold.decided_by, decision_reason=hold.decision_reason)


def describe_refusal(error: HoldfastError) -> Refusal:
    """Take over a refusal, with the reason code that its caller does not see."""
    why = error.why if isinstance(error, Unauthorized) else ""
    return Refusal(code=error.code, reason=error.reason, message=str(error), why=why)


def describe_payload(body: bytes, media_type: str) -> Payload:
    """Refer to a body that is stored with the record, in the same Entry."""
    return Payload(sha256=payload_key(body), size=len(body), media_type=media_type)


def payload_key(body: bytes) -> str:
    """The name a payload is stored under: its SHA-256 in hexadecimal."""
    return sha256(body).hexdigest()


def call_row(record: Record) -> CallRow | None:
    """Derive the row of the record's call; None when the record says nothing new about the call as a whole."""
    if record.kind in (Kind.CHUNK, Kind.DECISION):
        return None
    caller = record.identity or _NO_CALLER
    what = record.what or _NO_CALL
    ruling = record.decision or _NO_RULING
    return CallRow(
        audit_id=record.call,
        received_at=record.timing.received_at if record.timing else record.at,
        username=caller.username,
        issuer=caller.issuer,
        verb=what.verb,
        api_group=what.api_group,
        resource=what.resource,
        subresource=what.subresource,
        namespace=what.namespace,
        name=what.name,
        uri=what.uri,
        effect=ruling.effect,
        rule=ruling.rule,
        verdict=verdict(record),
        code=_answered_code(record),
        hold_id=record.hold.id if record.hold else "",
        duration_us=record.timing.total if record.timing else None,
        user_agent=record.client.user_agent if record.client else "",
        complete=record.kind is Kind.OUTCOME,
    )


_NO_CALLER = Caller(issuer="", username="")
_NO_CALL = Call(method="", uri="")
_NO_RULING = Ruling(effect="")


def verdict(record: Record) -> str:
    """One word: allowed, denied (by policy or a person), held, approved, expired, cancelled or refused.

    `refused` is every refusal that is neither policy's nor a person's: no identity, a bad request, no store.
    """
    state = record.hold.state if record.hold else ""
    if state in {"denied", "expired", "cancelled"}:
        return state
    if record.refusal is not None:
        return "denied" if record.refusal.code == 403 else "refused"
    if state:
        return "held" if state == "pending" else "approved"
    return "allowed"


def _answered_code(record: Record) -> int | None:
    if record.refusal is not None:
        return record.refusal.code
    return record.response.code if record.response is not None else None


def _without_floats(value: Any) -> Any:
    match value:
        case str() | bool() | None:
            return value
        case int():
            return value if abs(value) <= LARGEST_INTEGER else str(value)
        case float():
            return _without_floats(int(value)) if value.is_integer() else str(value)
        case list() | tuple():
            return [_without_floats(item) for item in value]
        case Mapping():
            return {str(key): _without_floats(item) for key, item in value.items()}
        case _:
            return value
