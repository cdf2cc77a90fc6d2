"""A small witness (C2SP tlog-witness): a process of its own, best on another machine, that cosigns what only grew.

    trust         which keys sign for which log: pinned ones, and those that a pinned root certified
    cosigning     what is checked before a checkpoint is cosigned
    state         the folder: the witness's key, the latest checkpoint of every log, the notes that were cosigned,
                  the certificates that were learned
    application   the HTTP interface
    server        the process

It cosigns no two checkpoints of one log of which one does not begin with the other. What it keeps is evidence: the
folder is laid out as an auditor's (see `holdfast.audit.anchors.layout`) and can be given to `holdfast verify`.
"""
