"""`holdfast doctor`: what it finds when one thing after the other is broken."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from console.world import World, make_world
from holdfast.certificates import make_authority, write_private
from holdfast.cli import app
from holdfast.cli.checks import judge_skew

if TYPE_CHECKING:
    from pathlib import Path

runner = CliRunner()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def diagnose(world: World) -> dict[str, tuple[str, str, str]]:
    """State, finding and advice by the first word of the check's name."""
    result = runner.invoke(app, ["doctor", "-o", "json", "--config", str(world.folder / "holdfast.yaml")])
    checks = json.loads(result.stdout)
    assert result.exit_code == int(any(check["state"] == "fail" for check in checks))
    return {check["name"].split()[0]: (check["state"], check["found"], check["advice"]) for check in checks}


def serve_certificate(world: World, *, made: timedelta, days: int) -> None:
    authority = make_authority("CA", now=datetime.now(UTC) - timedelta(days=400))
    pair = authority.issue("x", hosts=("127.0.0.1",), now=datetime.now(UTC) - made, days=days)
    write_private(world.folder / "listener.crt", pair.certificate_pem)
    write_private(world.folder / "listener.key", pair.key_pem)


def test_what_is_in_order_is_ok_and_an_unreachable_cluster_fails(world: World) -> None:
    world.database.close()
    found = diagnose(world)
    assert {name: state for name, (state, _, _) in found.items()} == {
        "configuration": "ok",
        "certificates": "ok",
        "policies": "ok",
        "store": "ok",
        "issuer": "ok",
        "upstream": "fail",
        "approvals": "warn",
    }
    assert "cannot be reached" in found["upstream"][1]
    assert all(advice for state, _, advice in found.values() if state != "ok")


def test_the_report_changes_nothing_and_shows_no_credential(world: World) -> None:
    before = sorted(path.name for path in world.folder.rglob("*"))
    result = runner.invoke(app, ["doctor", "--config", str(world.folder / "holdfast.yaml")])
    assert sorted(path.name for path in world.folder.rglob("*")) == before
    assert "gateway-credential" not in result.stdout
    assert "will be made by `holdfast serve`" in result.stdout


def test_a_bad_settings_file_is_the_only_finding(world: World) -> None:
    (world.folder / "holdfast.yaml").write_text("cluster: 1")
    assert diagnose(world).keys() == {"configuration"}


def test_a_certificate_that_ends_soon_is_a_warning_and_one_that_ended_a_failure(world: World) -> None:
    serve_certificate(world, made=timedelta(days=5), days=10)
    assert diagnose(world)["certificates"][0] == "warn"
    serve_certificate(world, made=timedelta(days=20), days=10)
    assert diagnose(world)["certificates"][0] == "fail"


def test_a_key_of_another_certificate_is_a_failure(world: World) -> None:
    key = (world.folder / "listener.key").read_bytes()
    serve_certificate(world, made=timedelta(days=5), days=90)
    (world.folder / "listener.key").write_bytes(key)
    assert diagnose(world)["certificates"][0] == "fail"


def test_a_policy_that_does_not_load_is_a_failure(world: World) -> None:
    (world.folder / "policy.yaml").write_text("kind: Policy")
    assert diagnose(world)["policies"][0] == "fail"


def test_a_store_that_is_no_database_or_a_newer_one_is_a_failure(world: World) -> None:
    with world.database.writing() as connection:
        connection.exec_driver_sql("UPDATE holdfast_version SET version_num = '9999'")
    world.database.close()
    state, found, _ = diagnose(world)["store"]
    assert (state, "newer Holdfast" in found) == ("fail", True)
    (world.settings.state_dir / "audit.db").write_text("this is a text file, and quite a long one " * 100)
    assert diagnose(world)["store"][0] == "fail"


def test_an_issuer_without_keys_is_a_failure(world: World) -> None:
    (world.folder / "jwks.json").write_text('{"keys": []}')
    assert diagnose(world)["issuer"][0] == "fail"


@pytest.mark.parametrize(
    ("skew", "state"),
    [(None, "ok"), (0.4, "ok"), (-4.0, "ok"), (8.0, "warn"), (-20.0, "warn"), (31.0, "fail"), (-90.0, "fail")],
)
def test_a_clock_is_judged_by_what_tokens_tolerate(skew: float | None, state: str) -> None:
    assert judge_skew("issuer", "1 keys", skew).state == state
