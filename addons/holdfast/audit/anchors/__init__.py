"""Anchors: places outside the database that remember how far a log got, so that it cannot be rewritten unseen.

publisher   gives new checkpoints to every anchor, in the background; how far each lags; the alarm
file        an append-only file, best on another machine's disk
bucket      S3 objects that nobody can remove before their time
timestamp   RFC 3161: a time-stamping authority says that the checkpoint existed
witness     a C2SP witness cosigns a checkpoint when the log only grew
submission  what is sent to one
source      what an anchor needs of the logs: the latest checkpoints, and proofs between two of them
layout      how an auditor's folder is laid out
evidence    reads such a folder; parses and trusts nothing
opening     the anchors that the settings ask for
"""
