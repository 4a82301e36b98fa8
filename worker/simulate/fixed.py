"""What does everybody do? A fixed calendar after the failure: the rival that a policy has to beat.

It is blind to why a bank refused, with the exceptions that providers make: after a refusal for good the card is charged
no more until it changes, and cards of India are never charged again (Stripe retries neither). A card that the customer
has just entered is charged at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from schedules import Charge, Close, Contact, Facts, Refresh, Step, Wait
from schedules.decide import OUTCOMES
from schedules.declines import DeclineClass, classify
from schedules.places import place_of

DAYS = 28  # after the failure the case ends
LEFT_ALONE = ("IN",)  # the customer has to be told of each charge a day before
NOTICES = ("first", "reminder", "second_reminder", "last_chance")


@dataclass(frozen=True, slots=True)
class Fixed:
    """Charges and notices on these days after the failure; the default is "8 tries in 2 weeks, mails from day 0".

    They come at the hour of the failure, or at ``hour`` by the card's clock.
    """

    charges: tuple[int, ...] = (1, 3, 5, 7, 9, 11, 13, 14)
    notices: tuple[int, ...] = (0, 3, 7, 14)
    hour: int | None = None

    def __call__(self, facts: Facts, now: datetime) -> Step:
        """Return the next step, in the same words as ``schedules.next_step``."""
        ends = facts.payment.failed_at + timedelta(days=DAYS)
        if facts.ended is not None:
            return Close(now, OUTCOMES[facts.ended], (f"ended: {facts.ended}",))
        if facts.refreshed_at is None:
            return Refresh(now, ("refresh: something happened",))
        if now >= ends:
            return Close(now, "lost", ("deadline: the time is over",))
        steps = [step for step in (self._charge(facts, now), self._contact(facts, now)) if step is not None]
        return min(steps, key=lambda step: step.at, default=Wait(ends, ("deadline: nothing is left before it",)))

    def _charge(self, facts: Facts, now: datetime) -> Charge | None:
        """Return the next charge of the calendar, or one at once on a card that was just entered."""
        meant = (classify(each.decline, each.card.brand).decline_class for each in facts.refused)
        if facts.card.country in LEFT_ALONE or DeclineClass.NEVER in meant:
            return None
        number, entered = len(facts.attempts) + 1, facts.card_entered_at
        if entered is not None and entered > facts.last_failure:
            return Charge(now, number, ("new_credential: the customer has just entered it",))
        due = (self._on(facts, day) for day in self.charges)
        at = next((at for at in due if at >= now and at > facts.last_failure), None)
        return None if at is None else Charge(at, number, ("calendar: as always",))

    def _contact(self, facts: Facts, now: datetime) -> Contact | None:
        """Return the next notice of the calendar."""
        number = len(facts.contacted)
        if number >= len(self.notices):
            return None
        return Contact(max(self._on(facts, self.notices[number]), now), NOTICES[number], ("calendar: as always",))

    def _on(self, facts: Facts, day: int) -> datetime:
        """Return the instant of a day of the calendar."""
        at = facts.payment.failed_at + timedelta(days=day)
        if self.hour is None:
            return at
        zone = place_of(facts.payment.card.country, facts.payment.time_zone, facts.payment.card.brand).zones[0]
        return datetime.combine(at.astimezone(zone), time(self.hour), zone).astimezone(UTC)
