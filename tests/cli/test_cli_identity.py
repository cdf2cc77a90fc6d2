"""`holdfast identity revocations`: who is shut out now."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from console.world import ISSUER, make_world
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
