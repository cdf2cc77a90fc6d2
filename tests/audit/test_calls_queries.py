"""Calls found by what is asked of them: the right ones, in order, by an index, on both databases; and as they end."""

from __future__ import annotations

import re
import secrets
from contextlib import closing
from dataclasses import fields, replace
from datetime import datetime, timedelta
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import event

from audit.entries import NOON, entry, new_id, open_test_ledger, record, response
from audit.readers import advised, make_reader, read_script
from holdfast.audit.callers import caller_claims
from holdfast.audit.record import Call, Caller, Entry, Held, Kind, Record, Refusal, Ruling, call_row
from holdfast.audit.store import ANY_CALL, AuditStore, Filters, search
from holdfast.audit.store.export import export_lines
from holdfast.audit.store.ledger import make_partitions
from holdfast.database import Database
from holdfast.errors import ConfigurationError
from holdfast.exchange import AuditID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.audit.ledger import Ledger
    from holdfast.audit.record import CallRow
    from services.postgres import PostgresServer

DAYS = 4


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database.open(database_url)
    with database.writing() as connection:
        for day in range(DAYS - 1):  # the last day's calls are in no partition of their own
            make_partitions(connection, f"{NOON + timedelta(days=day):%Y-%m-%d}")
    yield database
    database.close()


def every_kind() -> list[Record]:
    """Calls over some days, one for each combination of what they can be found by."""
    users = [
        Caller(issuer="https://issuer", username=f"user-{number}", groups=(), claims=claims(number))
        for number in range(3)
    ]
    asked = [
        Call(
            method="GET",
            uri="/x",
            verb=verb,
            api_group=group,
            api_version="v1",
            resource=resource,
            subresource=subresource,
            namespace=namespace,
            name=name,
            is_resource=True,
        )
        for verb, group, resource, subresource, namespace, name in (
            ("get", "", "secrets", "", "shop", "db"),
            ("create", "", "pods", "exec", "shop", "web"),
            ("create", "", "pods", "attach", "bank", "web"),
            ("list", "", "pods", "", "shop", ""),
            ("patch", "apps", "deployments", "scale", "shop", "web"),
        )
    ]
    parts: list[dict[str, object]] = [
        {"decision": Ruling(effect="allow", rule="readers")},
        {
            "decision": Ruling(effect="deny", rule="closed"),
            "refusal": Refusal(code=403, reason="Forbidden", message="no"),
        },
        {"decision": Ruling(effect="hold", rule="asked"), "hold": Held(id="h-1", state="released", decided_by="bob")},
    ]
    kinds = list(product(users, [*asked, Call(method="GET", uri="/healthz", verb="get")], parts))
    step = DAYS * 86_400 // len(kinds)
    return [
        record(after=number * step, identity=user, what=what, **more) for number, (user, what, more) in enumerate(kinds)
    ]


def claims(number: int) -> dict[str, Any]:
    return {"repository": f"org/repo-{number % 2}", "run": {"id": number}, "roles": ["ci", f"role-{number}"]}


ALONE = {
    "user": Filters(user="user-1"),
    "nobody": Filters(user="nobody"),
    "verb": Filters(verb="create"),
    "resource": Filters(resource="pods"),
    "subresource": Filters(resource="pods/exec"),
    "any-subresource": Filters(resource="pods/*"),
    "scale": Filters(resource="*/scale"),
    "core": Filters(api_group=""),
    "group": Filters(api_group="apps"),
    "namespace": Filters(namespace="shop"),
    "name": Filters(name="web"),
    "allowed": Filters(verdict="allowed"),
    "denied": Filters(verdict="denied"),
    "rule": Filters(rule="asked"),
    "hold": Filters(hold="h-1"),
    "claim-of-one": Filters(claims=(("run.id", "2"),)),
    "claim-of-two": Filters(claims=(("repository", "org/repo-0"),)),
    "claims": Filters(claims=(("repository", "org/repo-0"), ("roles", "role-2"))),
    "claim-of-none": Filters(claims=(("repository", "org/repo-9"),)),
    "since": Filters(since=NOON + timedelta(days=1, hours=3)),
    "until": Filters(until=NOON + timedelta(days=2)),
}


def both(first: Filters, second: Filters) -> Filters:
    asked = {field.name: getattr(second, field.name) for field in fields(Filters)}
    return replace(first, **{name: value for name, value in asked.items() if value != getattr(ANY_CALL, name)})


