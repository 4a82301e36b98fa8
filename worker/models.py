"""What is stored? Few tables; their constraints hold the promises even when the code is wrong.

Business instants (``at``, ``due_at``, ``failed_at``) drive decisions; machine instants (``lease_until``,
``sent_at``, ``received_at``) come from PostgreSQL's one clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import zip_longest
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    false,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from schedules import Card, Decline
from schedules.arms import ARMS

OPEN_STATES = ("silent", "contacting", "paused")
OUTCOMES = ("recovered", "lost", "canceled", "released")
MESSAGES = ("notice", "ending", "card", "hook")
OF_A_CUSTOMER, OF_AN_ADDRESS = ("opted_out", "by_hand"), ("bounced", "complained")  # why somebody is not written to
UNCERTAIN = "uncertain: handed over once, perhaps delivered"  # the error of a message that nobody tries again
UNRESOLVED = ("sent", "unknown", "processing")
ATTEMPT_STATES = (*UNRESOLVED, "succeeded", "declined", "not_executed", "observed", "foreign")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
INSTANT = DateTime(timezone=True)
OWN_KEY = "(payload -> 'request') ->> 'idempotency_key'"  # of the request that caused an event
OF_CUSTOMER = "payload #>> '{data,object,customer}'"
MACHINE_NOW = func.clock_timestamp()
# What is due is found past what was due: that is to be removed long before it is a fifth of a table.
OFTEN_VACUUMED = {"autovacuum_vacuum_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02}


class Packed(TypeDecorator[dict[str, Any]]):
    """Facts as a JSON array in the order of their names: half as long as an object, and every case waits with three.

    Takes and gives a dictionary; what is given has every name, also where an object was stored.
    """

    impl, cache_ok = JSON, True

    class comparator_factory(JSON.Comparator[Any]):  # noqa: N801 - so SQLAlchemy calls it
        """Finds a fact by its name."""

        def __getitem__(self, name: Any) -> Any:
            """Return the fact as SQL, its place written out: an index is found by it."""
            kind: Any = self.expr.type
            return super().__getitem__(literal_column(str(kind.names.index(name)), Integer))  # type: ignore[no-untyped-call]

    def __init__(self, names: Sequence[str]) -> None:
        """Take the names in their order: what is stored depends on it."""
        super().__init__(none_as_null=True)
        self.names = tuple(names)

    def process_bind_param(self, value: dict[str, Any] | None, dialect: object) -> Any:  # noqa: ARG002
        """Return what is stored."""
        return self.packed(value)

    def packed(self, value: dict[str, Any] | None) -> list[Any] | None:
        """Return the facts without their names, and without unknown ones at the end."""
        if value is None:
            return None
        told = [value.get(name) for name in self.names]
        while told and told[-1] is None:
            told.pop()
        return told

    def process_result_value(self, value: Any, dialect: object) -> dict[str, Any] | None:  # noqa: ARG002
        """Return the facts by name."""
        if value is None:
            return None
        if isinstance(value, dict):
            return {name: value.get(name) for name in self.names}
        return dict(zip_longest(self.names, value))


CARD, DECLINE = (Packed([field.name for field in fields(facts)]) for facts in (Card, Decline))


def card_fact(column: str, name: str) -> str:
    """Return the SQL of one fact of a card as text."""
    return f"({column} ->> {CARD.names.index(name)})"


def one_of(column: str, values: tuple[str, ...]) -> str:
    """Return the SQL condition that ``column`` is one of ``values``."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


install = Table(
    "install",
    metadata,
    Column("row_number", Integer, primary_key=True, server_default=text("1")),
    Column("id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    CheckConstraint("row_number = 1", name="one_row"),
)

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("account", Text),
    Column("payload", JSONB, nullable=False),
    Column("received_at", INSTANT, nullable=False, server_default=MACHINE_NOW),
    Column("handled_at", INSTANT),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("retry_at", INSTANT),
    Column("error", Text),
    Index("ix_events_unhandled", "received_at", "id", postgresql_where=text("handled_at IS NULL")),
    Index("ix_events_customer", text(f"({OF_CUSTOMER})"), "received_at"),
    Index("ix_events_account", "account", postgresql_where=text("account IS NOT NULL")),
    Index("ix_events_own_key", text(f"({OWN_KEY})"), postgresql_where=text(f"({OWN_KEY}) LIKE 'dunning-%'")),
)

