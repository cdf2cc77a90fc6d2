"""Retention and erasure: what goes, that it is on record first, and that every proof still holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from audit.entries import entry, open_test_ledger, record
from holdfast.audit.keys import KeyFolder
from holdfast.audit.record import Caller, Kind, decode, timestamp
from holdfast.audit.retention import (
    DayUsage,
    Eraser,
    PayloadRule,
    StoredBody,
    Wanted,
    plan_bodies,
    plan_days,
)
from holdfast.audit.sequence import Clock
from holdfast.audit.store import AuditStore, LedgerStore
from holdfast.audit.store.export import export_lines
from holdfast.audit.store.retention import RetentionStore
from holdfast.audit.verify import Anchoring, Class, verify_lines
from holdfast.database import Database
from holdfast.errors import Conflict
from holdfast.settings import Retention

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast.audit.ledger import Ledger
    from holdfast.audit.verify import Report

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
REPLICAS = ("gw", "gw.console", "gw.maintenance")


def usage(day: str, size: int = 100, *, ended: bool = True) -> DayUsage:
    return DayUsage(f"2026-03-{day}", 1, 10, size, ended)


@pytest.mark.parametrize(
    ("age", "size", "dropped"),
    [
        (None, None, []),
        (30, None, []),
        (5, None, ["01", "04"]),
        (1, None, ["01", "04", "08"]),
        (None, 250, ["01", "04"]),
        (None, 300, ["01"]),
        (None, 1, ["01", "04", "08"]),
        (7, 350, ["01"]),
    ],
)
def test_days_go_oldest_first_for_their_age_or_for_size(age: int | None, size: int | None, dropped: list[str]) -> None:
    days = [usage("10"), usage("04"), usage("01"), usage("08")]
    planned = plan_days(days, Retention(max_age_days=age, max_bytes=size), NOW)
    assert [plan.usage.day[-2:] for plan in planned] == dropped


def test_a_day_that_may_still_be_written_stays() -> None:
    days = [usage("01", ended=False), usage("02"), usage("10")]
    planned = plan_days(days, Retention(max_age_days=1, max_bytes=1), NOW)
    assert [plan.usage.day for plan in planned] == ["2026-03-02"]


BODY = StoredBody(1, "3/response", "2026-03-01", "pods/log", "get", "shop", "alice", "allowed", 10)


@pytest.mark.parametrize(
    ("rule", "applies"),
    [
        (PayloadRule("r", 1), True),
        (PayloadRule("r", 8), True),
        (PayloadRule("r", 9), False),
        (PayloadRule("r", 1, resources=("secrets", "pods/*")), True),
        (PayloadRule("r", 1, resources=("pods",)), False),
        (PayloadRule("r", 1, verbs=("list",)), False),
        (PayloadRule("r", 1, namespaces=("sh*",), users=("alice",), verdicts=("allowed",)), True),
        (PayloadRule("r", 1, namespaces=("sh*",), users=("bob",)), False),
    ],
)
def test_a_rule_applies_to_what_it_names_and_is_old_enough(rule: PayloadRule, applies: bool) -> None:
    assert rule.applies(BODY, NOW) is applies


def test_the_first_rule_takes_a_body_and_a_dropped_day_none() -> None:
    first, second = PayloadRule("first", 1, verbs=("get",)), PayloadRule("second", 1)
    listed = replace(BODY, verb="list")
    planned = plan_bodies([BODY, listed], [first, second], (), NOW)
    assert planned == {first: [BODY], second: [listed]}
    assert plan_bodies([BODY], [second], {BODY.day}, NOW) == {second: []}


# -- in the database ---------------------------------------------------------------------------------------------


class Site:
    """A record of three days, and what removes from it."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database = folder, database
        self.keys = KeyFolder(folder / "audit-keys")
        self.keys.folder.mkdir()
        root = self.keys.make_root("test", Ed25519PrivateKey.generate())
        start = NOW - timedelta(days=10)
        self.keys.make_epoch_key(root, "test", REPLICAS, Ed25519PrivateKey.generate(), start)
        self.moment = NOW - timedelta(days=2)
        ledger = open_test_ledger(folder, database, clock=self.clock)
        for days in (2, 1, 0):
            self.moment = NOW - timedelta(days=days)
            for name in ("alice", "bob"):
                self.call(ledger, name, b"body of %s %d" % (name.encode(), days))
                self.call(ledger, name, b"shared by both")
        ledger.close()
        self.store = RetentionStore(database)
        self.recorder = open_test_ledger(folder, database, role=".maintenance", clock=self.clock)
        self.eraser = Eraser(self.store, self.recorder, "carol", lambda: NOW)

    def clock(self) -> Clock:
        """A clock that the site sets, a microsecond later each time."""
        self.moment += timedelta(microseconds=1)
        return Clock(timestamp(self.moment), int(self.moment.timestamp() * 1_000_000))

    def call(self, ledger: Ledger, user: str, body: bytes) -> None:
        """One call, received at the site's time."""
        told = record(after=(self.moment - datetime(2026, 3, 1, 12, tzinfo=UTC)).total_seconds())
        ledger.write(
            [entry(body, call=told.call, after=0, identity=Caller("https://issuer", user), timing=told.timing)]
        )

    def drop(self, day: datetime) -> None:
        """Drop one day by the usual plan."""
        (plan,) = plan_days(
            [found for found in self.store.usage(NOW) if found.day == day.date().isoformat()],
            Retention(max_age_days=1, max_bytes=1),
            NOW,
        )
        self.eraser.drop_day(plan)

    def verify(self) -> Report:
        """The auditor's verdict, anchors aside."""
        lines = export_lines(self.database, "test", timestamp(NOW))
        return verify_lines(lines, self.keys.root_verifier(), Anchoring())

    def count(self, table: str, where: str = "true") -> int:
        """Rows of a table."""
        with self.database.reading() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table} WHERE {where}")).scalar_one())  # noqa: S608

    def redactions(self) -> list[tuple[str, int]]:
        """What is on record as erased: the log, and how many of its bodies (0 for all of it)."""
        store = LedgerStore(self.database)
        told = [decode(leaf).record.redact for leaf in store.leaves(self.recorder.row)]
        return [(redact.log.log, len(redact.payloads)) for redact in told if redact is not None]