FILTERS = {"any": ANY_CALL, **ALONE} | {
    f"{first}+{second}": both(ALONE[first], ALONE[second]) for first, second in combinations(ALONE, 2)
}


def is_meant(record: Record, filters: Filters) -> bool:
    """The filters, told another way."""
    row = call_row(record)
    assert row is not None
    assert record.identity is not None
    here = "/".join(part for part in (row.resource, row.subresource) if part)
    resources = {here, f"{row.resource}/*", f"*/{row.subresource}"} if row.subresource else {here}
    arrived = datetime.fromisoformat(row.received_at)
    return (
        filters.user in {"", row.username}
        and filters.verb in {"", row.verb}
        and (not filters.resource or filters.resource in resources)
        and (filters.api_group is None or (bool(row.resource) and filters.api_group == row.api_group))
        and filters.namespace in {"", row.namespace}
        and filters.name in {"", row.name}
        and filters.verdict in {"", row.verdict}
        and filters.rule in {"", row.rule}
        and filters.hold in {"", row.hold_id}
        and set(filters.claims) <= set(caller_claims(record.identity.claims))
        and (filters.since is None or arrived >= filters.since)
        and (filters.until is None or arrived < filters.until)
    )


def ids(rows: list[CallRow]) -> list[str]:
    return [row.audit_id for row in rows]


@pytest.mark.parametrize(("few", "few_callers"), [(5_000, 500), (5, 1), (-1, 0)], ids=["led", "mixed", "walked"])
def test_any_filter_and_any_two_find_what_they_mean(
    store: AuditStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, few: int, few_callers: int
) -> None:
    monkeypatch.setattr(search, "FEW", few)
    monkeypatch.setattr(search, "FEW_CALLERS", few_callers)
    told = every_kind()
    ledger.write([Entry(told) for told in told])
    for name, filters in FILTERS.items():
        meant = [record.call for record in told if is_meant(record, filters)]
        assert ids(store.list_calls(filters)) == meant[::-1], name
        if name in ALONE:
            assert ids(list(store.iter_rows(filters))) == meant, name
            assert ids(store.list_calls(filters, limit=2)) == meant[:-3:-1], name


