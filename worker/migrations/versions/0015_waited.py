"""whether a charge had waited for a bank to open, with the charge itself"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

CHARGED = "state IN ('succeeded', 'declined')"
PLANNED = """what = 'planned' AND detail @? '$.reasons[*] ? (@ starts with "window:")'"""


def upgrade() -> None:
    op.add_column("attempts", sa.Column("waited", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.execute(f"""
        UPDATE attempts SET waited = true FROM history
         WHERE history.case_id = attempts.case_id AND {PLANNED}
           AND CAST(history.detail ->> 'attempt' AS integer) = attempts.number
           AND attempts.at >= CAST(history.detail ->> 'at' AS timestamptz)
           AND attempts.at < CAST(history.detail ->> 'at' AS timestamptz) + interval '1 hour'
    """)
    op.drop_index("ix_history_waited", table_name="history")
    op.drop_index("ix_attempts_charged", table_name="attempts")
    op.create_index("ix_attempts_charged", "attempts", ["case_id"], unique=False, postgresql_include=["waited"], postgresql_where=sa.text(CHARGED))


def downgrade() -> None:
    op.drop_index("ix_attempts_charged", table_name="attempts")
    op.create_index("ix_attempts_charged", "attempts", ["case_id"], unique=False, postgresql_include=["number", "at"], postgresql_where=sa.text(CHARGED))
    op.create_index("ix_history_waited", "history", ["case_id"], unique=False, postgresql_where=sa.text(PLANNED))
    op.drop_column("attempts", "waited")
