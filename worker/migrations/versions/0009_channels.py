"""by which channel a message leaves, and what is told to the merchant's own systems"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ONE_OF = "kind IN ('notice', 'ending', 'card'{})"


def upgrade() -> None:
    op.add_column("outbox", sa.Column("channel", sa.Text(), nullable=True))
    op.add_column("outbox", sa.Column("payload", postgresql.JSONB(), nullable=True))
    op.execute("UPDATE outbox SET channel = CASE kind WHEN 'notice' THEN 'mail' ELSE 'stripe' END")
    op.alter_column("outbox", "channel", nullable=False)
    op.drop_constraint(op.f("uq_outbox_case_id_kind_name"), "outbox", type_="unique")
    op.drop_constraint(op.f("ck_outbox_kind"), "outbox", type_="check")
    op.create_check_constraint(op.f("ck_outbox_kind"), "outbox", ONE_OF.format(", 'hook'"))
    op.create_check_constraint(
        op.f("ck_outbox_channel"), "outbox", "channel IN ('mail', 'sms', 'app', 'hook', 'stripe')"
    )
    op.create_index(
        "uq_outbox_once",
        "outbox",
        ["case_id", "kind", "name", "channel"],
        unique=True,
        postgresql_where=sa.text("kind <> 'hook'"),
    )


def downgrade() -> None:
    op.execute("DELETE FROM outbox WHERE channel IN ('sms', 'app', 'hook')")
    op.drop_index("uq_outbox_once", table_name="outbox")
    op.drop_constraint(op.f("ck_outbox_channel"), "outbox", type_="check")
    op.drop_constraint(op.f("ck_outbox_kind"), "outbox", type_="check")
    op.create_check_constraint(op.f("ck_outbox_kind"), "outbox", ONE_OF.format(""))
    op.create_unique_constraint(op.f("uq_outbox_case_id_kind_name"), "outbox", ["case_id", "kind", "name"])
    op.drop_column("outbox", "payload")
    op.drop_column("outbox", "channel")
