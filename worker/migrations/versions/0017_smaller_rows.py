"""half the bytes of a waiting case: facts without their names, the step without its reasons, shorter indexes"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

CARD = ("fingerprint", "brand", "funding", "country", "exp_month", "exp_year", "last4")
DECLINE = ("code", "advice_code", "network_decline_code", "network_advice_code", "outcome_type", "outcome_reason")
PACKED = (("cases", "card", CARD), ("cases", "failed_card", CARD), ("cases", "decline", DECLINE), ("attempts", "card", CARD), ("attempts", "decline", DECLINE))
# Often vacuumed, for what is due is found past what was due; a page of cases keeps room for one more version of a row.
SETTINGS = {"cases": {"fillfactor": 92}, "outbox": {"fillfactor": 90}}
VACUUM = {"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02}


def upgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")  # every row is written anew: ten million take minutes
    for name in ("customer_id", "subscription_id", "intent_id", "failed_fingerprint", "open_card", "state", "leased"):
        op.drop_index(f"ix_cases_{name}", table_name="cases")
    for table, settings in SETTINGS.items():
        told = ", ".join(f"{name} = {value}" for name, value in {**settings, **VACUUM}.items())
        op.execute(f"ALTER TABLE {table} SET ({told})")
    op.execute("ALTER TABLE cases ALTER methods_seen DROP DEFAULT")
    for table in ("cases", "attempts"):
        packed = ", ".join(_typed(column, "json", _packed(column, names)) for each, column, names in PACKED if each == table)
        more = (_typed("methods_seen", "json", "CAST(methods_seen AS json)"), _typed("step", "json", "CAST(nullif(step, 'null') - 'reasons' AS json)"))
        op.execute(f"ALTER TABLE {table} {packed}{''.join(f', {each}' for each in more if table == 'cases')}")
    op.execute("ALTER TABLE cases ALTER methods_seen SET DEFAULT '[]'")
    op.create_index("ix_cases_customer_id", "cases", ["customer_id"], postgresql_using="hash")
    op.create_index("ix_cases_intent_id", "cases", ["intent_id"], postgresql_using="hash")
    op.create_index("ix_cases_failed_fingerprint", "cases", [sa.text("(failed_card ->> 0)")], postgresql_using="hash")
    op.create_index("ix_cases_open_card", "cases", [sa.text("(card ->> 0)")], postgresql_using="hash", postgresql_where=sa.text("closed_at IS NULL"))
    op.create_index("ix_cases_state", "cases", ["state"])


def downgrade() -> None:
    op.execute("SET LOCAL statement_timeout = 0")
    for name in ("customer_id", "intent_id", "failed_fingerprint", "open_card", "state"):
        op.drop_index(f"ix_cases_{name}", table_name="cases")
    op.execute("ALTER TABLE cases ALTER methods_seen DROP DEFAULT")
    for table in ("cases", "attempts"):
        told = ", ".join(_typed(column, "jsonb", _told(column, names)) for each, column, names in PACKED if each == table)
        # Until it is planned anew a case shows no reasons.
        step = """CAST(step AS jsonb) || '{"reasons": []}'"""
        more = (_typed("methods_seen", "jsonb", "CAST(methods_seen AS jsonb)"), _typed("step", "jsonb", step))
        op.execute(f"ALTER TABLE {table} {told}{''.join(f', {each}' for each in more if table == 'cases')}")
    op.execute("ALTER TABLE cases ALTER methods_seen SET DEFAULT '[]'")
    for table, settings in SETTINGS.items():
        op.execute(f"ALTER TABLE {table} RESET ({', '.join((*settings, *VACUUM))})")
    for name in ("customer_id", "subscription_id", "intent_id"):
        op.create_index(f"ix_cases_{name}", "cases", [name])
    op.create_index("ix_cases_failed_fingerprint", "cases", [sa.text("(failed_card ->> 'fingerprint')"), "failed_at"])
    op.create_index("ix_cases_open_card", "cases", [sa.text("(card ->> 'fingerprint')")], postgresql_where=sa.text("closed_at IS NULL"))
    op.create_index("ix_cases_state", "cases", ["state", "id"])
    op.create_index("ix_cases_leased", "cases", ["lease_until"], postgresql_where=sa.text("lease_token IS NOT NULL"))


def _typed(column: str, kind: str, told: str) -> str:
    return f"ALTER {column} TYPE {kind} USING {told}"


def _packed(column: str, names: tuple[str, ...]) -> str:
    facts = ", ".join(f"{column} -> '{name}'" for name in names)
    return f"CASE WHEN jsonb_typeof({column}) = 'object' THEN json_build_array({facts}) END"


def _told(column: str, names: tuple[str, ...]) -> str:
    facts = ", ".join(f"'{name}', {column} -> {place}" for place, name in enumerate(names))
    return f"CASE WHEN {column} IS NOT NULL THEN jsonb_build_object({facts}) END"
