"""How does a world go under a policy? Virtual time, from due instant to due instant; the decision is the real one.

What a worker does around it is done here in memory: the card is read before every charge, news asks for another
reading, charges on one card and notices to one customer are seen by all of their cases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush

from schedules import Card, Charge, Close, Contact, Decline, Facts, FailedPayment, PastAttempt, Refresh, Step
from worker.practice.protocol import World

MONTH = timedelta(days=30)
TOUCH = timedelta(days=7)
MOST_STEPS = 2000
MOST_SUCCESSES = 6  # as the worker knows of a customer

Decide = Callable[[Facts, datetime], Step]


class NoEnd(Exception):
    """A payment on which something happens again and again: its world's fault, or its policy's."""

    def __init__(self, payment_id: str, at: datetime) -> None:
        super().__init__(f"{payment_id}: no end after {MOST_STEPS} steps, at {at.isoformat()}")


@dataclass(frozen=True, slots=True)
class Try:
    """One charge: the step that asked for it, on which card, with the facts of that moment and the bank's answer.

    ``decline`` is None for an approval.
    """

    step: Charge
    facts: Facts
    decline: Decline | None


@dataclass(slots=True)
class Played:
    """What became of one failed payment. ``closed_at`` is None while the world's time has not ended its case."""

    payment: FailedPayment
    tries: list[Try] = field(default_factory=list)
    contacts: list[tuple[datetime, str]] = field(default_factory=list)
    closed_at: datetime | None = None
    outcome: str = "open"
    means: str | None = None

    @property
    def recovered(self) -> bool:
        """Whether it was paid within 30 days of its failure, by whatever means."""
        return (
            self.outcome == "recovered"
            and self.closed_at is not None
            and self.closed_at - self.payment.failed_at <= MONTH
        )

    def touched(self, since: timedelta = TOUCH) -> bool:
        """Whether the customer was written to so shortly before the end."""
        end = self.closed_at
        return end is not None and any(end - since <= at <= end for at, _ in self.contacts)


@dataclass(slots=True)
class _Open:
    """A case on its way. ``version`` makes what was expected before an act stale."""

    played: Played
    facts: Facts
    number: int
    version: int = 0
    by_hand: bool = False
    step: Step | None = None


def play(world: World, decide: Decide, *, cooldown: timedelta = timedelta()) -> Generator[Played, None, None]:
    """Yield every failed payment of a world when its case has ended; those that never end come last.

    ``cooldown``: what a customer's other cases would say so soon after a notice goes with it. The world is closed.
    """
    yield from _Play(world, decide, cooldown).run()


