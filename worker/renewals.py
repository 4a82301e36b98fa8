"""What is said and done about a subscription before its next charge, and what must still be true right then?

The provider is read again at the door: whoever the card updater has mended, whoever has chosen to leave and whose
charge is at another date by now gets nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from schedules import Card, Decline, Facts, FailedPayment, Policy
from schedules.facts import by_name
from schedules.places import place_of
from schedules.steps import utc_text
from worker.logs import log
from worker.models import outbox, subscriptions
from worker.readings import Reading, expanded
from worker.stripe_gateway import Gone
from worker.subscriptions import read_subscription
from worker.suppressions import Customer
from worker.wording import RENEWAL, RENEWAL_CARD, Bill

if TYPE_CHECKING:
    from worker.desk import Desk

REFRESH, PREFER = "refresh", "prefer"
RENEWING = ("active", "trialing")
MENDED = "the card is good for the next charge by now"
LEAVES = "automatic renewal is off: whoever leaves is left alone"
MOVED = "the next charge is at another date, or there is none"
CHARGED = "the next charge has been made"
GONE = "the provider shows the subscription no longer"
NOT_OURS = "the customer's other method has changed"
OF_MESSAGE = select(subscriptions).join(outbox, outbox.c.subscription_id == subscriptions.c.id)
REASONS = (MENDED, LEAVES, MOVED, CHARGED, GONE, NOT_OURS)


def payment_of(row: Row[Any], now: datetime) -> FailedPayment:
    """Return the coming charge of a subscription in the words of a failed one: whose policy and which hours it has."""
    return FailedPayment(
        payment_id=row.id,
        customer_id=row.customer_id,
        subscription_id=row.id,
        amount_minor=row.amount_minor or 0,
        currency=row.currency,
        failed_at=now,
        decline=Decline(),
        card=_at_home(row),
        tenure_days=max((now - row.started_at).days, 0),
        plan=row.plan,
    )


def _at_home(row: Row[Any]) -> Card:
    """Return the card, in the customer's own country where that is known."""
    return replace(Card(**row.card), country=row.country or row.card.get("country"))


def policy_of(policy: Policy, row: Row[Any], now: datetime) -> Policy:
    """Return the policy that the customer of a subscription gets."""
    return policy.of(policy.experiment.arm_of(row.customer_id), policy.segment_of(payment_of(row, now)))


def facts_of(db: Connection, row: Row[Any], now: datetime) -> Facts:
    """Return what there is to know before something is said about a subscription: when the customer was told what."""
    payment = payment_of(row, now)
    theirs = outbox.c.kind == "notice", outbox.c.customer_id == row.customer_id
    contacts = db.execute(select(func.array_agg(outbox.c.at.distinct())).where(*theirs)).scalar()
    return Facts(payment, payment.card, customer_contacts=tuple(sorted(contacts or ())))


def name_of(act: str, period: str) -> str:
    """Return the name of a message about a subscription: what it is, and about which of its periods."""
    return f"{act}-{period}"


def act_of(name: str) -> str:
    """Return what a message about a subscription is."""
    return name.partition("-")[0]


