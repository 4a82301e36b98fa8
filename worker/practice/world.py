"""How do banks and customers answer? A world drawn from published figures, for simulations and the practice bank.

Every answer is a function of the seed, the payment's own id and what happened to that payment before, so
payments may be played in any order and two policies meet the same customers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from worker.practice.beliefs import load_beliefs, pick
from worker.practice.people import HARD, Person, days_after, dice, draw_person, funded, renewed
from worker.practice.refusals import Why, next_payday, refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from schedules.facts import Card, Decline, FailedPayment

FINAL = {"cancel", "paid"}
NIGHT = range(1, 5)
MONDAY_TO_SUNDAY = ("", "", "", "", "friday", "saturday", "")


@dataclass(slots=True)
class _Story:
    """What has happened to one payment since it failed."""

    charges: int = 0
    approved: bool = False
    contacts: list[datetime] = field(default_factory=list)
    acts: list[tuple[str, datetime]] = field(default_factory=list)


class BuiltInWorld:
    """``payments`` failed renewals in the first ``days - 28`` days from 5 January 2026.

    ``levels`` replaces single values of ``world.toml`` by their bounds: ``{"funds.never": "high"}``.
    """

    def __init__(self, seed: int, payments: int, days: int = 45, levels: Mapping[str, str] | None = None) -> None:
        self._seed = seed
        self._beliefs = load_beliefs(levels)
        people = (draw_person(seed, number, days, self._beliefs) for number in range(1, payments + 1))
        self._people = {person.payment.payment_id: person for person in people}
        self._stories = {key: _Story(acts=list(person.own_acts)) for key, person in self._people.items()}

    def failures(self) -> Iterable[FailedPayment]:
        """Yield the failed renewals in time order."""
        payments = (person.payment for person in self._people.values())
        return sorted(payments, key=lambda payment: (payment.failed_at, payment.payment_id))

    def card(self, payment_id: str, at: datetime) -> Card:
        """Return the stored card as the provider shows it at ``at``: own, updated or newly entered."""
        return self._card(self._people[payment_id], at)[0]

    def charge(self, payment_id: str, at: datetime) -> Decline | None:
        """Charge the card stored at ``at``; ``None`` is an approval."""
        person, story = self._people[payment_id], self._stories[payment_id]
        card, is_new = self._card(person, at)
        number, story.charges = story.charges, story.charges + 1
        if self._luck(person, at, number, is_new=is_new) < self._chance(person, at, number, is_new=is_new):
            story.approved = True
            return None
        return self._refusal(person, card, at, number, is_new=is_new)

    def contact(self, payment_id: str, at: datetime, notice: str) -> None:  # noqa: ARG002 - part of the protocol
        """Tell the customer; some will answer with an act of their own, some will leave."""
        person, story = self._people[payment_id], self._stories[payment_id]
        if story.approved or self._ended(story, at):
            return
        act = self._reaction(person, story, at)
        story.contacts.append(at)
        story.acts += [act] if act else []

    def next_act(self, payment_id: str, after: datetime) -> tuple[str, datetime] | None:
        """Return the customer's first own act later than ``after``: ``card``, ``cancel`` or ``paid``."""
        story = self._stories[payment_id]
        if story.approved or self._ended(story, after):
            return None
        return min((act for act in story.acts if act[1] > after), key=lambda act: act[1], default=None)

    def close(self) -> None:
        """Nothing to release."""

    def zone(self, payment_id: str) -> str:
        """Return the issuer's true time zone, which no provider tells: for judging, not for deciding."""
        return str(self._people[payment_id].zone)

    def next_update(self, payment_id: str, after: datetime) -> datetime | None:
        """Return when, later than ``after``, the network will renew the stored card by itself."""
        when = self._people[payment_id].updated_at
        return when if when is not None and when > after else None

    @staticmethod
    def _ended(story: _Story, at: datetime) -> bool:
        return any(act in FINAL and when <= at for act, when in story.acts)

    def _card(self, person: Person, at: datetime) -> tuple[Card, bool]:
        """The newest credential at ``at``, and whether it differs from the one that failed."""
        entered = sum(act == "card" and when <= at for act, when in self._stories[person.payment.payment_id].acts)
        if not entered and (person.updated_at is None or person.updated_at > at):
            return person.payment.card, False
        roll = dice(self._seed, person.payment.payment_id, "card", entered)
        return renewed(person.payment.card, roll, new_number=bool(entered) or person.cause != "expired"), True

    def _luck(self, person: Person, at: datetime, number: int, *, is_new: bool) -> float:
        """An account balance is one draw a day; everything else is one draw a charge."""
        if person.cause == "funds" and not is_new:
            return dice(self._seed, person.payment.payment_id, "funds", _local_day(person, at)).random()
        return dice(self._seed, person.payment.payment_id, "charge", number).random()

    def _chance(self, person: Person, at: datetime, number: int, *, is_new: bool) -> float:
        believe, hour = self._beliefs, at.astimezone(person.zone).hour
        risky = not is_new and person.cause in {"risk", "unknown"}
        night = believe["tries.night_risk" if risky else "tries.night"] if hour in NIGHT else 1.0
        if is_new:
            return believe["tries.new_card"] * night
        return (0.0 if person.cause in HARD else self._soft_chance(person, at, number)) * night

    def _soft_chance(self, person: Person, at: datetime, number: int) -> float:
        believe = self._beliefs
        next_day = _local_day(person, at) > _local_day(person, person.payment.failed_at)
        match person.cause:
            case "funds":
                return self._funds_chance(person, at)
            case "block":
                return believe["tries.block"]
            case "technical":
                soon = at - person.payment.failed_at < timedelta(hours=2)
                return believe["tries.technical_at_once" if soon else "tries.technical_later"]
            case "limit":
                return believe["tries.limit_later" if next_day else "tries.limit_same_day"]
            case _:
                fatigue: float = believe["tries.fatigue"] ** number
                return fatigue * believe["tries.risk" if next_day else "tries.risk_same_day"]

    def _funds_chance(self, person: Person, at: datetime) -> float:
        believe = self._beliefs
        if not person.paydays:
            return believe["funds.payday"] if at >= person.credit_free_at else 0.0
        if person.never_funded:
            return 0.0
        local = at.astimezone(person.zone)
        day = MONDAY_TO_SUNDAY[local.weekday()]
        midnight = any(timedelta() <= at - payday < timedelta(hours=1) for payday in person.paydays)
        weekday = believe[f"funds.{day}"] if day else 1.0
        return funded(person.paydays, at, believe) * weekday * (believe["funds.midnight"] if midnight else 1.0)

    def _refusal(self, person: Person, card: Card, at: datetime, number: int, *, is_new: bool) -> Decline:
        """Mostly the same words as before; a new card is refused without a reason."""
        roll = dice(self._seed, person.payment.payment_id, "refusal", number)
        cause = "risk" if is_new else person.cause
        same = not is_new and roll.random() < self._beliefs["tries.same_code"]
        code = person.code if same else pick(roll, self._beliefs.tables["codes"][cause])
        return refusal(roll, Why(cause, code, card.brand, next_payday(person.paydays, at)), self._beliefs)

    def _reaction(self, person: Person, story: _Story, at: datetime) -> tuple[str, datetime] | None:
        """A second message within a day changes nothing but the customer's mood."""
        believe, number = self._beliefs, len(story.contacts) + 1
        roll = dice(self._seed, person.payment.payment_id, "contact", number)
        soon = bool(story.contacts) and at - story.contacts[-1] < timedelta(days=1)
        helped = 0.0 if soon else believe[f"customers.mail_{min(number, 4)}"] * self._mail_factor(person)
        luck, when = roll.random(), days_after(at, roll.expovariate(1 / believe["customers.answer_days"]))
        stores_card = roll.random() < (0.8 if person.cause in HARD - {"authentication"} else 0.4)
        if luck < helped:
            return ("card" if stores_card else "paid"), when
        return ("cancel", when) if luck < helped + believe["customers.mail_cancels"] else None

    def _mail_factor(self, person: Person) -> float:
        if person.cause == "funds":
            return self._beliefs["customers.mail_funds"]
        return self._beliefs["customers.mail_hard"] if person.cause in HARD else 1.0


def _local_day(person: Person, at: datetime) -> int:
    return at.astimezone(person.zone).toordinal()
