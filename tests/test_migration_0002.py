"""From the schema that came before the ledger: what was kept reads the same, in unsigned logs of its days."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from audit.entries import entry, open_test_ledger
from holdfast.approval.store import HoldStore
from holdfast.audit.keys import KeyFolder
from holdfast.audit.payload import decompress
from holdfast.audit.record import call_row
from holdfast.audit.store import AuditStore, Filters, LedgerStore
from holdfast.audit.store.export import export_lines
from holdfast.audit.tree import hash_leaf, root_of
from holdfast.audit.verify import Anchoring, Class, verify_lines
from holdfast.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALICE = {"issuer": "https://issuer", "username": "alice", "groups": ["agents"], "claims": {"run_id": "7"}}
LARGE = b"x" * (3 << 20)
DAYS = ("2026-01-30", f"{datetime.now(UTC):%Y-%m-%d}")
"""The latter goes on after the migration."""


def leaf(kind: str, call: str, at: str, **parts: Any) -> bytes:
    """A leaf as version 1 spelt it."""
    told = {"kind": kind, "call": call, "at": at, "identity": ALICE, "version": 1, **parts}
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def body(content: bytes) -> dict[str, object]:
    return {"mediaType": "application/json", "sha256": sha256(content).hexdigest(), "size": len(content)}


def call_parts(at: str, verb: str = "get") -> dict[str, Any]:
    return {
        "what": {"method": "GET", "uri": "/api/v1/namespaces/shop/pods/web", "verb": verb, "apiVersion": "v1",
                 "resource": "pods", "namespace": "shop", "name": "web", "isResource": True},
        "decision": {"effect": "allow", "rule": "readers"},
        "timing": {"receivedAt": at},
    }  # fmt: skip


def rows() -> Iterator[tuple[str, str, str, bytes, list[bytes]]]:
    """Call, kind, time, leaf and bodies, for two days: a call with bodies, one without an outcome, a stream."""
    for number, day in enumerate(DAYS):
        at = f"{day}T12:00:00.000000Z"
        one, two, three = (f"{number}{name}000000-0000-4000-8000-000000000000" for name in "abc")
        yield one, "intent", at, leaf("intent", one, at, **call_parts(at), requestBody=body(b"asked")), [b"asked"]
        outcome = leaf("outcome", one, at, **call_parts(at), response={"code": 200}, responseBody=body(b"same answer"))
        yield one, "outcome", at, outcome, [b"same answer"]
        yield two, "intent", at, leaf("intent", two, at, **call_parts(at, "delete")), []
        yield three, "open", at, leaf("open", three, at, **call_parts(at), streamed=True), []
        for piece in (b"line one\n", b"line two\n"):
            yield three, "chunk", at, leaf("chunk", three, at, responseBody=body(piece)), [piece]
        end = leaf("outcome", three, at, **call_parts(at), streamed=True, responseBody=body(LARGE))
        yield three, "outcome", at, end, [LARGE]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database as the schema before left it, with data."""
    sqlite = f"sqlite:///{tmp_path / 'audit.db'}"
    found = sqlite if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    engine = create_engine(found.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", "holdfast:migrations")
        command.upgrade(config, "0001")
        for number, (call, kind, at, told, bodies) in enumerate(rows(), start=1):
            connection.execute(
                text("INSERT INTO records (seq, call_id, kind, at, leaf) VALUES (:seq, :call, :kind, :at, :leaf)"),
                {"seq": number * 3, "call": call, "kind": kind, "at": at, "leaf": told},
            )
            for content in bodies:
                connection.execute(
                    text("INSERT INTO payloads (sha256, size, body) VALUES (:key, :size, :it) ON CONFLICT DO NOTHING"),
                    {"key": sha256(content).hexdigest(), "size": len(content), "it": content},
                )
            if kind in {"intent", "open", "outcome"}:
                _put_call(connection, call, kind, at, json.loads(told))
        connection.execute(
            text(
                "INSERT INTO holds (id, audit_id, digest, state, rule, reason, issuer, username, groups, verb, "
                "api_group, resource, namespace, name, uri, body, kubectl, approvers, created_at, expires_at, "
                "decided_by, decision_reason, replica) VALUES ('h-1', 'x', 'd', 'denied', 'r', 'w', 'i', 'u', '[]', "
                "'delete', '', 'pods', 'shop', 'web', '/', '', '', '{\"users\": [], \"groups\": []}', :at, :at, "
                "'bob', 'no', 'gw')"
            ),
            {"at": "2026-01-31T12:00:00.000000+00:00"},
        )
    engine.dispose()
    return found


def _put_call(connection: Any, call: str, kind: str, at: str, told: dict[str, Any]) -> None:
    connection.execute(text("DELETE FROM calls WHERE audit_id = :call"), {"call": call})
    connection.execute(
        text(
            "INSERT INTO calls (audit_id, received_at, username, issuer, verb, api_group, resource, subresource, "
            "namespace, name, uri, effect, rule, verdict, code, hold_id, duration_us, user_agent, complete) VALUES "
            "(:call, :at, 'alice', 'https://issuer', :verb, '', 'pods', '', 'shop', :name, :uri, 'allow', 'readers', "
            "'allowed', :code, '', NULL, '', :complete)"
        ),
        {
            "call": call, "at": at, "verb": told["what"]["verb"], "uri": told["what"]["uri"],
            "name": told["what"]["name"],
            "code": told.get("response", {}).get("code"), "complete": kind == "outcome",
        },
    )  # fmt: skip


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """The same, brought up to date."""
    database = Database.open(url)
    yield database
    database.close()


def test_every_story_reads_as_before(database: Database) -> None:
    told = AuditStore(database).iter_calls()
    stories = {story.call.audit_id[1]: story for story in told if story.call.audit_id[0] == "1"}
    assert [str(told.kind) for told in stories["a"].records] == ["intent", "outcome"]
    assert stories["a"].body(stories["a"].records[0].request_body) == b"asked"
    assert stories["a"].body(stories["a"].records[1].response_body) == b"same answer"
    assert (stories["a"].call.complete, stories["a"].call.code, stories["a"].call.username) == (True, 200, "alice")
    assert (stories["b"].call.complete, stories["b"].call.verb) == (False, "delete")
    streamed = stories["c"]
    assert [streamed.body(told.response_body) for told in streamed.records] == [
        b"",
        b"line one\n",
        b"line two\n",
        LARGE,
    ]


def test_long_texts_are_carried_over_as_they_would_be_written_now(url: str) -> None:
    """A caller chooses how long a path is; verify derives the columns from the leaf again."""
    at, call, long = f"{DAYS[0]}T13:00:00.000000Z", "9d000000-0000-4000-8000-000000000000", "\u00fc" * 400
    # Postgres never took a NUL.
    uri = f"/api/v1/namespaces/shop/pods/{long}" + ("" if url.startswith("postgres") else "\0")
    what = {**call_parts(at)["what"], "name": long, "uri": uri}
    told = msgspec.json.encode(
        json.loads(leaf("outcome", call, at, **{**call_parts(at), "what": what}, response={"code": 200})),
        order="sorted",
    )
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO records (seq, call_id, kind, at, leaf) VALUES (1000, :call, 'outcome', :at, :leaf)"),
            {"call": call, "at": at, "leaf": told},
        )
        _put_call(connection, call, "outcome", at, json.loads(told))
    engine.dispose()
    with closing(Database.open(url)) as database:
        story = AuditStore(database).load_call(call)
    assert story.call == call_row(story.records[0])
    assert story.call.name == long[:126]


