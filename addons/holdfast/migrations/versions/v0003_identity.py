"""What gateways share about identities: revocations, and the SAML assertions that were used."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Create both tables, empty."""
    op.create_table(
        "revocations",
        sa.Column("id", CODE, nullable=False),
        sa.Column("issuer", CODE, nullable=False),
        sa.Column("scope", CODE, nullable=False),
        sa.Column("value", CODE, nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("revoked_by", sa.String(), nullable=False),
        sa.Column("revoked_at", CODE, nullable=False),
        sa.Column("until", CODE, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("issuer", "scope", "value"),
    )
    op.create_table(
        "used_assertions",
        sa.Column("issuer", CODE, nullable=False),
        sa.Column("id", CODE, nullable=False),
        sa.Column("until", CODE, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "id"),
    )
    op.create_index("used_assertions_by_end", "used_assertions", ["until"])
