"""The record: what is kept of a call, and the exact bytes that are kept.

A call leaves one record or several, in this order, told apart by `kind`:

    hold      a person is being waited for
    decision  a person decided; `identity` is that person, not the caller
    intent    a mutating call is about to be forwarded; durable before it is
    open      a stream is about to begin; durable before its first byte is released
    chunk     a piece of that stream; `bytesUp` and `bytesDown` count the wire up to the end of the piece
    outcome   how the call ended, refusals included; durable before the caller is answered

A reading call that is not streamed leaves an outcome only. An intent without an outcome means that the gateway
does not know how the call ended. The log itself speaks in records that belong to no call:

    heartbeat  the first of a log, and of every run that goes on with it (`start` says from where); or all is quiet
    peer       what the other logs of the database were like at this moment
    issue      a token of our own is about to be given to `identity`, or was not, with the `refusal`
    revoke     somebody is let in no more, or again: whom, why and by whom
    redact     payloads, or all of a closed log but its leaf hashes, are about to be erased; by whom and why
    rotate     the next log is signed with another key
    close      the last record of a log

A leaf, the unit of the log's Merkle tree (see `tree`), is the UTF-8 JSON (RFC 8785) of an envelope around one record:

    {"log":ORIGIN,"mono":MICROSECONDS,"previous":HASH,"record":RECORD,"seq":N,"time":TIME,"version":2}

`seq` counts the log's leaves from 0. `previous` is the leaf hash of the leaf before, in hexadecimal; for seq 0 it
is the root hash of the replica's log before this one, or 64 zeros. `time` and `mono` are the wall clock and the
monotonic clock, read together when the record took its place; `mono` means something only between two heartbeats
with a `start`. Every record has the keys sorted, no white space, parts that have nothing to say left out, times as
RFC 3339 text in UTC with microseconds, ASCII keys, and integers below 2^53 in place of floats; so there is one
spelling of everything, and a leaf that is spelt otherwise is no leaf. The URI and a command run by exec are kept
as they were sent: a password typed as an argument is in them.

Leaves of version 1, from before there was a log, are the record itself with `"version":1` among its keys; their
payloads are named by the SHA-256 of the whole body.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from holdfast.audit.payload import Body
from holdfast.errors import HoldfastError, Internal, Unauthorized
from holdfast.exchange import AuditID, Decision, Hold, Identity, RequestInfo

LARGEST_INTEGER = 2**53 - 1
Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_INTEGER)]
RECORD_BYTES = 1000
"""What a record takes without its bodies, about."""
COLUMN_BYTES = 253
"""What a column that calls are found by keeps of its text: as much as the longest name of an object has."""


class Kind(enum.StrEnum):
    """What a record tells of its call."""

    INTENT = "intent"
    OUTCOME = "outcome"
    OPEN = "open"
    CHUNK = "chunk"
    HOLD = "hold"
    DECISION = "decision"
    HEARTBEAT = "heartbeat"
    PEER = "peer"
    ISSUE = "issue"
    REVOKE = "revoke"
    REDACT = "redact"
    ROTATE = "rotate"
    CLOSE = "close"


class Part(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What every part of a record shares: camelCase keys, nothing unknown, silence where there is nothing to say.

    Members stand in the order of their keys, which is the order in which they are written.
    """


class Caller(Part, frozen=True, kw_only=True):
    """Who asked, as the identity stage verified it."""

    claims: dict[str, Any] = {}
    extra: dict[str, tuple[str, ...]] = {}
    groups: tuple[str, ...] = ()
    issuer: str
    uid: str = ""
    username: str


class Call(Part, frozen=True, kw_only=True):
    """What was asked, in the API server's words; only `method` and `uri` where it could not be understood."""

    api_group: str = ""
    api_version: str = ""
    is_resource: bool = False
    method: str
    name: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    uri: str
    verb: str = ""


class Client(Part, frozen=True, kw_only=True):
    """The client's address, and what it says of itself."""

    kubectl_command: str = ""
    kubectl_session: str = ""
    peer: str
    user_agent: str = ""


class Ruling(Part, frozen=True, kw_only=True):
    """What policy said: the effect, the rule, and how often each mask was applied."""

    effect: str
    masks: dict[str, Count] = {}
    policy_hash: str = ""
    reason: str = ""
    rule: str = ""


class Held(Part, frozen=True, kw_only=True):
    """The hold as it stood when the record was made."""

    decided_by: str = ""
    decision_reason: str = ""
    id: str
    state: str


class Refusal(Part, frozen=True, kw_only=True):
    """The Status that the gateway answered with; `why`, a reason code, and `detail` are for the record only."""

    code: Count
    detail: str = ""
    message: str
    reason: str
    why: str = ""


class Answer(Part, frozen=True, kw_only=True):
    """The API server's response; `bytes` is its length on the wire."""

    bytes: Count = 0
    code: Count
    content_type: str = ""


class Exec(Part, frozen=True, kw_only=True):
    """A command run in a container, and the exit code it ended with."""

    command: tuple[str, ...] = ()
    exit_code: int | None = None


