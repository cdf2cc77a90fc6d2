"""`holdfast audit` over a small record written through a ledger."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader
from ruamel.yaml import YAML
from typer.testing import CliRunner

from console.world import World, make_world
from holdfast.audit.export import EndLine, Header
from holdfast.audit.record import Entry
from holdfast.cli import app
from holdfast.cli.audit.export import tell_steps
from holdfast.cli.options import parse_since
from holdfast.errors import ConfigurationError
from replay.stories import allowed_call, audit_id, held_call, refused_call, streamed_call

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result

    from holdfast.audit.export import Line
    from holdfast.cli.output import Advance

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
runner = CliRunner()


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path)
    for entries in (allowed_call(1), held_call(2), refused_call(3), streamed_call(4)):
        world.ledger.write(entries)
    return world


def run(world: World, *arguments: str) -> Result:
    return runner.invoke(app, ["audit", *arguments, "--config", str(world.folder / "holdfast.yaml")])


def test_the_newest_call_comes_first_with_its_verdict(world: World) -> None:
    lines = run(world, "list").stdout.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["agent", "(nobody)", "agent", "agent"]
    assert "namespaces/shop" in lines[3]
    assert "approved" in lines[3]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--user", "agent"], [4, 2, 1]),
        (["--verb", "delete"], [2]),
        (["--resource", "pods/log"], [4]),
        (["--namespace", "web"], [4, 1]),
        (["--verdict", "refused"], [3]),
        (["--limit", "1"], [4]),
        (["--since", "2026-01-31T12:00:03Z"], [4, 3]),
        (["--since", "1s"], []),
    ],
)
def test_filters_choose_calls(world: World, filters: list[str], expected: list[int]) -> None:
    rows = json.loads(run(world, "list", "-o", "json", *filters).stdout)["calls"]
    assert [int(row["auditID"][0]) for row in rows] == expected


def test_json_and_yaml_say_the_same(world: World) -> None:
    as_json = json.loads(run(world, "show", "2", "-o", "json").stdout)
    as_yaml = YAML(typ="safe").load(run(world, "show", "2", "-o", "yaml").stdout)
    assert as_json == as_yaml
    assert as_json["call"]["holdID"] == "h-aaaaaaaaaa"
    assert [record["kind"] for record in as_json["records"]] == ["hold", "decision", "intent", "outcome"]
    assert as_json["request"]["content"] == {"propagationPolicy": "Background"}


def test_a_call_is_told_whole(world: World) -> None:
    told = run(world, "show", "2").stdout
    for part in (
        "User       agent",
        "Policy     hold by rule delete-namespace",
        "Hold       h-aaaaaaaaaa",
        "approved by bob at 2026-01-31T12:00:02",
        "asked in the channel",
        '"propagationPolicy": "Background"',
        '"status": "Success"',
    ):
        assert part in told


def test_what_a_caller_sent_cannot_command_the_terminal(world: World) -> None:
    world.ledger.write(allowed_call(5, user_agent="kubectl\x1b[2J\u202e[red]", answer=b"\x1b]0;title\x07 log"))
    for output in ("table", "json", "yaml"):
        told = run(world, "show", "5", "-o", output).stdout
        assert not set("\x1b\x07\u202e") & set(told)
        assert "[red]" in told


def test_an_unknown_or_ambiguous_id_is_refused_with_1(world: World) -> None:
    assert run(world, "show", "9").exit_code == 1
    ambiguous = run(world, "show", "")
    assert (ambiguous.exit_code, ambiguous.stderr.count("\n")) == (1, 1)


def test_a_call_is_named_by_its_hold(world: World) -> None:
    by_hold, by_call = (json.loads(run(world, "show", name, "-o", "json").stdout) for name in ("h-aaaa", audit_id(2)))
    assert by_hold == by_call
    proofs = [run(world, "prove", name).stdout for name in ("h-aaaaaaaaaa", audit_id(2))]
    assert (proofs[0] == proofs[1], proofs[0] != "") == (True, True)


def rename_hold(entry: Entry, name: str) -> Entry:
    assert entry.record.hold is not None
    hold = msgspec.structs.replace(entry.record.hold, id=name)
    return Entry(msgspec.structs.replace(entry.record, hold=hold), entry.bodies)


@pytest.mark.parametrize("command", ["show", "prove"])
def test_a_hold_that_names_no_call_or_several_is_refused_with_1(world: World, command: str) -> None:
    unknown = run(world, command, "h-b")
    told = "holdfast: no call in the record waited in a hold with an ID that starts with 'h-b'\n"
    assert (unknown.exit_code, unknown.stdout, unknown.stderr) == (1, "", told)
    world.ledger.write([rename_hold(entry, "h-aaaabbbbbb") for entry in held_call(5)])
    ambiguous = run(world, command, "h-aaaa")
    assert (ambiguous.exit_code, ambiguous.stdout, ambiguous.stderr) == (
        1,
        "",
        "holdfast: several calls waited in a hold with an ID that starts with 'h-aaaa'; give more of it, or find "
        "them with `holdfast audit list --hold ID`\n",
    )
    assert run(world, command, "h-aaaab").exit_code == 0


def test_a_missing_database_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    result = run(make_world(tmp_path), "list")
    assert result.exit_code == 2
    assert result.stderr.endswith("there is no such database; `holdfast serve` makes it.\n")


def test_a_flow_file_is_read_back_by_mitmproxy(world: World) -> None:
    file = world.folder / "all.flows"
    result = run(world, "export", "--flows", str(file))
    assert result.stderr == f"written: 4 calls to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open("rb") as stream:
        flows = [flow for flow in FlowReader(stream).stream() if isinstance(flow, HTTPFlow)]
    listed, deleted, refused, followed = flows
    assert listed.request.pretty_url == "https://testing/api/v1/namespaces/web/pods?limit=500"
    assert listed.request.headers["user-agent"] == "kubectl/v1.33"
    assert listed.response is not None
    assert listed.response.json() == {"kind": "PodList"}
    assert listed.response.headers["audit-id"] == listed.id
    assert listed.client_conn.peername == ("10.0.0.7", 0)
    assert deleted.comment == (
        "agent delete namespaces/shop: held h-aaaaaaaaaa, approved by bob (asked in the channel), 200"
    )
    assert deleted.request.json() == {"propagationPolicy": "Background"}
    assert [flow.marked for flow in flows] == ["", "", ":no_entry:", ""]
    assert refused.response is not None
    assert refused.response.json()["message"] == "no token"
    assert followed.response is not None
    assert followed.response.text == "line one\nline two\n"


def test_the_export_of_a_record_tells_on_a_terminal_alone_how_far_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = world.folder / "record.export"
    assert run(world, "export", "--ledger", str(file)).stderr == f"written: {file}\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    told = run(world, "export", "--ledger", str(file)).stderr
    assert -1 < told.find("checking tables") < told.find("rows") < told.find("written: ")


def test_that_tables_are_checked_is_told_before_the_first_line_is_waited_for() -> None:
    told: list[str | tuple[str, int]] = []

    def lines() -> Iterator[Line]:
        told.append("reading")
        yield Header("", "", "", {}, payloads=True)
        for _ in range(150):
            yield EndLine({})

    def step(name: str, total: int | None) -> Advance:
        told.append(f"{name} of {total}")
        return lambda more: told.append((name, more))

    assert len(list(tell_steps(lines(), step))) == 151
    assert told == ["checking tables of 1", "reading", ("checking tables", 1), "rows of None", ("rows", 100)]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("export --ledger /nodir/x", 2, "/nodir/x: cannot be written: No such file or directory."),
        ("export --flows /nodir/x", 2, "/nodir/x: cannot be written: No such file or directory."),
        ("export --flows a --ledger b", 2, "expected --flows FILE or --ledger FILE, not both."),
        ("export", 2, "expected --flows FILE or --ledger FILE."),
        (
            "verify --tolerate-tail 2x",
            2,
            "--tolerate-tail: found '2x'; expected a length of time as 90s, 10m, 2h or 7d.",
        ),
        ("verify --stale-after 2x", 2, "--stale-after: found '2x'; expected a length of time as 90s, 10m, 2h or 7d."),
        (
            "prove holdfast/test/other/1",
            2,
            "holdfast/test/other/1: is a log; say which record of it: holdfast audit prove holdfast/test/other/1 SEQ.",
        ),
        ("reconcile {good} {bad}", 2, "{bad}: line 2 is no audit.k8s.io/v1 Event in JSON ("),
        ("reconcile {good} {cut}", 2, "{cut}: is no gzip file, or was cut: "),
        ("reconcile {good} {text}", 2, "{text}: is no gzip file, or was cut: "),
    ],
)
def test_what_is_wrong_is_named(world: World, command: str, code: int, said: str) -> None:
    files = {name: world.folder / f"audit-{name}.log" for name in ("good", "bad")}
    files |= {name: world.folder / f"audit-{name}.log.gz" for name in ("cut", "text")}
    files["good"].write_text("\n")
    files["bad"].write_text("\nno event\n")
    files["cut"].write_bytes(gzip.compress(b"\n" * 100)[:-12])
    files["text"].write_text("\n")
    root = str(world.folder / "audit-keys-other" / "root.pub")
    more = ("--root", root) if command.startswith("verify") else ()
    result = run(world, *command.format(**files).split(), *more)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"holdfast: {said.format(**files)}")
    assert result.stderr.count("\n") == 1


def test_an_export_that_fails_leaves_no_file(world: World) -> None:
    result = run(world, "export", "--flows", str(world.folder / "missing" / "x.flows"))
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("10m", NOW - timedelta(minutes=10)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-01-31T12:00:00Z", NOW),
        ("2026-01-31T13:00:00+01:00", NOW),
    ],
)
def test_since_is_an_age_or_a_time(text: str, moment: datetime) -> None:
    assert parse_since(text, NOW) == moment


@pytest.mark.parametrize(
    "text", ["", "10", "m", "-5m", "1.5h", "10m ", "tomorrow", "2026-01-31T12:00:00", "2026-01-31"]
)
def test_since_is_nothing_else(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_since(text, NOW)
