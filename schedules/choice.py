"""Which of the admissible instants are worth a charge? Few tries, placed where a model expects most of them.

The days that are left are planned as a whole, from the last one back: a try on a day is worth its chance (less, once
the customer had to be written to), minus what it costs, plus what the tries after it are worth if it fails. So a good
day in a week may be worth more than a fair one now, and where no try is worth its price there is none. To keep
learning, a share of the charges leaves the plan for an instant drawn from the case's own number; how likely that was is
told with the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby

from schedules.case import Case
from schedules.declines import Verdict
from schedules.hours import Window, open_stretches
from schedules.learned import Model, Seen, day_score, gap_score, sigmoid
from schedules.paydays import WEEKLY_HABITS, habits_of

PAID_INTO = ("debit", "prepaid")  # what salary arrives on; a credit card has no payday
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
APART = timedelta(hours=24)  # at most one charge in 24 h
REACH = timedelta(days=14)  # how far exploring goes: fewer and later charges would teach less
BLOCK = 6  # hours: two instants of one such part of a local day count as the same choice
MOST_TRIES = 8
A_DAY = 0.002  # of a payment: what a day later is worth less, so that of two equal days the earlier one is taken


@dataclass(frozen=True, slots=True)
class Chosen:
    """An instant, how likely its day and part of the day were to be chosen, and the reason."""

    at: datetime
    propensity: float
    why: str


def seen(case: Case) -> Seen:
    """Return what a model sees of a case."""
    zone, place = case.place.zones[0], case.place
    funding = case.facts.card.funding or "unknown"
    purse = "debit" if funding in PAID_INTO else "credit" if funding == "credit" else "unknown"
    paid = habits_of(place.country, [each.astimezone(zone).date() for each in case.facts.successes])
    advised = [
        at + verdict.wait for at, verdict in zip(case.tries, case.verdicts, strict=False) if _is_advised(verdict)
    ]
    return Seen(
        kind=f"{case.verdict.cause}/{purse}",
        country=place.country or "",
        traits=_traits(case),
        number=min(case.retries + 1, MOST_TRIES),
        failed=case.facts.payment.failed_at.astimezone(zone).date(),
        refused=case.facts.last_failure.astimezone(zone).date(),
        advised=max(advised).astimezone(zone).date() if advised else None,
        weekly=tuple(habit for habit in paid if habit in WEEKLY_HABITS),
        monthly=tuple(habit for habit in paid if habit not in WEEKLY_HABITS),
    )


def _is_advised(verdict: Verdict) -> bool:
    """Whether the network itself named a wait."""
    return verdict.wait > timedelta() and any(each.startswith("mastercard_mac:") for each in verdict.evidence)


def _traits(case: Case) -> tuple[str, ...]:
    """Return what else is known: brand and code, and whether any refusal of the case spoke of lacking funds."""
    brand, code = (case.facts.card.brand or "").lower(), case.facts.refusal.decline.code or ""
    advice = case.facts.refusal.decline.advice_code or ""
    before = "funds" if "funds" in case.causes else "no"
    return f"brand={brand}", f"code={code}", f"advice={advice}", f"named={before}"


def earliest(case: Case) -> datetime:
    """Return when the card may be charged again at the earliest, whatever the hours."""
    return max(case.facts.last_failure + APART, case.allowed)


def slots(case: Case, window: Window) -> tuple[datetime, ...]:
    """Return the instants that waits and hours admit, one for each open hour up to the last day for a charge.

    Each lies at the case's own minute of its hour, so that a batch is spread.
    """
    begin = earliest(case)
    own = case.fraction("minute") * HOUR
    found = []
    for first, last in open_stretches(begin, case.last_charge, window, case.place):
        hour = first.replace(minute=0, second=0, microsecond=0) + own
        while hour <= last:
            if hour >= max(first, begin):
                found.append(hour)
            hour += HOUR
    return tuple(found)


def explore(case: Case, instants: tuple[datetime, ...], planned: datetime | None) -> Chosen | None:
    """Return an instant drawn by the case's own number, for the share of charges that explore; else None.

    ``planned`` is what would be chosen otherwise.
    """
    share = case.policy.explore_percent / 100
    near = explored(instants)
    if not near or case.fraction("explore") >= share:
        return None
    at = near[int(case.fraction("draw") * len(near))]
    chance = propensity(case, instants, planned, at)
    return Chosen(at, chance, f"explore: 1 of {len(near)} instants was drawn, its part of the day had {chance:.4f}")


def explored(instants: tuple[datetime, ...]) -> tuple[datetime, ...]:
    """Return those of the instants that exploring draws from."""
    return tuple(each for each in instants if each <= instants[0] + REACH)


def propensity(case: Case, instants: tuple[datetime, ...], planned: datetime | None, at: datetime) -> float:
    """Return how likely the part of the day around ``at`` was to be chosen."""
    share, near, part = case.policy.explore_percent / 100, explored(instants), part_of(case, at)
    drawn = sum(part_of(case, each) == part for each in near) / len(near) if near else 0.0
    kept = planned is not None and part_of(case, planned) == part
    return share * drawn + (1 - share * bool(near)) * kept


def part_of(case: Case, at: datetime) -> tuple[date, int]:
    """Return the local day and the part of it."""
    local = at.astimezone(case.place.zones[0])
    return local.date(), local.hour // BLOCK


def best(case: Case, model: Model, instants: tuple[datetime, ...], tries: int) -> datetime | None:
    """Return the first instant of the plan worth most, with so many ``tries`` left; None: no try is worth its price."""
    return _Plan(case, model, instants).first(min(tries, MOST_TRIES))


class _Plan:
    """The best instant of each day that is left, and what the days after one are worth with so many tries."""

    def __init__(self, case: Case, model: Model, instants: tuple[datetime, ...]) -> None:
        self._about, policy, zone = seen(case), case.policy, case.place.zones[0]
        self._scores = scores = model.scores(self._about.kind, self._about.country)
        own = model.base + model.sum(self._about.own)
        clock = [(each.astimezone(zone), each) for each in instants]
        best = [
            max(day, key=lambda one: scores.hour[one[0].hour]) for _, day in groupby(clock, lambda one: one[0].date())
        ]
        self._at, self._days = [at for _, at in best], [local.date() for local, _ in best]
        self._score = [own + scores.hour[at.hour] + day_score(scores, self._about, at.date()) for at, _ in best]
        self._cost, told = policy.attempt_cost_percent / 100, 1 - policy.notice_cost_percent / 100
        failed, silent = case.facts.payment.failed_at, case.silent_until
        self._worth = [(1 if at < silent else told) - A_DAY * ((at - failed) / DAY) for at in self._at]
        self._known: dict[tuple[int, int], float] = {}

    def first(self, tries: int) -> datetime | None:
        """Return the first try of the best plan."""
        self._tries = tries
        worth, day = self._search(-1, tries)
        return self._at[day] if worth > 0 else None

    def _value(self, last: int, tries: int) -> float:
        """Return what the days after ``last`` are worth with so many tries."""
        if tries <= 0:
            return 0.0
        if (last, tries) not in self._known:
            self._known[last, tries] = self._search(last, tries)[0]
        return self._known[last, tries]

    def _search(self, last: int, tries: int) -> tuple[float, int]:
        """Return what the best next day is worth, and which one it is; 0 where none is worth a try."""
        refused = self._days[last] if last >= 0 else self._about.refused
        number = self._scores.number[min(self._about.number + self._tries - tries, MOST_TRIES)]
        worth, chosen = 0.0, -1
        for day in range(last + 1, len(self._at)):
            passes = sigmoid(self._score[day] + number + gap_score(self._scores, self._about, refused, self._days[day]))
            value = passes * self._worth[day] - self._cost + (1 - passes) * self._value(day, tries - 1)
            if value > worth:
                worth, chosen = value, day
        return worth, chosen