class Timing(Part, frozen=True, kw_only=True):
    """When the call arrived, and durations in microseconds: all of it, upstream, and waiting for a person."""

    held: Count | None = None
    received_at: str
    total: Count | None = None
    upstream: Count | None = None


class Payload(Part, frozen=True, kw_only=True):
    """A stored body: the commitment to it (see `payload`), its size in bytes and media type; or why it is not stored.

    `sha256` names the body in leaves of version 1 only.
    """

    commitment: str = ""
    media_type: str = ""
    sha256: str = ""
    size: Count = 0
    withheld: str = ""


class Start(Part, frozen=True, kw_only=True):
    """A run of a gateway begins: which, and what it goes on from; `gap` says why that is not what it left behind."""

    build: str
    gap: str = ""
    previous_log: str = ""
    previous_size: Count = 0
    run: str


class Seen(Part, frozen=True, kw_only=True):
    """A log as it stood: its size, and its root hash in hexadecimal."""

    log: str
    root: str
    size: Count


class Redaction(Part, frozen=True, kw_only=True):
    """What is erased of one log: `payloads` as `SEQ/SLOT`, or, without any, all of it but its leaf hashes.

    `rule` is the retention rule that asked for it, `requested_by` the person. Of a log that is dropped, `day` is the
    day under which its rows were kept, `until` the time of its last leaf: nothing that stays tells them.
    """

    day: str = ""
    log: Seen
    payloads: tuple[str, ...] = ()
    reason: str
    requested_by: str = ""
    rule: str = ""
    until: str = ""


class Issued(Part, frozen=True, kw_only=True):
    """A token of our own: its jti, for which grant it was given, and when it ends, in seconds since the epoch."""

    expires_at: Count
    grant: str
    id: str


class Revoked(Part, frozen=True, kw_only=True):
    """Whom of an issuer a command shut out, by `scope` (token, subject or user) and `value`; `lifted`: let in again.

    `until` is when it is over by itself, empty where it is not. One that is told again with a later end, or with none,
    was extended.
    """

    id: str
    issuer: str
    lifted: bool = False
    reason: str
    requested_by: str
    scope: str
    until: str = ""
    value: str


class Rotation(Part, frozen=True, kw_only=True):
    """The next key: its public half in base64, and the SHA-256 of its certificate note in hexadecimal."""

    certificate: str
    key: str


class Closing(Part, frozen=True, kw_only=True):
    """Why a log ends."""

    reason: str


class Record(Part, frozen=True, kw_only=True):
    """One record. `call` names the call it belongs to, if any, `at` is when it was made (see `timestamp`)."""

    at: str
    bytes_down: Count = 0
    bytes_up: Count = 0
    call: AuditID = AuditID("")
    client: Client | None = None
    close: Closing | None = None
    decision: Ruling | None = None
    error: str = ""
    exec: Exec | None = None
    hold: Held | None = None
    identity: Caller | None = None
    issue: Issued | None = None
    kind: Kind
    peers: tuple[Seen, ...] = ()
    redact: Redaction | None = None
    refusal: Refusal | None = None
    request_body: Payload | None = None
    response: Answer | None = None
    response_body: Payload | None = None
    revoke: Revoked | None = None
    rotate: Rotation | None = None
    start: Start | None = None
    streamed: bool = False
    timing: Timing | None = None
    what: Call | None = None


class _Version1(Record, frozen=True, tag_field="version", tag=1):
    """A leaf from before there was a log."""


