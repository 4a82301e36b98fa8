"""several invoices in one notice"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("merged_into", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_outbox_merged_into"), "outbox", "outbox", ["merged_into"], ["id"])
    op.create_index(op.f("ix_outbox_merged_into"), "outbox", ["merged_into"], unique=False)
    op.create_check_constraint(
        op.f("ck_outbox_merged_never_leaves"), "outbox", "merged_into IS NULL OR due_at IS NULL"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("ck_outbox_merged_never_leaves"), "outbox", type_="check")
    op.drop_index(op.f("ix_outbox_merged_into"), table_name="outbox")
    op.drop_constraint(op.f("fk_outbox_merged_into"), "outbox", type_="foreignkey")
    op.drop_column("outbox", "merged_into")
