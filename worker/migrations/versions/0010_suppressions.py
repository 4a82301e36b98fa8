"""who is not written to, and to which address a message went"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "suppressions",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "why IN ('opted_out', 'by_hand', 'bounced', 'complained')", name=op.f("ck_suppressions_why")
        ),
        sa.CheckConstraint(
            "(why IN ('bounced', 'complained')) = (address IS NOT NULL)", name=op.f("ck_suppressions_address")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suppressions")),
        sa.UniqueConstraint(
            "customer_id",
            "account",
            "why",
            "address",
            name=op.f("uq_suppressions_customer_id_account_why_address"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(
        "ix_suppressions_address", "suppressions", ["address"], postgresql_where=sa.text("address IS NOT NULL")
    )
    op.add_column("outbox", sa.Column("sent_to", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("outbox", "sent_to")
    op.drop_table("suppressions")
