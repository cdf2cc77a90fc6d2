"""The first tables: records, their payloads, the calls they tell of, and holds."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Identifiers and times are compared byte by byte; a database's own collation would compare them as words.
CODE = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    """Create everything; there is nothing before this."""
    _create_records()
    _create_calls()
    _create_holds()


def _create_records() -> None:
    op.create_table(
        "records",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("call_id", CODE, nullable=False),
        sa.Column("kind", CODE, nullable=False),
        sa.Column("at", CODE, nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("records_by_call", "records", ["call_id"])
    op.create_table(
        "payloads",
        sa.Column("sha256", CODE, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )


def _create_calls() -> None:
    op.create_table(
        "calls",
        sa.Column("audit_id", CODE, nullable=False),
        sa.Column("received_at", CODE, nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("api_group", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("subresource", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("effect", sa.String(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("code", sa.Integer(), nullable=True),
        sa.Column("hold_id", sa.String(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=True),
        sa.Column("user_agent", sa.String(), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id"),
    )
    op.create_index("calls_by_time", "calls", ["received_at", "audit_id"])
    op.create_index("calls_by_user", "calls", ["username", "received_at", "audit_id"])


def _create_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("id", CODE, nullable=False),
        sa.Column("audit_id", CODE, nullable=False),
        sa.Column("digest", CODE, nullable=False),
        sa.Column("state", CODE, nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("verb", sa.String(), nullable=False),
        sa.Column("api_group", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("namespace", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("kubectl", sa.String(), nullable=False),
        sa.Column("approvers", sa.JSON(), nullable=False),
        sa.Column("created_at", CODE, nullable=False),
        sa.Column("expires_at", CODE, nullable=False),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.Column("decided_at", CODE, nullable=True),
        sa.Column("decision_reason", sa.String(), nullable=False),
        sa.Column("released_at", CODE, nullable=True),
        sa.Column("replica", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("holds_by_time", "holds", ["created_at"])
    op.create_index("holds_by_state", "holds", ["state", "created_at"])
    op.create_index("holds_by_digest", "holds", ["digest", "created_at"])
