"""cases that are set aside because they end their workers"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cases", sa.Column("quarantined_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE cases SET claims = 0")  # it counted every claim, and now those that were not given back


def downgrade() -> None:
    op.drop_column("cases", "quarantined_at")
