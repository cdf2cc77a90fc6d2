"""`holdfast identity explain`: the gateway's own judgement of a token, in full for who may read its settings."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from holdfast.cli import app
from holdfast.cli.output import show_on_one_line
from holdfast.database import Database
from holdfast.identity.denylist import Revocation, Scope
from holdfast.identity.store import RevocationStore
from running import ISSUER, RunningGateway, Upstream

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

runner = CliRunner()


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunningGateway:
    """Configured, not started."""
    (tmp_path / "ca.crt").write_text("")
    configured = RunningGateway(tmp_path, Upstream("https://127.0.0.1:1", tmp_path / "ca.crt", "of-the-gateway"))
    configured.write_config()
    monkeypatch.setenv("HOLDFAST_CONFIG", str(configured.config_file))
    return configured


def explain(token: str, *arguments: str) -> Result:
    return runner.invoke(app, ["identity", "explain", *arguments], env={"HOLDFAST_TOKEN": token})


def explained(token: str) -> Any:
    return json.loads(explain(token, "-o", "json").stdout)


def test_it_tells_who_the_bearer_is(gateway: RunningGateway) -> None:
    token = gateway.token("agent", "agents", "builders", run_id="7", kubernetes={"namespace": "shop"})
    told = explain(token)
    assert told.exit_code == 0
    rows = [line.split() for line in told.stdout.splitlines()]
    for row in (["user", "agent"], ["groups", "agents"], ["builders"], ["issuer", ISSUER], ["run_id", "7"]):
        assert row in rows
    assert ["kubernetes.namespace", "shop"] in rows
    found = explained(token)
    assert (found["username"], found["groups"], found["issuer"]) == ("agent", ["agents", "builders"], ISSUER)
    assert found["claims"]["kubernetes"] == {"namespace": "shop"}
    assert token not in told.output


def test_it_tells_why_a_token_is_refused_and_what_it_says_of_itself(gateway: RunningGateway) -> None:
    token = gateway.issuer.mint("agent", (), audience="another")
    told = explain(token)
    assert told.exit_code == 1
    rows = [line.split() for line in told.stdout.splitlines()]
    assert ["refused", "wrong_audience"] in rows
    assert ["aud", "another"] in rows
    refused = explained(token)
    assert (refused["refused"]["why"], refused["refused"]["detail"]) == ("wrong_audience", "aud: 'another'")
    assert ["because", "of", "aud:", "'another'"] in rows
    assert (refused["claimed"]["iss"], refused["claimed"]["aud"]) == (ISSUER, "another")


@pytest.mark.parametrize(
    ("damage", "why", "is_shown"),
    [
        (lambda token: token[:-8] + "AAAAAAAA", "bad_signature", True),
        (lambda token: token + ".x", "malformed", False),
        (lambda token: "x", "malformed", False),
    ],
)
def test_a_token_that_cannot_be_read_says_nothing_of_itself(
    gateway: RunningGateway, damage: Any, why: str, is_shown: bool
) -> None:
    refused = explained(damage(gateway.token("agent")))
    assert refused["refused"]["why"] == why
    assert bool(refused["claimed"]) is is_shown


@pytest.mark.parametrize("name", ["\x1b[2Jteam", "[/team]", "[bold]team", "a\nuser  root"])
def test_the_name_of_a_claim_does_nothing_to_a_terminal(gateway: RunningGateway, name: str) -> None:
    told = explain(gateway.token("agent", **{name: "blue"}))
    assert told.exit_code == 0
    assert any(line.strip().startswith(show_on_one_line(name)) for line in told.stdout.splitlines())
    assert "\x1b" not in told.stdout


@pytest.mark.parametrize("moment", [-1, 2**53 - 1])
def test_a_time_that_is_no_date_is_shown_all_the_same(gateway: RunningGateway, moment: int) -> None:
    told = explain(gateway.token("agent", exp=moment))
    assert told.exit_code == 1
    assert f"{moment} (no date)" in told.stdout


def test_it_knows_who_is_revoked(gateway: RunningGateway) -> None:
    token = gateway.token("agent")
    assert "Revocations were not looked at" in explain(token).stderr
    database = Database.open(f"sqlite:///{gateway.database}")
    now = datetime.now(UTC)
    RevocationStore(database).add(Revocation("r-1", ISSUER, Scope.USER, "agent", "", "", now))
    database.close()
    assert explained(token)["refused"]["why"] == "revoked"


def test_it_writes_nothing(gateway: RunningGateway, tmp_path: Path) -> None:
    config = json.loads(gateway.config_file.read_text())
    config["identity"]["tokens"] = {"url": "https://gateway.example"}
    gateway.config_file.write_text(json.dumps(config))
    before = sorted(tmp_path.rglob("*"))
    assert explain(gateway.token("agent")).exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_token_it_says_how_to_give_one(gateway: RunningGateway) -> None:
    told = runner.invoke(app, ["identity", "explain"])
    assert told.exit_code == 2
    assert (
        told.stderr == "holdfast: no token: give --token-file FILE, or set $HOLDFAST_TOKEN_FILE or $HOLDFAST_TOKEN.\n"
    )
