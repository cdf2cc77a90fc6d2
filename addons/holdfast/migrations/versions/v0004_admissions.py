"""An index of the few records that tell who was given a token, refused one, shut out, or let in again."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make it; in Postgres of every partition, those to come included."""
    meant = sa.text("kind IN ('issue', 'revoke')")
    op.create_index(
        "records_of_admissions", "records", ["at", "log", "seq"], sqlite_where=meant, postgresql_where=meant
    )
