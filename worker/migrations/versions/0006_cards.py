"""which stored card is charged, and who retries"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cases", sa.Column("pay_with", sa.Text(), nullable=True))
    op.add_column("cases", sa.Column("methods_seen", postgresql.JSONB(), server_default="[]", nullable=False))
    op.add_column("cases", sa.Column("retried_elsewhere", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("attempts", sa.Column("pay_with", sa.Text(), nullable=True))
    op.drop_constraint(op.f("ck_outbox_kind"), "outbox", type_="check")
    op.create_check_constraint(op.f("ck_outbox_kind"), "outbox", "kind IN ('notice', 'ending', 'card')")


def downgrade() -> None:
    op.execute("DELETE FROM outbox WHERE kind = 'card'")
    op.drop_constraint(op.f("ck_outbox_kind"), "outbox", type_="check")
    op.create_check_constraint(op.f("ck_outbox_kind"), "outbox", "kind IN ('notice', 'ending')")
    op.drop_column("attempts", "pay_with")
    op.drop_column("cases", "retried_elsewhere")
    op.drop_column("cases", "methods_seen")
    op.drop_column("cases", "pay_with")
