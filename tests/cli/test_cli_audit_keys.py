"""`holdfast audit keys` and `accept`: who may sign, and going on after a restore."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from audit.entries import entry
from cli.losing import lose_the_end, write_and_lose
from console.world import World, make_world
from holdfast.audit.keys import CONSOLE, KeyFolder
from holdfast.audit.opening import open_ledger
from holdfast.audit.record import decode
from holdfast.audit.store import LedgerStore
from holdfast.cli import app
from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from click.testing import Result


runner = CliRunner()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def run(world: World, *arguments: str) -> Result:
    return runner.invoke(app, ["audit", *arguments, "--config", str(world.folder / "holdfast.yaml")])


def folder(world: World) -> KeyFolder:
    return KeyFolder(world.settings.key_folder)


def test_init_makes_a_root_and_a_key_that_it_certifies(world: World) -> None:
    result = run(world, "keys", "init")
    assert result.exit_code == 0
    assert "Move the private one off this machine" in result.stdout
    keys = folder(world)
    key = keys.load_epoch_key()
    assert key.certificate.cluster == "testing"
    assert key.certificate.is_valid_at(datetime.now(UTC))
    assert str(keys.root_verifier()) in result.stdout
    for file in (keys.root_key, keys.root_pub, keys.epoch_key):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    again = run(world, "keys", "init")
    assert (again.exit_code, again.stderr) == (
        2,
        f"holdfast: {folder(world).folder}: there is a root key already; `holdfast audit keys rotate` goes on with it. "
        "To keep it elsewhere, move root.key there, and rotate with --root FILE.\n",
    )


def test_the_private_root_key_may_be_made_somewhere_else(world: World, tmp_path: Path) -> None:
    away = tmp_path / "usb" / "root.key"
    missing = run(world, "keys", "init", "--root", str(away))
    assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)
    away.parent.mkdir()
    assert run(world, "keys", "init", "--root", str(away)).exit_code == 0
    assert not folder(world).root_key.exists()
    assert json.loads(run(world, "keys", "show", "-o", "json").stdout)["rootKeyIsHere"] is False
    without = run(world, "keys", "rotate")
    told = f"holdfast: {folder(world).root_key}: the root's private key is not here; give --root FILE.\n"
    assert (without.exit_code, without.stderr) == (2, told)
    assert run(world, "keys", "rotate", "--root", str(away)).exit_code == 0


MAKES = "holdfast: {}: there is no such database; `holdfast serve` makes it.\n"
MAKES_KEY = (
    "holdfast: {keys}/root.pub: there is no such key; `holdfast serve` makes it, or `holdfast audit keys init --root "
    "FILE`, which keeps the private one elsewhere.\n"
)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("keys show", MAKES_KEY),
        ("keys rotate", MAKES_KEY),
        ("keys rotate --root root.key", MAKES_KEY),
        ("keys init --root /nodir/root.key", "holdfast: /nodir/root.key: its folder is not there; "),
        ("verify", MAKES_KEY),
        ("migrate-store --to sqlite:///{folder}/copy/audit.db", MAKES_KEY),
        ("retention run", MAKES_KEY),
        ("accept --reason restored --yes", MAKES.format("{state}/audit.db")),
        ("list", MAKES.format("{state}/audit.db")),
    ],
)
def test_before_the_first_start_a_command_says_so_and_makes_nothing(world: World, command: str, said: str) -> None:
    places = {"keys": world.settings.key_folder, "state": world.settings.state_dir, "folder": world.folder}
    before = sorted(world.folder.rglob("*"))
    result = run(world, *command.format(**places).split())
    assert (result.exit_code, result.stdout, sorted(world.folder.rglob("*"))) == (2, "", before)
    assert result.stderr.startswith(said.format(**places))


def test_another_root_cannot_certify(world: World, tmp_path: Path) -> None:
    run(world, "keys", "init")
    other = tmp_path / "other"
    other.mkdir()
    run(make_world(other), "keys", "init")
    result = run(world, "keys", "rotate", "--root", str(other / "state" / "audit-keys" / "root.key"))
    assert (result.exit_code, "is not the private half" in result.stderr) == (2, True)


def test_rotation_takes_effect_in_a_ledger_that_is_open(world: World) -> None:
    ledger = open_ledger(world.settings, world.database)
    ledger.write([entry()])
    first = ledger.row
    assert run(world, "keys", "rotate").exit_code == 0
    ledger.write([entry()])
    assert ledger.row.epoch == first.epoch + 1
    assert ledger.row.certificate == folder(world).load_epoch_key().certificate_note
    store = LedgerStore(world.database)
    ended = [decode(leaf).record for leaf in store.leaves(first)]
    assert [str(told.kind) for told in ended[-2:]] == ["rotate", "close"]
    ledger.close()


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_show_tells_no_private_key(world: World, output: str) -> None:
    run(world, "keys", "init")
    told = run(world, "keys", "show", "-o", output).stdout
    keys = folder(world)
    assert str(keys.root_verifier()) in told
    for secret in (keys.load_root().secret_text(), keys.load_epoch_key().signer.secret_text()):
        assert secret.split("+", 4)[4] not in told
    assert "PRIVATE" not in told


def test_accept_lets_a_database_that_was_put_back_be_gone_on_with(world: World) -> None:
    ledger = open_ledger(world.settings, world.database)
    ledger.write([entry()])
    written = ledger.row
    busy = run(world, "accept", "--reason", "restored", "--yes")
    assert (busy.exit_code, "another Holdfast process" in busy.stderr) == (2, True)
    assert busy.stderr.endswith("; stop the gateway (`holdfast serve`) and its approvals API first.\n")
    ledger.close()
    lose_the_end(world, written)
    with pytest.raises(ConfigurationError, match="not as this gateway left it"):
        open_ledger(world.settings, world.database)
    assert run(world, "accept", "--reason", "restored").exit_code == 1
    result = run(world, "accept", "--reason", "restored", "--yes")
    assert result.exit_code == 0
    told = f"the gateway wrote {written.size} records of {written.origin}, the database has {written.size - 1}\n"
    assert result.stderr.startswith(told)
    again = open_ledger(world.settings, world.database)
    assert again.row.epoch == written.epoch + 1
    again.close()


@pytest.mark.parametrize("reason", ["", " \n", "zur\udcfcck", "\ud800"])
def test_a_reason_that_no_record_can_tell_changes_nothing(world: World, reason: str) -> None:
    ledger = open_ledger(world.settings, world.database)
    ledger.write([entry()])
    ledger.close()
    lose_the_end(world, ledger.row)
    result = run(world, "accept", "--reason", reason, "--yes")
    assert (result.exit_code, result.stderr.startswith("holdfast: --reason: expected ")) == (2, True)
    assert not list(world.settings.state_dir.glob("*.gap"))


def test_the_record_tells_the_reason_for_a_gap_once(world: World) -> None:
    write_and_lose(world)
    assert run(world, "accept", "--reason", "restored", "--yes").exit_code == 0
    for _ in range(2):
        open_ledger(world.settings, world.database).close()
    store = LedgerStore(world.database)
    told = [decode(leaf).record.start for log in store.all_logs() for leaf in store.leaves(log)]
    gaps = [start.gap for start in told if start is not None]
    assert [gap.partition(" (before: ")[0] for gap in gaps] == ["", "restored", ""]


def test_there_is_nothing_to_accept_of_a_database_that_has_everything(world: World) -> None:
    open_ledger(world.settings, world.database).close()
    open_ledger(world.settings, world.database, CONSOLE).close()
    refused = run(world, "accept", "--reason", "restored", "--yes")
    told = "holdfast: the database has all that the gateway wrote; there is nothing to accept\n"
    assert (refused.exit_code, refused.stderr) == (1, told)
    assert list(world.settings.state_dir.glob("*.gap")) == []
    write_and_lose(world, CONSOLE)
    assert run(world, "accept", "--reason", "restored", "--yes").exit_code == 0
    assert [file.name for file in world.settings.state_dir.glob("*.gap")] == ["audit.console.head.gap"]


def test_what_was_accepted_can_be_taken_back_until_the_next_start(world: World) -> None:
    write_and_lose(world)
    told = run(world, "accept", "--reason", "restored", "--yes").stderr.splitlines()[-1]
    before, _, file = told.partition("rm ")
    assert before == "to take it back before then: "
    Path(file).unlink()
    with pytest.raises(ConfigurationError, match="not as this gateway left it"):
        open_ledger(world.settings, world.database)


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_reason_that_goes_on_record_says_something(world: World, reason: str) -> None:
    write_and_lose(world)
    for command in (("accept",), ("erase", "--user", "agent")):
        refused = run(world, *command, "--reason", reason, "--yes")
        assert (refused.exit_code, refused.stderr) == (
            2,
            "holdfast: --reason: expected why; it goes into the record.\n",
        )


def test_a_damaged_head_file_can_be_accepted(world: World) -> None:
    open_ledger(world.settings, world.database).close()
    (world.settings.state_dir / "audit.head").write_text("nonsense")
    with pytest.raises(ConfigurationError, match="is damaged"):
        open_ledger(world.settings, world.database)
    assert run(world, "accept", "--reason", "the disk failed", "--yes").exit_code == 0
    open_ledger(world.settings, world.database).close()
