"""what chose the instant of a charge, and how likely that choice was"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("model", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("propensity", sa.Double(), nullable=True))
    op.create_index("ix_cases_open_card", "cases", [sa.text("(card ->> 'fingerprint')")], unique=False, postgresql_where=sa.text("closed_at IS NULL"))


def downgrade() -> None:
    op.drop_index("ix_cases_open_card", table_name="cases")
    op.drop_column("attempts", "propensity")
    op.drop_column("attempts", "model")
