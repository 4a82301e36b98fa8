"""charges that we did not make"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BEFORE = "state IN ('sent', 'unknown', 'processing', 'succeeded', 'declined', 'not_executed', 'observed')"
SINCE = "state IN ('sent', 'unknown', 'processing', 'succeeded', 'declined', 'not_executed', 'observed', 'foreign')"


def upgrade() -> None:
    op.add_column("cases", sa.Column("failed_charge_id", sa.Text(), nullable=True))
    op.execute(
        "UPDATE cases SET failed_charge_id = charge_id"
        " WHERE NOT EXISTS (SELECT FROM attempts WHERE attempts.case_id = cases.id)"
    )
    op.alter_column("attempts", "case_id", existing_type=sa.BigInteger(), nullable=True)
    _states(SINCE)


def downgrade() -> None:
    op.execute("DELETE FROM attempts WHERE state = 'foreign'")
    _states(BEFORE)
    op.alter_column("attempts", "case_id", existing_type=sa.BigInteger(), nullable=False)
    op.drop_column("cases", "failed_charge_id")


def _states(condition: str) -> None:
    op.drop_constraint(op.f("ck_attempts_state"), "attempts", type_="check")
    op.create_check_constraint(op.f("ck_attempts_state"), "attempts", condition)
