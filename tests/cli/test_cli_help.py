"""What `--help` teaches, and how a command line that is wrong ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from holdfast.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).parents[2] / "README.md"
runner = CliRunner()


def every_command(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if not hasattr(command, "commands") or command.invoke_without_command:
            yield (*path, name)
        if hasattr(command, "commands"):
            yield from every_command(command, (*path, name))


COMMANDS = list(every_command())


def test_the_commands_are_these() -> None:
    assert {" ".join(command) for command in COMMANDS} == {
        "serve",
        "console",
        "doctor",
        "identity explain",
        "identity restore",
        "identity revocations",
        "identity revoke",
        "kubeconfig",
        "login",
        "get-token",
        "logout",
        "approvals list",
        "approvals show",
        "approvals approve",
        "approvals deny",
        "audit list",
        "audit show",
        "audit export",
        "audit keys init",
        "audit keys rotate",
        "audit keys show",
        "audit accept",
        "audit verify",
        "audit prove",
        "audit verify-proof",
        "audit retention plan",
        "audit retention run",
        "audit erase",
        "audit reconcile",
        "audit reader-role",
        "audit migrate-store",
        "identity log",
        "policy check",
        "witness serve",
        "witness keys",
        "dev-issuer",
        "dev-issuer token",
    }


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_an_example_of_its_own(command: tuple[str, ...]) -> None:
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"Example:\n    holdfast {' '.join(command)} " in result.stdout


def test_the_version_is_printed() -> None:
    assert runner.invoke(app, ["--version"]).stdout.startswith("holdfast 0.")


def test_help_and_readme_give_an_auditor_the_same_of_a_witness_and_not_its_key() -> None:
    given = "`cosigned-*.notes`, `logs/`, and `forks/` if there is one; never `witness.key`"
    helped = " ".join(runner.invoke(app, ["witness", "serve", "--help"]).stdout.split())
    assert (helped.count(given), README.read_text(encoding="utf-8").count(given)) == (1, 2)


def test_no_token_can_be_an_argument() -> None:
    for command in COMMANDS:
        assert "--token " not in runner.invoke(app, [*command, "--help"]).stdout


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            None,
            "holdfast: {file}: there is no such settings file; name one with --config, or write one: README.md has one "
            "to begin with.\n",
        ),
        ("cluster: [", "holdfast: {file}: is not valid YAML: "),
        ("- a\n", "holdfast: {file}: expected a mapping of settings, found ['a'].\n"),
        ("colour: red\n", "holdfast: {file}: upstream: is missing.\n"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "console", "audit list", "policy check"])
def test_a_bad_settings_file_is_one_sentence_and_exit_code_2(
    tmp_path: Path, command: str, text: str | None, sentence: str
) -> None:
    file = tmp_path / "holdfast.yaml"
    if text is not None:
        file.write_text(text)
    result = runner.invoke(app, [*command.split(), "--config", str(file)])
    assert result.exit_code == 2
    assert result.stderr.startswith(sentence.format(file=file))
    assert result.stderr.count("\n") == 1


def test_no_command_leaves_a_core_dump_with_its_secrets() -> None:
    program = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (1, resource.getrlimit(resource.RLIMIT_CORE)[1]))
from holdfast.cli import main
try:
    sys.argv[1:] = ["--version"]
    main()
finally:
    print(resource.getrlimit(resource.RLIMIT_CORE)[0])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "0"), ran.stderr