@pytest.fixture(params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    sqlite = f"sqlite:///{tmp_path / 'audit.db'}"
    database = Database.open(sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    yield Site(tmp_path, database)
    database.close()


ACCEPTED = frozenset({Class.UNANCHORED})


def test_the_site_is_whole_before_anything_goes(site: Site) -> None:
    assert site.verify().verdict(ACCEPTED) is Class.INTACT
    assert [(day.day[-2:], day.ended) for day in site.store.usage(NOW)] == [("08", True), ("09", True), ("10", False)]


def test_a_day_is_dropped_but_for_its_leaf_hashes_and_last_checkpoint(site: Site) -> None:
    site.drop(NOW - timedelta(days=2))
    for table in ("records", "bodies", "blobs", "calls"):
        assert site.count(table, "day = '2026-03-08'") == 0
        assert site.count(table, "day = '2026-03-09'") > 0
    assert site.count("checkpoints", "day = '2026-03-08'") == 1
    assert site.redactions() == [("holdfast/test/gw/1", 0)]
    report = site.verify()
    assert set(report.counts) - {"no-anchor"} == {"log-dropped"}
    assert report.verdict(ACCEPTED) is Class.REDACTED


def test_one_persons_bodies_go_and_what_others_share_stays(site: Site) -> None:
    before = [story.call for story in AuditStore(site.database).iter_calls()]
    found = list(site.store.bodies(Wanted(user="alice")))
    assert len(found) == 6
    assert sum(site.eraser.erase(found, "she asked")) == 6
    stories = list(AuditStore(site.database).iter_calls())
    assert [story.call for story in stories] == before
    for story in stories:
        bodies = set(story.payloads.values())
        if story.call.username == "alice":
            assert bodies == set()
            assert all(story.is_erased(told.response_body) for told in story.records if told.response_body)
        else:
            assert bodies
    assert site.count("blobs") == 6
    assert {log for log, _ in site.redactions()} == {f"holdfast/test/gw/{number}" for number in (1, 2, 3)}
    report = site.verify()
    assert report.counts["payload-erased"] == 6
    assert report.verdict(ACCEPTED) is Class.REDACTED


def test_nothing_goes_before_it_is_on_record(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("killed")

    found = list(site.store.bodies(Wanted(user="alice")))
    with monkeypatch.context() as patched:
        patched.setattr(site.recorder, "write", fail)
        for attempt in (
            lambda: list(site.eraser.erase(found, "she asked")),
            lambda: site.drop(NOW - timedelta(days=2)),
        ):
            with pytest.raises(KeyError):
                attempt()
    assert site.verify().verdict(ACCEPTED) is Class.INTACT
    with monkeypatch.context() as patched:
        patched.setattr(site.store, "erase", fail)
        with pytest.raises(KeyError):
            list(site.eraser.erase(found, "she asked"))
    assert site.redactions()
    assert site.verify().verdict(ACCEPTED) is Class.INTACT
    list(site.eraser.erase(site.store.bodies(Wanted(user="alice")), "she asked"))
    assert site.verify().verdict(ACCEPTED) is Class.REDACTED


def test_a_day_that_was_tampered_with_is_not_dropped(site: Site) -> None:
    with site.database.writing() as connection:
        connection.execute(text("DELETE FROM records WHERE day = '2026-03-08' AND seq = 2"))
    with pytest.raises(Conflict, match="is not what it is said to be"):
        site.drop(NOW - timedelta(days=2))
    assert site.count("records", "day = '2026-03-08'") > 0


def test_what_is_erased_without_a_record_is_an_alteration(site: Site) -> None:
    log = next(row for row in LedgerStore(site.database).all_logs() if row.origin == "holdfast/test/gw/1")
    site.store.erase(log, ["1/response"])
    assert "payload-missing" in site.verify().counts
    site.store.drop_day("2026-03-08", timestamp(NOW))
    assert {"dropped-unrecorded"} <= set(site.verify().counts)
    assert site.verify().verdict() is Class.ALTERED


def test_a_gateway_that_starts_after_its_last_log_was_dropped_goes_on(site: Site) -> None:
    site.drop(NOW - timedelta(days=1))
    site.moment = NOW + timedelta(minutes=1)
    ledger = open_test_ledger(site.folder, site.database, clock=site.clock)
    assert str(ledger.row.origin) == "holdfast/test/gw/3"
    assert [decode(leaf).record.kind for leaf in LedgerStore(site.database).leaves(ledger.row)][-1] == Kind.HEARTBEAT
