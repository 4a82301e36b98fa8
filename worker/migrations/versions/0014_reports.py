"""what reports count, without reading every line of the history"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

WAITED = """what = 'planned' AND detail @? '$.reasons[*] ? (@ starts with "window:")'"""


def upgrade() -> None:
    op.create_index("ix_attempts_charged", "attempts", ["case_id"], unique=False, postgresql_include=["number", "at"], postgresql_where=sa.text("state IN ('succeeded', 'declined')"))
    op.create_index("ix_history_waited", "history", ["case_id"], unique=False, postgresql_where=sa.text(WAITED))
    op.create_index("ix_history_taken_back", "history", ["case_id"], unique=False, postgresql_where=sa.text("what IN ('disputed', 'refunded')"))


def downgrade() -> None:
    op.drop_index("ix_history_taken_back", table_name="history")
    op.drop_index("ix_history_waited", table_name="history")
    op.drop_index("ix_attempts_charged", table_name="attempts")
