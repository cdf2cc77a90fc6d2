"""The record in the database.

tables     the tables, and which columns are derived from what
ledger     writing: a batch of leaves, their bodies and a signed checkpoint in one transaction
search     finding calls by their columns, in any number of them
following  new calls as they end
admissions who was given a token or refused one, shut out or let in again
calls      reading: calls listed, filtered and told
naming     a call by the beginning of its audit ID
schema     what stands in the place of the tables, and beside them
export     all of it in one snapshot, as the lines of an export
copying    all of it copied into another database
proving    one record's leaf, and its log's, for a proof
reconcile  which calls it has, for the API server's log to be held against
signed     logs held against what was signed, before anything of them is erased
retention  what there is to erase, and bodies erased
dropping   days dropped
"""

from holdfast.audit.store.calls import AuditStore, CallStory
from holdfast.audit.store.ledger import LedgerStore
from holdfast.audit.store.search import ANY_CALL, Filters, Position

__all__ = ["ANY_CALL", "AuditStore", "CallStory", "Filters", "LedgerStore", "Position"]