class _Play:
    """One run: the cases, and what they share."""

    def __init__(self, world: World, decide: Decide, cooldown: timedelta) -> None:
        self._world, self._decide, self._cooldown = world, decide, cooldown
        self._next_update = getattr(world, "next_update", None)  # a provider tells of it by an event
        self._due: list[tuple[datetime, int, int, str]] = []
        self._cases: list[_Open] = []
        self._uses: dict[str, list[datetime]] = defaultdict(list)
        self._told: dict[str, list[datetime]] = defaultdict(list)
        self._paid: dict[str, list[datetime]] = defaultdict(list)
        self._of_customer: dict[str, list[_Open]] = defaultdict(list)
        self._of_card: dict[str, list[_Open]] = defaultdict(list)

    def run(self) -> Generator[Played, None, None]:
        """Go from instant to instant until nothing is due."""
        try:
            for payment in self._world.failures():
                case = _Open(Played(payment), Facts(payment=payment, card=payment.card), len(self._cases))
                self._cases.append(case)
                heappush(self._due, (payment.failed_at, case.number, 0, "open"))
            while self._due:
                at, number, version, what = heappop(self._due)
                case = self._cases[number]
                if version == case.version and case.played.closed_at is None:
                    self._happen(case, at, what)
                    if case.played.closed_at is not None:
                        yield case.played
            yield from (case.played for case in self._cases if case.played.closed_at is None)
        finally:
            self._world.close()

    def _happen(self, case: _Open, at: datetime, what: str) -> None:
        """Let one thing happen, then do what is due because of it, then look ahead."""
        match what:
            case "open":
                self._used(case.facts.card, at)
                self._of_customer[case.played.payment.customer_id].append(case)
                self._of_card[case.facts.card.fingerprint or ""].append(case)
            case "card":
                case.by_hand, case.facts = True, replace(case.facts, refreshed_at=None)
            case "update":
                case.facts = replace(case.facts, refreshed_at=None)
            case "paid" | "cancel":
                case.facts = replace(case.facts, ended="paid" if what == "paid" else "canceled")
        self._work(case, at)
        if case.played.closed_at is None:
            self._look_ahead(case, at)

    def _look_ahead(self, case: _Open, now: datetime) -> None:
        """Expect our own next step, the customer's next act and the network's next update."""
        case.version += 1
        payment_id = case.played.payment.payment_id
        if case.version > MOST_STEPS:
            raise NoEnd(payment_id, now)
        act = self._world.next_act(payment_id, now)
        update = self._next_update(payment_id, now) if self._next_update else None
        if case.step is not None:
            heappush(self._due, (case.step.at, case.number, case.version, "step"))
        if act is not None:
            heappush(self._due, (act[1], case.number, case.version, act[0]))
        if update is not None:
            heappush(self._due, (update, case.number, case.version, "update"))

    def _work(self, case: _Open, now: datetime) -> None:
        """Do every step that is due."""
        for _ in range(MOST_STEPS):
            case.step = step = self._plan(case, now)
            if step.at > now:
                return
            match step:
                case Refresh():
                    self._read(case, now)
                case Charge():
                    self._charge(case, step, now)
                case Contact():
                    self._contact(case, step, now)
                case Close():
                    self._close(case, step, now)
                    return
        raise NoEnd(case.played.payment.payment_id, now)

    def _plan(self, case: _Open, now: datetime) -> Step:
        """Decide, knowing what other cases did to the card and said to the customer."""
        customer, uses = case.played.payment.customer_id, self._uses[case.facts.card.fingerprint or ""]
        case.facts = replace(
            case.facts,
            uses=tuple(at for at in uses if at > now - MONTH),
            card_due=tuple(sorted(self._card_due(case))),
            customer_contacts=tuple(self._told[customer]),
            successes=tuple(self._paid[customer][-MOST_SUCCESSES:]),
        )
        return self._decide(case.facts, now)

    def _card_due(self, case: _Open) -> Iterator[datetime]:
        """Yield when the older open cases of this card are to be charged."""
        card = case.facts.card.fingerprint
        for other in self._of_card[card] if card else ():
            same = other.number < case.number and other.facts.card.fingerprint == card
            if same and other.played.closed_at is None and isinstance(other.step, Charge):
                yield other.step.at

    def _used(self, card: Card, at: datetime) -> None:
        if card.fingerprint is not None:
            self._uses[card.fingerprint].append(at)

    def _read(self, case: _Open, now: datetime) -> None:
        """Take over the stored card as the provider shows it."""
        card = self._world.card(case.played.payment.payment_id, now)
        entered = now if case.by_hand and card.differs(case.facts.card) else case.facts.card_entered_at
        if card.fingerprint != case.facts.card.fingerprint:
            self._of_card[card.fingerprint or ""].append(case)
        case.facts, case.by_hand = replace(case.facts, card=card, card_entered_at=entered, refreshed_at=now), False

    def _charge(self, case: _Open, step: Charge, now: datetime) -> None:
        """Read, decide again, and charge only if it is still the same step."""
        self._read(case, now)
        if self._plan(case, now) != step:
            return
        decline = self._world.charge(case.played.payment.payment_id, now)
        case.played.tries.append(Try(step, case.facts, decline))
        self._used(case.facts.card, now)
        if decline is None:
            case.facts = replace(case.facts, ended="paid")
        else:
            attempt = PastAttempt(step.attempt, now, case.facts.card, decline)
            case.facts = replace(case.facts, attempts=(*case.facts.attempts, attempt))

    def _contact(self, case: _Open, step: Contact, now: datetime) -> None:
        """Tell the customer; what their other cases would say soon goes with it."""
        self._tell(case, step, now)
        self._told[case.played.payment.customer_id].append(now)
        for other in self._of_customer[case.played.payment.customer_id]:
            soon = other.step is not None and other.step.at < now + self._cooldown
            if other is not case and isinstance(other.step, Contact) and soon and other.played.closed_at is None:
                self._tell(other, other.step, now)
                other.step = self._plan(other, now)
                self._look_ahead(other, now)

    def _tell(self, case: _Open, step: Contact, now: datetime) -> None:
        self._world.contact(case.played.payment.payment_id, now, step.notice)
        case.played.contacts.append((now, step.notice))
        case.facts = replace(case.facts, contacted=(*case.facts.contacted, now))

    def _close(self, case: _Open, step: Close, now: datetime) -> None:
        played = case.played
        played.closed_at, played.outcome = now, step.outcome
        if step.outcome == "recovered":
            played.means = _means(played, case.facts)
            self._paid[played.payment.customer_id].append(now)


def _means(played: Played, facts: Facts) -> str:
    """Say what brought the money back, in the words of the report: updater, contact, silence, customer."""
    won = bool(played.tries) and played.tries[-1].decline is None
    if won and facts.card_entered_at is None and facts.card.differs(played.payment.card):
        return "card_update"
    if played.touched():
        return "after_contact"
    return "silent_retry" if won and facts.card_entered_at is None else "customer"