def post(db: Connection, row: Row[Any], at: datetime, **message: Any) -> int | None:
    """Put one message about a subscription into the outbox and return its id; None when it stands there already."""
    values = {"subscription_id": row.id, "customer_id": row.customer_id, "at": at, **message}
    return db.execute(upsert(outbox).values(values).on_conflict_do_nothing().returning(outbox.c.id)).scalar()


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a message is about when it is about no case: its row of the outbox, and the subscription as last stored."""

    row: Row[Any]
    subscription: Row[Any]

    @property
    def notice(self) -> str:
        """What it is, without the period."""
        return act_of(self.row.name)

    @property
    def about(self) -> dict[str, Any]:
        """What each line of the log names."""
        return {"subscription_id": self.subscription.id}

    @property
    def customer(self) -> Customer:
        """To whom it is said."""
        return Customer.of(self.subscription)

    @property
    def key(self) -> str:
        """What names the message for ever."""
        return f"{self.subscription.id}-{self.row.name}"

    @property
    def place(self) -> int:
        """Where it stands among those that are locked together: it stands alone."""
        return 0

    @property
    def is_open(self) -> bool:
        """Whether there is still something to say, as far as we know: the provider knows better."""
        return True

    def policy(self, policy: Policy, now: datetime) -> Policy:
        """Return what the customer gets."""
        return policy_of(policy, self.subscription, now)

    def facts(self, db: Connection, now: datetime) -> Facts:
        """Return what tells the customer's hours."""
        return facts_of(db, self.subscription, now)

    def act(self, desk: Desk) -> str | None:
        """Have the other method charged, or say why that is not to be done any more; what was done before is done."""
        found, wanted = self._read(desk), self.row.payload["method_id"]
        if isinstance(found, str):
            return found
        fresh, _ = found
        if fresh["method_id"] == wanted:
            return None
        if why := self._objection(fresh, desk.now):
            return why
        if instead(fresh) != wanted:
            return NOT_OURS
        desk.gateway.prefer(wanted, self.subscription.id, self.subscription.account)
        return None

    def look(self, desk: Desk) -> Bill | str:
        """Read the subscription anew; return what a notice tells of it, or why nothing is to be said."""
        found = self._read(desk)
        if isinstance(found, str):
            return found
        fresh, customer = found
        return self._objection(fresh, desk.now) or self._bill(desk, fresh, customer)

    def payment(self, bill: Bill) -> dict[str, Any]:
        """Return what a webhook tells of it: there is no payment yet, and what it will amount to is not known."""
        told = {"payment_id": None, "subscription_id": self.subscription.id, "amount_minor": None}
        days = {"pay_by": None, "next_charge": bill.next_charge.isoformat() if bill.next_charge else None}
        return {**told, "currency": bill.reading.currency, "link": bill.reading.link, **days}

    def record(self, db: Connection, now: datetime, what: str, detail: dict[str, Any]) -> None:  # noqa: ARG002
        """Tell the log: the row of the outbox is all that is kept."""
        log.info("renewal", what=what, at=utc_text(now), **detail)

    def _read(self, desk: Desk) -> tuple[dict[str, Any], dict[str, Any]] | str:
        """Return the subscription as it stands, and its customer."""
        try:
            shown = desk.gateway.subscription(self.subscription.id, self.subscription.account)
        except Gone:
            return GONE
        return read_subscription(shown, self.subscription.account), expanded(shown["customer"])

    def _objection(self, fresh: dict[str, Any], now: datetime) -> str | None:
        """Say what has changed since this was planned so that it is not wanted any more."""
        charge_at = fresh["next_charge_at"]
        if fresh["cancel_at"] is not None or fresh["ended_at"] is not None:
            return LEAVES
        if charge_at is not None and charge_at <= now:
            return CHARGED
        if charge_at is None or utc_text(charge_at) != self.row.payload["charge_at"]:
            return MOVED
        if fresh["status"] not in RENEWING:
            return CHARGED
        before = self.row.payload["card"]
        return MENDED if mended(before and Card(**before), fresh) else None

    def _bill(self, desk: Desk, fresh: dict[str, Any], customer: dict[str, Any]) -> Bill:
        """Return what a notice tells: the method, and the day of the charge by the customer's own calendar."""
        [zone, *_] = place_of(fresh["country"], None).zones
        charge_at = fresh["next_charge_at"]
        links = desk.links
        reading = Reading(
            payment_id=self.subscription.id,
            customer_id=self.subscription.customer_id,
            ended=None,
            amount_minor=fresh["amount_minor"] or 0,
            currency=fresh["currency"],
            card=Card(**fresh["card"]),
            charged=Card(**fresh["card"]),
            method_id=fresh["method_id"],
            decline=None,
            charge_id=None,
            in_flight=False,
            waits_for_customer=False,
            retried_by_provider=False,
            email=customer.get("email"),
            link=links.to_method(self.row.id, charge_at) if links else None,
        )
        return Bill(
            reading,
            locale=next(iter(customer.get("preferred_locales") or ()), None),
            next_charge=charge_at.astimezone(zone).date(),
            opt_out=links.to_leave_alone(self.row.id, desk.now) if links else None,
        )


def mended(before: Card | None, fresh: Mapping[str, Any]) -> bool:
    """Whether the next charge takes what is good for it, and that was not so, or is another card than before."""
    card, charge_at = Card(**fresh["card"]), fresh["next_charge_at"]
    if fresh["method_id"] is None or card.expires_by(charge_at):
        return False
    return before is None or before.expires_by(charge_at) or card.differs(before)


def fails(fresh: Mapping[str, Any]) -> bool:
    """Whether the next charge has no method, or one whose card is not valid by then."""
    return fresh["method_id"] is None or Card(**fresh["card"]).expires_by(fresh["next_charge_at"])


def instead(fresh: Mapping[str, Any]) -> str | None:
    """Return the customer's own default where it is good for the next charge and what stands above it is not."""
    other = fresh["other_method_id"]
    if other is None or not fails(fresh) or Card(**(fresh["other_card"] or {})).expires_by(fresh["next_charge_at"]):
        return None
    return str(other)


def notice_for(fresh: Mapping[str, Any]) -> str:
    """Return which notice fits: the card expires before the next charge, or something else makes it doubtful."""
    expires = fresh["method_id"] is not None and Card(**fresh["card"]).expires_by(fresh["next_charge_at"])
    return RENEWAL_CARD if expires else RENEWAL


def planned_for(fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a message keeps of the moment at which it was planned, to compare at the door."""
    card = None if fresh["method_id"] is None else by_name(Card(**fresh["card"]))
    return {"charge_at": utc_text(fresh["next_charge_at"]), "card": card}
