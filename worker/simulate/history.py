"""What would a policy have done to the cases of the past, and what is known of that? The merchant's own log as a world.

A log tells how a bank answered at the instants at which somebody asked, and at no others. So a charge or a notice of a
policy is *matched* when the log holds one of the same case within an hour, a charge on the same card at that; all else
is unknown, and is told as bounds. A customer's own act counts as certain when no notice had reached the customer before
it, or when the policy would have sent just the notices that did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from schedules import Card, Decline, FailedPayment
from schedules.steps import utc_text
from worker.practice.protocol import CANCEL
from worker.simulate.judge import judge
from worker.simulate.play import MONTH, Played, play
from worker.simulate.policies import Plan

NEAR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Logged:
    """One charge of the past that a bank answered; ``decline`` is None for an approval. ``ours``: we made it."""

    at: datetime
    card: Card
    decline: Decline | None
    ours: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """When the stored card became another one, and whether the customer entered it."""

    at: datetime
    card: Card
    by_hand: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """One notice of the past, and whether it reached the customer, or perhaps did."""

    at: datetime
    reached: bool


@dataclass(frozen=True, slots=True)
class Past:
    """One stored case: what is known of it. ``end`` is what the customer did last, ``paid`` or ``cancel``."""

    payment: FailedPayment
    charges: tuple[Logged, ...] = ()
    changes: tuple[Change, ...] = ()
    notices: tuple[Notice, ...] = ()
    end: tuple[str, datetime] | None = None
    recovered_at: datetime | None = None

    @property
    def recovered(self) -> bool:
        """Whether it was really paid within 30 days."""
        return self.recovered_at is not None and self.recovered_at - self.payment.failed_at <= MONTH

    @property
    def acts(self) -> list[tuple[str, datetime]]:
        """Return what the customer did, in time order."""
        entered = [("card", change.at) for change in self.changes if change.by_hand]
        return sorted([*entered, *([self.end] if self.end else [])], key=lambda act: act[1])


@dataclass(slots=True)
class _Story:
    """What a policy did to one case of the past so far."""

    past: Past
    approved: int = 0
    declined: int = 0
    unknown: int = 0
    said: list[datetime] = field(default_factory=list)

    def certain(self, at: datetime) -> bool:
        """Whether the customer would have acted at this instant under the policy, too."""
        before = [notice.at for notice in self.past.notices if notice.reached and notice.at < at]
        return not before or (all(_near(each, self.said) for each in before) and not self.strange(at))

    def strange(self, until: datetime) -> list[datetime]:
        """Return the notices before an instant that nobody had sent in the past."""
        logged = [notice.at for notice in self.past.notices]
        return [at for at in self.said if at < until and not _near(at, logged)]

    def perhaps(self, until: datetime) -> bool:
        """Whether something that nobody knows might have brought the money back."""
        mending = [at for act, at in self.past.acts if act != CANCEL]
        return bool(self.unknown or self.strange(until)) or any(not self.certain(at) for at in mending)


def _near(at: datetime, instants: Iterable[datetime]) -> bool:
    return any(abs(at - each) <= NEAR for each in instants)


class PastWorld:
    """The stored cases as a world. What is not known is refused as before; nothing is known after ``until``."""

    def __init__(self, pasts: Sequence[Past], until: datetime) -> None:
        self._until = until
        self.stories = {past.payment.payment_id: _Story(past) for past in pasts}

    def failures(self) -> Iterable[FailedPayment]:
        """Return the failed renewals in time order."""
        payments = (story.past.payment for story in self.stories.values())
        return sorted(payments, key=lambda payment: (payment.failed_at, payment.payment_id))

    def card(self, payment_id: str, at: datetime) -> Card:
        """Return the card that was stored then."""
        story = self.stories[payment_id]
        changes = (each for each in story.past.changes if each.at <= at)
        known = [each.card for each in changes if not each.by_hand or story.certain(each.at)]
        return known[-1] if known else story.past.payment.card

    def charge(self, payment_id: str, at: datetime) -> Decline | None:
        """Answer as the bank did within an hour on the same card, else refuse as it last had."""
        story, card = self.stories[payment_id], self.card(payment_id, at)
        same = (each for each in story.past.charges if not each.card.differs(card) and abs(each.at - at) <= NEAR)
        match = min(same, key=lambda each: abs(each.at - at), default=None)
        if match is not None:
            story.approved += match.decline is None
            story.declined += match.decline is not None
            return match.decline
        story.unknown += at <= self._until
        refusals = [each.decline for each in story.past.charges if each.decline is not None and each.at <= at]
        return refusals[-1] if refusals else story.past.payment.decline

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:  # noqa: ARG002 - part of the protocol
        """Note that the customer would have been told."""
        self.stories[payment_id].said.append(at)

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return what the customer really did, as far as it is certain."""
        story = self.stories[payment_id]
        return next((act for act in story.past.acts if act[1] > after and story.certain(act[1])), None)

    def next_update(self, payment_id: str, after: datetime) -> datetime | None:
        """Return when the card updater was seen to have brought another card."""
        changes = self.stories[payment_id].past.changes
        return next((each.at for each in changes if each.at > after and not each.by_hand), None)

    def close(self) -> None:
        """Nothing to release."""


