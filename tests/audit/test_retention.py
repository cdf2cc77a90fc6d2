"""What is to go and why: decided from values."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest

from audit.entries import new_id, record
from holdfast.audit.checkpoint import Origin
from holdfast.audit.logs import LogRow
from holdfast.audit.note import KeyName
from holdfast.audit.payload import Slot
from holdfast.audit.record import Caller, CallRow, Kind, Leaf, Record, Redaction, Seen, Start, call_row
from holdfast.audit.retention import (
    PLACES_A_RECORD,
    Day,
    PayloadRule,
    Place,
    StoredBody,
    Wanted,
    Why,
    carry_over,
    choose_bodies,
    choose_wanted,
    describe_drop,
    describe_erasure,
    first_kept_day,
    is_pinned_by,
    plan_days,
    read_rules,
)
from holdfast.settings.audit import PayloadRetention, Retention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast.audit.retention import CallTest

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
SIZE = 100


def log(day: str = "2026-03-01", number: int = 1) -> LogRow:
    """A closed log of ten records."""
    return LogRow(
        id=number,
        origin=Origin(KeyName(f"holdfast/test/gw/{number}")),
        replica="gw",
        epoch=number,
        day=day,
        certificate="",
        size=10,
        root="11" * 32,
        opened_at=f"{day}T00:00:00.000000Z",
        closed_at=f"{day}T23:00:00.000000Z",
        dropped_at=None,
    )


def day(number: str, *, ended: bool = True) -> Day:
    its_log = log(f"2026-03-{number}")
    return Day(its_log.day, (its_log,), () if ended else (its_log,))


DAYS = tuple(map(day, ("01", "04", "08", "09", "10")))


def dropped(days: Sequence[Day], now: datetime = NOW, **settings: int) -> list[str]:
    planned = plan_days(days, Retention(**settings), 5 * SIZE, lambda _: SIZE, now)
    return [f"{plan.day.day[-2:]} {plan.why.rule}" + (" stays" if plan.day.unended else "") for plan in planned]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"max_age_days": 30}, []),
        ({"max_age_days": 9}, []),
        ({"max_age_days": 8}, ["01 maxAgeDays"]),
        ({"max_age_days": 5}, ["01 maxAgeDays", "04 maxAgeDays"]),
        ({"max_age_days": 1}, ["01 maxAgeDays", "04 maxAgeDays", "08 maxAgeDays"]),
        ({"max_bytes": 500}, []),
        ({"max_bytes": 499}, ["01 maxBytes"]),
        ({"max_bytes": 250}, ["01 maxBytes", "04 maxBytes", "08 maxBytes"]),
        ({"max_bytes": 1}, ["01 maxBytes", "04 maxBytes", "08 maxBytes", "09 maxBytes"]),
        ({"max_age_days": 7, "max_bytes": 300}, ["01 maxAgeDays", "04 maxBytes"]),
    ],
)
def test_days_go_oldest_first_for_their_age_or_for_size(settings: dict[str, int], expected: list[str]) -> None:
    assert dropped(DAYS, NOW, **settings) == expected


def test_no_day_goes_past_one_that_may_still_be_written() -> None:
    days = [day("01"), day("04", ended=False), day("08")]
    assert dropped(days, max_age_days=1) == ["01 maxAgeDays", "04 maxAgeDays stays"]
    assert dropped([*days[:1], day("08", ended=False)], max_age_days=5) == ["01 maxAgeDays"]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("2026-03-05T11:59:59.999999Z", ["04 maxAgeDays"]),
        ("2026-03-05T12:00:00.000000Z", []),
        ("2036-03-05T12:00:00.000000Z", []),
    ],
)
def test_a_day_is_as_old_as_its_last_record(last: str, expected: list[str]) -> None:
    late = replace(day("04"), until=last)
    assert dropped([late, day("08")], max_age_days=5) == expected
    assert dropped([late], max_bytes=1) == ["04 maxBytes"]


@pytest.mark.parametrize(("after_midnight", "expected"), [(59, []), (61, ["09 maxBytes"])])
def test_yesterday_stays_while_a_clock_that_is_behind_may_still_write_it(
    after_midnight: int, expected: list[str]
) -> None:
    now = datetime(2026, 3, 10, tzinfo=UTC) + timedelta(minutes=after_midnight)
    assert dropped([day("09")], now, max_bytes=1) == expected


def test_days_are_those_of_utc() -> None:
    assert first_kept_day(datetime.fromisoformat("2026-03-10T23:30:00-05:00"), 0) == "2026-03-11"


# -- which logs have ended ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "previous", "pinned"),
    [
        (Start(run="run", build="1", previous_log="holdfast/test/gw/1", previous_size=10), "11" * 32, True),
        (Start(run="run", build="1", previous_log="holdfast/test/gw/1", previous_size=9), "11" * 32, False),
        (Start(run="run", build="1", previous_log="holdfast/test/gw/1", previous_size=10), "22" * 32, False),
        (Start(run="run", build="1", previous_log="holdfast/test/gw/2", previous_size=10), "11" * 32, False),
        (None, "11" * 32, False),
    ],
)
def test_a_log_is_pinned_by_one_that_goes_on_from_all_of_it(start: Start | None, previous: str, pinned: bool) -> None:
    first = Leaf(Record(kind=Kind.HEARTBEAT, at="", start=start), "holdfast/test/gw/2", 0, previous)
    assert is_pinned_by(log(), first) is pinned


# -- which bodies ------------------------------------------------------------------------------------------------


def call(**values: object) -> CallRow:
    """Alice's get of a pod, received at noon on the first of March."""
    row = call_row(record(new_id()))
    assert row is not None
    return msgspec.structs.replace(row, **values)


