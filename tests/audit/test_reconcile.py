"""The record held against the API server's audit log: what is missing on either side is named."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.entries import record
from holdfast.audit.reconcile import (
    Difference,
    Seen,
    Summary,
    find_bypasses,
    find_unseen,
    parse_events,
)
from holdfast.audit.record import CallRow, Kind, Refusal, call_row
from holdfast.errors import ConfigurationError
from holdfast.exchange import AuditID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GATEWAY = "system:serviceaccount:holdfast:gateway"


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    seen = Seen(tmp_path / "seen.db")
    yield seen
    seen.close()


def event(audit_id: str, user: str = GATEWAY, after: float = 0, **parts: Any) -> bytes:
    """One line of the API server's log."""
    moment = (NOON + timedelta(seconds=after)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    usual = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": audit_id,
        "stage": "ResponseComplete",
        "requestURI": "/api/v1/pods",
        "verb": "list",
        "user": {"username": user, "groups": ["system:authenticated"]},
        "sourceIPs": ["10.0.0.9"],
        "userAgent": "curl/8",
        "responseStatus": {"metadata": {}, "code": 200},
        "requestReceivedTimestamp": moment,
        "stageTimestamp": moment,
    }
    return json.dumps(usual | parts).encode() + b"\n"


def bypasses(seen: Seen, lines: list[bytes], recorded: set[str], summary: Summary | None = None) -> dict[str, str]:
    """Audit-ID and difference of what is found."""
    found = find_bypasses(parse_events(lines), recorded.intersection, seen, summary or Summary())
    return {call.audit_id: call.difference.value for call in found}


def row(audit_id: str, kind: Kind = Kind.OUTCOME, **parts: Any) -> CallRow:
    found = call_row(record(AuditID(audit_id), kind, **parts))
    assert found is not None
    return found


def test_a_call_that_the_record_lacks_went_around_the_gateway(seen: Seen) -> None:
    lines = [event("known"), event("direct", "admin"), event("direct", "admin")]
    assert bypasses(seen, lines, {"known"}) == {"direct": "bypassed"}


def test_a_call_under_the_gateways_credential_that_the_record_lacks_is_misuse(seen: Seen) -> None:
    assert bypasses(seen, [event("known"), event("stolen")], {"known"}) == {"stolen": "misused"}


def test_a_credential_of_the_gateways_is_misused_even_under_a_name_that_is_ignored(seen: Seen) -> None:
    own = "system:serviceaccount:kube-system:holdfast"
    assert bypasses(seen, [event("known", own), event("stolen", own)], {"known"}) == {"stolen": "misused"}


@pytest.mark.parametrize(
    "line",
    [
        event("x", "system:node:one"),
        event("x", "system:apiserver"),
        event("x", "system:serviceaccount:kube-system:job-controller"),
        event("x", requestURI="/version"),
        event("x", requestURI="/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
    ],
)
def test_the_clusters_own_traffic_is_counted_and_not_named(seen: Seen, line: bytes) -> None:
    summary = Summary()
    assert bypasses(seen, [line], set(), summary) == {}
    assert (summary.calls, summary.own_traffic) == (1, 1)


@pytest.mark.parametrize("user", ["system:nodes", "system:serviceaccount:default:ci", "", "system:masters"])
def test_names_that_only_look_like_the_clusters_own_are_named(seen: Seen, user: str) -> None:
    assert bypasses(seen, [event("x", user)], set()) == {"x": "bypassed"}


def test_what_is_told_of_a_bypass_is_enough_to_look_into_it(seen: Seen) -> None:
    (call,) = find_bypasses(parse_events([event("x", "admin")]), lambda ids: set(), seen, Summary())
    assert (call.user, call.verb, call.target, call.code) == ("admin", "list", "/api/v1/pods", 200)
    assert (call.at, call.client) == ("2026-03-01T12:00:00.000000Z", "10.0.0.9 curl/8")


def test_an_answered_call_that_the_log_lacks_is_named(seen: Seen) -> None:
    seen.add(parse_events([event("there")]))
    assert [call.audit_id for call in find_unseen([row("there"), row("gone")], seen)] == ["gone"]


@pytest.mark.parametrize("refused_with", [403, 401, 503])
def test_a_refused_call_need_not_be_in_the_log(seen: Seen, refused_with: int) -> None:
    refused = row("x", refusal=Refusal(code=refused_with, reason="Forbidden", message="no"))
    assert list(find_unseen([refused], seen)) == []


def test_the_log_tells_how_a_call_without_an_outcome_ended(seen: Seen) -> None:
    seen.add(parse_events([event("x", stage="RequestReceived", responseStatus=None), event("x")]))
    begun = row("x", Kind.INTENT)
    assert [(call.difference, call.code) for call in find_unseen([begun], seen)] == [(Difference.SETTLED, 200)]
    assert list(find_unseen([replace_id(begun, "never arrived")], seen)) == []


def replace_id(found: CallRow, audit_id: str) -> CallRow:
    return CallRow(**{name: getattr(found, name) for name in CallRow.__struct_fields__} | {"audit_id": audit_id})


def test_nothing_is_missed_outside_the_time_that_the_log_covers(seen: Seen) -> None:
    summary = Summary()
    bypasses(seen, [event("a", after=60), event("b", after=0), event("c", after=30)], set(), summary)
    assert summary.covered() == ("2026-03-01T12:00:05.000000Z", "2026-03-01T12:00:55.000000Z")
    assert Summary().covered() is None
    assert replace(summary, last=summary.first).covered() is None


@pytest.mark.parametrize("line", [b"{}\n", b"not json\n", b'{"auditID": "x", "stage": "Panic"}\n'])
def test_a_line_that_is_no_event_is_named_by_its_number(line: bytes) -> None:
    with pytest.raises(ConfigurationError, match=r"line 2 is no audit\.k8s\.io/v1 Event"):
        list(parse_events([event("x"), line]))
