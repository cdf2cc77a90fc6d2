"""The record in the database.

tables   the tables, and which columns are derived from what
ledger   writing: a batch of leaves, their bodies and a signed checkpoint in one transaction
calls    reading: calls listed, filtered and told
"""

from holdfast.audit.store.calls import ANY_CALL, AuditStore, CallStory, Filters, Position
from holdfast.audit.store.ledger import Batch, LedgerStore, LogRow

__all__ = ["ANY_CALL", "AuditStore", "Batch", "CallStory", "Filters", "LedgerStore", "LogRow", "Position"]
