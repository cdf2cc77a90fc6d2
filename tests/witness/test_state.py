"""The witness's folder: one process, one key, files that only their owner reads."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from holdfast.audit.note import COSIGNATURE, KeyName
from holdfast.errors import ConfigurationError
from holdfast.witness.state import WitnessFolder
from witness.witnessing import make_signer

if TYPE_CHECKING:
    from pathlib import Path

NAME = KeyName("witness.example/w1")


def test_the_key_is_made_once(tmp_path: Path) -> None:
    folder = WitnessFolder(tmp_path / "a" / "witness")
    with folder.locked():
        made = folder.open_key(NAME)
    assert (made.name, made.key_type) == (NAME, COSIGNATURE)
    again = WitnessFolder(folder.folder)
    assert again.open_key(None).verifier == again.open_key(NAME).verifier == made.verifier
    with pytest.raises(ConfigurationError, match=r"is called witness\.example/w1, not other"):
        again.open_key(KeyName("other"))


def test_a_key_without_a_name_is_called_after_the_host(tmp_path: Path) -> None:
    folder = WitnessFolder(tmp_path / "witness")
    with folder.locked():
        assert folder.open_key(None).name.startswith("holdfast-witness/")


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    folder = WitnessFolder(tmp_path / "witness")
    with folder.locked():
        folder.open_key(NAME)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.folder.iterdir()}
    assert modes == {"witness.key": 0o600, "lock": 0o600, "logs": 0o700, "forks": 0o700, "certificates": 0o700}
    assert stat.S_IMODE(folder.folder.stat().st_mode) == 0o700


def test_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = WitnessFolder(tmp_path), WitnessFolder(tmp_path)
    with first.locked(), pytest.raises(ConfigurationError, match="another witness runs"), second.locked():
        pass
    with second.locked():
        pass


@pytest.mark.parametrize(
    "content", [b"", b"nonsense\n", make_signer(NAME, "log").secret_text().encode(), b"\xff\xfe"], ids=range(4)
)
def test_what_is_no_witness_s_key_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = WitnessFolder(tmp_path)
    folder.key_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=str(folder.key_file)) as refused:
        folder.open_key(None)
    assert content.rpartition(b"+")[2].decode("utf-8", "replace")[:12] not in str(refused.value) or len(content) < 20
