"""what was read of the events, and the payment of a case"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cursors",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "begun_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_cursors")),
    )
    op.create_index(
        "ix_events_account", "events", ["account"], unique=False, postgresql_where=sa.text("account IS NOT NULL")
    )
    op.add_column("cases", sa.Column("intent_id", sa.Text(), nullable=True))
    op.create_index(op.f("ix_cases_intent_id"), "cases", ["intent_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_cases_intent_id"), table_name="cases")
    op.drop_column("cases", "intent_id")
    op.drop_index("ix_events_account", table_name="events")
    op.drop_table("cursors")
