"""Must somebody sign: a call that waits, on the wire, for a person.

hold     one such call, as a state machine over values
store    holds in the database, where all replicas and the approvals API see them
waiting  where calls wait on the event loop
"""
