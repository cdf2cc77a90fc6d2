"""A disk that is really full: what cannot be recorded does not happen, and all goes on when there is room again."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from attacks.conftest import POD_PATH, Target, running_target, wait_until
from attacks.scripted_upstream import answer, send
from attacks.test_store_failures import PODS_PATH, assert_unavailable
from audit.crashing import Acknowledged, find_losses
from holdfast.audit.keys import KeyFolder, open_epoch_key
from holdfast.audit.receipt import HEADER, parse_receipt
from holdfast.audit.record import Kind, decode
from holdfast.audit.store import LedgerStore
from holdfast.database import Database
from holdfast.errors import ConfigurationError
from holdfast.hooks.listener import listener_bundle, listener_certificates
from holdfast.settings import Listen, Settings
from recording_upstream import POD
from services.small_disk import SmallDisk, small_disk

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holdfast.audit.record import Record
    from services.postgres import PostgresServer

CALLERS = 4
PAGES_ENOUGH = 20
LOOK_FIRST = "look before you repeat the call."


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    """Where whatever is to be full keeps its files."""
    with small_disk(16) as disk:
        yield disk


@pytest.fixture
def target(disk: SmallDisk) -> Iterator[Target]:
    """A gateway that keeps everything there: its database, its state, and the file that its checkpoints go to."""
    anchors = disk.folder / "anchors"
    anchors.mkdir()
    audit = {"deadlineSeconds": 1.0, "anchors": {"file": str(anchors / "file.notes"), "intervalSeconds": 0.1}}
    with running_target(disk.folder, settings={"audit": audit}) as target:
        target.upstream.forget()
        yield target


def url_of(target: Target) -> str:
    """The audit database, where it is the gateway's own file."""
    return f"sqlite:///{target.gateway.database}"


def create_pod(target: Target, annotation: str = "") -> httpx.Response:
    """A call that changes the cluster, under a name of its own."""
    metadata = {"name": "p", "annotations": {"note": annotation}}
    path = f"{PODS_PATH}?fieldManager={secrets.token_hex(8)}"
    return target.call("POST", path, json={"kind": "Pod", "apiVersion": "v1", "metadata": metadata})


def uri_of(response: httpx.Response) -> str:
    """What was called, which tells calls apart."""
    return response.request.url.raw_path.decode()


def told(url: str) -> dict[tuple[str, int], Record]:
    """Every record in the database, by its place."""
    database = Database.open_readonly(url)
    try:
        store = LedgerStore(database)
        leaves = [decode(leaf) for log in store.all_logs() for leaf in store.leaves(log)]
        return {(leaf.log, leaf.seq): leaf.record for leaf in leaves}
    finally:
        database.close()


def verify(target: Target, evidence: Path, responses: list[httpx.Response]) -> list[dict[str, Any]]:
    """What `holdfast audit verify` finds when it has what was kept in `evidence`, and the callers' receipts."""
    for number, response in enumerate(response for response in responses if HEADER in response.headers):
        (evidence / f"{number}.receipt").write_text(response.headers[HEADER])
    done = target.gateway.holdfast("audit", "verify", "--anchors", str(evidence), "--tolerate-tail", "1h", "-o", "json")
    assert done.returncode in {0, 14}, done.stdout + done.stderr
    findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return findings


def unfinished(url: str, findings: list[dict[str, Any]]) -> set[str]:
    """The URIs of the calls of which was found that their end is not known; nothing else may have been found."""
    assert {finding["code"] for finding in findings} <= {"outcome-missing"}
    records = told(url)
    found = (records[finding["log"], finding["seq"]] for finding in findings)
    return {record.what.uri for record in found if record.what}


# -- one call at a time ------------------------------------------------------------------------------------------


def test_at_the_intent_nothing_reaches_the_cluster(target: Target, disk: SmallDisk, tmp_path: Path) -> None:
    first = create_pod(target)
    with disk.filled():
        refused = create_pod(target)
    assert_unavailable(refused)
    assert HEADER not in refused.headers
    assert len(target.upstream.calls()) == 1
    target.settle(lambda: create_pod(target).status_code == 200)
    assert unfinished(url_of(target), verify(target, tmp_path, [first])) == set()
    assert "the audit database cannot be written: the disk is full\n" in "".join(target.gateway.output)


def test_at_the_outcome_the_answer_is_withheld_and_the_call_is_not_made_again(
    target: Target, disk: SmallDisk, tmp_path: Path
) -> None:
    def fill_and_answer(connection: ssl.SSLSocket) -> None:
        disk.fill()
        send(answer(POD))(connection)

    first = create_pod(target)
    target.upstream.acts[PODS_PATH.encode()] = fill_and_answer
    withheld = create_pod(target)
    assert (withheld.status_code, withheld.json()["reason"]) == (500, "InternalError")
    assert withheld.json()["message"].endswith(LOOK_FIRST)
    assert "retry-after" not in withheld.headers
    assert len(target.upstream.calls()) == 2
    disk.empty()
    target.upstream.acts.clear()
    target.settle(lambda: create_pod(target).status_code == 200)
    assert unfinished(url_of(target), verify(target, tmp_path, [first])) == {uri_of(withheld)}