@pytest.mark.parametrize("name", ["any", "user", "name", "denied", "claim-of-two", "verb+namespace", "since+until"])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_pages_join_while_calls_arrive(
    store: AuditStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    monkeypatch.setattr("holdfast.audit.store.calls.PAGE", size)
    told = every_kind()
    ledger.write([Entry(told) for told in told])
    listed, before = [], None
    while page := store.list_calls(FILTERS[name], limit=size, before=before):
        listed += ids(page)
        before = (page[-1].received_at, page[-1].audit_id)
        ledger.write([Entry(replace_call(told[-1], after=86_400 * DAYS + len(listed)))])
    assert listed == [record.call for record in reversed(told) if is_meant(record, FILTERS[name])]
    assert ids(list(store.iter_rows(FILTERS[name])))[: len(listed)] == listed[::-1]


def replace_call(told: Record, after: float) -> Record:
    return record(after=after, identity=told.identity, what=told.what)


def test_calls_of_one_moment_are_told_apart_by_their_ids(store: AuditStore, ledger: Ledger) -> None:
    ledger.write([Entry(record(AuditID(name))) for name in ("b", "d", "a", "c")])
    page = store.list_calls(limit=2)
    rest = store.list_calls(before=(page[-1].received_at, page[-1].audit_id))
    assert ids([*page, *rest]) == ["d", "c", "b", "a"]


def test_a_long_name_is_cut_in_the_column_and_found_whole(store: AuditStore, ledger: Ledger) -> None:
    names = ["".join(secrets.choice("abcdef0123456789") for _ in range(3900)), "é" * 2000]
    told = [
        record(
            after=number,
            what=Call(method="GET", uri=f"/{number}\0", verb="get", resource="pods", name=name),
            identity=who,
        )
        for number, name in enumerate(names)
        for who in [Caller(issuer="https://issuer", username="ü" * 256)]
    ]
    ledger.write([entry(), *map(Entry, told)])
    for name, meant in zip(names, told, strict=True):
        (row,) = store.list_calls(Filters(name=name, user="ü" * 256))
        assert (row, len(row.name.encode()) <= 253) == (call_row(meant), True)
        assert store.load_call(meant.call).records[0].what == meant.what


# -- plans -------------------------------------------------------------------------------------------------------


class Explained:
    """The database's plans for statements that read calls; `walks` are those that go along an index, in its order."""

    def __init__(self, database: Database) -> None:
        self.plans: list[str] = []
        self.walks: list[str] = []
        event.listen(database._engine, "before_cursor_execute", self._explain)

    def _explain(self, connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM calls" not in statement:
            return
        command = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
        with closing(cursor.connection.cursor()) as explaining:
            explaining.execute(command + statement, parameters)
            self.plans.append("\n".join(str(row[-1]) for row in explaining.fetchall()))
        if "ORDER BY" in statement and "MATERIALIZED" not in statement:
            self.walks.append(self.plans[-1])

    def clear(self) -> None:
        self.plans.clear()
        self.walks.clear()


@pytest.mark.parametrize("few", [5_000, -1], ids=["led", "walked"])
def test_no_filter_reads_the_table_through_or_sorts_it(
    database: Database, store: AuditStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    ledger.write([Entry(told) for told in every_kind()])
    monkeypatch.setattr(search, "FEW", few)
    explained = Explained(database)
    for name, filters in FILTERS.items():
        store.list_calls(filters, limit=10)
        for plan in explained.plans:
            for line in plan.splitlines():
                assert not ("SCAN calls" in line and "calls_by_time" not in line), f"{name}:\n{plan}"
                assert "Seq Scan on calls" not in line, f"{name}:\n{plan}"
        for plan in explained.walks:
            assert "TEMP B-TREE" not in plan, f"{name}:\n{plan}"
            assert "Sort  (" not in plan, f"{name}:\n{plan}"
            if database.dialect == "sqlite" and not filters.hold:
                assert "USING COVERING INDEX" in plan, f"{name}:\n{plan}"
        explained.clear()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_days_behind_a_full_page_are_left_alone(database: Database, store: AuditStore, ledger: Ledger) -> None:
    ledger.write([Entry(told) for told in every_kind()])
    explained = Explained(database)
    assert len(store.list_calls(Filters(verb="create"), limit=5)) == 5
    assert set(re.findall(r"on (calls_\w+)", "".join(explained.walks))) == {"calls_other"}
    explained.clear()
    store.list_calls(Filters(verb="create", until=NOON + timedelta(days=1)))
    assert set(re.findall(r"on (calls_\w+)", "".join(explained.walks))) == {"calls_20260301", "calls_20260302"}


# -- following ---------------------------------------------------------------------------------------------------


def test_a_call_is_told_when_it_ends_however_late(database: Database, store: AuditStore, ledger: Ledger) -> None:
    early, late = new_id(), new_id()
    ledger.write([entry(), Entry(record(early, Kind.INTENT, 1))])
    following = store.follow_calls()
    assert following.poll() == []
    ledger.write(
        [Entry(record(late, Kind.INTENT, 2)), Entry(record(late, after=3)), Entry(record(late, Kind.DECISION))]
    )
    assert ids(following.poll()) == [late]
    ledger.write([Entry(record(early, Kind.CHUNK, 4)), Entry(record(kind=Kind.INTENT)), Entry(record(kind=Kind.OPEN))])
    assert following.poll() == []
    ledger.write([Entry(record(early, after=5), response(b"done"))])
    assert [(row.audit_id, row.complete) for row in following.poll()] == [(early, True)]
    assert following.poll() == []


def test_every_log_is_followed_also_those_begun_later(
    database: Database, store: AuditStore, ledger: Ledger, tmp_path: Path
) -> None:
    following = store.follow_calls(Filters(user="bob", claims=(("run", "7"),)))
    other = open_test_ledger(tmp_path, database, replica="other", epoch_records=4)
    bobs = [
        record(identity=Caller(issuer="https://issuer", username="bob", groups=(), claims={"run": 7}), after=number)
        for number in range(12)
    ]
    for number, told in enumerate(bobs):
        others = record(identity=Caller(issuer="https://issuer", username="bob", groups=(), claims={"run": 8}))
        (ledger, other)[number % 2].write([Entry(told), entry(), Entry(others)])
    assert ids(following.poll()) == [record.call for record in bobs]


# -- who may only read -------------------------------------------------------------------------------------------


@pytest.fixture
def reader_url(postgres: PostgresServer, postgres_url: str) -> str:
    """The URL of the database for a member of the role that only reads, made after the tables."""
    Database.open(postgres_url).close()
    return make_reader(postgres, postgres_url)


def test_a_reader_lists_tells_and_exports(postgres_url: str, reader_url: str, tmp_path: Path) -> None:
    database = Database.open(postgres_url)
    ledger = open_test_ledger(tmp_path, database)
    with database.writing() as connection:
        make_partitions(connection, "2026-03-01")  # after the role was made
    ledger.write([entry(b"body"), *(Entry(told) for told in every_kind())])
    with closing(Database.open_readonly(reader_url)) as readable:
        store = AuditStore(readable)
        assert store.list_calls(Filters(name="web", verdict="denied")) == AuditStore(database).list_calls(
            Filters(name="web", verdict="denied")
        )
        assert list(store.iter_calls()) == list(AuditStore(database).iter_calls())
        now = "2026-03-01T12:00:00.000000Z"
        assert list(export_lines(readable, "test", now)) == list(export_lines(database, "test", now))
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO callers VALUES ('x', '{}')",
        "UPDATE calls SET verdict = 'allowed'",
        "DELETE FROM records",
        "DELETE FROM records_other",
        "TRUNCATE checkpoints",
        "DROP TABLE calls",
        "ALTER TABLE calls DISABLE TRIGGER ALL",
        "CREATE TABLE more (x int)",
        "CREATE TEMPORARY TABLE calls (x int)",
        "CREATE SCHEMA fake",
        "CREATE FUNCTION same(varchar, varchar) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
        "SELECT lo_import('/etc/passwd')",
        "SELECT * FROM holds",
    ],
)
def test_a_reader_changes_nothing_even_where_it_says_that_it_wants_to(reader_url: str, statement: str) -> None:
    with (
        closing(psycopg.connect(reader_url, options="-c default_transaction_read_only=off")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"permission denied|must be owner"),
    ):
        connection.execute(statement)  # type: ignore[call-overload]  # no text of others


def test_a_reader_s_transactions_only_read_unless_it_says_otherwise(reader_url: str) -> None:
    with (
        closing(psycopg.connect(reader_url)) as connection,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        connection.execute("CREATE TABLE more (x int)")


@pytest.mark.parametrize("made", ["lo_creat(-1)", "lo_create(0)", "lo_from_bytea(0, 'x')"])
def test_a_reader_stores_large_objects_until_a_superuser_does_as_the_script_says(
    postgres_url: str, reader_url: str, made: str
) -> None:
    statement = f"SELECT {made}"
    with closing(psycopg.connect(reader_url, options="-c default_transaction_read_only=off")) as connection:
        connection.execute(statement)  # type: ignore[call-overload]  # no text of others
        connection.rollback()
        with closing(psycopg.connect(postgres_url, autocommit=True)) as superuser:
            (revoke,) = advised(read_script(), "REVOKE")
            superuser.execute(revoke)  # type: ignore[call-overload]  # as above
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)  # type: ignore[call-overload]  # as above


@pytest.mark.usefixtures("reader_url")
def test_who_owns_no_more_than_the_tables_gives_the_role_all_the_same(postgres: PostgresServer) -> None:
    name, owner = postgres.create_database().rpartition("/")[2], f"owner_{secrets.token_hex(4)}"
    for statement in (
        f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'secret'",
        f"GRANT CREATE ON SCHEMA public TO {owner}",
        f"GRANT holdfast_reader TO {owner} WITH ADMIN OPTION",
    ):
        postgres.execute(statement, name)  # type: ignore[arg-type]  # no text of others
    url = postgres.url(name, owner, "secret")
    Database.open(url).close()
    Database.open_readonly(make_reader(postgres, url)).close()


def test_a_reader_hears_of_another_schema(reader_url: str, postgres_url: str) -> None:
    with closing(psycopg.connect(postgres_url, autocommit=True)) as connection:
        connection.execute("UPDATE holdfast_version SET version_num = '0001'")
    with pytest.raises(ConfigurationError, match="was made by an older Holdfast"):
        Database.open_readonly(reader_url)
