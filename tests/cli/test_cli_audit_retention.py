"""`holdfast audit retention` and `erase`: the plan, what is done, and that nothing is done unasked."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from audit.entries import entry, new_id, open_test_ledger, record, response
from console.world import World, make_world
from holdfast.audit.anchors.evidence import read_evidence
from holdfast.audit.keys import KeyFolder
from holdfast.audit.record import Caller, Entry, Kind, Record, Timing, call_row, decode, timestamp
from holdfast.audit.sequence import Clock
from holdfast.audit.store import AuditStore, Filters, LedgerStore
from holdfast.audit.store.retention import RetentionStore
from holdfast.cli import app
from holdfast.cli.audit.retention import compile_test
from holdfast.settings.audit import PayloadRetention

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from holdfast.audit.ledger import Ledger

runner = CliRunner()
TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
RULE = {"name": "bodies-of-pods", "olderThanDays": 2, "resources": ["pods"], "users": ["al*"]}


def make(folder: Path, **retention: object) -> World:
    """A world with calls of alice and bob five, three and no days ago; the days before today have ended."""
    world = make_world(folder, {"audit": {"retention": retention}})
    share_root(world)
    moment = TODAY

    def clock() -> Clock:
        return Clock(timestamp(moment), int(moment.timestamp() * 1_000_000))

    for number in (5, 3, 0):
        moment = TODAY - timedelta(days=number)
        ledger = open_test_ledger(folder, world.database, replica="other", clock=clock)
        for user in ("alice", "bob"):
            told = record(
                new_id(),
                identity=Caller(issuer="https://issuer", username=user),
                timing=Timing(received_at=timestamp(moment), total=1500),
            )
            body = b"%s %d days ago" % (user.encode(), number)
            ledger.write([entry(body, call=told.call, identity=told.identity, timing=told.timing)])
        ledger.close("the day is over" if number else "")
    return world


def share_root(world: World) -> None:
    """Give the commands the root of the gateway that wrote the record."""
    root = KeyFolder(world.folder / "audit-keys")
    root.folder.mkdir()
    root.make_root("test", Ed25519PrivateKey.generate())
    world.settings.key_folder.mkdir(parents=True)
    for file in (root.root_key, root.root_pub):
        shutil.copy(file, world.settings.key_folder)


def run(world: World, *arguments: str) -> Result:
    return runner.invoke(app, ["audit", *arguments, "--config", str(world.folder / "holdfast.yaml")])


def told(world: World, *arguments: str) -> Any:
    result = run(world, *arguments, "-o", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def bodies(world: World) -> list[bytes]:
    return sorted(body for story in AuditStore(world.database).iter_calls() for body in story.payloads.values())


def day(days: int) -> str:
    return (TODAY - timedelta(days=days)).date().isoformat()


def maintenance(world: World) -> list[str]:
    """The kinds of records, in the logs of commands, that are not the beginning of one."""
    store = LedgerStore(world.database)
    logs = [log for log in store.all_logs() if log.replica.endswith(".maintenance")]
    kinds = [decode(leaf).record.kind for log in logs for leaf in store.leaves(log)]
    return [str(kind) for kind in kinds if kind not in {Kind.HEARTBEAT, Kind.PEER}]


def test_nothing_goes_unless_it_is_set(tmp_path: Path) -> None:
    world = make(tmp_path)
    result = run(world, "retention", "run")
    assert (result.exit_code, "nothing is to go" in result.stderr) == (0, True)
    assert len(bodies(world)) == 6
    assert maintenance(world) == []
    unset = f"audit.retention is not set in {world.folder / 'holdfast.yaml'}: nothing is ever dropped"
    for command in ("plan", "run"):
        assert run(world, "retention", command).stderr.splitlines()[-1] == unset
    (tmp_path / "set").mkdir()
    assert "is not set" not in run(make(tmp_path / "set", maxAgeDays=4), "retention", "plan").stderr


def test_the_plan_is_what_a_run_does(tmp_path: Path) -> None:
    world = make(tmp_path, maxAgeDays=4, payloads=[RULE])
    planned = told(world, "retention", "plan")
    assert [(found["day"], found["logs"], found["rule"]) for found in planned["days"]] == [(day(5), 1, "maxAgeDays")]
    assert planned["payloads"] == [{"rule": "bodies-of-pods", "bodies": 1, "bytes": len(b"alice 3 days ago")}]
    assert planned["blocked"] is None
    assert len(bodies(world)) == 6
    done = told(world, "retention", "run")
    assert {name: done[name] for name in planned} == planned
    assert done["usedBytesAfter"] > 0
    assert bodies(world) == [b"alice 0 days ago", b"bob 0 days ago", b"bob 3 days ago"]
    assert maintenance(world) == ["redact", "redact", "close"]
    again = told(world, "retention", "run")
    assert (again["days"], again["payloads"]) == ([], [])
    assert maintenance(world) == ["redact", "redact", "close"]


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_what_is_printed_names_days_rules_and_bytes(tmp_path: Path, output: str) -> None:
    printed = run(make(tmp_path, maxAgeDays=4, payloads=[RULE]), "retention", "plan", "-o", output).stdout
    for part in (day(5), "maxAgeDays", "bodies-of-pods", str(len(b"alice 3 days ago"))):
        assert part in printed


def test_days_go_until_the_rest_fits(tmp_path: Path) -> None:
    world = make(tmp_path)
    used = RetentionStore(world.database).used_bytes()
    settings = world.folder / "holdfast.yaml"
    settings.write_text(settings.read_text().replace('{"retention": {}}', f'{{"retention": {{"maxBytes": {used}}}}}'))
    assert told(world, "retention", "run")["days"] == []
    settings.write_text(settings.read_text().replace(f'"maxBytes": {used}', '"maxBytes": 1'))
    done = told(world, "retention", "run")
    assert [(found["day"], found["rule"]) for found in done["days"]] == [(day(5), "maxBytes"), (day(3), "maxBytes")]
    assert bodies(world) == [b"alice 0 days ago", b"bob 0 days ago"]


OVER = "over maxBytes by {} bytes, and nothing more goes: {}\n"


def test_bytes_beyond_the_most_that_cannot_go_are_told_of(tmp_path: Path) -> None:
    world = make(tmp_path, maxBytes=1)
    assert run(world, "retention", "run").exit_code == 0
    used = RetentionStore(world.database).used_bytes()
    for command in ("plan", "run"):
        result = run(world, "retention", command)
        assert "nothing is to go\n" in result.stderr
        assert OVER.format(used - 1, "only today is left, and today stays") in result.stderr
        assert told(world, "retention", command)["excessBytes"] == used - 1
    settings = world.folder / "holdfast.yaml"
    settings.write_text(settings.read_text().replace('"maxBytes": 1', f'"maxBytes": {used}'))
    result = run(world, "retention", "plan")
    assert ("over maxBytes" in result.stderr, told(world, "retention", "plan")["excessBytes"]) == (False, 0)


def test_bytes_beyond_the_most_that_an_open_log_keeps_are_told_of(tmp_path: Path) -> None:
    world = make(tmp_path, maxBytes=1)
    open_crashed(world).close()
    result = run(world, "retention", "run")
    used = RetentionStore(world.database).used_bytes()
    assert OVER.format(used - 1, f"{day(3)} cannot go") in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"{day(3)} and what is younger stays: never closed, ")


def test_a_day_that_may_still_be_written_is_told_of(tmp_path: Path) -> None:
    world = make(tmp_path, maxAgeDays=2)
    open_crashed(world).close()
    result = run(world, "retention", "run")
    assert (result.exit_code, f"{day(3)} and what is younger stays" in result.stderr) == (0, True)
    assert "holdfast/test/crashed/1" in result.stderr
    assert told(world, "retention", "plan")["blocked"] == {"day": day(3), "logs": ["holdfast/test/crashed/1"]}
    done = told(world, "retention", "run", "--gone", "crashed")
    assert ([found["day"] for found in done["days"]], done["blocked"]) == ([day(3)], None)


def test_who_had_what_erased_and_why_is_told(tmp_path: Path) -> None:
    world = make(tmp_path)
    told(world, "erase", "--user", "alice", "--reason", "she asked", "--requested-by", "carol", "--yes")
    calls = {row.received_at: row for row in AuditStore(world.database).list_calls(Filters(user="alice"))}
    assert len(calls) == 3
    (redact,) = (
        (log.origin, decode(leaf))
        for log in LedgerStore(world.database).all_logs()
        for leaf in LedgerStore(world.database).leaves(log)
        if (record := decode(leaf).record).redact and record.redact.log.log == "holdfast/test/other/1"
    )
    origin, leaf = redact
    shown = run(world, "show", calls[min(calls)].audit_id).stdout
    assert f"(not shown: erased by carol at {leaf.time[:19]}Z: she asked)" in shown
    bob = next(row for row in AuditStore(world.database).list_calls(Filters(user="bob")))
    assert "not shown" not in run(world, "show", bob.audit_id).stdout
    root = KeyFolder(world.settings.key_folder).root_pub
    proof = world.folder / "proof"
    assert run(world, "prove", origin, str(leaf.seq), "--file", str(proof)).exit_code == 0
    proven = runner.invoke(app, ["audit", "verify-proof", str(proof), "--root", str(root)]).stdout
    assert [" ".join(line.split()) for line in proven.splitlines()[-3:]] == [
        "Erased 1/response of holdfast/test/other/1",
        "Requested by carol",
        "Reason she asked",
    ]


@pytest.mark.parametrize("options", [[], ["--yes"]])
def test_a_user_of_whom_there_is_no_call_is_misspelt(tmp_path: Path, options: list[str]) -> None:
    world = make(tmp_path)
    refused = run(world, "erase", "--user", "alcie", "--reason", "she asked", *options)
    said = "holdfast: no call of the user alcie is in the record; nothing was erased\n"
    assert (refused.exit_code, refused.stdout, refused.stderr) == (1, "", said)
    assert (maintenance(world), len(bodies(world))) == ([], 6)
    assert told(world, "erase", "--user", "alice", "--since", "1h", "--until", "1h", "--reason", "x", "--yes") == {
        "bodies": 0,
        "bytes": 0,
        "unattributed": [],
    }


def open_crashed(world: World) -> Ledger:
    """The log of another gateway, three days ago."""
    at = TODAY - timedelta(days=3)
    now = Clock(timestamp(at), int(at.timestamp() * 1_000_000))
    return open_test_ledger(world.folder, world.database, replica="crashed", clock=lambda: now)


def test_erasing_asks_and_says_what_it_did(tmp_path: Path) -> None:
    world = make(tmp_path)
    refused = run(world, "erase", "--user", "alice", "--reason", "she asked")
    assert (refused.exit_code, "3 bodies of 48 bytes" in refused.stderr) == (1, True)
    assert len(bodies(world)) == 6
    assert told(world, "erase", "--user", "alice", "--reason", "she asked", "--yes") == {
        "bodies": 3,
        "bytes": 48,
        "unattributed": [],
    }
    assert bodies(world) == [b"bob 0 days ago", b"bob 3 days ago", b"bob 5 days ago"]
    assert len(AuditStore(world.database).list_calls(Filters(user="alice"))) == 3
    assert told(world, "erase", "--user", "alice", "--reason", "again", "--yes")["bodies"] == 0
    assert maintenance(world) == ["redact"] * 3 + ["close"]


def ask(world: World, answer: str) -> subprocess.CompletedProcess[bytes]:
    """Erase at a terminal, on which somebody answers."""
    terminal, its_side = pty.openpty()
    try:
        os.write(terminal, f"{answer}\n".encode())
        command = [sys.executable, "-m", "holdfast.cli", "audit", "erase", "--user", "alice", "--reason", "she asked"]
        settings = ["--config", str(world.folder / "holdfast.yaml")]
        return subprocess.run([*command, *settings], stdin=its_side, capture_output=True, check=False, timeout=60)
    finally:
        os.close(terminal)
        os.close(its_side)


@pytest.mark.parametrize(("answer", "code", "end"), [("n", 1, b"nothing was erased\n"), ("y", 0, b"")])
def test_at_a_terminal_somebody_is_asked(tmp_path: Path, answer: str, code: int, end: bytes) -> None:
    world = make(tmp_path)
    before = bodies(world)
    asked = ask(world, answer)
    assert (asked.returncode, b"Erase them?" in asked.stderr, asked.stderr.endswith(end)) == (code, True, True)
    assert (b"--yes" in asked.stderr, bodies(world) == before) == (False, answer == "n")


def test_the_record_says_who_asked_and_why(tmp_path: Path) -> None:
    world = make(tmp_path)
    run(world, "erase", "--user", "bob", "--reason", "ticket 7", "--requested-by", "carol", "--yes", "--since", "1d")
    store = LedgerStore(world.database)
    log = next(log for log in store.all_logs() if log.replica.endswith(".maintenance"))
    (redact,) = [found for leaf in store.leaves(log) if (found := decode(leaf).record.redact)]
    assert (redact.reason, redact.requested_by, redact.rule) == ("ticket 7", "carol", "")
    assert redact.log.log == "holdfast/test/other/3"
    assert log.closed_at
    assert log.origin.startswith("holdfast/testing/")


def test_bodies_that_nobody_can_attribute_are_told_of(tmp_path: Path) -> None:
    world = make(tmp_path, payloads=[RULE])
    ledger = open_crashed(world)
    at = timestamp(TODAY - timedelta(days=3))  # of a call that arrived on a day that was dropped
    ledger.write([Entry(Record(kind=Kind.CHUNK, at=at, call=new_id()), response(b"a line of a log"))])
    ledger.close("the day is over")
    told_of = [{"log": "holdfast/test/crashed/1", "bodies": 1}]
    for command in ("plan", "run"):
        assert told(world, "retention", command)["unattributed"] == told_of
        assert "1 bodies in holdfast/test/crashed/1 stay" in run(world, "retention", command).stderr
    erase = ("erase", "--user", "alice", "--reason", "she asked")
    asked = run(world, *erase)
    assert (asked.exit_code, asked.stderr.count("1 bodies in holdfast/test/crashed/1 stay")) == (1, 1)
    assert told(world, *erase, "--yes")["unattributed"] == told_of
    assert "1 bodies in holdfast/test/crashed/1 stay" in run(world, *erase, "--yes").stderr
    settings = world.folder / "holdfast.yaml"
    settings.write_text(settings.read_text().replace('"resources": ["pods"], "users": ["al*"]', '"verbs": ["*"]'))
    done = told(world, "retention", "run")
    assert ([found["bodies"] for found in done["payloads"]], done["unattributed"]) == ([3], [])


def test_a_user_whom_no_row_names_any_more_is_not_unknown(tmp_path: Path) -> None:
    world = make(tmp_path)
    with world.database.writing() as connection:
        connection.exec_driver_sql("UPDATE calls SET username = 'bob' WHERE username = 'alice'")
    result = run(world, "erase", "--user", "alice", "--reason", "x", "--yes")
    assert (result.exit_code, "run `holdfast audit verify`" in result.stderr) == (1, True)
    with world.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM calls")
    assert told(world, "erase", "--user", "alice", "--reason", "x", "--yes")["bodies"] == 3


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--user", "alice", "--since", "4d"], 4),
        (["--user", "alice", "--until", "4d"], 5),
        (["--user", "alice", "--issuer", "https://issuer"], 3),
        (["--user", "alice", "--issuer", "https://other"], 6),
    ],
)
def test_whose_bodies_are_erased_can_be_narrowed(tmp_path: Path, options: list[str], left: int) -> None:
    world = make(tmp_path)
    told(world, "erase", *options, "--reason", "x", "--yes")
    assert len(bodies(world)) == left


def test_one_call_can_be_erased(tmp_path: Path) -> None:
    world = make(tmp_path)
    call = AuditStore(world.database).list_calls()[0].audit_id
    assert told(world, "erase", "--call", call[:20], "--reason", "x", "--yes")["bodies"] == 1
    missing = run(world, "erase", "--call", "zzz", "--reason", "x", "--yes")
    assert (missing.exit_code, "no call in the record" in missing.stderr) == (1, True)
    assert len(bodies(world)) == 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--reason", "x"], "expected --user or --call"),
        (["--user", "alice", "--reason", " "], "--reason: expected why"),
        (["--user", "a" * 253, "--reason", "x"], "lists keep no more of a name"),
        (["--user", "alice", "--since", "soon", "--reason", "x"], "expected an age"),
    ],
)
def test_nobody_is_erased_by_accident(tmp_path: Path, options: list[str], sentence: str) -> None:
    world = make(tmp_path)
    result = run(world, "erase", *options, "--yes")
    assert (result.exit_code, sentence in result.stderr) == (2, True)
    assert len(bodies(world)) == 6


def test_one_command_erases_at_a_time(tmp_path: Path) -> None:
    world = make(tmp_path, maxAgeDays=2)
    with RetentionStore(world.database).alone(world.settings.state_dir / "audit.maintenance.lock"):
        for command in (["retention", "run"], ["erase", "--user", "alice", "--reason", "x", "--yes"]):
            result = run(world, *command)
            assert (result.exit_code, "another command that writes" in result.stderr) == (1, True)
        assert len(told(world, "retention", "plan")["days"]) == 2
    assert len(bodies(world)) == 6


def test_the_maintenance_log_is_anchored(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"audit": {"anchors": {"file": "anchors/file.notes"}}})
    (tmp_path / "anchors").mkdir()
    share_root(world)
    world.ledger.write([entry(b"{}")])
    assert told(world, "erase", "--user", "alice", "--reason", "x", "--yes")["bodies"] == 1
    log = next(log for log in LedgerStore(world.database).all_logs() if log.replica.endswith(".maintenance"))
    anchored = {(found.checkpoint.origin, found.checkpoint.size) for found in read_evidence(tmp_path / "anchors")}
    assert (log.origin, log.size) in anchored


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ({}, True),
        ({"resources": ["pods"]}, False),
        ({"resources": ["pods/*"]}, True),
        ({"resources": ["pods/log"]}, True),
        ({"resources": ["*/log"]}, True),
        ({"resources": ["secrets", "pods/ex*"]}, False),
        ({"verbs": ["get", "list"]}, True),
        ({"verbs": ["list"]}, False),
        ({"namespaces": ["sh*"]}, True),
        ({"namespaces": ["sh[op]"]}, False),
        ({"users": ["ali?e"], "verdicts": ["allowed"]}, True),
        ({"users": ["ali?e"], "verdicts": ["denied"]}, False),
    ],
)
def test_globs_are_those_of_policies(rule: dict[str, list[str]], matches: bool) -> None:
    what = record()
    assert what.what is not None
    row = call_row(record(what=type(what.what)(**{**_parts(what.what), "subresource": "log"})))
    assert row is not None
    settings = PayloadRetention.model_validate({"name": "r", "olderThanDays": 1, **rule})
    assert compile_test(settings)(row) is matches


def _parts(part: Any) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__struct_fields__}
