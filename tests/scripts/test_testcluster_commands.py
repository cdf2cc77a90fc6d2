"""What `scripts/testcluster` says where no cluster is up."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("status", 0, "No cluster is up; `scripts/testcluster up` starts one."),
        ("kubeconfig", 2, "testcluster: 'default' is not up; `scripts/testcluster up --name default` starts it."),
    ],
)
def test_where_no_cluster_is_up_the_command_that_starts_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: int, said: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = subprocess.run(
        [ROOT / "scripts" / "testcluster", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, (result.stdout + result.stderr).strip()) == (code, said)
