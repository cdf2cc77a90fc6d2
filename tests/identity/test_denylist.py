"""Whom a revocation shuts out, and who is still let in."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.database import Database
from holdfast.errors import Conflict, NotFound, Unauthorized, Unavailable
from holdfast.exchange import Identity
from holdfast.identity.denylist import Denylist, Revocation, Scope
from holdfast.identity.revoking import RevocationWatch
from holdfast.identity.store import RevocationStore, UsedAssertions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOW = NOON.timestamp()
ISSUER = "https://issuer.test"
CALLER = Identity(ISSUER, "ci:robot", claims={"sub": "robot", "jti": "t-1"})
ONE = Revocation("r-1", ISSUER, Scope.SUBJECT, "robot", "taken over", "carol", NOON)


@pytest.mark.parametrize(
    ("change", "caller", "is_revoked"),
    [
        ({}, CALLER, True),
        ({}, replace(CALLER, claims={"sub": "robot", "jti": "t-2"}), True),
        ({}, replace(CALLER, claims={"sub": "robot2", "jti": "t-1"}), False),
        ({}, replace(CALLER, claims={"jti": "robot"}), False),
        ({}, replace(CALLER, claims={"sub": 7}), False),
        ({}, replace(CALLER, issuer="https://other.test"), False),
        ({"scope": Scope.TOKEN, "value": "t-1"}, CALLER, True),
        ({"scope": Scope.TOKEN, "value": "t-2"}, CALLER, False),
        ({"scope": Scope.TOKEN, "value": "robot"}, CALLER, False),
        ({"scope": Scope.USER, "value": "ci:robot"}, CALLER, True),
        ({"scope": Scope.USER, "value": "robot"}, CALLER, False),
        ({"until": NOON + timedelta(seconds=1)}, CALLER, True),
        ({"until": NOON}, CALLER, False),
    ],
)
def test_a_revocation_is_of_one_issuer_one_kind_and_one_value(
    change: dict[str, Any], caller: Identity, *, is_revoked: bool
) -> None:
    denylist = Denylist([replace(ONE, **change)])
    assert (denylist.find(caller, NOW) is not None) is is_revoked
    if is_revoked:
        with pytest.raises(Unauthorized) as refusal:
            denylist.require_allowed(caller, NOW)
        assert refusal.value.why == "revoked"
        assert refusal.value.detail.startswith(f"{ONE.id}: ")
        assert not any(text in str(refusal.value) for text in ("taken over", ONE.id))
    else:
        denylist.require_allowed(caller, NOW)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'audit.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database.open(url)
    yield database
    database.close()


def test_revocations_are_kept_listed_and_lifted(database: Database) -> None:
    store = RevocationStore(database)
    two = replace(ONE, id="r-2", scope=Scope.USER, value="ci:robot", until=NOON + timedelta(days=1))
    later = replace(ONE, id="r-0", value="bob", revoked_at=NOON + timedelta(seconds=1))
    for revocation in (later, two, ONE):
        store.add(revocation)
    assert store.all() == [ONE, two, later]
    assert store.get("r-2", NOW) == two
    store.remove("r-2")
    assert store.all() == [ONE, later]
    with pytest.raises(NotFound, match="no revocation r-2"):
        store.get("r-2", NOW)


def test_what_is_revoked_cannot_be_revoked_again(database: Database) -> None:
    store = RevocationStore(database)
    store.add(ONE)
    again = replace(ONE, id="r-2", reason="again")
    with pytest.raises(Conflict, match="r-1 revokes it already"):
        store.find_shorter(again)
    with pytest.raises(Conflict, match="revoked already"):
        store.add(again)
    assert store.find_shorter(replace(again, issuer="https://other.test")) is None
    assert store.all() == [ONE]


def test_a_revocation_whose_time_is_over_does_not_stand_in_the_way_of_the_next(database: Database) -> None:
    store = RevocationStore(database)
    store.add(replace(ONE, until=NOON + timedelta(hours=1)))
    store.add(replace(ONE, id="r-2", value="bob", until=NOON + timedelta(hours=1)))
    early = replace(ONE, id="r-3", revoked_at=NOON + timedelta(minutes=59), until=NOON + timedelta(hours=1))
    with pytest.raises(Conflict, match=r"r-1 revokes it already, until 2.*:00:00Z; `holdfast identity restore r-1`"):
        store.find_shorter(early)
    with pytest.raises(Conflict, match="revoked already"):
        store.add(early)
    again = replace(ONE, id="r-4", revoked_at=NOON + timedelta(hours=1))
    assert store.find_shorter(again) is None
    store.add(again)
    assert [each.id for each in store.all()] == ["r-2", "r-4"]
    assert Denylist(store.all()).find(CALLER, (NOON + timedelta(hours=2)).timestamp()) == again


@pytest.mark.parametrize("until", [NOON + timedelta(hours=2), None], ids=["longer", "without end"])
def test_a_longer_revocation_takes_the_place_of_a_shorter_one(database: Database, until: datetime | None) -> None:
    store, shorter = RevocationStore(database), replace(ONE, until=NOON + timedelta(hours=1))
    store.add(shorter)
    store.add(replace(shorter, id="r-2", value="bob"))
    longer = replace(ONE, reason="longer", revoked_at=NOON + timedelta(minutes=1), until=until)
    assert store.find_shorter(longer) == shorter
    store.add(longer)
    assert [each for each in store.all() if each.value == ONE.value] == [longer]
    assert len(store.all()) == 2
    for other in (shorter, replace(longer, until=NOON + timedelta(minutes=90)), longer):
        with pytest.raises(Conflict, match=r"r-1 revokes it already"):
            store.find_shorter(other)
        with pytest.raises(Conflict, match="revoked already"):
            store.add(other)
    assert longer in store.all()


def test_a_revocation_is_named_by_the_beginning_of_its_id(database: Database) -> None:
    store = RevocationStore(database)
    over = replace(ONE, id="r-aa00", value="over", until=NOON)
    named = [replace(ONE, id=name, value=name) for name in ("r-ab12", "r-ab34", "r-ab3456")]
    for revocation in (over, *named):
        store.add(revocation)
    assert [store.get(name, NOW).id for name in ("r-ab1", "ab1", "r-ab34", "r-ab345")] == [
        "r-ab12",
        "r-ab12",
        "r-ab34",
        "r-ab3456",
    ]
    with pytest.raises(Conflict, match="'r-ab' is the beginning of r-ab12, r-ab34, r-ab3456; give more"):
        store.get("r-ab", NOW)
    for name in ("r-aa00", "r-x", "h-ab12", "R-ab12"):
        with pytest.raises(NotFound, match=f"no revocation {name}"):
            store.get(name, NOW)


def test_an_assertion_is_used_once_whoever_asks(database: Database) -> None:
    now, until = NOW, NOW + 300
    first, second = (UsedAssertions(database, lambda: now) for _ in range(2))
    assert first.remember("_1", "idp", until)
    assert not first.remember("_1", "idp", until)
    assert not second.remember("_1", "idp", until)
    assert second.remember("_1", "other-idp", until)
    assert second.remember("_2", "idp", until)
    # One whose time is long over is forgotten: by then its own NotOnOrAfter refuses it, by every replica's clock.
    now = until + 3600
    assert not first.remember("_1", "idp", until)
    now = until + 3601
    assert first.remember("_1", "idp", until)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Unavailable("the database is away"), "the database is away"),
        (ValueError("a scope that nobody knows"), "ValueError, a fault of ours."),
    ],
)
async def test_the_denylist_is_read_again_and_again_and_outlasts_whatever_goes_wrong(
    caplog: pytest.LogCaptureFixture, fault: Exception, told: str
) -> None:
    answers: list[Any] = [[ONE], fault, []]
    taken: list[bool] = []
    done = asyncio.Event()

    def load() -> list[Revocation]:
        answer = answers.pop(0) if answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    def take(denylist: Denylist) -> None:
        taken.append(denylist.find(CALLER, NOW) is not None)
        if len(taken) == 3:
            done.set()

    watch = RevocationWatch(load, take, seconds=0)
    await watch.start()
    assert taken == [True]
    async with asyncio.timeout(30):
        await done.wait()
    await watch.close()
    assert taken[:2] == [True, False]
    assert f"Keeping the revocations from before: {told}" in caplog.text


async def test_sight_is_lost_when_nothing_was_read_for_too_long_and_not_before() -> None:
    now, lost = 0.0, []
    readings: list[tuple[float, bool]] = [(0.0, True), (29.0, False), (30.0, True), (58.0, False), (59.0, False)]
    over = asyncio.Event()

    def load() -> list[Revocation]:
        nonlocal now
        if not readings:
            over.set()
            return []
        now, is_good = readings.pop(0)
        if not is_good:
            raise Unavailable("the database is away")
        return []

    watch = RevocationWatch(load, lambda _: None, lose_sight=lambda: lost.append(now), seconds=0, clock=lambda: now)
    await watch.start()
    async with asyncio.timeout(30):
        await over.wait()
    await watch.close()
    assert lost == [59.0]  # 30 s after the last good reading was begun


async def test_whoever_keeps_the_shared_threads_busy_is_shut_out_all_the_same() -> None:
    taken: list[Denylist] = []
    watch = RevocationWatch(lambda: [ONE], taken.append)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    over = threading.Event()
    flood = [asyncio.create_task(asyncio.to_thread(over.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(10):
            await watch.read()
    finally:
        over.set()
    assert taken[0].find(CALLER, NOW) == ONE
    await asyncio.gather(*flood)
    await watch.close()


async def test_a_denylist_that_cannot_be_read_at_start_is_told() -> None:
    def load() -> list[Revocation]:
        raise Unavailable("the database is away")

    watch = RevocationWatch(load, lambda denylist: None)
    with pytest.raises(Unavailable):
        await watch.start()
    await watch.close()
