"""`holdfast audit list`: asked in many ways, a page at a time, in every format, and followed."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mitmproxy.io import FlowReader
from ruamel.yaml import YAML
from typer.testing import CliRunner

from audit.entries import record as call_record
from audit.readers import make_reader
from console.world import World, make_world
from holdfast.audit.record import Call, Caller, CallRow, Client, Entry, Held, Kind, Refusal, verdict
from holdfast.audit.store import AuditStore
from holdfast.cli import app
from holdfast.cli.audit.calls import CSV_COLUMNS
from holdfast.cli.audit.filters import Verdict
from holdfast.cli.audit.reader_role import reader_role
from holdfast.cli.options import parse_since
from holdfast.replay.story import export_row
from holdfast.settings.audit import Audit
from replay.stories import allowed_call, audit_id, held_call, record, refused_call, streamed_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

    from holdfast.audit.store import Filters
    from services.postgres import PostgresServer

README = Path(__file__).parent.parent.parent / "README.md"
NOW = datetime(2026, 3, 29, 12, tzinfo=UTC)
API_SERVER_EVENT = {
    "kind": "Event",
    "apiVersion": "audit.k8s.io/v1",
    "auditID": audit_id(1),
    "stage": "ResponseComplete",
    "requestURI": "/api/v1/namespaces/web/pods?limit=500",
    "verb": "list",
    "user": {"username": "system:serviceaccount:holdfast:gateway"},
    "responseStatus": {"code": 200},
    "requestReceivedTimestamp": "2026-01-31T12:00:01.000000Z",
    "stageTimestamp": "2026-01-31T12:00:01.000000Z",
}
runner = CliRunner()


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path)
    for entries in (allowed_call(1), held_call(2), refused_call(3), streamed_call(4)):
        world.ledger.write(entries)
    scaled = Call(
        method="PATCH",
        uri="/x",
        verb="patch",
        api_group="apps",
        api_version="v1",
        resource="deployments",
        subresource="scale",
        namespace="web",
        name="till",
        is_resource=True,
    )
    robot = Caller(
        issuer="https://issuer.test", username="robot", groups=(), claims={"run_id": "77", "groups": ["ci", "night"]}
    )
    denied = Refusal(code=403, reason="Forbidden", message="no")
    world.ledger.write([Entry(record(5, Kind.OUTCOME, what=scaled, identity=robot, refusal=denied))])
    return world


def run(world: World, *arguments: str) -> Result:
    return runner.invoke(app, ["audit", *arguments, "--config", str(world.folder / "holdfast.yaml")])


def listed(world: World, *arguments: str) -> list[int]:
    result = run(world, "list", "-o", "json", *arguments)
    assert result.exit_code == 0, result.stderr
    return [int(call["auditID"][0]) for call in json.loads(result.stdout)["calls"]]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], [5, 4, 3, 2, 1]),
        (["--resource", "pods/*"], [4]),
        (["--resource", "*/scale"], [5]),
        (["--resource", "pods", "--namespace", "web"], [1]),
        (["--api-group", ""], [4, 2, 1]),
        (["--api-group", "apps", "--verb", "patch"], [5]),
        (["--name", "a", "-n", "web"], [4]),
        (["--rule", "read-pods"], [4, 1]),
        (["--hold", "h-aaaaaaaaaa"], [2]),
        (["--claim", "run_id=77"], [5]),
        (["--claim", "groups=ci", "--claim", "groups=night"], [5]),
        (["--claim", "groups=ci", "--claim", "groups=day"], []),
        (["--claim", "run_id="], []),
        (["--since", "2026-01-31T12:00:02Z", "--until", "2026-01-31T12:00:04Z"], [3, 2]),
        (["--verdict", "denied", "--until", "1s"], [5]),
    ],
)
def test_filters_choose_calls_together(world: World, filters: list[str], expected: list[int]) -> None:
    assert listed(world, *filters) == expected


def test_an_export_of_flows_is_chosen_alike(world: World) -> None:
    file = world.folder / "some.flows"
    chosen = run(world, "export", "--flows", str(file), "--resource", "pods/*", "--name", "a", "--until", "1s")
    assert chosen.stderr == f"written: 1 calls to {file}\n"
    with file.open("rb") as stream:
        assert [flow.id for flow in FlowReader(stream).stream()] == [audit_id(4)]
    refused = run(world, "export", "--ledger", str(file), "--claim", "run_id=77")
    assert (refused.exit_code, "filters belong to --flows" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--verdict", "forbidden"], "allowed"),
        (["--claim", "run_id"], "expected NAME=VALUE"),
        (["--claim", "=77"], "expected NAME=VALUE"),
        (["--claim", f"run_id={'7' * 257}"], "at most 256 characters"),
        (["--until", "tomorrow"], "--until: found 'tomorrow'; expected an age"),
        (["--page", "5"], "--page: found '5'; expected the token"),
        (["--page", "2026-01-31T12:00:00.000000Z/"], "expected the token"),
        (["--page", "2026-01-31T12:00:00Z/x"], "expected the token"),
        (["--limit", "0"], "--limit"),
        (["--follow", "--page", "2026-01-31T12:00:00.000000Z/x"], "--follow has no end"),
        (["--follow", "--until", "1s"], "--follow has no end"),
        (["-o", "xml"], "csv"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_2(world: World, arguments: list[str], said: str) -> None:
    result = run(world, "list", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_every_verdict_of_a_record_can_be_asked_for() -> None:
    refusals = [
        None,
        Refusal(code=403, reason="Forbidden", message="no"),
        Refusal(code=401, reason="Unauthorized", message="no"),
    ]
    states = ["", "pending", "approved", "denied", "expired", "cancelled", "released"]
    holds = [Held(id="h", state=state) if state else None for state in states]
    told = {verdict(call_record(hold=hold, refusal=refusal)) for hold in holds for refusal in refusals}
    assert told == {word.value for word in Verdict}


# -- pages -------------------------------------------------------------------------------------------------------


def test_pages_follow_each_other_while_calls_arrive(world: World) -> None:
    first = json.loads(run(world, "list", "-o", "json", "--limit", "2").stdout)
    assert [call["auditID"][0] for call in first["calls"]] == ["5", "4"]
    world.ledger.write(allowed_call(6))
    second = json.loads(run(world, "list", "-o", "json", "--limit", "2", "--page", first["next"]).stdout)
    assert [call["auditID"][0] for call in second["calls"]] == ["3", "2"]
    last = YAML(typ="safe").load(run(world, "list", "-o", "yaml", "--limit", "2", "--page", second["next"]).stdout)
    assert [call["auditID"][0] for call in last["calls"]] == ["1"]
    assert last["next"] == ""


@pytest.mark.parametrize("output", ["table", "csv"])
def test_people_hear_that_there_are_more(world: World, output: str) -> None:
    some = run(world, "list", "-o", output, "--limit", "4")
    token = some.stderr.removeprefix("there are more: --page ").rstrip()
    assert run(world, "list", "-o", output, "--page", token).stdout.count("\n") == 2
    assert run(world, "list", "-o", output, "--limit", "5").stderr == ""


# -- csv ---------------------------------------------------------------------------------------------------------


def test_csv_has_every_column_and_one_line_a_call(world: World) -> None:
    named = Call(method="GET", uri='/x,"y"', verb="get", resource="pods", name='a,"b"\nc', is_resource=True)
    world.ledger.write([Entry(record(6, Kind.OUTCOME, what=named))])
    told = run(world, "list", "-o", "csv").stdout
    rows = list(csv.DictReader(StringIO(told)))
    assert told.count("\n") == len(rows) + 1 == 7
    assert tuple(rows[0]) == CSV_COLUMNS
    assert set(CSV_COLUMNS) == set(export_row(CallRow(*[""] * len(CallRow.__struct_fields__))))
    assert (rows[0]["name"], rows[0]["uri"], rows[0]["code"]) == ('a,"b"\\nc', '/x,"y"', "")
    assert (rows[1]["verdict"], rows[1]["code"], rows[1]["complete"]) == ("denied", "403", "true")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(world: World, start: str) -> None:
    agent = f'{start}HYPERLINK("http://evil","x")\x1b[2J'
    world.ledger.write([Entry(record(6, Kind.OUTCOME, client=Client(peer="10.0.0.7", user_agent=agent)))])
    told = run(world, "list", "-o", "csv", "--limit", "1").stdout
    (row,) = csv.DictReader(StringIO(told))
    assert row["userAgent"].startswith("'")
    assert 'HYPERLINK("http://evil","x")' in row["userAgent"]
    assert not set("\x1b\t\r") & set(told)


# -- days --------------------------------------------------------------------------------------------------------


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone where the clocks went forward in the night before NOW."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("word", "now", "moment"),
    [
        ("today", NOW, "2026-03-29T00:00:00+01:00"),
        ("yesterday", NOW, "2026-03-28T00:00:00+01:00"),
        ("today", NOW + timedelta(hours=10), "2026-03-30T00:00:00+02:00"),
        ("yesterday", NOW + timedelta(hours=10), "2026-03-29T00:00:00+01:00"),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_a_day_begins_at_midnight_here(word: str, now: datetime, moment: str) -> None:
    assert parse_since(word, now) == datetime.fromisoformat(moment)
    assert parse_since(word, now).isoformat() == moment


@pytest.mark.usefixtures("berlin")
def test_which_midnight_is_said(world: World) -> None:
    result = run(world, "list", "--since", "yesterday", "--until", "today")
    since, until, found = result.stderr.splitlines()
    assert found == "no call matches"
    assert since.startswith("--since yesterday: 20")
    assert until.startswith("--until today: 20")
    assert until.endswith(("T00:00:00+01:00 (CET)", "T00:00:00+02:00 (CEST)"))


# -- following ---------------------------------------------------------------------------------------------------


@pytest.fixture
def follow(world: World) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `audit list --follow`, which is ready when its first line is read."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "holdfast.cli", "audit", "list", "--follow", *arguments]
        environment = os.environ | {"HOLDFAST_CONFIG": str(world.folder / "holdfast.yaml")}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))  # type: ignore[call-overload]  # the pipes
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_following_prints_one_object_a_line_until_it_is_interrupted(
    world: World, follow: Callable[..., subprocess.Popen[str]]
) -> None:
    following = follow("-o", "json", "--since", "2026-01-31T12:00:04Z")
    assert [json.loads(line(following))["auditID"] for _ in range(2)] == [audit_id(4), audit_id(5)]
    told = held_call(6)
    world.ledger.write(told[:-1])
    world.ledger.write(allowed_call(7))
    assert json.loads(line(following))["auditID"] == audit_id(7)
    world.ledger.write(told[-1:])
    last = json.loads(line(following))
    assert (last["auditID"], last["complete"]) == (audit_id(6), True)
    following.send_signal(signal.SIGINT)
    assert following.communicate() == ("", "")
    assert following.returncode == 130


@pytest.mark.parametrize(
    ("output", "head", "lines"),
    [
        ("table", "TIME                  USER                  VERB", ["2026-01-31T12:00:06Z  agent"]),
        ("csv", "receivedAt,username,issuer", ["2026-01-31T12:00:06.000000Z,agent,"]),
    ],
)
def test_following_has_its_columns_first(
    world: World, follow: Callable[..., subprocess.Popen[str]], output: str, head: str, lines: list[str]
) -> None:
    following = follow("-o", output, "--user", "agent", "--resource", "pods")
    assert line(following).startswith(head)
    world.ledger.write(refused_call(5))
    world.ledger.write(allowed_call(6))
    assert line(following).startswith(lines[0])


def test_following_yaml_is_a_document_a_call(world: World, follow: Callable[..., subprocess.Popen[str]]) -> None:
    following = follow("-o", "yaml", "--since", "2026-01-31T12:00:05Z")
    assert [line(following), line(following)] == ["---\n", f"auditID: {audit_id(5)}\n"]


def test_a_call_that_ends_between_the_earlier_ones_and_the_new_ones_is_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_later(store: AuditStore, filters: Filters) -> Iterator[CallRow]:
        world.ledger.write(allowed_call(6))
        yield from list_rows(store, filters)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    list_rows = AuditStore.iter_rows
    monkeypatch.setattr(AuditStore, "iter_rows", list_later)
    monkeypatch.setattr("holdfast.cli.audit.calls.time.sleep", interrupt)
    result = run(world, "list", "-f", "-o", "json", "--since", "2026-01-31T12:00:05Z")
    assert [json.loads(line)["auditID"] for line in result.stdout.splitlines()] == [audit_id(5), audit_id(6)]
    assert (result.exit_code, result.stderr) == (130, "")


# -- where from --------------------------------------------------------------------------------------------------


def test_calls_are_read_where_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    world = make_world(tmp_path / "copy")
    world.ledger.write(allowed_call(1))
    (tmp_path / "gateway").mkdir()
    gateway = make_world(tmp_path / "gateway", {"audit": {"readDatabase": world.settings.database_url}})
    gateway.ledger.write(allowed_call(2))
    assert listed(gateway) == [1]
    assert run(gateway, "show", "1").exit_code == 0
    assert run(gateway, "show", "2").exit_code == 1


def test_a_replica_is_read_when_the_primary_is_gone(
    make_postgres: Callable[..., PostgresServer], tmp_path: Path
) -> None:
    primary = make_postgres()
    url = primary.create_database()
    replica = primary.start_replica()
    at_replica = replica.url(url.rpartition("/")[2])
    world = make_world(tmp_path, {"audit": {"database": url, "readDatabase": at_replica}})
    world.ledger.write([*allowed_call(1), *held_call(2)])
    world.database.close()
    replica.catch_up(primary)
    primary.stop("immediate")
    assert listed(world, "--resource", "pods") == [1]
    read_in_every_way(world)


def test_a_role_that_only_reads_is_enough_for_every_command_that_reads(
    postgres: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    writing = make_world(tmp_path, {"audit": {"database": postgres_url}})
    writing.ledger.write([*allowed_call(1), *held_call(2)])
    writing.database.close()
    nowhere = postgres_url.rpartition("/")[0] + "/nowhere"
    audit = {"database": nowhere, "readDatabase": make_reader(postgres, postgres_url)}
    read_in_every_way(make_world(tmp_path, {"audit": audit}))


def read_in_every_way(world: World) -> None:
    """Have every command that reads do so: the first call is allowed, the second one held."""
    root, event = world.folder / "audit-keys-other" / "root.pub", world.folder / "events.log"
    proof, exported = world.folder / "call.proof", world.folder / "record.export"
    event.write_text(json.dumps(API_SERVER_EVENT))
    assert listed(world) == [2, 1]
    assert "approved by bob" in run(world, "show", "2").stdout
    for arguments in (
        ["export", "--flows", str(world.folder / "all.flows")],
        ["export", "--ledger", str(exported)],
        ["prove", "2", "--file", str(proof)],
        ["reconcile", str(event)],
    ):
        told = run(world, *arguments)
        assert told.exit_code == 0, told.stderr
    assert "1 are in the record" in told.stderr
    for source in ([], [str(exported)]):
        assert "UNANCHORED: 6 records" in run(world, "verify", *source, "--root", str(root)).stdout
    assert runner.invoke(app, ["audit", "verify-proof", str(proof), "--root", str(root)]).exit_code == 0


READING = ("list", "show", "export", "verify", "prove", "reconcile")
PLACES = {
    "setting": str(Audit.model_fields["read_database"].description),
    "README": next(line for line in README.read_text().splitlines() if line.startswith("Who only reads")),
    "README's table": next(line for line in README.read_text().splitlines() if line.startswith("| `audit.readD")),
    "help": str(reader_role.__doc__),
    "script": files("holdfast.migrations").joinpath("reader_role.sql").read_text(),
}


@pytest.mark.parametrize("text", PLACES.values(), ids=PLACES)
def test_the_commands_that_read_are_named_wherever_it_says_who_may(text: str) -> None:
    assert [command for command in READING if not re.search(rf"\b{command}\b", text)] == []


def test_the_readers_role_is_printed() -> None:
    told = runner.invoke(app, ["audit", "reader-role"]).stdout
    assert "CREATE ROLE holdfast_reader NOLOGIN;" in told
    assert told.endswith("COMMIT;\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--resource", "pod"], "no call matches; did you mean --resource pods?"),
        (["--resource", "po/exec"], "no call matches; did you mean --resource pods/exec?"),
        (["--resource", "Namespace"], "no call matches; did you mean --resource namespaces?"),
        (["--resource", "deplyoments/scale"], "no call matches; did you mean --resource deployments/scale?"),
        (["--resource", "pods", "--user", "nobody"], "no call matches"),
        (["--resource", "name"], "no call matches; did you mean --resource namespaces?"),
        (["--resource", "zebras"], "no call matches"),
        (["--resource", "*/status"], "no call matches"),
        (["--user", "nobody"], "no call matches"),
    ],
)
def test_nothing_found_is_told_and_what_may_be_meant(world: World, options: list[str], told: str) -> None:
    listed = run(world, "list", *options)
    assert (listed.exit_code, listed.stderr) == (0, f"{told}\n")
    as_json = run(world, "list", *options, "-o", "json")
    assert (json.loads(as_json.stdout)["calls"], as_json.stderr) == ([], f"{told}\n")


def test_what_is_found_is_not_commented_on(world: World) -> None:
    assert run(world, "list", "--resource", "pods").stderr == ""
