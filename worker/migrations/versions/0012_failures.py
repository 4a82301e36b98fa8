"""jobs that failed"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

MACHINE_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "failures",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("row_id", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), server_default=MACHINE_NOW, nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), server_default=MACHINE_NOW, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failures")),
        sa.UniqueConstraint("task", "row_id", name=op.f("uq_failures_task_row_id"), postgresql_nulls_not_distinct=True),
    )


def downgrade() -> None:
    op.drop_table("failures")
