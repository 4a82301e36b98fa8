"""What may a decision look at? Gathered from the rows of one case, its card and its customer, in two statements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    Select,
    Text,
    bindparam,
    func,
    select,
    true,
    union_all,
)

from schedules import Card, Decline, Facts, FailedPayment, PastAttempt
from schedules.segments import JOINED
from worker.models import INSTANT, attempts, cases, outbox, subscriptions

MONTH = timedelta(days=30)
MOST_SUCCESSES = 6  # older paydays may be those of another employer

CASE = bindparam("case", type_=BigInteger)
CUSTOMER = bindparam("customer", type_=Text)
FINGERPRINT = bindparam("fingerprint", type_=Text)
SINCE = bindparam("since", type_=INSTANT)


def facts_of(db: Connection, row: Row[Any], now: datetime) -> Facts:
    """Return everything the decision may look at, from the rows of one case, its card and its customer."""
    card = Card(**row.card)
    about = {"case": row.id, "customer": row.customer_id, "fingerprint": card.fingerprint, "since": now - MONTH}
    known = db.execute(KNOWN, about).one()
    return Facts(
        payment=payment_of(row),
        card=card,
        card_entered_at=row.card_entered_at,
        refreshed_at=row.refreshed_at if row.news == row.news_read else None,
        attempts=declined(db, row.id),
        uses=_sorted(known.uses),
        card_due=_sorted(known.card_due),
        contacted=_sorted(known.contacted),
        customer_contacts=_sorted(known.customer_contacts),
        successes=_sorted(known.successes),
        ended=row.ended,
        paused=row.paused,
        retried_elsewhere=row.retried_elsewhere,
        asked_at=row.asked_at,
    )


def payment_of(row: Row[Any]) -> FailedPayment:
    """Return the renewal that failed, as the case remembers it."""
    return FailedPayment(
        payment_id=row.payment_id,
        customer_id=row.customer_id,
        subscription_id=row.subscription_id,
        amount_minor=row.amount_minor,
        currency=row.currency,
        failed_at=row.failed_at,
        decline=Decline(**row.decline),
        card=Card(**row.failed_card),
        time_zone=row.time_zone,
        locale=row.locale,
        tenure_days=row.tenure_days,
    )


def better_known(
    db: Connection, failed: Iterable[tuple[FailedPayment, str | None]]
) -> list[tuple[FailedPayment, str | None]]:
    """Return failed payments, each with its account, and with the tenure and the plan that our own tables tell.

    A tenure that came with the payment stays. Plans are known by the names of both.
    """
    failed = list(failed)
    shown = select(subscriptions.c.id, subscriptions.c.customer_id, subscriptions.c.plan, subscriptions.c.started_at)
    theirs = shown.where(subscriptions.c.customer_id.in_({payment.customer_id for payment, _ in failed}))
    begun: dict[str, datetime] = {}
    plans: dict[str | None, str | None] = {}
    for row in db.execute(theirs):
        begun[row.customer_id] = min(row.started_at, begun.get(row.customer_id, row.started_at))
        plans[row.id] = row.plan
    return [(_with(payment, begun.get(payment.customer_id), plans), account) for payment, account in failed]


def _with(payment: FailedPayment, begun: datetime | None, plans: dict[str | None, str | None]) -> FailedPayment:
    days = None if begun is None else max((payment.failed_at - begun).days, 0)
    names = {name for each in (payment.plan, plans.get(payment.subscription_id)) if each for name in each.split(JOINED)}
    tenure = days if payment.tenure_days is None else payment.tenure_days
    return replace(payment, tenure_days=tenure, plan=JOINED.join(sorted(names)) or None)


def declined(db: Connection, case_id: int) -> tuple[PastAttempt, ...]:
    """Return the charges that the bank refused, whoever made them; those of observe mode count as refused too."""
    rows = db.execute(DECLINED, {"case": case_id})
    return tuple(PastAttempt(r.number, r.at, Card(**r.card), Decline(**r.decline)) for r in rows)


def uses_of(db: Connection, fingerprint: str | None, now: datetime) -> tuple[datetime, ...]:
    """Return the instants of every charge on a card in the last 30 days: ours, failed renewals, and others' refused.

    A charge of which both an event and a reading or an answer told counts once, at the later instant.
    """
    if fingerprint is None:
        return ()
    return _sorted(db.execute(USES, {"fingerprint": fingerprint, "since": now - MONTH}).scalar())


def _sorted(instants: list[datetime] | None) -> tuple[datetime, ...]:
    return tuple(sorted(instants or ()))


# The statements, built once: building one takes longer than running it.


def _uses() -> Select[*tuple[Any, ...]]:
    charge = func.coalesce(attempts.c.charge_id, attempts.c.idempotency_key).label("charge")
    sent = select(charge, attempts.c.at.label("at")).where(
        attempts.c.fingerprint == FINGERPRINT, attempts.c.at > SINCE, attempts.c.state != "not_executed"
    )
    renewed = select(func.coalesce(cases.c.failed_charge_id, cases.c.payment_id), cases.c.failed_at).where(
        cases.c.failed_card["fingerprint"].astext == FINGERPRINT, cases.c.failed_at > SINCE
    )
    used = union_all(sent, renewed).subquery()
    once = select(func.max(used.c.at).label("at")).group_by(used.c.charge).subquery()
    return select(func.array_agg(once.c.at).label("uses"))


def _card_due() -> Select[*tuple[Any, ...]]:
    """When the older open cases of this card are to be charged: of two cases only one follows the other."""
    same = cases.c.card["fingerprint"].astext == FINGERPRINT, cases.c.closed_at.is_(None), cases.c.id < CASE
    return select(func.array_agg(cases.c.due_at).label("card_due")).where(
        *same, cases.c.step["step"].astext == "charge"
    )


def _contacts() -> Select[*tuple[Any, ...]]:
    said = outbox.c.kind == "notice", outbox.c.customer_id == CUSTOMER
    told = select(outbox.c.at, outbox.c.case_id).distinct().where(*said).subquery()
    mine = func.array_agg(told.c.at).filter(told.c.case_id == CASE)
    return select(mine.label("contacted"), func.array_agg(told.c.at).label("customer_contacts"))


def _successes() -> Select[*tuple[Any, ...]]:
    """When the customer's latest cases were recovered: their money had come by then."""
    mine = cases.c.customer_id == CUSTOMER, cases.c.state == "recovered"
    latest = select(cases.c.closed_at).where(*mine).order_by(cases.c.closed_at.desc()).limit(MOST_SUCCESSES).subquery()
    return select(func.array_agg(latest.c.closed_at).label("successes"))


def _known() -> Select[*tuple[Any, ...]]:
    uses, due, contacts, won = (each.subquery() for each in (_uses(), _card_due(), _contacts(), _successes()))
    return select(*uses.c, *due.c, *contacts.c, *won.c).select_from(
        uses.join(due, true()).join(contacts, true()).join(won, true())
    )


USES, KNOWN = _uses(), _known()
DECLINED = (
    select(attempts.c.number, attempts.c.at, attempts.c.card, attempts.c.decline)
    .where(attempts.c.case_id == CASE, attempts.c.state.in_(("declined", "observed", "foreign")))
    .order_by(attempts.c.at, attempts.c.number)
)
