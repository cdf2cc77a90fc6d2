"""The record held against the cluster's own audit log, call by call, by Audit-ID.

The API server writes one `audit.k8s.io/v1` Event a line (kube-apiserver `--audit-log-path`), several for one call,
one for each stage; it takes over the Audit-ID that the gateway sends. So a call in its log that the record lacks
went around the gateway, and a call that the record says was answered and that its log lacks never reached the
cluster, or the log was cut. Both readings need the log to cover the time, so only calls between its first and its
last event are missed, with `MARGIN` at both ends.

Pure, but for a scratch file: what the log has seen is too much for memory.
"""

from __future__ import annotations

import enum
import sqlite3
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import batched
from typing import TYPE_CHECKING

import msgspec

from holdfast.audit.record import timestamp
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from holdfast.audit.record import CallRow

MARGIN = timedelta(seconds=5)
"""Clocks differ, and a call is received here before it is there."""

BATCH = 500
OWN_TRAFFIC = (
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:node:*",
    "system:serviceaccount:kube-system:*",
)
"""The cluster's own components, which call its API directly; counted, not named."""
SELF_QUESTIONS = (
    "/version",
    "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
)
"""What a gateway at start, and the doctor, ask with the gateway's own credential; the answers are about it alone."""


class Difference(enum.StrEnum):
    """How record and log differ about a call."""

    BYPASSED = "bypassed"
    MISUSED = "misused"
    UNSEEN = "unseen"
    SETTLED = "settled"


DESCRIPTIONS = {
    Difference.BYPASSED: "reached the API server without the gateway",
    Difference.MISUSED: "reached the API server with the gateway's own credential, without the gateway",
    Difference.UNSEEN: "was recorded as answered, and the API server's log lacks it",
    Difference.SETTLED: "was recorded as begun; the API server's log tells how it ended",
}


class _User(msgspec.Struct):
    username: str = ""


class _Object(msgspec.Struct, rename="camel"):
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""


class _Status(msgspec.Struct):
    code: int = 0


class Event(msgspec.Struct, rename="camel", kw_only=True):
    """One line of the API server's audit log, as far as it matters here."""

    audit_id: str = msgspec.field(name="auditID")
    stage: str
    verb: str = ""
    user: _User = msgspec.field(default_factory=_User)
    user_agent: str = ""
    source_ips: tuple[str, ...] = msgspec.field(default=(), name="sourceIPs")
    request_uri: str = msgspec.field(default="", name="requestURI")
    object_ref: _Object | None = None
    response_status: _Status | None = None
    request_received_timestamp: datetime


@dataclass(frozen=True, slots=True)
class Call:
    """One call about which record and log differ; `code` is its HTTP status, 0 when unknown."""

    difference: Difference
    audit_id: str
    at: str
    user: str
    verb: str
    target: str
    code: int
    client: str = ""


@dataclass(slots=True)
class Summary:
    """What was compared. Times are the log's first and last; both are None when it is empty."""

    calls: int = 0
    recorded: int = 0
    own_traffic: int = 0
    first: datetime | None = None
    last: datetime | None = None
    gateway_users: set[str] = field(default_factory=set)

    def covered(self) -> tuple[str, str] | None:
        """The time in which nothing may be missing, as the record writes times."""
        if self.first is None or self.last is None or self.last - self.first <= 2 * MARGIN:
            return None
        return timestamp(self.first + MARGIN), timestamp(self.last - MARGIN)


class Seen:
    """The Audit-IDs of the API server's log, each with the last status told of it, in a scratch file."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=OFF")
        self._connection.execute("PRAGMA synchronous=OFF")
        self._connection.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, code INTEGER) WITHOUT ROWID")

    def add(self, events: Iterable[Event]) -> list[Event]:
        """Remember these events; return the first one of each call that was not known yet."""
        fresh = []
        for event in events:
            code = event.response_status.code if event.response_status else 0
            new = self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (event.audit_id, code)).rowcount
            if new:
                fresh.append(event)
            elif code:
                self._connection.execute("UPDATE seen SET code = ? WHERE id = ?", (code, event.audit_id))
        return fresh

    def code(self, audit_id: str) -> int | None:
        """The status told of a call, 0 when none was; None when the log lacks the call."""
        found = self._connection.execute("SELECT code FROM seen WHERE id = ?", (audit_id,)).fetchone()
        return None if found is None else int(found[0])

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


_decoder = msgspec.json.Decoder(Event)


def parse_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """Yield the events of an audit log. Raises ConfigurationError for a line that is none."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise ConfigurationError(
                f"line {number} is no audit.k8s.io/v1 Event in JSON ({error}); expected the file that the API server "
                "writes as --audit-log-path."
            ) from error


def find_bypasses(
    events: Iterable[Event],
    recorded: Callable[[list[str]], set[str]],
    seen: Seen,
    summary: Summary,
    ignored: tuple[str, ...] = OWN_TRAFFIC,
) -> Iterator[Call]:
    """Yield the log's calls that the record lacks, and fill in the summary on the way.

    `recorded` returns those of some Audit-IDs that the record has. A call is misuse of the gateway's credential
    when its user is one that recorded calls came in as; those who are told before the first recorded call of such
    a user are told as bypasses.
    """
    for batch in batched(_watched(events, summary), BATCH):
        fresh = seen.add(batch)
        known = recorded([event.audit_id for event in fresh])
        summary.calls += len(fresh)
        summary.recorded += len(known)
        summary.gateway_users |= {event.user.username for event in fresh if event.audit_id in known}
        for event in fresh:
            if event.audit_id in known:
                continue
            is_misuse = event.user.username in summary.gateway_users
            if event.request_uri in SELF_QUESTIONS or (not is_misuse and _matches(event.user.username, ignored)):
                summary.own_traffic += 1
                continue
            yield _bypass(event, Difference.MISUSED if is_misuse else Difference.BYPASSED)


def find_unseen(rows: Iterable[CallRow], seen: Seen) -> Iterator[Call]:
    """Yield the recorded calls that the log lacks, and those without an outcome that the log tells one of."""
    for row in rows:
        code = seen.code(row.audit_id)
        was_answered = row.complete and row.verdict in {"allowed", "approved"}
        if was_answered and code is None:
            yield _unseen(row, Difference.UNSEEN, row.code or 0)
        elif not row.complete and code is not None:
            yield _unseen(row, Difference.SETTLED, code)


def _watched(events: Iterable[Event], summary: Summary) -> Iterator[Event]:
    for event in events:
        moment = event.request_received_timestamp
        summary.first = min(summary.first or moment, moment)
        summary.last = max(summary.last or moment, moment)
        yield event


def _matches(user: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(user, pattern) for pattern in patterns)


def _bypass(event: Event, difference: Difference) -> Call:
    return Call(
        difference=difference,
        audit_id=event.audit_id,
        at=timestamp(event.request_received_timestamp),
        user=event.user.username,
        verb=event.verb,
        target=event.request_uri,
        code=event.response_status.code if event.response_status else 0,
        client=" ".join((*event.source_ips[:1], event.user_agent)).strip(),
    )


def _unseen(row: CallRow, difference: Difference, code: int) -> Call:
    return Call(difference, row.audit_id, row.received_at, row.username, row.verb, row.uri, code, row.user_agent)
