"""What a list of calls costs: every filter of `holdfast audit list`, alone and in pairs, over very many calls.

The calls are made to be hard to search. They are of two kinds that take turns, and share nothing: of a pair of
filters, each can choose half of all calls and both together none. Some calls are rare in everything, and a long time
ago; and what is asked for may not be there at all.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import batched, combinations
from statistics import median
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import insert, text

from holdfast.audit.callers import caller_claims as claims_of
from holdfast.audit.callers import caller_id
from holdfast.audit.record import Caller, encode_caller, timestamp
from holdfast.audit.store import AuditStore, Filters
from holdfast.audit.store.ledger import make_partitions
from holdfast.audit.store.tables import caller_claims, callers, calls
from holdfast.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Report = Callable[[str], None]

DAYS = 10
END = datetime(2026, 3, 11, tzinfo=UTC)
CALLS_OF_A_TOKEN = 200
RARE = 20
"""So many calls are rare ones, all in the first tenth of the time."""
REPEATED = 5
PAGE = 50


@dataclass(frozen=True)
class Kind:
    """What calls of one kind have in common."""

    user: str
    repository: str
    verb: str
    api_group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    verdict: str
    rule: str

    def filters(self) -> dict[str, Filters]:
        """Each filter, alone, as it chooses calls of this kind."""
        return {
            "--user": Filters(user=self.user),
            "--claim": Filters(claims=(("repository", self.repository),)),
            "--verb": Filters(verb=self.verb),
            "--api-group": Filters(api_group=self.api_group),
            "--resource": Filters(resource=f"{self.resource}/{self.subresource}".rstrip("/")),
            "--namespace": Filters(namespace=self.namespace),
            "--name": Filters(name=self.name),
            "--verdict": Filters(verdict=self.verdict),
            "--rule": Filters(rule=self.rule),
        }


FIRST = Kind("agent", "org/app", "get", "", "pods", "", "shop", "web", "allowed", "agents-read")
SECOND = Kind("robot", "org/site", "patch", "apps", "deployments", "scale", "bank", "till", "denied", "agents-scale")
SELDOM = Kind("carol", "org/keys", "delete", "batch", "jobs", "exec", "vault", "db", "held", "people")
NONE = Kind("x", "x", "x", "x", "x", "x", "x", "x", "expired", "x")


def fill(database: Database, count: int, report: Report) -> None:
    """Put `count` calls into the tables that lists are made of."""
    with database.writing() as connection:
        for day in range(DAYS):
            make_partitions(connection, f"{END - timedelta(days=day + 1):%Y-%m-%d}")
    add = database.compile(insert(calls), calls.c.keys())
    known: set[str] = set()
    for page in batched(_calls(count), 10_000):
        new = {caller_id(encode_caller(who)): who for _, who in page}
        with database.writing() as connection:
            connection.exec_driver_sql(add, [row for row, _ in page])
            for key in new.keys() - known:
                pairs = claims_of(new[key].claims)
                connection.execute(insert(callers), {"id": key, "caller": encode_caller(new[key])})
                connection.execute(insert(caller_claims), [{"name": n, "value": v, "caller": key} for n, v in pairs])
        known |= new.keys()
        report(f"filling: {page[-1][0]['seq'] + 1} of {count} calls")
    with database.writing() as connection:
        connection.execute(text("ANALYZE"))


def _calls(count: int) -> Iterator[tuple[dict[str, Any], Caller]]:
    step = timedelta(days=DAYS) / count
    seldom = range(count // 100, count // 10, max(1, count // 11 // RARE))
    for number in range(count):
        at = END - step * (count - number)
        kind = SELDOM if number in seldom else (FIRST, SECOND)[number % 2]
        token = number // 2 // CALLS_OF_A_TOKEN
        claims = {"repository": kind.repository, "run_id": str(token // 2), "jti": f"{kind.user}-{token}"}
        who = Caller(issuer="https://issuer.example", username=kind.user, groups=("agents",), claims=claims)
        yield _row(kind, at, number, who), who


def _row(kind: Kind, at: datetime, number: int, who: Caller) -> dict[str, Any]:
    received = timestamp(at)
    audit_id = UUID(int=int(at.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | number)
    return {
        "day": received[:10],
        "audit_id": str(audit_id),
        "received_at": received,
        "username": kind.user,
        "issuer": who.issuer,
        "caller": caller_id(encode_caller(who)),
        "verb": kind.verb,
        "api_group": kind.api_group,
        "resource": kind.resource,
        "subresource": kind.subresource,
        "namespace": kind.namespace,
        "name": kind.name,
        "uri": f"/apis/{kind.api_group}/v1/namespaces/{kind.namespace}/{kind.resource}/{kind.name}",
        "effect": "allow",
        "rule": kind.rule,
        "verdict": kind.verdict,
        "code": 200,
        "hold_id": f"h-{number}" if kind is SELDOM else "",
        "duration_us": 9000,
        "user_agent": "kubectl/v1.33.0 (linux/amd64) kubernetes/abcdef0",
        "complete": True,
        "log": 1,
        "seq": number,
    }


def measure_queries(records: int, url: str, report: Report = print) -> dict[str, float]:
    """Milliseconds, the median of five, of each filter and each pair of filters: of what is asked, the slowest."""
    with closing(Database.open(url)) as database:
        fill(database, records, report)
    with closing(Database.open_readonly(url)) as database:
        store = AuditStore(database)
        figures: dict[str, float] = {}
        for name, filters in questions():
            figures[name] = max(figures.get(name, 0.0), _milliseconds(store, filters))
            report(f"asking: {name} {figures[name]:.1f} ms")
    return figures


def questions() -> Iterator[tuple[str, Filters]]:
    """Yield filters, each with the names of what it asks for."""
    yield "none", Filters()
    yield "--claim run_id", Filters(claims=(("run_id", "1"),))
    yield "--hold", Filters(hold="h-x")
    kinds = [kind.filters() for kind in (FIRST, SECOND, SELDOM, NONE)]
    week_ago, yesterday = END - timedelta(days=7), END - timedelta(days=1)
    for kind in kinds:
        for name, filters in kind.items():
            yield name, filters
            yield f"{name} --since", replace(filters, since=yesterday)
            yield f"{name} --until", replace(filters, until=week_ago)
    for one in kinds:
        for other in kinds:
            for first, second in combinations(one, 2):
                yield f"{first} {second}", _both(one[first], other[second])


def _both(first: Filters, second: Filters) -> Filters:
    asked = {name: getattr(second, name) for name in Filters.__slots__}
    return replace(first, **{name: value for name, value in asked.items() if value != getattr(Filters(), name)})


def _milliseconds(store: AuditStore, filters: Filters) -> float:
    taken = []
    for _ in range(REPEATED):
        began = time.perf_counter()
        store.list_calls(filters, limit=PAGE)
        taken.append(time.perf_counter() - began)
    return 1000 * median(taken)
