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