def test_at_the_outcome_what_was_read_is_withheld_and_may_be_read_again(target: Target, disk: SmallDisk) -> None:
    with disk.filled():
        refused = target.call("GET", POD_PATH)
    assert_unavailable(refused)
    assert POD not in refused.content
    target.settle(lambda: target.call("GET", POD_PATH).content == POD)


# -- many at once ------------------------------------------------------------------------------------------------


@dataclass
class Callers:
    """They go on calling, whatever they are told."""

    target: Target
    responses: list[httpx.Response] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def call_on(self) -> None:
        """Make one call after another, each with a body that no other has."""
        while not self.ended.is_set():
            self.responses.append(create_pod(self.target, secrets.token_hex(2000)))

    def await_more(self, code: int, count: int = 20) -> None:
        """Return when so many more have got this answer."""
        before = self._count(code)
        wait_until(lambda: self._count(code) >= before + count, 60)

    def _count(self, code: int) -> int:
        return sum(response.status_code == code for response in list(self.responses))


@contextmanager
def calling(target: Target) -> Iterator[Callers]:
    """Several callers, for as long as the block lasts."""
    callers = Callers(target)
    threads = [threading.Thread(target=callers.call_on) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        callers.ended.set()
        for thread in threads:
            thread.join()


def acknowledged(response: httpx.Response) -> Acknowledged:
    """What an answer says is durable."""
    receipt = parse_receipt(response.headers[HEADER])
    return Acknowledged(receipt.origin, receipt.seq, receipt.leaf_hash.hex(), Kind.OUTCOME, uri_of(response))


def assert_kept(target: Target, url: str, evidence: Path, responses: list[httpx.Response]) -> None:
    """All that was acknowledged is in the record, all that reached the cluster was recorded first, and it verifies."""
    assert find_losses(url, [acknowledged(response) for response in responses if HEADER in response.headers]) == []
    assert all(HEADER in response.headers for response in responses if response.status_code == 200)
    endings = {200: "", 500: LOOK_FIRST, 503: "; try again"}
    for response in responses:
        assert response.json().get("message", "").endswith(endings[response.status_code])
    called = {code: {uri_of(each) for each in responses if each.status_code == code} for code in endings}
    forwarded = [call.split(b" ")[1].decode() for call in target.upstream.calls()]
    assert sorted(forwarded) == sorted(called[200] | called[500])
    intents = {record.what.uri for record in told(url).values() if record.kind is Kind.INTENT and record.what}
    assert set(forwarded) <= intents
    assert unfinished(url, verify(target, evidence, responses)) <= called[500] | called[503]


def test_callers_of_a_gateway_whose_disk_fills_lose_nothing(target: Target, disk: SmallDisk) -> None:
    with calling(target) as callers:
        for _ in range(3):
            callers.await_more(200)
            with disk.filled():
                callers.await_more(503)
        callers.await_more(200)
    assert_kept(target, url_of(target), disk.folder / "anchors", callers.responses)


@pytest.fixture
def postgres_disk() -> Iterator[SmallDisk]:
    """Where a PostgreSQL server keeps its data."""
    with small_disk(160) as disk:
        yield disk


@pytest.fixture
def server(postgres_disk: SmallDisk, make_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    return make_postgres(postgres_disk.folder, min_wal_size="32MB", max_wal_size="32MB")


@pytest.fixture
def url(server: PostgresServer) -> str:
    """The audit database in that server."""
    made = server.create_database()
    server.execute("SELECT pg_switch_wal()")  # its log has 16 MB to go before it needs a file
    return made


@pytest.fixture
def shared(url: str, tmp_path: Path) -> Iterator[Target]:
    """A gateway that keeps its record there."""
    with running_target(tmp_path, settings={"audit": {"database": url, "deadlineSeconds": 2.0}}) as target:
        target.upstream.forget()
        yield target


def write_elsewhere_until_it_ends(server: PostgresServer, disk: SmallDisk) -> None:
    """Another database of the server's writes until the server finds no room for its own log, and ends."""

    def has_ended() -> bool:
        disk.fill()
        with suppress(psycopg.Error):
            server.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))")
        return server.has_ended()

    wait_until(has_ended, 60)


