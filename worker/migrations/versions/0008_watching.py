"""what keeps everybody from charging, who was at work, and what is done once a day"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OWN_KEY = "(payload -> 'request') ->> 'idempotency_key'"
MACHINE_NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "stops",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint("name IN ('operator', 'restored')", name=op.f("ck_stops_name")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_stops")),
    )
    op.create_table(
        "heartbeats",
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=MACHINE_NOW, nullable=False),
        sa.PrimaryKeyConstraint("role", "name", "what", name=op.f("pk_heartbeats")),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "jobs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), server_default=MACHINE_NOW, nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_jobs")),
    )
    op.create_index(
        "ix_events_own_key",
        "events",
        [sa.text(f"({OWN_KEY})")],
        unique=False,
        postgresql_where=sa.text(f"({OWN_KEY}) LIKE 'dunning-%'"),
    )


def downgrade() -> None:
    op.drop_index("ix_events_own_key", table_name="events")
    op.drop_table("jobs")
    op.drop_table("heartbeats")
    op.drop_table("stops")