limits = Table(
    "limits",
    metadata,
    Column("name", Text, primary_key=True),  # an endpoint of the provider, or the circuit that all share
    Column("next_at", INSTANT, nullable=False),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("since", INSTANT),
    Column("probe_until", INSTANT),
    prefixes=["UNLOGGED"],  # written with every request, worth nothing after a crash
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("position", INSTANT, nullable=False),  # business time: everything before it is known
    Column("begun_at", INSTANT, nullable=False, server_default=MACHINE_NOW),
)

cases = Table(
    "cases",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("payment_id", Text, nullable=False, unique=True),
    Column("account", Text),
    Column("customer_id", Text, nullable=False),
    Column("subscription_id", Text),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("failed_at", INSTANT, nullable=False),
    Column("decline", DECLINE, nullable=False),
    Column("failed_card", CARD, nullable=False),
    Column("time_zone", Text),
    Column("locale", Text),
    Column("tenure_days", Integer),
    Column("card", CARD, nullable=False),
    Column("method_id", Text),
    Column("pay_with", Text),
    Column("methods_seen", JSON, nullable=False, server_default="[]"),
    Column("retried_elsewhere", Boolean, nullable=False, server_default=false()),
    Column("intent_id", Text),
    Column("card_entered_at", INSTANT),
    Column("refreshed_at", INSTANT),
    Column("news", Integer, nullable=False, server_default=text("0")),
    Column("news_read", Integer, nullable=False, server_default=text("0")),
    Column("charge_id", Text),
    Column("failed_charge_id", Text),
    Column("ended", Text),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("state", Text, nullable=False, server_default="silent"),
    Column("due_at", INSTANT),
    Column("step", JSON(none_as_null=True)),
    Column("lease_token", Uuid),
    Column("lease_until", INSTANT),
    Column("claims", Integer, nullable=False, server_default=text("0")),  # in a row without being given back
    Column("quarantined_at", INSTANT),
    Column("asked_at", INSTANT),  # an operator wants a charge
    Column("decline_class", Text),  # of the latest decision, to find cases by
    Column("arm", Text, nullable=False, server_default="a"),
    Column("segment", Text),  # whose policy it follows; none: the usual one
    Column("recovered_by", Text),
    Column("closed_at", INSTANT),
    CheckConstraint(one_of("state", (*OPEN_STATES, *OUTCOMES)), name="state"),
    CheckConstraint(one_of("arm", ARMS), name="arm"),
    CheckConstraint("amount_minor >= 0", name="amount"),
    CheckConstraint(f"({one_of('state', OUTCOMES)}) = (closed_at IS NOT NULL)", name="closed"),
    CheckConstraint("closed_at IS NULL OR (due_at IS NULL AND lease_token IS NULL)", name="ended_never_moves"),
    CheckConstraint("closed_at IS NOT NULL OR due_at IS NOT NULL", name="open_has_a_next_step"),
    CheckConstraint("(lease_token IS NULL) = (lease_until IS NULL)", name="lease"),
    # Every waiting case pays for these: hashes are half as long as the ids, and find by equality only.
    Index("ix_cases_customer_id", "customer_id", postgresql_using="hash"),
    Index("ix_cases_intent_id", "intent_id", postgresql_using="hash"),
    Index("ix_cases_failed_fingerprint", text(card_fact("failed_card", "fingerprint")), postgresql_using="hash"),
    Index(
        "ix_cases_open_card",
        text(card_fact("card", "fingerprint")),
        postgresql_using="hash",
        postgresql_where=text("closed_at IS NULL"),
    ),
    Index("ix_cases_state", "state"),
    Index("ix_cases_failed_at", "failed_at"),
    Index("ix_cases_due", "due_at", "id", postgresql_where=text("due_at IS NOT NULL")),
    # A page keeps room for one more version of a row: a claim that finds it there touches no index.
    postgresql_with={"fillfactor": 92, **OFTEN_VACUUMED},
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("case_id", BigInteger, ForeignKey("cases.id"), index=True),  # none: a charge of which no case knows
    Column("payment_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("at", INSTANT, nullable=False),
    Column("sent_at", INSTANT, nullable=False, server_default=MACHINE_NOW),
    Column("settled_at", INSTANT),
    Column("card", CARD, nullable=False),
    Column("fingerprint", Text),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("decline", DECLINE),
    Column("by_updater", Boolean, nullable=False, server_default=false()),
    Column("charge_before", Text),
    Column("pay_with", Text),
    Column("waited", Boolean, nullable=False, server_default=text("false")),  # for a bank to open
    Column("model", Text),  # the version that chose the instant; none: the rules
    Column(
        "propensity", Double
    ),  # how likely this day and part of the day were to be chosen; none: they were not drawn
    Column("charge_id", Text),
    Column("read_at", INSTANT),
    Column("error", Text),
    CheckConstraint(one_of("state", ATTEMPT_STATES), name="state"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint(f"({one_of('state', UNRESOLVED)}) = (settled_at IS NULL)", name="settled"),
    Index("uq_attempts_unresolved", "payment_id", unique=True, postgresql_where=text(one_of("state", UNRESOLVED))),
    Index("uq_attempts_number", "case_id", "number", unique=True, postgresql_where=text("state <> 'not_executed'")),
    Index("uq_attempts_success", "payment_id", unique=True, postgresql_where=text("state = 'succeeded'")),
    Index("ix_attempts_fingerprint", "fingerprint", "at"),
    Index(
        "ix_attempts_charged",  # reports count charges without reading the rows
        "case_id",
        postgresql_include=["waited"],
        postgresql_where=text("state IN ('succeeded', 'declined')"),
    ),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("case_id", BigInteger, ForeignKey("cases.id")),  # none: about a subscription whose payments pass
    Column("subscription_id", Text, ForeignKey("subscriptions.id")),
    Column("customer_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("payload", JSONB),  # what a hook says; what a notice says is read when it leaves
    Column("at", INSTANT, nullable=False),
    Column("merged_into", BigInteger, ForeignKey("outbox.id"), index=True),  # the message that says this one too
    Column("due_at", INSTANT),
    Column("delivered_at", INSTANT),
    Column("lease_token", Uuid),
    Column("lease_until", INSTANT),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("error", Text),
    Column("sent_to", Text),  # a digest of the address
    CheckConstraint(one_of("kind", MESSAGES), name="kind"),
    CheckConstraint(one_of("channel", ("mail", "sms", "app", "hook", "stripe")), name="channel"),
    CheckConstraint("merged_into IS NULL OR due_at IS NULL", name="merged_never_leaves"),
    CheckConstraint("(case_id IS NULL) = (subscription_id IS NOT NULL)", name="about_one"),
    Index(
        "uq_outbox_once",
        "case_id",
        "kind",
        "name",
        "channel",
        unique=True,
        postgresql_where=text("kind <> 'hook'"),  # a case is planned anew many times
    ),
    Index(
        "uq_outbox_subscription",
        "subscription_id",
        "kind",
        "name",
        "channel",
        unique=True,
        postgresql_where=text("subscription_id IS NOT NULL"),  # a name tells the period that it is about
    ),
    Index("ix_outbox_due", "due_at", "id", postgresql_where=text("due_at IS NOT NULL")),
    Index("ix_outbox_customer_id", "customer_id", "at", postgresql_where=text("kind = 'notice'")),
    postgresql_with={"fillfactor": 90, **OFTEN_VACUUMED},
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("customer_id", Text, nullable=False),
    Column("account", Text),
    Column("why", Text, nullable=False),
    Column("address", Text),  # a digest; none: it is about the customer, whatever the address
    Column("at", INSTANT, nullable=False),
    CheckConstraint(one_of("why", (*OF_A_CUSTOMER, *OF_AN_ADDRESS)), name="why"),
    CheckConstraint(f"({one_of('why', OF_AN_ADDRESS)}) = (address IS NOT NULL)", name="address"),
    UniqueConstraint("customer_id", "account", "why", "address", postgresql_nulls_not_distinct=True),
    Index("ix_suppressions_address", "address", postgresql_where=text("address IS NOT NULL")),
)

history = Table(
    "history",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("case_id", BigInteger, ForeignKey("cases.id"), nullable=False, index=True),
    Column("at", INSTANT, nullable=False),
    Column("what", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Index("ix_history_taken_back", "case_id", postgresql_where=text("what IN ('disputed', 'refunded')")),  # for reports
)

subscriptions = Table(  # as the provider last showed them
    "subscriptions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("account", Text),
    Column("customer_id", Text, nullable=False),
    Column("status", Text, nullable=False),  # the provider's word, or ``gone``: it shows this one no longer
    Column("started_at", INSTANT, nullable=False),  # of paying: the end of a trial
    Column("ended_at", INSTANT),
    Column("cancel_at", INSTANT),  # automatic renewal is off
    Column("canceled_at", INSTANT),  # when somebody asked for that, or for the end
    Column("reason", Text),  # of the cancellation: requested, payment_failed, payment_disputed, as the provider has it
    Column("feedback", Text),
    Column("plan", Text),
    Column("amount_minor", BigInteger),  # of one period; none: the price is not fixed
    Column("monthly_minor", BigInteger),  # the same for a month
    Column("currency", Text, nullable=False),
    Column("country", Text),  # of the customer, else of the card
    Column("method_id", Text),  # what the next charge takes, by the provider's order
    Column("method", Text),  # card, sepa_debit, …
    Column("card", CARD, nullable=False),
    Column("other_method_id", Text),  # the default of the customer beneath one of the subscription's own
    Column("other_card", CARD),
    Column("next_charge_at", INSTANT),  # none: nothing will be charged
    Column("last_paid_at", INSTANT),
    Column("read_at", INSTANT, nullable=False, server_default=MACHINE_NOW),
    Index("ix_subscriptions_customer_id", "customer_id"),
    Index("ix_subscriptions_next_charge_at", "next_charge_at", postgresql_where=text("ended_at IS NULL")),
)

signals = Table(  # what the merchant knows and the provider does not
    "signals",
    metadata,
    Column("id", Text, primary_key=True),  # the sender's own: the same signal twice is one
    Column("account", Text),
    Column("customer_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("value", Double, nullable=False),
    Column("at", INSTANT, nullable=False),
    Column("received_at", INSTANT, nullable=False, server_default=MACHINE_NOW),
    Index("ix_signals_customer_id", "customer_id", "at"),
)

risks = Table(  # one line for each subscription and month: the latest score, and what was seen at the month's first
    "risks",
    metadata,
    Column("subscription_id", Text, ForeignKey("subscriptions.id"), primary_key=True),
    Column("month", Date, primary_key=True),  # its first day
    Column("at", INSTANT, nullable=False),  # of the score
    Column("chance_30", Double, nullable=False),
    Column("chance_90", Double, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("model", Text),  # the version that scored; none: the rules
    Column("seen_at", INSTANT, nullable=False),
    Column("seen", JSON, nullable=False),  # the facts of that instant, to learn from when it is known what came
    CheckConstraint("chance_30 BETWEEN 0 AND 1 AND chance_90 BETWEEN chance_30 AND 1", name="chances"),
)

stops = Table(
    "stops",
    metadata,
    Column("name", Text, primary_key=True),
    Column("at", INSTANT, nullable=False),
    Column("reason", Text, nullable=False),
    CheckConstraint(one_of("name", ("operator", "restored")), name="name"),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("role", Text, primary_key=True),
    Column("name", Text, primary_key=True),  # host and process
    Column("what", Text, primary_key=True),
    Column("at", INSTANT, nullable=False, server_default=MACHINE_NOW),
    prefixes=["UNLOGGED"],  # the next work done writes it anew
)

failures = Table(
    "failures",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("task", Text, nullable=False),
    Column("row_id", BigInteger),  # of the case or the message that it was about
    Column("error", Text, nullable=False),
    Column("count", Integer, nullable=False, server_default=text("1")),
    Column("first_at", INSTANT, nullable=False, server_default=MACHINE_NOW),
    Column("last_at", INSTANT, nullable=False, server_default=MACHINE_NOW),
    UniqueConstraint("task", "row_id", postgresql_nulls_not_distinct=True),
)

jobs = Table(
    "jobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("begun_at", INSTANT, nullable=False, server_default=MACHINE_NOW),
    Column("done_at", INSTANT),
    Column("result", JSONB),
)