def test_leaves_are_carried_over_byte_for_byte_into_a_log_a_day(database: Database) -> None:
    store = LedgerStore(database)
    kept = list(rows())
    for log, day in zip(store.all_logs(), DAYS, strict=True):
        leaves = list(store.leaves(log))
        assert leaves == [told for _, _, at, told, _ in kept if at.startswith(day)]
        assert (log.origin, log.certificate, log.size) == (f"legacy/{day}", "", len(leaves))
        assert root_of(map(hash_leaf, leaves)).hex() == log.root


def test_payloads_are_kept_once_a_day(database: Database) -> None:
    with database.reading() as connection:
        found = connection.execute(text("SELECT day, sha256, size, codec, body FROM blobs")).all()
    assert sorted(row.day for row in found) == sorted(DAYS * 5)
    for row in found:
        content = decompress(row.codec, bytes(row.body), row.size)
        assert (sha256(content).hexdigest(), len(content)) == (row.sha256, row.size)


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_days_have_partitions_and_the_common_one_is_empty(database: Database) -> None:
    with database.reading() as connection:
        for table in ("records", "bodies", "blobs", "calls"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}_other")).scalar() == 0  # noqa: S608
            for day in DAYS:
                part = f"{table}_{day.replace('-', '')}"
                assert connection.execute(text(f"SELECT count(*) FROM {part}")).scalar()  # noqa: S608


def test_holds_stay(database: Database) -> None:
    assert HoldStore(database).get("h-1").decided_by == "bob"


def test_callers_are_found_by_their_claims(database: Database) -> None:
    with database.reading() as connection:
        claims = connection.execute(text("SELECT name, value FROM caller_claims")).all()
    assert [tuple(row) for row in claims] == [("run_id", "7")]
    assert len(AuditStore(database).list_calls(Filters(user="alice"))) == 6


def test_the_first_signed_log_vouches_for_what_was_there(database: Database, tmp_path: Path) -> None:
    ledger = open_test_ledger(tmp_path, database)
    ledger.write([entry()])
    root = KeyFolder(tmp_path / "audit-keys").root_verifier()
    lines = list(export_lines(database, "test", "2026-02-01T00:00:00.000000Z"))
    report = verify_lines(lines, root, Anchoring())
    assert set(report.counts) == {"no-anchor", "outcome-missing"}
    with database.writing() as connection:
        another = (
            "UPDATE records SET leaf = (SELECT leaf FROM records WHERE log = 2 AND seq = 4) WHERE log = 2 AND seq = 5"
        )
        connection.execute(text(another))
    report = verify_lines(export_lines(database, "test", "2026-02-01T00:00:00.000000Z"), root, Anchoring())
    assert Class.ALTERED in report.classes
    assert {"forked", "log-altered"} <= set(report.counts)