@dataclass(frozen=True, slots=True)
class Hindsight:
    """What a policy would have done until now. ``low`` came back for certain, ``high`` might have."""

    policy: str
    cases: int
    charges: int
    approved: int
    declined: int
    low: int
    high: int
    notices: int
    notices_matched: int
    closed: int
    budget: int
    never: int

    @property
    def unknown(self) -> int:
        """Return the charges of which nobody knows how they would have ended."""
        return self.charges - self.approved - self.declined

    def as_json(self) -> dict[str, Any]:
        """Return it with the bounds of the recovered share."""
        shares = [round(count / self.cases, 4) if self.cases else None for count in (self.low, self.high)]
        return {
            "policy": self.policy,
            "cases": self.cases,
            "charges": self.charges,
            "matched": {"approved": self.approved, "declined": self.declined},
            "unknown": self.unknown,
            "recovered": {"low": self.low, "high": self.high},
            "recovered_share": dict(zip(("low", "high"), shares, strict=True)),
            "notices": self.notices,
            "notices_matched": self.notices_matched,
            "closed_window_attempts": self.closed,
            "budget_violations": self.budget,
            "never_violations": self.never,
        }


def hindsight(plan: Plan, pasts: Sequence[Past], now: datetime) -> Hindsight:
    """Replay the past under a policy."""
    world = PastWorld(pasts, now)
    played = [_until(each, now) for each in play(world, plan.decide, cooldown=plan.cooldown)]
    stories = world.stories.values()
    low = {each.payment.payment_id for each in played if each.recovered}
    perhaps = {name for name, story in world.stories.items() if story.perhaps(now)}
    said = [(at, story) for story in stories for at in story.said if at <= now]
    broken = judge(played, {})
    return Hindsight(
        policy=plan.name,
        cases=len(pasts),
        charges=sum(len(each.tries) for each in played),
        approved=sum(story.approved for story in stories),
        declined=sum(story.declined for story in stories),
        low=len(low),
        high=len(low | perhaps),
        notices=len(said),
        notices_matched=sum(_near(at, [each.at for each in story.past.notices]) for at, story in said),
        closed=sum(each.closed for each in broken),
        budget=sum(each.budget for each in broken),
        never=sum(each.never for each in broken),
    )


def _until(played: Played, now: datetime) -> Played:
    """Return what had happened by now; the rest is a plan."""
    known = replace(played, tries=[each for each in played.tries if each.step.at <= now])
    if known.closed_at is not None and known.closed_at > now:
        known.closed_at, known.outcome = None, "open"
    return known


@dataclass(frozen=True, slots=True)
class Hindsights:
    """What really happened until ``now``, and what each policy would have done."""

    now: datetime
    pasts: Sequence[Past]
    policies: Sequence[Hindsight]

    @property
    def unfinished(self) -> int:
        """Return how many cases have not had their 30 days."""
        return sum(past.payment.failed_at + MONTH > self.now for past in self.pasts)

    @property
    def really(self) -> dict[str, Any]:
        """Return what happened."""
        won, cases = sum(past.recovered for past in self.pasts), len(self.pasts)
        return {
            "cases": cases,
            "charges": sum(each.ours for past in self.pasts for each in past.charges),
            "recovered": won,
            "recovered_share": round(won / cases, 4) if cases else None,
            "notices": sum(each.reached for past in self.pasts for each in past.notices),
        }

    def as_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return {
            "now": utc_text(self.now),
            "unfinished": self.unfinished,
            "really": self.really,
            "policies": [each.as_json() for each in self.policies],
        }
