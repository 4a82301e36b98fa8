"""subscriptions with their risks, signals of the merchant, segments, and messages about what has not failed"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSON

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "subscriptions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("cancel_at", INSTANT, nullable=True),
        sa.Column("canceled_at", INSTANT, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("feedback", sa.Text(), nullable=True),
        sa.Column("plan", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("monthly_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("country", sa.Text(), nullable=True),
        sa.Column("method_id", sa.Text(), nullable=True),
        sa.Column("method", sa.Text(), nullable=True),
        sa.Column("card", JSON(), nullable=False),
        sa.Column("other_method_id", sa.Text(), nullable=True),
        sa.Column("other_card", JSON(), nullable=True),
        sa.Column("next_charge_at", INSTANT, nullable=True),
        sa.Column("last_paid_at", INSTANT, nullable=True),
        sa.Column("read_at", INSTANT, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriptions")),
    )
    op.create_index("ix_subscriptions_customer_id", "subscriptions", ["customer_id"], unique=False)
    op.create_index("ix_subscriptions_next_charge_at", "subscriptions", ["next_charge_at"], unique=False, postgresql_where=sa.text("ended_at IS NULL"))
    op.create_table(
        "signals",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("received_at", INSTANT, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signals")),
    )
    op.create_index("ix_signals_customer_id", "signals", ["customer_id", "at"], unique=False)
    op.create_table(
        "risks",
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("chance_30", sa.Double(), nullable=False),
        sa.Column("chance_90", sa.Double(), nullable=False),
        sa.Column("reasons", JSON(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("seen_at", INSTANT, nullable=False),
        sa.Column("seen", JSON(), nullable=False),
        sa.CheckConstraint("chance_30 BETWEEN 0 AND 1 AND chance_90 BETWEEN chance_30 AND 1", name=op.f("ck_risks_chances")),
        sa.ForeignKeyConstraint(["subscription_id"], ["subscriptions.id"], name=op.f("fk_risks_subscription_id")),
        sa.PrimaryKeyConstraint("subscription_id", "month", name=op.f("pk_risks")),
    )
    op.add_column("cases", sa.Column("segment", sa.Text(), nullable=True))
    op.alter_column("outbox", "case_id", nullable=True)
    op.add_column("outbox", sa.Column("subscription_id", sa.Text(), nullable=True))
    op.create_foreign_key(op.f("fk_outbox_subscription_id"), "outbox", "subscriptions", ["subscription_id"], ["id"])
    op.create_check_constraint(op.f("ck_outbox_about_one"), "outbox", "(case_id IS NULL) = (subscription_id IS NOT NULL)")
    op.create_index(
        "uq_outbox_subscription",
        "outbox",
        ["subscription_id", "kind", "name", "channel"],
        unique=True,
        postgresql_where=sa.text("subscription_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("uq_outbox_subscription", table_name="outbox")
    op.drop_constraint(op.f("ck_outbox_about_one"), "outbox", type_="check")
    op.execute("DELETE FROM outbox WHERE case_id IS NULL")
    op.drop_column("outbox", "subscription_id")
    op.alter_column("outbox", "case_id", nullable=False)
    op.drop_column("cases", "segment")
    op.drop_table("risks")
    op.drop_table("signals")
    op.drop_table("subscriptions")
