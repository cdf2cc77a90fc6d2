"""The schema's history, as Alembic revisions, run by `holdfast.database` when a gateway opens its database.

The names stand here too, oldest first, so that a database can be judged without loading Alembic: a revision
that is not in this list was made by a newer Holdfast.
"""

REVISIONS = ("0001", "0002", "0003", "0004")
HEAD = REVISIONS[-1]
VERSION_TABLE = "holdfast_version"
