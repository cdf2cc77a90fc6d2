"""Verifying the record from an export, the root's public key and the anchors: no network, no gateway, no database.

findings   what can be found, how grave it is, and the report
scratch    what is too much for memory, in a file of its own until the end
examine    what one line tells by itself
worker     a process that examines lines for this one
workers    an export examined with all of the machine's cores
times      times as leaves tell them
leaves     one log's lines: their places and clocks, checkpoints, what they say of others
payloads   the pieces that bodies are made of, and callers
roots      what was claimed of each log at some size, held against its tree
chains     the logs of one replica, one after another
dropped    logs that retention dropped, held against the records of that
anchored   how far each log is known outside the database
verifier   the order of it all

Checkpoints that are missing before a log's last one are no finding. The last one covers all of the log's leaves: no
leaf can be changed, removed or put elsewhere without another root. Every earlier root follows from the leaves, and
what reached somewhere else (anchors, receipts, records of other logs) brings its own size and root to be held against
them. All that the earlier ones add is how narrowly an altered leaf is placed: between the last of them that still
holds and the next. So retention keeps the last one alone of a log that it drops. One that is there and is not good is
a finding (`checkpoint-bad`, `leaf-altered`), and so is a log that goes on beyond its last one (`unsigned-tail`).
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.audit.verify.anchored import Anchoring
    from holdfast.audit.verify.findings import Class, Finding, Report
    from holdfast.audit.verify.verifier import verify_lines
    from holdfast.audit.verify.workers import examined_lines

__all__ = ["Anchoring", "Class", "Finding", "Report", "examined_lines", "verify_lines"]

_MODULES = {
    "Anchoring": "anchored",
    "Class": "findings",
    "Finding": "findings",
    "Report": "findings",
    "examined_lines": "workers",
    "verify_lines": "verifier",
}


def __getattr__(name: str) -> object:
    """Import what is asked for: a worker needs `examine` alone, and the rest takes longer than to examine a log."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
