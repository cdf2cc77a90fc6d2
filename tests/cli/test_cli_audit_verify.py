"""`holdfast audit export --ledger | verify | prove | verify-proof` over a small record written through a ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ruamel.yaml import YAML
from typer.testing import CliRunner

from audit.entries import entry, record
from console.world import World, make_world
from holdfast.audit.anchors.file import append_note
from holdfast.audit.checkpoint import cosign, parse_checkpoint
from holdfast.audit.note import COSIGNATURE, KeyName, Signer, write_signature
from holdfast.audit.record import Entry, Kind
from holdfast.cli import app
from replay.stories import allowed_call, held_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

runner = CliRunner()


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path)
    for entries in (allowed_call(1), held_call(2)):
        world.ledger.write(entries)
    return world


@pytest.fixture
def anchors(world: World) -> Path:
    """What was kept outside of that record."""
    folder = world.folder / "anchors"
    folder.mkdir()
    for note in world.ledger.latest_notes:
        append_note(folder / "file.notes", note)
    return folder


def run(world: World, *arguments: str, text: str | None = None) -> Result:
    """Run a command that has settings."""
    return runner.invoke(app, ["audit", *arguments, "--config", str(world.folder / "holdfast.yaml")], input=text)


def root(world: World) -> str:
    """The file that the auditor has."""
    return str(world.folder / "audit-keys-other" / "root.pub")


def verify(world: World, *arguments: str) -> Result:
    """Verify the database as its auditor, who has the key of its root."""
    return run(world, "verify", "--root", root(world), *arguments)


def export(world: World) -> Path:
    """Write an export."""
    file = world.folder / "record.export"
    assert run(world, "export", "--ledger", str(file)).exit_code == 0
    return file


def verify_file(file: Path, *arguments: str, content: bytes | None = None) -> Result:
    """Verify an export where there are no settings."""
    return runner.invoke(app, ["audit", "verify", str(file), *arguments], input=content)


def test_the_database_is_verified(world: World, anchors: Path) -> None:
    verified = verify(world, "--anchors", str(anchors))
    assert verified.exit_code == 0
    assert "holdfast/test/other/1  6        6         open" in verified.stdout
    assert verified.stdout.splitlines()[-1].startswith("INTACT: 6 records in 1 logs, 3 checkpoints, ")


def test_an_export_is_verified_without_settings(world: World, anchors: Path) -> None:
    file = export(world)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [left.name for left in world.folder.iterdir() if left.name.startswith(".record")] == []
    verified = verify_file(file, "--root", root(world), "--anchors", str(anchors))
    assert (verified.exit_code, "INTACT" in verified.stdout) == (0, True)


def test_without_settings_an_export_wants_a_root(
    world: World, anchors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = export(world)
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    told = verify_file(file, "--anchors", str(anchors))
    assert (told.exit_code, told.stdout, told.stderr) == (
        2,
        "",
        "holdfast: holdfast.yaml: there is no such settings file; name one with --config, or give --root FILE, the "
        "root's public key.\n",
    )


def test_an_export_goes_through_a_pipe(world: World, anchors: Path) -> None:
    settings = str(world.folder / "holdfast.yaml")
    export = [sys.executable, "-m", "holdfast.cli", "audit", "export", "--ledger", "-", "--config", settings]
    written = subprocess.run(export, check=True, capture_output=True)
    command = ["audit", "verify", "-", "--root", root(world), "--anchors", str(anchors)]
    verified = runner.invoke(app, command, input=written.stdout)
    assert (verified.exit_code, "INTACT" in verified.stdout) == (0, True)


@pytest.mark.parametrize("option", ["--no-payloads", "--payloads"])
def test_payloads_may_be_left_out_and_that_is_told(world: World, anchors: Path, option: str) -> None:
    file = world.folder / "record.export"
    run(world, "export", "--ledger", str(file), option)
    verified = verify_file(file, "--root", root(world), "--anchors", str(anchors))
    assert verified.exit_code == (15 if option == "--no-payloads" else 0)
    assert ("payloads-left-out" in verified.stdout) == (option == "--no-payloads")


def test_an_export_that_fails_leaves_what_was_there(world: World) -> None:
    file = export(world)
    before = file.read_bytes()
    world.database.close()
    (world.folder / "state" / "audit.db").write_bytes(b"no database")
    assert run(world, "export", "--ledger", str(file)).exit_code == 2
    assert file.read_bytes() == before
    assert [left.name for left in world.folder.iterdir() if left.name.startswith(".record")] == []


@pytest.mark.parametrize("option", ["--flows", "--ledger"])
def test_an_export_is_on_the_disk_before_it_has_its_name(
    world: World, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def sync(descriptor: int) -> None:
        assert not file.exists()
        synced.append(os.fstat(descriptor).st_ino)

    file, synced = world.folder / "written", list[int]()
    monkeypatch.setattr("holdfast.cli.audit.export.os.fsync", sync)
    assert run(world, "export", option, str(file)).exit_code == 0
    assert synced == [file.stat().st_ino]


ALTER = "UPDATE calls SET username = 'mallory'"


def test_the_gravest_finding_is_the_exit_code(world: World, anchors: Path) -> None:
    world.ledger.write([Entry(record(kind=Kind.INTENT))])
    assert verify(world).exit_code == 11
    assert verify(world, "--anchors", str(anchors)).exit_code == 11
    append_note(anchors / "file.notes", world.ledger.latest_notes[-1])
    assert verify(world, "--anchors", str(anchors)).exit_code == 14
    with world.database.writing() as connection:
        connection.exec_driver_sql(ALTER)
    altered = verify(world, "--anchors", str(anchors))
    assert altered.exit_code == 10
    assert "call-altered" in altered.stdout
    assert altered.stdout.splitlines()[-1].startswith("ALTERED: 7 records")


def test_some_classes_can_be_accepted_but_are_told(world: World, anchors: Path) -> None:
    world.ledger.write([Entry(record(kind=Kind.INTENT))])
    told = verify(world, "--anchors", str(anchors), "--accept", "unanchored, incomplete")
    assert (told.exit_code, "tail-unanchored" in told.stdout, "INTACT" in told.stdout) == (0, True, False)
    assert told.stdout.splitlines()[-1].startswith("UNANCHORED (accepted): 7 records")
    assert verify(world, "--anchors", str(anchors), "--accept", "incomplete").exit_code == 11
    in_part = verify(world, "--anchors", str(anchors), "--accept", "unanchored")
    assert in_part.exit_code == 14
    assert in_part.stdout.splitlines()[-1].startswith("UNANCHORED (accepted), INCOMPLETE: 7 records")
    refused = verify(world, "--accept", "altered")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)


def test_cosignatures_count_where_their_witness_is_named(world: World, anchors: Path) -> None:
    witness, stranger = (Signer(KeyName("w.test/1"), Ed25519PrivateKey.generate(), COSIGNATURE) for _ in range(2))
    for name, signer in (("witness", witness), ("stranger", stranger)):
        (world.folder / f"{name}.pub").write_text(f"{signer.verifier}\n")
    note = world.ledger.latest_notes[-1]
    cosignature = cosign(parse_checkpoint(note)[0], witness, int(time.time()))
    append_note(anchors / "cosigned.notes", note + write_signature(cosignature))
    unchecked = verify(world, "--anchors", str(anchors))
    assert unchecked.exit_code == 0
    remark, verdict = unchecked.stdout.splitlines()[-2:]
    assert remark == ("cosignatures that are there and were not checked: 1; name the witness's key with --witness FILE")
    assert ("INTACT" in verdict, ", 2 anchored checkpoints; " in verdict) == (True, True)
    for name, code, cosigned in (("witness", 0, 1), ("stranger", 11, 0)):
        arguments = ("--anchors", str(anchors), "--witness", str(world.folder / f"{name}.pub"))
        told = verify(world, *arguments)
        assert (told.exit_code, "not checked" in told.stdout) == (code, False)
        expected = f", 2 anchored checkpoints, {cosigned} of them cosigned by a witness that was named; "
        assert expected in told.stdout.splitlines()[-1]
        as_json = json.loads(verify(world, *arguments, "-o", "json").stdout)
        assert (as_json["anchors"], as_json["cosigned"], as_json["uncheckedCosignatures"]) == (2, cosigned, 0)


def test_what_is_accepted_is_no_other_verdict_for_programs(world: World) -> None:
    told = json.loads(verify(world, "--accept", "unanchored,redacted", "-o", "json").stdout)
    assert (told["verdict"], told["accepted"], told["exitCode"]) == ("UNANCHORED", ["UNANCHORED"], 0)


OLDER = "if this export is older than the anchors, export again before you believe this"


def test_an_export_that_is_older_than_the_anchors_is_thought_of(world: World, anchors: Path) -> None:
    file = export(world)
    world.ledger.write([entry()])
    append_note(anchors / "file.notes", world.ledger.latest_notes[-1])
    told = verify_file(file, "--root", root(world), "--anchors", str(anchors))
    assert (told.exit_code, "truncated" in told.stdout, told.stdout.splitlines()[-1]) == (10, True, OLDER)
    as_json = verify_file(file, "--root", root(world), "--anchors", str(anchors), "-o", "json")
    assert json.loads(as_json.stdout)["verdict"] == "ALTERED"
    again = verify_file(export(world), "--root", root(world), "--anchors", str(anchors))
    assert (again.exit_code, OLDER in again.stdout) == (0, False)


def test_what_is_altered_besides_is_not_explained_by_the_age_of_an_export(world: World, anchors: Path) -> None:
    with world.database.writing() as connection:
        connection.exec_driver_sql(ALTER)
    file = export(world)
    world.ledger.write([entry()])
    append_note(anchors / "file.notes", world.ledger.latest_notes[-1])
    told = verify_file(file, "--root", root(world), "--anchors", str(anchors))
    assert (told.exit_code, "truncated" in told.stdout, OLDER in told.stdout) == (10, True, False)


def test_a_tail_may_be_tolerated(world: World, anchors: Path) -> None:
    world.ledger.write([entry()])
    assert verify(world, "--anchors", str(anchors)).exit_code == 11
    assert verify(world, "--anchors", str(anchors), "--tolerate-tail", "10m").exit_code == 0


def test_the_tenth_log_is_listed_after_the_second(world: World) -> None:
    names = [
        f"holdfast/test/{replica}/{epoch}" for replica in ("gw-10", "other", "other.console") for epoch in (1, 2, 10)
    ]
    for number, name in enumerate(sorted(names)):
        if not name.endswith("other/1"):
            with world.database.writing() as connection:
                connection.exec_driver_sql(
                    "INSERT INTO logs SELECT :id, :name, :replica, :number, day, certificate, 0, root, opened_at, "
                    "NULL, NULL FROM logs WHERE id = 1",
                    {"id": 100 - number, "name": name, "replica": f"r{number}", "number": number},
                )
    printed = verify(world).stdout
    assert [line.split()[0] for line in printed.splitlines()[1:] if line.startswith("holdfast/")] == names
    assert [log["origin"] for log in json.loads(verify(world, "-o", "json").stdout)["logs"]] == names


def test_programs_read_the_report(world: World) -> None:
    told = json.loads(verify(world, "-o", "json").stdout)
    assert told == YAML(typ="safe").load(verify(world, "-o", "yaml").stdout)
    assert (told["verdict"], told["exitCode"], told["records"]) == ("UNANCHORED", 11, 6)
    assert told["findings"] == [
        {"class": "UNANCHORED", "code": "no-anchor", "log": "holdfast/test/other/1", "seq": None, "what": "6 records"}
    ]


def test_the_gateway_s_own_root_is_believed_where_none_is_given(world: World) -> None:
    """Only the settings say where it is; here it is not the root of the record."""
    keys = world.settings.key_folder
    keys.mkdir(parents=True)
    stranger = Signer(KeyName("root"), Ed25519PrivateKey.generate())
    (keys / "root.pub").write_text(f"{stranger.verifier}\n")
    assert run(world, "verify").exit_code == 10
    assert str(stranger.verifier) in run(world, "verify").stdout


@pytest.mark.parametrize(
    "content", [b"", b"no export", b"\x28\xb5\x2f\xfd", b"\x00" * 1000], ids=["empty", "text", "magic", "nulls"]
)
def test_what_is_no_export_is_one_sentence(world: World, content: bytes) -> None:
    result = verify_file(Path("-"), "--root", root(world), content=content)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: content + b"more", lambda _: b"none"])
def test_a_damaged_export_is_named_and_damaged_anchors_are(
    world: World, anchors: Path, damage: Callable[[bytes], bytes]
) -> None:
    file = export(world)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    told = verify_file(file, "--root", root(world), "--anchors", str(anchors))
    assert (told.exit_code, told.stdout, told.stderr.startswith(f"holdfast: {file}: ")) == (2, "", True)
    file.write_bytes(whole)
    bad = anchors / "bad.checkpoint"
    bad.write_text("no checkpoint")
    told = verify_file(file, "--root", root(world), "--anchors", str(anchors))
    assert (told.exit_code, told.stdout, told.stderr.startswith(f"holdfast: {bad}: ")) == (2, "", True)


@pytest.mark.parametrize("option", ["--anchors", "--witness", "--root", "--tsa-ca"])
def test_a_missing_file_is_one_sentence(world: World, option: str) -> None:
    result = verify_file(export(world), "--root", root(world), option, "missing")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "missing" in result.stderr


def test_anchors_without_anything_to_hold_the_record_against_are_refused(world: World, anchors: Path) -> None:
    no_folder = verify(world, "--anchors", str(anchors / "file.notes"))
    told = f"holdfast: {anchors / 'file.notes'}: is a file; give its folder.\n"
    assert (no_folder.exit_code, no_folder.stdout, no_folder.stderr) == (2, "", told)
    empty = world.folder / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("of no use")
    nothing = verify(world, "--anchors", str(empty))
    told = f"holdfast: {empty}: no *.notes, *.checkpoint, *.tsr, *.receipt with a checkpoint in it; expected what"
    assert (nothing.exit_code, nothing.stdout, nothing.stderr.startswith(told)) == (2, "", True)
    (empty / "anchors.notes").touch()
    assert verify(world, "--anchors", str(empty)).exit_code == 2


def test_a_key_of_the_wrong_kind_is_one_sentence(world: World, anchors: Path) -> None:
    witness = Signer(KeyName("witness.test/w1"), Ed25519PrivateKey.generate(), COSIGNATURE)
    file, proof = world.folder / "witness.pub", world.folder / "proof"
    file.write_text(f"{witness.verifier}\n")
    run(world, "prove", "2", "--file", str(proof))
    for command in (["verify", str(export(world))], ["verify-proof", str(proof)]):
        refused = runner.invoke(app, ["audit", *command, "--root", str(file)])
        told = f"holdfast: {file}: is the key of a witness; expected a root's.\n"
        assert (refused.exit_code, refused.stdout, refused.stderr) == (2, "", told)
    refused = verify(world, "--anchors", str(anchors), "--witness", root(world))
    assert (refused.exit_code, refused.stdout, "is no witness's key" in refused.stderr) == (2, "", True)


def test_what_a_record_says_cannot_command_the_terminal(world: World) -> None:
    with world.database.writing() as connection:
        connection.exec_driver_sql("UPDATE records SET at = char(27) || '[2J' WHERE seq = 2")
    for output in ("table", "json", "yaml"):
        told = verify(world, "-o", output)
        assert (told.exit_code, "\x1b" in told.stdout) == (10, False)


def test_a_proof_is_written_and_verified_without_settings(world: World) -> None:
    file = world.folder / "call.tlog-proof"
    written = run(world, "prove", "2", "--file", str(file))
    assert (written.exit_code, written.stdout) == (0, "")
    assert written.stderr == f"written: record 5 of holdfast/test/other/1 to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    verified = runner.invoke(app, ["audit", "verify-proof", str(file), "--root", root(world)])
    assert verified.exit_code == 0
    for part in ("record 5 of the 6 of holdfast/test/other/1", "Kind     outcome", "User     agent", "Answer   200"):
        assert part in verified.stdout
    as_json = runner.invoke(app, ["audit", "verify-proof", str(file), "--root", root(world), "-o", "json"])
    told = json.loads(as_json.stdout)
    assert (told["proven"]["seq"], told["record"]["kind"]) == (5, "outcome")


def test_a_proof_goes_through_a_pipe(world: World) -> None:
    proof = run(world, "prove", "holdfast/test/other/1", "0").stdout
    verified = runner.invoke(app, ["audit", "verify-proof", "-", "--root", root(world)], input=proof)
    assert "Kind    heartbeat" in verified.stdout


def test_a_proof_that_was_changed_is_refused_with_1(world: World) -> None:
    proof = run(world, "prove", "holdfast/test/other/1", "0").stdout.replace("index 0", "index 1")
    verified = runner.invoke(app, ["audit", "verify-proof", "-", "--root", root(world)], input=proof)
    assert (verified.exit_code, verified.stdout) == (1, "")
    assert verified.stderr == (
        "holdfast: the proof does not lead from the record to the checkpoint of holdfast/test/other/1\n"
    )


def test_a_record_that_is_not_there_is_not_proven(world: World) -> None:
    for arguments in (("9",), ("holdfast/test/other/2", "0"), ("holdfast/test/other/1", "6")):
        result = run(world, "prove", *arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