def body(number: int = 0, of_day: str = "2026-03-01", **values: object) -> StoredBody:
    row = call(**values)
    return StoredBody(log(of_day), Place(number, Slot.RESPONSE), row.audit_id, row)


def unattributed(audit_id: str = "0199aaaa") -> StoredBody:
    """One whose call nothing else is left of."""
    return StoredBody(log(), Place(0, Slot.RESPONSE), audit_id, None)


def is_get(call: CallRow) -> bool:
    return call.verb == "get"


def test_the_first_rule_that_applies_takes_a_body() -> None:
    gets = PayloadRule("2026-03-02", is_get, Why("first"))
    all_of_them = PayloadRule("2026-03-05", None, Why("second"))
    bodies = [body(1), body(2, verb="list"), body(3, "2026-03-02"), body(4, "2026-03-05")]
    chosen = [(found.place.seq, why and why.reason) for found, why in choose_bodies(bodies, [gets, all_of_them])]
    assert chosen == [(1, "first"), (2, "second"), (3, "second")]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([("2026-03-02", is_get)], [None]),
        ([("2026-03-02", is_get), ("2026-03-02", None)], ["2"]),
        ([("2026-03-02", None), ("2026-03-02", is_get)], ["1"]),
        ([("2026-03-01", is_get)], []),
        ([("2026-03-01", None), ("2026-03-02", is_get)], [None]),
        ([], []),
    ],
)
def test_only_rules_for_all_calls_take_what_nobody_can_attribute(
    rules: list[tuple[str, CallTest | None]], expected: list[str | None]
) -> None:
    read = [PayloadRule(*rule, Why(str(number))) for number, rule in enumerate(rules, 1)]
    chosen = [(found, why and why.reason) for found, why in choose_bodies([unattributed()], read)]
    assert chosen == [(unattributed(), why) for why in expected]


def test_rules_are_read_as_of_now() -> None:
    settings = [PayloadRetention(name=name, older_than_days=days, verbs=("?",)) for name, days in (("a", 0), ("b", 9))]
    rules = read_rules(settings, lambda rule: lambda call: call.verb == rule.name, NOW)
    assert [(rule.kept_from, rule.why.rule) for rule in rules] == [("2026-03-10", "a"), ("2026-03-01", "b")]
    assert rules[1].takes(body(of_day="2026-02-28", verb="b"))
    assert rules[1].takes(body(of_day="2026-02-28", verb="a")) is False


