"""The import contracts hold for modules that nobody has thought of yet."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NEWCOMERS = {
    "a stage that reads flows": ("approval/newcomer.py", "mitmproxy", "Only the hooks and the credential layer"),
    "a command that reads flows": ("cli/newcomer.py", "mitmproxy", "Only the hooks and the credential layer"),
    "a credential source that reads flows": (
        "credential/newcomer.py",
        "mitmproxy",
        "Only the hooks and the credential",
    ),
    "a stage that asks the database": ("approval/newcomer.py", "sqlalchemy", "Only the stores, the database module"),
    "a verifier that asks the database": (
        "audit/verify/newcomer.py",
        "holdfast.audit.store.calls",
        "What a record, a log and a proof are",
    ),
    "a story that migrates": ("replay/newcomer.py", "alembic", "Only the stores, the database module"),
}


@pytest.mark.parametrize(("file", "imported", "contract"), NEWCOMERS.values(), ids=NEWCOMERS)
def test_a_new_module_begins_inside_the_fence(tmp_path: Path, file: str, imported: str, contract: str) -> None:
    package = tmp_path / "holdfast"
    shutil.copytree(ROOT / "addons" / "holdfast", package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (package / file).write_text(f"import {imported}\n")
    said = lint_imports(tmp_path)
    assert f"holdfast.{file.removesuffix('.py').replace('/', '.')} -> {imported}" in said
    assert contract in said


def lint_imports(folder: Path) -> str:
    """What import-linter finds wrong with the package in `folder`; nothing when all contracts are kept."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout if done.returncode else ""
