"""`holdfast dev-issuer` and `dev-issuer token`, as two processes use them."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from jose import jws
from typer.testing import CliRunner

from holdfast.cli import app
from holdfast.identity.authenticator import Authenticator
from holdfast.settings.identity import IdentitySection
from running import trusted_issuer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 60
runner = CliRunner()


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("dev") / "issuer"
    command = [
        sys.executable,
        "-m",
        "holdfast.cli",
        "dev-issuer",
        "--listen",
        "127.0.0.1:0",
        "--state-dir",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as issuer:
        assert issuer.stdout is not None
        assert issuer.stdout.readline().startswith("ready https://127.0.0.1:")
        yield folder
        issuer.send_signal(signal.SIGINT)
        assert issuer.wait(SECONDS) == 130


def mint(state_dir: Path, *arguments: str) -> str:
    result = runner.invoke(app, ["dev-issuer", "token", "--state-dir", str(state_dir), *arguments])
    assert result.exit_code == 0
    return result.stdout.strip()


async def test_a_gateway_that_trusts_it_knows_the_tokens_owner(state_dir: Path) -> None:
    url = (state_dir / "url").read_text().strip()
    issuer = {"url": url, "audiences": ["holdfast"], "certificateAuthorityFile": state_dir / "ca.crt"}
    authenticator = Authenticator(IdentitySection.model_validate({"jwt": [trusted_issuer(**issuer)]}))
    await authenticator.start()
    token = mint(state_dir, "--user", "alice", "--group", "platform", "--group", "sre")
    identity = await authenticator.authenticate(f"Bearer {token}")
    await authenticator.close()
    assert (identity.username, identity.groups) == ("alice", ("platform", "sre"))


def test_audience_lifetime_and_file_are_as_asked(state_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "alice.token"
    printed = mint(state_dir, "--user", "alice", "--audience", "other", "--lifetime", "60", "-f", str(file))
    claims: Any = jws.get_unverified_claims(file.read_text().strip())
    assert printed == ""
    assert file.stat().st_mode & 0o777 == 0o600
    assert b'"aud":"other"' in claims.replace(b" ", b"")


def test_without_an_issuer_there_is_one_sentence(tmp_path: Path) -> None:
    result = runner.invoke(app, ["dev-issuer", "token", "--user", "alice", "--state-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "start one with `holdfast dev-issuer" in result.stderr


@pytest.mark.parametrize("listen", ["0.0.0.0:8445", "192.0.2.1:0", "8445", "127.0.0.1:port", "127.0.0.1:70000"])
def test_it_listens_on_loopback_only(tmp_path: Path, listen: str) -> None:
    result = runner.invoke(app, ["dev-issuer", "--listen", listen, "--state-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
