"""Verifying the record from an export, the root's public key and the anchors: no network, no gateway, no database.

findings   what can be found, how grave it is, and the report
scratch    what is too much for memory, in a file of its own until the end
leaves     one log's lines: leaves, what is derived from them, bodies, checkpoints, clocks
payloads   the pieces that bodies are made of, and callers
roots      what was claimed of each log at some size, held against its tree
chains     the logs of one replica, one after another
anchored   how far each log is known outside the database
verifier   the order of it all
"""

from holdfast.audit.verify.anchored import Anchoring
from holdfast.audit.verify.findings import Class, Finding, Report
from holdfast.audit.verify.verifier import verify_lines

__all__ = ["Anchoring", "Class", "Finding", "Report", "verify_lines"]
