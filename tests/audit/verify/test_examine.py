"""What one line tells by itself, and that nobody is believed in what the log's own key must say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast.audit.checkpoint import Checkpoint, Origin, sign_checkpoint
from holdfast.audit.export import CheckpointLine, RecordLine
from holdfast.audit.note import KeyName, Signer
from holdfast.audit.store.export import export_lines
from holdfast.audit.tree import RootHash
from holdfast.audit.verify import Anchoring, verify_lines
from holdfast.audit.verify.examine import ExaminedCheckpoint, ExaminedRecord, examine

if TYPE_CHECKING:
    from audit.tampering import Site

ORIGIN = Origin(KeyName("holdfast/test/gw/1"))
OURS = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"o" * 32))
OTHER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"x" * 32))
CHECKPOINT = Checkpoint(ORIGIN, 5, RootHash(bytes(32)))
NOW = "2026-01-01T00:00:00.000000Z"


def test_a_checkpoint_of_a_known_log_is_verified() -> None:
    line = CheckpointLine(5, sign_checkpoint(CHECKPOINT, OURS))
    examined = examine(line, {ORIGIN: OURS.verifier})
    assert examined == ExaminedCheckpoint(line, OURS.verifier, CHECKPOINT)


@pytest.mark.parametrize("verifiers", [{}, {ORIGIN: OTHER.verifier}, {KeyName("holdfast/test/gw/2"): OURS.verifier}])
def test_any_other_is_handed_on(verifiers: dict[KeyName, object]) -> None:
    line = CheckpointLine(5, sign_checkpoint(CHECKPOINT, OURS))
    assert examine(line, verifiers) is line  # type: ignore[arg-type]
    assert examine(CheckpointLine(5, "no note"), {ORIGIN: OURS.verifier}) == CheckpointLine(5, "no note")


def test_what_another_verifier_says_of_a_checkpoint_does_not_count(site: Site) -> None:
    """Two logs of one name may have two keys: only that of the log at hand says what it signed."""
    lines = list(export_lines(site.database, "test", NOW))
    believed = [
        ExaminedCheckpoint(line, OTHER.verifier, CHECKPOINT) if isinstance(line, CheckpointLine) else line
        for line in lines
    ]
    assert verify_lines(believed, site.root, Anchoring()) == verify_lines(lines, site.root, Anchoring())


def test_a_leaf_nested_too_deeply_is_told_as_no_leaf() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    leaf = b'{"log":"x","mono":1,"previous":"","record":{"at":"","identity":{"claims":{"a":%s},"issuer":"",' % deep
    leaf += b'"username":""},"kind":"outcome"},"seq":0,"time":"","version":2}'
    examined = examine(RecordLine(0, ("", "", "outcome", ""), leaf), {})
    assert isinstance(examined, ExaminedRecord)
    assert [code for code, _ in examined.findings] == ["leaf-spelling"]


def test_a_call_nested_too_deeply_is_told_as_altered(site: Site) -> None:
    deep = msgspec.Raw(b'{"uri":%s}' % (b"[" * 100_000 + b"]" * 100_000))
    lines = list(export_lines(site.database, "test", NOW))
    changed = [
        msgspec.structs.replace(line, call=deep) if isinstance(line, RecordLine) and line.call_place else line
        for line in lines
    ]
    assert "call-altered" in verify_lines(changed, site.root, Anchoring()).counts
