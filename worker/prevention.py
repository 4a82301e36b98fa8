"""Who is likely to be lost to the next charge, and what helps? Silent help first, words only where it is not enough.

Every night, for whoever is charged within a week: the subscription is read again, then a valid default of the customer
may take the place of what expires, and only then the customer is told. Each act stands once for each charge in the
outbox, so that any number of runs at once, or after a crash, are one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, Select, exists, func, select
from sqlalchemy.dialects.postgresql import distinct_on

from schedules import Card, Policy
from schedules.decide import last_word
from schedules.steps import utc_text
from worker.logs import log
from worker.models import cases, outbox, risks, subscriptions
from worker.renewals import (
    GONE,
    LEAVES,
    MENDED,
    MOVED,
    PREFER,
    REFRESH,
    RENEWING,
    act_of,
    facts_of,
    fails,
    instead,
    mended,
    name_of,
    notice_for,
    planned_for,
    policy_of,
    post,
)
from worker.stripe_gateway import Gone, NoAccess, Refused
from worker.subscriptions import Counts, keep
from worker.wording import AHEAD

if TYPE_CHECKING:
    from worker.desk import Desk

BEFORE = timedelta(days=7)  # a charge: an updater has answered by then, and there is time to act
SEEN = timedelta(days=92)
NOTHING, HELPED = "nothing", "mended"
SILENT = "the policy asks for no notice"
CHOSEN = "the other method is charged already, or will be"
SAID = "the customer was told of this charge before"
TOO_LATE = "no hour of the customer is left before the charge, a week's notices considered"


@dataclass(frozen=True, slots=True)
class Help:
    """What was done about one subscription at risk, or would be, and why."""

    subscription_id: str
    customer_id: str
    charge_at: datetime
    chance_90: float
    reasons: tuple[str, ...]
    act: str
    why: str

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {**asdict(self), "charge_at": utc_text(self.charge_at)}


def prevent(desk: Desk, *, dry: bool = False) -> Iterator[Help]:
    """Help those at risk whose charge is near; yields what was done about each, or would be when ``dry``.

    Raises ``GatewayError``: what was done is done, and the next run goes on with the others.
    """
    with desk.engine.connect() as db:
        found = db.execute(at_risk(desk.policy, desk.now)).all()
    for row in found:
        policy = policy_of(desk.policy, row, desk.now)
        if policy.hands_off or row.chance_90 * 100 < policy.prevent_percent:
            continue
        act, why = _would(desk, row, policy) if dry else _help(desk, row, policy)
        if not dry and act != NOTHING:
            log.info("prevent", subscription_id=row.id, act=act, why=why)
        yield Help(row.id, row.customer_id, row.next_charge_at, row.chance_90, tuple(row.reasons), act, why)


def at_risk(policy: Policy, now: datetime) -> Select[Any]:
    """Return the query for subscriptions that are charged soon and score high, without leavers and open cases.

    Each with its latest score, and the first day without a valid card that was seen lately.
    """
    newest = risks.c.subscription_id, risks.c.month.desc()
    latest_score = select(risks).ext(distinct_on(risks.c.subscription_id)).order_by(*newest).subquery()
    seen = risks.c.subscription_id == subscriptions.c.id, risks.c.month >= (now - SEEN).date()
    expiry = select(func.min(risks.c.seen["valid_until"].as_string())).where(*seen).scalar_subquery()
    theirs = cases.c.customer_id == subscriptions.c.customer_id
    same = cases.c.account.is_not_distinct_from(subscriptions.c.account)
    least = min(each.prevent_percent for each in policy.every) / 100
    told = latest_score.c.chance_90, latest_score.c.reasons, expiry.label("valid_until")
    found = select(subscriptions, *told).join(latest_score, latest_score.c.subscription_id == subscriptions.c.id)
    return found.where(
        subscriptions.c.ended_at.is_(None),
        subscriptions.c.status.in_(RENEWING),
        subscriptions.c.cancel_at.is_(None),
        subscriptions.c.next_charge_at > now,
        subscriptions.c.next_charge_at <= now + BEFORE,
        latest_score.c.chance_90 >= least,
        ~exists().where(theirs, same, cases.c.closed_at.is_(None)),  # a case does all this, and more
    ).order_by(subscriptions.c.next_charge_at, subscriptions.c.id)


def _help(desk: Desk, row: Row[Any], policy: Policy) -> tuple[str, str]:
    """Do what helps, in the order from silent to said; return what it was, and why."""
    with desk.engine.connect() as db:
        known = REFRESH in _done(db, row)
    if not known and (why := _read(desk, row)) is not None:
        return NOTHING, why
    with desk.engine.begin() as db:
        # Nobody else speaks to this customer, or helps, until this is written down.
        db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(row.customer_id, 0))))
        fresh = db.execute(select(subscriptions).where(subscriptions.c.id == row.id)).one()
        if fresh.cancel_at is not None or fresh.ended_at is not None:
            return NOTHING, LEAVES
        if fresh.next_charge_at != row.next_charge_at or fresh.status not in RENEWING:
            return NOTHING, MOVED
        done = _done(db, fresh)
        act, why = _decided(policy, fresh, done, better=_mended(row, fresh._asdict(), done))
        if REFRESH not in done:
            _note(db, desk, fresh, act)
        if act == PREFER:
            _say(db, fresh, desk.now, PREFER, fresh.other_method_id, kind="card", channel="stripe")
        if act in AHEAD:
            return _speak(db, desk, fresh, policy, act)
        return act, why


def _would(desk: Desk, row: Row[Any], policy: Policy) -> tuple[str, str]:
    """Return what would be done by what is known now: nothing is read and nothing written."""
    with desk.engine.connect() as db:
        done = _done(db, row)
    return _decided(policy, row, done, better=_mended(row, row._asdict(), done))


def _decided(policy: Policy, fresh: Row[Any], done: Mapping[str, Row[Any]], *, better: bool) -> tuple[str, str]:
    """Return the first act that is left and that the policy admits, and why."""
    seen, before = fresh._asdict(), done.get(PREFER)
    if better:
        return HELPED, MENDED
    if policy.prevent_prefer and instead(seen) is not None and before is None:
        return PREFER, "what it takes is not valid at the next charge, and the customer's own default is"
    if before is not None and before.error is None:
        return NOTHING, CHOSEN
    if not policy.prevent_notice:
        return NOTHING, SILENT
    if any(name in done for name in AHEAD):
        return NOTHING, SAID
    return notice_for(seen), "silent help is not enough"


def _mended(row: Row[Any], fresh: Mapping[str, Any], done: Mapping[str, Row[Any]]) -> bool:
    """Whether the card is another one than was seen lately, and good: the updater, or the customer, came first."""
    if fails(fresh):
        return False
    seen_expired = row.valid_until is not None and row.valid_until <= fresh["next_charge_at"].date().isoformat()
    before = None if row.method_id is None else Card(**row.card)
    noted = done[REFRESH].payload if REFRESH in done else None
    if noted is not None:
        before = noted["card"] and Card(**noted["card"])
    return seen_expired or (noted is not None and noted["outcome"] == HELPED) or mended(before, fresh)


def _read(desk: Desk, row: Row[Any]) -> str | None:
    """Read a subscription again and store it; say why nothing more can be done, or return None."""
    counts = Counts()
    try:
        shown = desk.gateway.subscription(row.id, row.account)
    except Gone:
        return GONE
    except NoAccess:
        raise
    except Refused as error:
        return str(error)
    keep(desk.engine, [shown], row.account, counts)
    return counts.rejected[0]["reason"] if counts.rejected else None


def _done(db: Connection, row: Row[Any]) -> dict[str, Row[Any]]:
    """Return what was done before about the next charge of a subscription, by its act."""
    period = f"%-{_period(row)}"
    mine = outbox.c.subscription_id == row.id, outbox.c.kind.in_(("card", "notice")), outbox.c.name.like(period)
    return {act_of(each.name): each for each in db.execute(select(outbox).where(*mine).order_by(outbox.c.id))}


def _period(row: Row[Any]) -> str:
    """Return the day of the charge that it is about."""
    return str(row.next_charge_at.date().isoformat())


def _note(db: Connection, desk: Desk, fresh: Row[Any], act: str) -> None:
    """Write down, once, that the subscription was read again for this charge, and what was found."""
    told = {**planned_for(fresh._asdict()), "outcome": HELPED if act == HELPED else "unchanged"}
    name = name_of(REFRESH, _period(fresh))
    post(db, fresh, desk.now, kind="card", name=name, channel="stripe", delivered_at=desk.now, payload=told)


def _speak(db: Connection, desk: Desk, fresh: Row[Any], policy: Policy, notice: str) -> tuple[str, str]:
    """Put a notice into the outbox for the customer's next hour, far from all others; return what was done, and why."""
    at = last_word(facts_of(db, fresh, desk.now), policy, desk.now)
    if at is None or at >= fresh.next_charge_at:
        return NOTHING, TOO_LATE
    for channel in policy.channels:
        _say(db, fresh, at, notice, kind="notice", channel=channel)
    return notice, f"at {utc_text(at)}, before the charge of {utc_text(fresh.next_charge_at)}"


def _say(db: Connection, fresh: Row[Any], at: datetime, name: str, method_id: str | None = None, **how: str) -> None:
    """Put an act into the outbox, with what was known when it was planned."""
    told = {**planned_for(fresh._asdict()), "method_id": method_id}
    post(db, fresh, at, name=name_of(name, _period(fresh)), due_at=at, payload=told, **how)
