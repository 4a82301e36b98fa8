"""What may a decision look at? The rows of cases, their cards and their customers, in two statements for them all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    Text,
    bindparam,
    case,
    func,
    select,
    text,
    true,
    union_all,
)

from schedules import Card, Decline, Facts, FailedPayment, PastAttempt
from schedules.segments import JOINED
from worker.bulk import THESE, as_rows, given, these
from worker.models import INSTANT, UNCERTAIN, UNRESOLVED, attempts, cases, outbox, subscriptions

MONTH = timedelta(days=30)
MOST_SUCCESSES = 6  # older paydays may be those of another employer
REFUSED = ("declined", "observed", "foreign")  # whoever made the charge; those of observe mode count as refused too
SINCE = bindparam("since", type_=INSTANT)


@dataclass(frozen=True, slots=True)
class Known:
    """What bears on a case besides its row: its attempts in order, what its card and its customer bring.

    ``arrived`` is when its notices reached the customer, or perhaps did.
    """

    attempts: Sequence[Row[Any]]
    uses: tuple[datetime, ...]
    card_due: tuple[datetime, ...]
    contacted: tuple[datetime, ...]
    customer_contacts: tuple[datetime, ...]
    successes: tuple[datetime, ...]
    arrived: tuple[datetime, ...]

    @property
    def unresolved(self) -> Row[Any] | None:
        """The attempt whose outcome is not known yet, if there is one."""
        return next((each for each in self.attempts if each.state in UNRESOLVED), None)

    @property
    def won(self) -> Row[Any] | None:
        """The attempt that succeeded, if one has."""
        return next((each for each in self.attempts if each.state == "succeeded"), None)

    def facts(self, row: Any) -> Facts:
        """Return everything that the decision about a case may look at."""
        return Facts(
            payment=payment_of(row),
            card=Card(**row.card),
            card_entered_at=row.card_entered_at,
            refreshed_at=row.refreshed_at if row.news == row.news_read else None,
            attempts=tuple(_past(self.attempts)),
            uses=self.uses,
            card_due=self.card_due,
            contacted=self.contacted,
            customer_contacts=self.customer_contacts,
            successes=self.successes,
            ended=row.ended,
            paused=row.paused,
            retried_elsewhere=row.retried_elsewhere,
            asked_at=row.asked_at,
        )


def known(db: Connection, rows: Iterable[Any], now: datetime) -> dict[int, Known]:
    """Return what bears on each of these cases, by their numbers."""
    told = [{"id": row.id, "customer_id": row.customer_id, "fingerprint": row.card["fingerprint"]} for row in rows]
    tried = _attempts_of(db, [each["id"] for each in told])
    found = db.execute(KNOWN, {**as_rows(attempts, told), "since": now - MONTH}).all()
    return {row.id: Known(tried.get(row.id, ()), *(_sorted(instants) for instants in row[1:])) for row in found}


def facts_of(db: Connection, row: Any, now: datetime) -> Facts:
    """Return everything the decision may look at, of one case."""
    return known(db, [row], now)[row.id].facts(row)


def declined(db: Connection, case_id: int) -> tuple[PastAttempt, ...]:
    """Return the charges that the bank refused."""
    return tuple(_past(_attempts_of(db, [case_id]).get(case_id, ())))


def _attempts_of(db: Connection, case_ids: list[int]) -> dict[int, list[Row[Any]]]:
    found = db.execute(ATTEMPTS, these(case_ids)).all()
    return {case_id: list(each) for case_id, each in groupby(found, lambda row: row.case_id)}


def _past(tried: Sequence[Row[Any]]) -> Iterator[PastAttempt]:
    for row in tried:
        if row.state in REFUSED:
            yield PastAttempt(row.number, row.at, Card(**row.card), Decline(**row.decline))


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


def _uses(fingerprint: Any, *of: Any) -> Select[Any]:
    charge = func.coalesce(attempts.c.charge_id, attempts.c.idempotency_key).label("charge")
    sent = select(charge, attempts.c.at.label("at")).where(
        attempts.c.fingerprint == fingerprint, attempts.c.at > SINCE, attempts.c.state != "not_executed"
    )
    renewed = select(func.coalesce(cases.c.failed_charge_id, cases.c.payment_id), cases.c.failed_at).where(
        cases.c.failed_card["fingerprint"].astext == fingerprint
    )
    used = union_all(sent.correlate(*of), renewed.correlate(*of)).subquery()
    # Asked for here the instant tempts no planner to read all failures of a month.
    latest = func.max(used.c.at)
    once = select(latest.label("at")).group_by(used.c.charge).having(latest > SINCE).subquery()
    return select(func.array_agg(once.c.at).label("uses"))


def _card_due(of: Any) -> Select[Any]:
    """When the older open cases of this card are to be charged: of two cases only one follows the other."""
    same = cases.c.card["fingerprint"].astext == of.c.fingerprint, cases.c.closed_at.is_(None), cases.c.id < of.c.id
    return select(func.array_agg(cases.c.due_at).label("card_due")).where(
        *same, cases.c.step["step"].astext == "charge"
    )


def _contacts(of: Any) -> Select[Any]:
    """When something was said to the customer, of this case and of all, and when that of this case arrived."""
    arrived = func.coalesce(outbox.c.delivered_at, case((outbox.c.error == UNCERTAIN, outbox.c.at)))
    mine = outbox.c.case_id == of.c.id
    return select(
        func.array_agg(outbox.c.at.distinct()).filter(mine).label("contacted"),
        func.array_agg(outbox.c.at).label("customer_contacts"),
        func.array_agg(arrived).filter(mine, arrived.is_not(None)).label("arrived"),
    ).where(text("outbox.kind = 'notice'"), outbox.c.customer_id == of.c.customer_id)  # as its index says it


def _successes(of: Any) -> Select[Any]:
    """When the customer's latest cases were recovered: their money had come by then."""
    mine = cases.c.customer_id == of.c.customer_id, cases.c.recovered_by.is_not(None)
    latest = select(cases.c.closed_at).where(*mine).order_by(cases.c.closed_at.desc()).limit(MOST_SUCCESSES)
    found = latest.correlate(of).subquery()
    return select(func.array_agg(found.c.closed_at).label("successes"))


def _known() -> Select[Any]:
    of = given(cases.c.id, cases.c.customer_id, attempts.c.fingerprint)
    found = [each.lateral() for each in (_uses(of.c.fingerprint, of), _card_due(of), _contacts(of), _successes(of))]
    joined: Any = of
    for each in found:
        joined = joined.join(each, true())
    uses, due, contacts, won = found
    told = uses.c.uses, due.c.card_due, contacts.c.contacted, contacts.c.customer_contacts, won.c.successes
    return select(of.c.id, *told, contacts.c.arrived).select_from(joined)


USES, KNOWN = _uses(bindparam("fingerprint", type_=Text)), _known()
ATTEMPTS = (
    select(attempts).where(attempts.c.case_id == THESE).order_by(attempts.c.case_id, attempts.c.at, attempts.c.number)
)
