"""what an operator asks for and looks for"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

OF_CUSTOMER = "(payload #>> '{data,object,customer}')"


def upgrade() -> None:
    op.add_column("cases", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("cases", sa.Column("decline_class", sa.Text(), nullable=True))
    op.execute("UPDATE cases SET decline_class = substr(step -> 'reasons' ->> 0, 8) WHERE step -> 'reasons' ->> 0 LIKE 'class: %'")
    op.create_index("ix_events_customer", "events", [sa.text(OF_CUSTOMER), "received_at"], unique=False)
    op.create_index("ix_cases_state", "cases", ["state", "id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_cases_state", table_name="cases")
    op.drop_index("ix_events_customer", table_name="events")
    op.drop_column("cases", "decline_class")
    op.drop_column("cases", "asked_at")