@pytest.mark.parametrize("filtered", ["resources", "verbs", "namespaces", "users", "verdicts"])
def test_a_rule_is_for_all_calls_unless_one_of_its_filters_is_set(filtered: str) -> None:
    every = PayloadRetention.model_validate({"name": "a", "olderThanDays": 1, filtered: ["allowed", "*"]})
    some = PayloadRetention.model_validate({"name": "b", "olderThanDays": 1, filtered: ["allowed"]})
    rules = read_rules([every, some], lambda _: lambda _: True, NOW)
    assert [rule.takes(unattributed()) for rule in rules] == [True, None]


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (Wanted(), True),
        (Wanted(user="alice"), True),
        (Wanted(user="alic"), False),
        (Wanted(user="alice", issuer="https://issuer"), True),
        (Wanted(user="alice", issuer="https://other"), False),
        (Wanted(call="0199"), True),
        (Wanted(call="0198"), False),
        (Wanted(since=datetime(2026, 3, 1, 12, tzinfo=UTC)), True),
        (Wanted(since=datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)), False),
        (Wanted(until=datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)), True),
        (Wanted(until=datetime(2026, 3, 1, 12, tzinfo=UTC)), False),
    ],
)
def test_calls_are_meant_by_user_issuer_id_and_time(wanted: Wanted, meant: bool) -> None:
    assert wanted.means(body(audit_id="0199aaaa")) is meant


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (Wanted(), True),
        (Wanted(call="0199"), True),
        (Wanted(call="0198"), False),
        (Wanted(call="0198", user="alice"), False),
        (Wanted(call="0199", user="alice"), None),
        (Wanted(issuer="https://issuer"), None),
        (Wanted(since=datetime(2026, 3, 1, tzinfo=UTC)), None),
        (Wanted(until=datetime(2026, 3, 1, tzinfo=UTC)), None),
    ],
)
def test_of_what_nobody_can_attribute_nothing_but_the_id_tells(wanted: Wanted, meant: bool | None) -> None:
    assert wanted.means(unattributed()) is meant
    assert (
        list(choose_wanted([unattributed()], wanted, Why("x")))
        == {
            True: [(unattributed(), Why("x"))],
            False: [],
            None: [(unattributed(), None)],
        }[meant]
    )


# -- what is recorded --------------------------------------------------------------------------------------------


def test_a_drop_names_the_log_as_it_is_its_day_its_last_time_and_no_payloads() -> None:
    seen = Seen(log="holdfast/test/gw/1", size=10, root="11" * 32)
    until = "2026-03-02T00:00:05.000000Z"
    told = describe_drop(log(), until, Why("old", "maxAgeDays"), "carol")
    assert told == Redaction(
        log=seen, reason="old", requested_by="carol", rule="maxAgeDays", day="2026-03-01", until=until
    )


def test_an_erasure_names_every_body_some_in_a_record() -> None:
    places = [Place(number, Slot.REQUEST) for number in range(PLACES_A_RECORD + 1)]
    first, second = describe_erasure(log(), places, Why("she asked"), "carol")
    assert [*first.payloads, *second.payloads] == [f"{number}/request" for number in range(PLACES_A_RECORD + 1)]
    assert len(first.payloads) == PLACES_A_RECORD
    assert first.log == Seen(log="holdfast/test/gw/1", size=10, root="11" * 32)


def test_only_what_nothing_else_says_is_recorded_again() -> None:
    one, two = Seen(log="one", size=1, root=""), Seen(log="two", size=1, root="")
    whole, of_one, of_two = (
        Redaction(log=one, reason=""),
        Redaction(log=one, reason="", payloads=("1/request",)),
        Redaction(log=two, reason="", payloads=("1/request",)),
    )
    assert carry_over([whole, of_one, of_two], {"one"}) == [whole, of_two]
    dated = Redaction(log=one, reason="", day="2026-03-01", until="2026-03-02T00:00:05.000000Z")
    assert carry_over([dated], {"one"}) == [dated]


@pytest.mark.parametrize(
    "settings",
    [
        {"payloads": [{"name": "a", "older_than_days": 1}] * 2},
        {"payloads": [{"name": "a", "older_than_days": -1}]},
        {"payloads": [{"name": "a", "older_than_days": 1, "resources": []}]},
        {"payloads": [{"name": "a", "older_than_days": 1, "verdicts": ["permitted"]}]},
        {"payloads": [{"name": "a b", "older_than_days": 1}]},
        {"max_age_days": 0},
        {"max_bytes": 0},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Retention(**settings)


def test_a_callers_name_is_compared_as_lists_keep_it() -> None:
    name = "a" * 300
    row = call_row(record(identity=Caller(issuer="https://issuer", username=name)))
    assert row is not None
    assert Wanted(user=name).means(StoredBody(log(), Place(0, Slot.RESPONSE), row.audit_id, row))
