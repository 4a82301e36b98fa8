"""What follows at once from the facts of a case, the policy and the instant: the words in which rules are written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from hashlib import sha256

from schedules.declines import RETRY_CLASSES, DeclineClass, Verdict, classify
from schedules.facts import Facts, FailedPayment, PastAttempt, utc
from schedules.hours import Window, next_open
from schedules.places import Place, place_of
from schedules.policy import Policy


@dataclass(frozen=True)
class Case:
    """The arguments of one decision and where the bank is.

    ``refused`` are the refusals of the stored credential, ``verdicts`` what they mean (of a fresh card: the latest of
    the case), and ``causes`` those of every refusal of the case: some bind every card of the customer. A decision asks
    the same again and again: what is not trivial is worked out once.
    """

    facts: Facts
    policy: Policy
    now: datetime
    place: Place
    refused: tuple[FailedPayment | PastAttempt, ...]
    verdicts: tuple[Verdict, ...]
    causes: frozenset[str]

    @property
    def fresh(self) -> bool:
        """No bank has refused the stored credential yet: it differs from all that failed."""
        return not self.refused

    @property
    def retries(self) -> int:
        """How many charges of the stored credential were repetitions of one that it had failed before."""
        return max(len(self.refused) - 1, 0)

    @cached_property
    def tries(self) -> tuple[datetime, ...]:
        """When the stored credential was refused in this case."""
        return tuple(each.failed_at if isinstance(each, FailedPayment) else each.at for each in self.refused)

    @property
    def verdict(self) -> Verdict:
        """What the latest refusal of the stored credential means, else the latest of the case."""
        return self.verdicts[-1]

    @property
    def retried(self) -> bool:
        """Whether the bank may be asked again."""
        return self.verdict.decline_class in RETRY_CLASSES

    @cached_property
    def forbidden(self) -> bool:
        """Whether the stored credential was ever refused for good."""
        return any(verdict.decline_class is DeclineClass.NEVER for verdict in self.verdicts)

    @cached_property
    def allowed(self) -> datetime:
        """From when on no advice of a refusal of the stored credential asks to wait."""
        waits = zip(self.tries, self.verdicts, strict=False)  # without tries the card is fresh: nothing to wait
        return max((at + verdict.wait for at, verdict in waits), default=self.facts.last_failure)

    @property
    def hop(self) -> bool:
        """Whether a short hop is left; after those the banks had trouble too long, and it goes on as retry_later."""
        soon = self.policy.gaps_hours["retry_soon"]
        return self.verdict.decline_class is DeclineClass.RETRY_SOON and self.retries < len(soon)

    @cached_property
    def deadline(self) -> datetime:
        """When the merchant's time for this case is up."""
        return self.facts.payment.failed_at + timedelta(days=self.policy.deadline_days)

    @property
    def read(self) -> datetime:
        """The last reading: what it showed counts from then on, so that asking again later moves nothing."""
        return self.facts.refreshed_at or self.now

    @cached_property
    def why(self) -> tuple[str, ...]:
        """The reasons that every step of this case shares."""
        unknown = tuple(f"unknown: {code}" for code in self.verdict.unknown)
        return (f"class: {self.verdict.decline_class}", *(f"evidence: {e}" for e in self.verdict.evidence), *unknown)

    @property
    def last_charge(self) -> datetime:
        """When it is too late for a charge: at the deadline, or when the rail takes no repetition any more."""
        days = self.place.rail.days if self.place.rail else None
        failed_at = self.facts.payment.failed_at
        return min(self.deadline, failed_at + timedelta(days=days)) if days else self.deadline

    @property
    def silent_until(self) -> datetime:
        """When silence has been given its time."""
        return self.facts.payment.failed_at + timedelta(days=self.policy.silent_days)

    @cached_property
    def entered(self) -> bool:
        """The customer stored a card by hand after the last failure, and is waiting: no window applies."""
        entered = self.facts.card_entered_at
        renewed = self.fresh or not self.forbidden
        return entered is not None and entered > self.facts.last_failure and renewed

    @property
    def asked(self) -> bool:
        """An operator asked for a charge after the last failure: it waits for no gap, and counts as no retry."""
        return self.facts.asked_at is not None and self.facts.asked_at > self.facts.last_failure

    def slot(self, at: datetime, window: Window, place: Place, purpose: str) -> datetime | None:
        """Return the open instant that was planned from ``at`` on; once it is missed, the next one from now on."""
        planned = next_open(at, window, place, self.fraction(purpose))
        late = planned is not None and planned < self.now
        return next_open(self.now, window, place, self.fraction(purpose)) if late else planned

    def fraction(self, purpose: str) -> float:
        """Spread cases evenly: a stable number in [0, 1) from the case, the attempt and the purpose; no dice."""
        number = len(self.facts.contacted if purpose == "contact" else self.facts.attempts)
        seed = f"{self.facts.payment.payment_id}:{number}:{purpose}"
        return int.from_bytes(sha256(seed.encode()).digest()[:6]) / 2**48


def case_of(facts: Facts, policy: Policy, now: datetime) -> Case:
    """Return the case as it stands; raise ``ValueError`` when ``now`` has no time zone."""
    own = policy.overrides
    meant = [(each, classify(each.decline, each.card.brand, own)) for each in facts.refusals]
    refused = [(each, verdict) for each, verdict in meant if not each.card.differs(facts.card)]
    return Case(
        facts,
        policy,
        utc(now),
        place_of(facts.card.country, facts.payment.time_zone, facts.card.brand),
        tuple(each for each, _ in refused),
        tuple(verdict for _, verdict in refused or meant[-1:]),
        frozenset(verdict.cause for _, verdict in meant),
    )
