"""first tables"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cases",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decline", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("failed_card", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=True),
        sa.Column("locale", sa.Text(), nullable=True),
        sa.Column("tenure_days", sa.Integer(), nullable=True),
        sa.Column("card", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("method_id", sa.Text(), nullable=True),
        sa.Column("card_entered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("news", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("news_read", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("charge_id", sa.Text(), nullable=True),
        sa.Column("ended", sa.Text(), nullable=True),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("state", sa.Text(), server_default="silent", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("step", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claims", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("recovered_by", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('recovered', 'lost', 'canceled', 'released')) = (closed_at IS NOT NULL)",
            name=op.f("ck_cases_closed"),
        ),
        sa.CheckConstraint(
            "state IN ('silent', 'contacting', 'paused', 'recovered', 'lost', 'canceled', 'released')",
            name=op.f("ck_cases_state"),
        ),
        sa.CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name=op.f("ck_cases_lease")),
        sa.CheckConstraint("amount_minor >= 0", name=op.f("ck_cases_amount")),
        sa.CheckConstraint("closed_at IS NOT NULL OR due_at IS NOT NULL", name=op.f("ck_cases_open_has_a_next_step")),
        sa.CheckConstraint(
            "closed_at IS NULL OR (due_at IS NULL AND lease_token IS NULL)", name=op.f("ck_cases_ended_never_moves")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cases")),
        sa.UniqueConstraint("payment_id", name=op.f("uq_cases_payment_id")),
    )
    op.create_index(op.f("ix_cases_customer_id"), "cases", ["customer_id"], unique=False)
    op.create_index(
        "ix_cases_due", "cases", ["due_at", "id"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index(
        "ix_cases_failed_fingerprint",
        "cases",
        [sa.literal_column("(failed_card ->> 'fingerprint')"), "failed_at"],
        unique=False,
    )
    op.create_index(
        "ix_cases_leased", "cases", ["lease_until"], unique=False, postgresql_where=sa.text("lease_token IS NOT NULL")
    )
    op.create_index(op.f("ix_cases_subscription_id"), "cases", ["subscription_id"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("payload", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "received_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("handled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(
        "ix_events_unhandled",
        "events",
        ["received_at", "id"],
        unique=False,
        postgresql_where=sa.text("handled_at IS NULL"),
    )
    op.create_table(
        "install",
        sa.Column("row_number", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.CheckConstraint("row_number = 1", name=op.f("ck_install_one_row")),
        sa.PrimaryKeyConstraint("row_number", name=op.f("pk_install")),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("card", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("decline", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("by_updater", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("charge_before", sa.Text(), nullable=True),
        sa.Column("charge_id", sa.Text(), nullable=True),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state IN ('sent', 'unknown', 'processing')) = (settled_at IS NULL)", name=op.f("ck_attempts_settled")
        ),
        sa.CheckConstraint(
            "state IN ('sent', 'unknown', 'processing', 'succeeded', 'declined', 'not_executed', 'observed')",
            name=op.f("ck_attempts_state"),
        ),
        sa.CheckConstraint("number >= 1", name=op.f("ck_attempts_number")),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_attempts_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_attempts_idempotency_key")),
    )
    op.create_index(op.f("ix_attempts_case_id"), "attempts", ["case_id"], unique=False)
    op.create_index("ix_attempts_fingerprint", "attempts", ["fingerprint", "at"], unique=False)
    op.create_index(
        "uq_attempts_number",
        "attempts",
        ["case_id", "number"],
        unique=True,
        postgresql_where=sa.text("state <> 'not_executed'"),
    )
    op.create_index(
        "uq_attempts_success", "attempts", ["payment_id"], unique=True, postgresql_where=sa.text("state = 'succeeded'")
    )
    op.create_index(
        "uq_attempts_unresolved",
        "attempts",
        ["payment_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('sent', 'unknown', 'processing')"),
    )
    op.create_table(
        "history",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_history_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_history")),
    )
    op.create_index(op.f("ix_history_case_id"), "history", ["case_id"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("case_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.Uuid(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('notice', 'ending')", name=op.f("ck_outbox_kind")),
        sa.ForeignKeyConstraint(["case_id"], ["cases.id"], name=op.f("fk_outbox_case_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("case_id", "kind", "name", name=op.f("uq_outbox_case_id_kind_name")),
    )
    op.create_index(
        "ix_outbox_customer_id",
        "outbox",
        ["customer_id", "at"],
        unique=False,
        postgresql_where=sa.text("kind = 'notice'"),
    )
    op.create_index(
        "ix_outbox_due", "outbox", ["due_at", "id"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.execute("INSERT INTO install DEFAULT VALUES")


def downgrade() -> None:
    op.drop_index("ix_outbox_due", table_name="outbox", postgresql_where=sa.text("due_at IS NOT NULL"))
    op.drop_index("ix_outbox_customer_id", table_name="outbox", postgresql_where=sa.text("kind = 'notice'"))
    op.drop_table("outbox")
    op.drop_index(op.f("ix_history_case_id"), table_name="history")
    op.drop_table("history")
    op.drop_index(
        "uq_attempts_unresolved",
        table_name="attempts",
        postgresql_where=sa.text("state IN ('sent', 'unknown', 'processing')"),
    )
    op.drop_index("uq_attempts_success", table_name="attempts", postgresql_where=sa.text("state = 'succeeded'"))
    op.drop_index("uq_attempts_number", table_name="attempts", postgresql_where=sa.text("state <> 'not_executed'"))
    op.drop_index("ix_attempts_fingerprint", table_name="attempts")
    op.drop_index(op.f("ix_attempts_case_id"), table_name="attempts")
    op.drop_table("attempts")
    op.drop_table("install")
    op.drop_index("ix_events_unhandled", table_name="events", postgresql_where=sa.text("handled_at IS NULL"))
    op.drop_table("events")
    op.drop_index(op.f("ix_cases_subscription_id"), table_name="cases")
    op.drop_index("ix_cases_leased", table_name="cases", postgresql_where=sa.text("lease_token IS NOT NULL"))
    op.drop_index("ix_cases_failed_fingerprint", table_name="cases")
    op.drop_index("ix_cases_due", table_name="cases", postgresql_where=sa.text("due_at IS NOT NULL"))
    op.drop_index(op.f("ix_cases_customer_id"), table_name="cases")
    op.drop_table("cases")
