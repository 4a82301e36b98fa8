"""which arm of an experiment a case belongs to"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cases", sa.Column("arm", sa.Text(), server_default="a", nullable=False))
    op.create_check_constraint(op.f("ck_cases_arm"), "cases", "arm IN ('a', 'b', 'control')")
    op.create_index("ix_cases_failed_at", "cases", ["failed_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_cases_failed_at", table_name="cases")
    op.drop_constraint(op.f("ck_cases_arm"), "cases", type_="check")
    op.drop_column("cases", "arm")