def test_callers_lose_nothing_when_the_disk_of_postgres_fills(
    shared: Target, url: str, postgres_disk: SmallDisk, server: PostgresServer, tmp_path: Path
) -> None:
    with calling(shared) as callers:
        callers.await_more(200)
        with postgres_disk.filled():
            callers.await_more(503)
        assert not server.has_ended()
        callers.await_more(200)
    assert "the audit database cannot be written: the server's disk is full\n" in "".join(shared.gateway.output)
    (evidence := tmp_path / "evidence").mkdir()
    assert_kept(shared, url, evidence, callers.responses)


def test_callers_lose_nothing_when_postgres_panics_and_is_started_again(
    shared: Target, url: str, postgres_disk: SmallDisk, server: PostgresServer, tmp_path: Path
) -> None:
    with calling(shared) as callers:
        callers.await_more(200)
        with postgres_disk.filled():
            write_elsewhere_until_it_ends(server, postgres_disk)
            assert "PANIC:" in server.log()
            callers.await_more(503)
        server.start()
        callers.await_more(200)
    (evidence := tmp_path / "evidence").mkdir()
    assert_kept(shared, url, evidence, callers.responses)


# -- payloads beside the database --------------------------------------------------------------------------------


def test_a_call_whose_body_cannot_be_kept_is_refused(disk: SmallDisk, tmp_path: Path) -> None:
    folder = disk.folder / "payloads"
    large = secrets.token_hex(100_000)
    with running_target(tmp_path, settings={"audit": {"payloads": {"folder": str(folder)}}}) as target:
        target.upstream.forget()
        responses = [create_pod(target, large)]
        with disk.filled():
            assert_unavailable(create_pod(target, large[1:]))
            responses.append(create_pod(target, "small enough for the database"))
            assert [code.status_code for code in responses] == [200, 200]
            assert len(target.upstream.calls()) == 2
            target.upstream.answers[POD_PATH.encode()] = json.dumps({"kind": "Pod", "data": large[2:]}).encode()
            withheld = target.call("GET", POD_PATH)
            assert_unavailable(withheld)
            assert large[2:] not in withheld.text
        responses += [create_pod(target, large[1:]), target.call("GET", POD_PATH)]
        assert [code.status_code for code in responses[2:]] == [200, 200]
        (evidence := tmp_path / "evidence").mkdir()
        assert verify(target, evidence, responses) == []
    kept = [file.name for file in folder.rglob("*") if file.is_file()]
    assert len(kept) >= 3
    assert [name for name in kept if not re.fullmatch("[0-9a-f]{64}", name)] == []


# -- start and end -----------------------------------------------------------------------------------------------


def test_a_gateway_whose_disk_is_full_ends_when_asked_to(disk: SmallDisk) -> None:
    with running_target(disk.folder, settings={"limits": {"drainSeconds": 600}}) as target, disk.filled():
        assert_unavailable(create_pod(target))
        assert_unavailable(target.call("GET", POD_PATH))
        assert target.gateway.stop() == 0


def test_a_gateway_does_not_start_on_a_full_disk_and_goes_on_with_its_log_when_there_is_room(
    target: Target, disk: SmallDisk, tmp_path: Path
) -> None:
    responses = [create_pod(target)]
    target.gateway.stop()
    with disk.filled(), pytest.raises(AssertionError, match=r"holdfast: .*audit\.db: .*: the disk is full\.\n$"):
        start_again(target)
    start_again(target)
    responses.append(create_pod(target))
    assert parse_receipt(responses[1].headers[HEADER]).origin == parse_receipt(responses[0].headers[HEADER]).origin
    assert verify(target, tmp_path, responses) == []


def start_again(target: Target) -> None:
    """Start the gateway anew in its folder."""
    target.gateway.process = None
    target.gateway.url = ""
    target.gateway.output.clear()
    target.gateway.start()


def make_listener(state: Path) -> None:
    """The authority, the certificate and the file for the listener."""
    settings = Settings.model_construct(state_dir=state, listen=Listen())
    listener_bundle(settings, listener_certificates(settings))


def make_keys(state: Path) -> None:
    """The keys that sign the record."""
    open_epoch_key(KeyFolder(state / "audit-keys"), "test", "gw", datetime.now(UTC))


@pytest.mark.parametrize("make", [make_listener, make_keys])
def test_what_a_full_disk_left_half_made_is_made_whole(disk: SmallDisk, make: Callable[[Path], None]) -> None:
    state = disk.folder / "new"
    state.mkdir()
    disk.fill()
    refusals = []
    for _ in range(PAGES_ENOUGH):
        refusals.append(try_to(make, state))
        disk.give_back(1)
    assert refusals[0]
    assert not refusals[-1]
    assert all(os.strerror(errno.ENOSPC) in refusal and str(state) in refusal for refusal in refusals if refusal)


def try_to(make: Callable[[Path], None], state: Path) -> str:
    """Why it could not be done; empty when it could."""
    try:
        make(state)
    except (ConfigurationError, OSError) as refusal:
        return str(refusal)
    return ""
