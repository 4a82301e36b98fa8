"""What is there to learn from? Charges whose instant was a choice, with what was known then and what the bank said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from hashlib import sha256

from schedules import Facts, Policy
from schedules.case import Case, case_of
from schedules.choice import seen
from schedules.learned import Seen, terms
from worker.simulate import Played

FOLDS = 2


@dataclass(frozen=True)
class Sample:
    """One charge: the ``facts`` of its moment, when it was made, whether it passed, and how likely this choice was.

    ``propensity`` is that of the local day and part of the day; None where it was not logged.
    """

    facts: Facts
    at: datetime
    passed: bool
    propensity: float | None

    @property
    def fold(self) -> int:
        """Into which part of the customers it falls, by the customer's own number."""
        return sha256(self.facts.payment.customer_id.encode()).digest()[0] % FOLDS

    @cached_property
    def case(self) -> Case:
        """The case at the moment of the decision: right after the latest refusal, when the card had been read again."""
        since = self.facts.last_failure
        return case_of(replace(self.facts, refreshed_at=since), Policy.default(), since)

    @cached_property
    def about(self) -> Seen:
        """What a model sees of it."""
        return seen(self.case)

    @property
    def terms(self) -> Iterator[str]:
        """The names of the weights that add up to its chance."""
        return terms(self.about, self.at.astimezone(self.case.place.zones[0]))


def chosen(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Yield the samples whose instant was a choice: no fresh or entered card, no short hop, nothing asked for."""
    for each in samples:
        case = each.case
        if case.retried and not (case.fresh or case.entered or case.asked or case.hop):
            yield each


def from_play(played: Iterable[Played]) -> Iterator[Sample]:
    """Yield the charges of a simulation."""
    for payment in played:
        for each in payment.tries:
            yield Sample(each.facts, each.step.at, each.decline is None, each.step.propensity)