class _Envelope(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    log: str
    mono: Count
    previous: str
    record: Record
    seq: Count
    time: str
    version: Literal[2]


class Leaf(msgspec.Struct, frozen=True, gc=False):
    """A leaf, read: the place of its record in its log, and the record. Version 1 has no place."""

    record: Record
    log: str = ""
    seq: int = 0
    previous: str = ""
    time: str = ""
    mono: int = 0
    version: int = 2


class CallRow(msgspec.Struct, frozen=True, gc=False):
    """One call as lists show and filter it; derived from its latest record, and from nothing else.

    Absent text is empty, long text cut (see `column_text`). `code` is the HTTP status the caller got, `duration_us`
    in microseconds; both are None, and `complete` is false, until the outcome is known.
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
    """One record and the bodies that are stored with it, ready for the writer, which puts the payloads in."""

    record: Record
    bodies: tuple[Body, ...] = ()

    @property
    def size(self) -> int:
        """Bytes to be stored, about."""
        return RECORD_BYTES + sum(len(body.content) for body in self.bodies)

    def complete(self) -> Record:
        """The record with the commitments to its bodies; this hashes them, so never on an event loop."""
        if not self.bodies:
            return self.record
        payloads = {f"{body.slot}_body": describe_body(body) for body in self.bodies}
        return msgspec.structs.replace(self.record, **payloads)


_ENVELOPE = b'{"log":'
_encoder = msgspec.json.Encoder(order="deterministic")
_version_1_encoder = msgspec.json.Encoder(order="sorted")
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_version_1_decoder = msgspec.json.Decoder(_Version1)


def encode(record: Record) -> bytes:
    """Return a record's JSON. Raises Internal when it holds what JSON cannot (a lone surrogate)."""
    try:
        return _encoder.encode(record)
    except (UnicodeEncodeError, TypeError) as error:
        raise Internal("the audit record of this call cannot be encoded, so the call was stopped") from error


def encode_caller(caller: Caller) -> str:
    """Return a caller's JSON, as it stands in records."""
    return _encoder.encode(caller).decode()


def encode_leaf(leaf: Leaf, record: bytes) -> bytes:
    """Return a leaf's bytes around its record's JSON."""
    head = f'{{"log":"{leaf.log}","mono":{leaf.mono},"previous":"{leaf.previous}","record":'
    return b"".join((head.encode(), record, f',"seq":{leaf.seq},"time":"{leaf.time}","version":2}}'.encode()))


def decode(leaf: bytes) -> Leaf:
    """Read a leaf back. Raises Internal when these are not a leaf's bytes, exactly."""
    try:
        if leaf.startswith(_ENVELOPE):
            found: _Envelope | _Version1 = _envelope_decoder.decode(leaf)
            again = _encoder.encode(found)
        else:
            found = _version_1_decoder.decode(leaf)
            again = _version_1_encoder.encode(found)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Internal(f"a record in the audit database cannot be read: {error}") from error
    except RecursionError as error:
        raise Internal("a record in the audit database cannot be read: it is nested too deeply") from error
    if again != leaf:
        raise Internal("a record in the audit database cannot be read: it is not spelt as a record is")
    if isinstance(found, _Version1):
        return Leaf(found, version=1)
    return Leaf(found.record, found.log, found.seq, found.previous, found.time, found.mono)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with exactly six decimals, so that text order is time order. `moment` must be aware."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def describe_caller(identity: Identity) -> Caller:
    """Take over an identity; claims keep their shape, numbers that are no safe integers become text."""
    return Caller(
        issuer=identity.issuer,
        username=identity.username,
        groups=identity.groups,
        uid=identity.uid,
        extra={_ascii(key): values for key, values in identity.extra.items()},
        claims={_ascii(key): _without_floats(value) for key, value in identity.claims.items()},
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
        masks={_ascii(mask.name): mask_counts.get(mask.name, 0) for mask in decision.masks},
    )


def describe_hold(hold: Hold) -> Held:
    """Take over a hold as it stands."""
    return Held(id=hold.id, state=hold.state.value, decided_by=hold.decided_by, decision_reason=hold.decision_reason)


def describe_refusal(error: HoldfastError) -> Refusal:
    """Take over a refusal, with the reason code and the detail that its caller does not see."""
    told = Refusal(code=error.code, reason=error.reason, message=str(error))
    if isinstance(error, Unauthorized):
        return msgspec.structs.replace(told, why=error.why, detail=error.detail)
    return told


def describe_body(body: Body) -> Payload:
    """Refer to a body that is stored with the record."""
    return Payload(commitment=body.commitment, size=len(body.content), media_type=body.media_type)


def call_row(record: Record) -> CallRow | None:
    """Derive the row of the record's call; None when the record says nothing new about the call as a whole."""
    if record.kind not in _TELLING:
        return None
    caller = record.identity or _NO_CALLER
    what = record.what or _NO_CALL
    ruling = record.decision or _NO_RULING
    timing = record.timing
    return CallRow(  # in the order of its members: by their names it takes twice as long
        record.call,
        timing.received_at if timing else record.at,
        column_text(caller.username),
        caller.issuer,
        what.verb,
        column_text(what.api_group),
        column_text(what.resource),
        column_text(what.subresource),
        column_text(what.namespace),
        column_text(what.name),
        what.uri.replace("\0", "\ufffd"),  # NUL is no text to Postgres
        ruling.effect,
        column_text(ruling.rule),
        verdict(record),
        _answered_code(record),
        record.hold.id if record.hold else "",
        timing.total if timing else None,
        record.client.user_agent if record.client else "",
        record.kind is Kind.OUTCOME,
    )


def column_text(text: str) -> str:
    """What a column keeps of a text that calls are found by: its first `COLUMN_BYTES` bytes in UTF-8.

    A caller chooses how long a path is, and Postgres refuses what does not fit into a third of an index's page
    (2,704 bytes): one long name would be a batch of records that cannot be written.
    """
    return text.encode()[:COLUMN_BYTES].decode(errors="ignore") if len(text) * 4 > COLUMN_BYTES else text


_TELLING = {Kind.HOLD, Kind.INTENT, Kind.OPEN, Kind.OUTCOME}
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


def _ascii(key: str) -> str:
    """Keys sort alike in every language when they are ASCII (RFC 8785 section 3.2.3 sorts UTF-16 code units)."""
    return key if key.isascii() else key.encode("ascii", "backslashreplace").decode("ascii")


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
            return {_ascii(str(key)): _without_floats(item) for key, item in value.items()}
        case _:
            return value
