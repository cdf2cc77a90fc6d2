"""The record: every call in a signed Merkle log, in a database that need not be trusted.

Written, on the path of a request:

    entries     the records of a call, made from its exchange
    record      a record, the leaf that it becomes, and the row that lists show of its call
    payload     bodies: pieces, their names, the salted commitment that a leaf holds
    logs        logs as values: their rows, batches, and where large pieces go
    sequence    the head of a log, which gives records their place
    ledger      one writer's logs: opened after a check, added to, followed by the next
    writer      the thread that commits in groups
    head        what a gateway remembers of its log outside the database
    receipt     what a caller can keep of a record
    opening     all of it, as the settings say

What it stands on:

    tree, note, checkpoint   RFC 6962 and C2SP: hashing, proofs, signed notes, checkpoints, cosignatures
    keys                     the root, and the keys that it certifies
    callers                  who called, as lists find them
    store                    the database; only there is SQL
    objects                  large payloads beside the database
    s3                       keys to a bucket, of payloads or of anchors

Removed from it, on record:

    retention    what is to go, and why
    maintenance  all that one command has to do, in order: planned, or done
    erasing      one day or body after another, each on record first

Kept outside, and held against it:

    anchors     where checkpoints go; `trees` makes the proofs that they ask for
    export      the record as one file
    verify      the auditor's verdict from such a file
    prove       one record shown to somebody who has nothing but a key
    reconcile   the record against the API server's own audit log
"""
