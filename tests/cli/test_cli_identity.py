"""`holdfast identity revoke` and `revocations`: who is shut out, whether anybody on record is meant, who is now."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from audit.entries import entry, record
from console.world import ISSUER, SAML, make_world
from holdfast.audit.record import Caller, Entry, Issued, Kind, Record, timestamp
from holdfast.certificates import make_authority
from holdfast.cli import app
from holdfast.identity.denylist import Revocation, Scope
from holdfast.identity.store import RevocationStore

if TYPE_CHECKING:
    from pathlib import Path


def test_a_revocation_whose_time_is_over_is_not_listed(tmp_path: Path) -> None:
    world, now = make_world(tmp_path), datetime.now(UTC)
    store = RevocationStore(world.database)
    for number, until in enumerate((None, now + timedelta(days=1), now - timedelta(days=1))):
        store.add(Revocation(f"r-{number}", ISSUER, Scope.USER, f"user-{number}", "why", "carol", now, until))
    command = ["identity", "revocations", "--config", str(world.folder / "holdfast.yaml")]
    listed = json.loads(CliRunner().invoke(app, [*command, "-o", "json"]).stdout)["revocations"]
    assert {entry["id"] for entry in listed} == {"r-0", "r-1"}
    assert "user-2" not in CliRunner().invoke(app, command).stdout


CALLERS = (
    Caller(issuer=ISSUER, username="alice", claims={"sub": "a-1", "jti": "t-1"}),
    Caller(issuer="https://id.test/saml", username="saml:bob", claims={"nameID": "bob", "assertionID": "_1"}),
    Caller(issuer="https://other.test", username="carol", claims={"sub": "c-1", "jti": "t-2"}),
)


@pytest.mark.parametrize(
    ("named", "issuer", "unknown"),
    [
        (("--user", "alice"), ISSUER, ""),
        (("--subject", "a-1"), ISSUER, ""),
        (("--token-id", "t-1"), ISSUER, ""),
        (("--token-id", "given-1"), ISSUER, ""),
        (("--user", "saml:bob"), "https://id.test/saml", ""),
        (("--subject", "bob"), "https://id.test/saml", ""),
        (("--token-id", "_1"), "https://id.test/saml", ""),
        (("--user", "Alcie"), ISSUER, "user Alcie"),
        (("--user", "carol"), ISSUER, "user carol"),
        (("--subject", "c-1"), ISSUER, "subject c-1"),
        (("--subject", "alice"), ISSUER, "subject alice"),
        (("--token-id", "nosuch"), ISSUER, "token nosuch"),
        (("--token-id", "x" * 300), ISSUER, ""),
    ],
)
def test_a_name_that_no_call_on_record_has_is_revoked_and_told(
    tmp_path: Path, named: tuple[str, str], issuer: str, unknown: str
) -> None:
    (tmp_path / "saml.crt").write_text(make_authority("test", now=datetime.now(UTC)).certificate_pem.decode())
    world = make_world(tmp_path)
    settings = world.folder / "holdfast.yaml"
    settings.write_text(settings.read_text().replace("policies:", f"{SAML}policies:"))
    issued = Issued(id="given-1", grant="token-exchange", expires_at=2_000_000_000)
    given = Record(kind=Kind.ISSUE, at=timestamp(datetime.now(UTC)), identity=CALLERS[0], issue=issued)
    world.ledger.write([Entry(record(identity=caller)) for caller in CALLERS] + [Entry(given)])
    command = ["identity", "revoke", *named, "--issuer", issuer, "--reason", "gone", "--config", str(settings)]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stdout.startswith("revoked: r-")) == (0, True), done.output
    sentence = f"no call on record is by the {unknown} of {issuer}; is it spelt as in the record?\n"
    assert done.stderr == (sentence if unknown else "")


def test_what_is_revoked_is_told_even_where_the_record_cannot_be_read(tmp_path: Path) -> None:
    world = make_world(tmp_path, {"audit": {"readDatabase": "postgresql://127.0.0.1:1/x"}})
    world.ledger.write([entry()])
    command = ["identity", "revoke", "--user", "eve", "--reason", "gone"]
    done = CliRunner().invoke(app, [*command, "--config", str(world.folder / "holdfast.yaml")])
    assert (done.exit_code, done.stdout.startswith("revoked: r-")) == (0, True)
    assert "Whether it is spelt as in the record was not looked at." in done.stderr
