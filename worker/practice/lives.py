"""How do subscriptions live? A year and more of renewals, failures, cards and farewells, each drawn from its number.

Lives need no world of failed payments: whether a failure is paid in the end is one draw, from shares that were
measured there. Strain, suspicion and care are hidden.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any

from schedules.facts import Card
from worker.practice.beliefs import load_beliefs, pick
from worker.practice.paydays import payday_instants
from worker.practice.people import fingerprint, renewed

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)  # of the year that is looked at
YEAR, LAST = timedelta(days=365), timedelta(days=365 + 150)  # a life is drawn until LAST after it
EVERY, GIVEN_UP = timedelta(days=30), timedelta(days=28)
DAY = timedelta(days=1)
PLANS = ("basic", "plus", "pro", "team", "business", "office")
RAILS = {"US": "us_bank_account", "GB": "bacs_debit"}
BY_PAYMENT, BY_DISPUTE, ASKED = "payment_failed", "payment_disputed", "cancellation_requested"
FEW, SOME = 3, 12  # months of tenure


@dataclass(frozen=True, slots=True)
class Renewal:
    """One charge. ``cause``: why it failed, if it did; ``paid_at``: when it was paid, None: never."""

    at: datetime
    cause: str | None
    paid_at: datetime | None


@dataclass(slots=True)
class Life:
    """One subscription from its first day to its last, if that has come.

    ``cards``: since when which card was stored; None: none was. ``other``: another valid card of the customer.
    ``asked_at``: when the customer wanted out; ``cancel_at``: when that takes effect.
    """

    id: str
    country: str
    currency: str
    locale: str
    plan: str
    amount: int
    started_at: datetime
    cards: list[tuple[datetime, Card | None]]
    other: Card | None
    renewals: list[Renewal] = field(default_factory=list)
    asked_at: datetime | None = None
    cancel_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    feedback: str | None = None

    def card(self, at: datetime) -> Card | None:
        """Return the card that is stored at an instant."""
        return next(card for since, card in reversed(self.cards) if since <= at)

    def ended(self, at: datetime) -> bool:
        """Whether it is over by then."""
        return self.ended_at is not None and self.ended_at <= at

    def until(self, at: datetime) -> list[Renewal]:
        """Return the charges made by then."""
        return [each for each in self.renewals if each.at <= at]

    def next_at(self, at: datetime) -> datetime:
        """Return when its present period ends."""
        return self.started_at + ((at - self.started_at) // EVERY + 1) * EVERY


@dataclass(frozen=True, slots=True)
class _Traits:
    """What nobody sees: lack of money, a bank's dislike, how much the customer cares, and when salary comes."""

    strain: float
    suspicion: float
    care: float
    region: str
    paydays: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class Prevention:
    """Help for an expiring card before its renewal: another question to the updater, then a notice, for those named.

    ``wanted`` is asked with the life and the day before the renewal.
    """

    wanted: Any
    notice: bool = True


def lives(seed: int, number: int, prevention: Prevention | None = None) -> Iterator[Life]:
    """Yield so many lives; the same with the same seed, whoever else is drawn."""
    return (draw(seed, each, prevention) for each in range(1, number + 1))


def draw(seed: int, number: int, prevention: Prevention | None = None) -> Life:
    """Draw one life; what prevention changes changes no other draw."""
    life, traits = _born(Random(f"{seed}:{number}:life"), f"{seed}x{number:05d}")
    turn, at = 0, life.started_at
    life.renewals.append(Renewal(at, None, at))
    while life.ended_at is None and at < BEGIN + LAST:
        turn += 1
        roll = Random(f"{seed}:{number}:month:{turn}")
        _month(life, traits, roll, at, prevention)
        at += EVERY
    return life


def _born(roll: Random, tail: str) -> tuple[Life, _Traits]:
    """Return a subscription on its first day, with what is behind it."""
    countries, believe = load_beliefs().tables["countries"], beliefs()
    code = pick(roll, {name: row["weight"] for name, row in countries.items()})
    country, before = countries[code], timedelta(days=believe["start.before_days"])
    started = (BEGIN - before + roll.random() * (before + YEAR)).replace(microsecond=0)
    place = roll.randrange(len(country["prices"]))
    card = _first_card(roll, code, country, started)
    other = _first_card(roll, code, country, started) if roll.random() < believe["start.two_methods"] else None
    zone, cycle = pick(roll, country["zones"]), pick(roll, country["cycles"])
    span = (BEGIN - before - EVERY, BEGIN + LAST + EVERY)
    traits = _Traits(
        exp(roll.gauss(0, believe["traits.strain"])) / exp(believe["traits.strain"] ** 2 / 2),
        exp(roll.gauss(0, believe["traits.suspicion"])) / exp(believe["traits.suspicion"] ** 2 / 2),
        roll.gauss(0, believe["traits.care"]),
        country["region"],
        _paydays(cycle, roll.randrange(2), code, zone, span),
    )
    terms = (code, country["currency"], country["locale"], PLANS[place], country["prices"][place], started)
    return Life(f"sub_{tail}", *terms, [(started, card)], other), traits


@lru_cache(maxsize=1024)
def _paydays(cycle: str, offset: int, country: str, zone: str, span: tuple[datetime, datetime]) -> tuple[datetime, ...]:
    return tuple(payday_instants(cycle, offset, country, zone, span))


def _first_card(roll: Random, code: str, country: dict[str, Any], started: datetime) -> Card:
    """Draw a card or a bank debit, as customers of this country pay."""
    believe = beliefs()
    rail, debit, prepaid = (roll.random() for _ in range(3))
    months = started.year * 12 + started.month - 1 + roll.randint(1, 48)
    brand, number = pick(roll, load_beliefs().tables["brands"]), fingerprint(roll)
    if rail < believe[f"rails.{country['region']}"]:
        return Card(number, RAILS.get(code, "sepa_debit"), country=code)
    kind = "credit" if debit >= believe["start.debit_card"] else "debit"
    funding = "prepaid" if kind == "debit" and prepaid < believe["start.prepaid"] else kind
    return Card(number, brand, funding, code, months % 12 + 1, months // 12)


def _month(life: Life, traits: _Traits, roll: Random, at: datetime, prevention: Prevention | None) -> None:
    """Live through one period and its renewal: farewells, cards, the charge."""
    luck = {name: roll.random() for name in ("leaves", "how", "when", "says", "detached", "replaced")}
    luck |= {name: roll.random() for name in ("entered", "refresh", "notice", "fails", "paid", "disputes")}
    feedback, days, fresh = _feedback(roll), roll.expovariate(1), Random(roll.random())
    _leave(life, luck, at, feedback)
    if life.ended_at is None:
        _keep_card(life, traits, luck, at, fresh, prevention)
        _charge(life, traits, luck, at + EVERY, days, fresh)


def _leave(life: Life, luck: Mapping[str, float], at: datetime, feedback: str) -> None:
    """Perhaps the customer goes, at once or when the paid period is over."""
    believe, months = beliefs(), (at - life.started_at) // EVERY
    when = "first" if months < FEW else "early" if months < SOME else "late"
    if luck["leaves"] >= believe[f"leaves.{when}"]:
        return
    life.asked_at = (at + luck["when"] * EVERY).replace(microsecond=0)
    life.feedback = None if luck["says"] < believe["leaves.silent"] else feedback
    at_the_end = luck["how"] < believe["leaves.at_the_end"]
    life.cancel_at = at + EVERY if at_the_end else None
    life.ended_at, life.reason = at + EVERY if at_the_end else life.asked_at, ASKED


def _keep_card(  # noqa: PLR0913, PLR0917 - a month of one card
    life: Life, traits: _Traits, luck: Mapping[str, float], at: datetime, fresh: Random, prevention: Prevention | None
) -> None:
    """Let happen to the card what happens in a month: taken away, replaced, expiring, mended by somebody."""
    believe, card, due = beliefs(), life.card(at + EVERY), at + EVERY
    middle = (at + luck["when"] * EVERY).replace(microsecond=0)
    if card is None:
        return
    if luck["detached"] < believe["cards.detached"]:
        life.cards.append((middle, None))
    elif card.exp_month is not None and card.expires_by(due):
        share = believe["cards.updater_us" if traits.region == "us" else "cards.updater_else"]
        # One draw a card: what the updater does not know this month it does not know the next.
        known = Random(f"{card.fingerprint}:{card.exp_year}").random() < share
        helped = _helped(life, luck, due, prevention)
        if known or luck["entered"] < believe["cards.entered"] or helped:
            life.cards.append((max(middle, at + DAY), renewed(card, fresh, new_number=not known)))


def _helped(life: Life, luck: Mapping[str, float], due: datetime, prevention: Prevention | None) -> bool:
    """Whether prevention mends an expiring card before its renewal."""
    if prevention is None or not prevention.wanted(life, due):
        return False
    believe = beliefs()
    told = prevention.notice and luck["notice"] < believe["prevention.notice"]
    return luck["refresh"] < believe["prevention.refresh"] or told


def _charge(  # noqa: PLR0913, PLR0917 - one charge and what follows
    life: Life, traits: _Traits, luck: Mapping[str, float], due: datetime, days: float, fresh: Random
) -> None:
    """Charge the renewal: it passes, or fails and is paid later, or ends the subscription."""
    believe, cause = beliefs(), _cause(life, traits, luck, due)
    if cause is None:
        life.renewals.append(Renewal(due, None, due))
        if luck["disputes"] < believe["leaves.disputes"]:
            life.ended_at, life.reason = due + 10 * DAY, BY_DISPUTE
        return
    wait = timedelta(seconds=int(min(days * believe[f"days.{cause}"], 27.5) * 86400) + 60)
    if luck["paid"] < _paid(life, traits, cause):
        life.renewals.append(Renewal(due, cause, due + wait))
        if cause in {"expired", "replaced", "missing"}:
            card = life.card(due) or life.cards[-2][1] or life.cards[0][1]
            life.cards.append((due + wait, renewed(card or Card(), fresh, new_number=True)))
        return
    life.renewals.append(Renewal(due, cause, None))
    life.ended_at, life.reason = due + GIVEN_UP, BY_PAYMENT


def _cause(life: Life, traits: _Traits, luck: Mapping[str, float], due: datetime) -> str | None:
    """Return why a renewal fails, or None: the causes lie one after the other on one draw."""
    rest = luck["fails"]
    for cause, share in _shares(life, traits, luck, due):
        if rest < share:
            return cause
        rest -= share
    return None


def _shares(life: Life, traits: _Traits, luck: Mapping[str, float], due: datetime) -> Iterator[tuple[str, float]]:
    believe, card = beliefs(), life.card(due)
    if card is None:
        yield "missing", believe["fails.missing"]
        return
    if card.expires_by(due):
        yield "expired", believe["fails.expired"]
    elif card.exp_year and luck["replaced"] < believe["cards.replaced"] * (1 - believe["cards.updater_replaced"]):
        yield "replaced", believe["fails.replaced"]
    kind = card.funding or "rail"
    timing = _timing(traits, due) if kind != "credit" else 1.0
    yield "funds", min(believe[f"fails.funds_{kind}"] * traits.strain * timing, 0.6)
    if card.funding:
        yield "risk", min(believe["fails.risk"] * traits.suspicion, 0.3)
        yield "authentication", believe["fails.authentication_eu"] * (traits.region == "eu")
    yield "block", believe["fails.block"] * traits.suspicion
    yield "technical", believe["fails.technical"]


def _timing(traits: _Traits, due: datetime) -> float:
    """Return how much rather funds lack so long after payday, over two weeks."""
    last = max((day for day in traits.paydays if day <= due), default=due)
    low, high = beliefs()["traits.payday_low"], beliefs()["traits.payday_high"]
    return low + (high - low) * min((due - last) / (14 * DAY), 1.0)


def _paid(life: Life, traits: _Traits, cause: str) -> float:
    """Return how likely a failure is paid in the end, for this customer."""
    share = beliefs()[f"paid.{cause}"]
    odds = log(share / (1 - share)) + traits.care + (0.6 if life.other else 0.0)
    odds -= 0.4 * log(traits.strain) if cause == "funds" else 0.0
    return 1 / (1 + exp(-odds))


def _feedback(roll: Random) -> str:
    return pick(roll, _file()["feedback"])


@lru_cache(maxsize=1)
def beliefs() -> dict[str, float]:
    """Return the numbers of ``lives.toml`` by dotted name."""
    tables = {name: rows for name, rows in _file().items() if name != "feedback"}
    return {f"{name}.{key}": float(row["mid"]) for name, rows in tables.items() for key, row in rows.items()}


@lru_cache(maxsize=1)
def _file() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("lives.toml").read_text(encoding="utf-8"))


def midnight(month: int) -> datetime:
    """Return the first instant of a month of the year, the thirteenth being that after it."""
    return datetime.combine(
        BEGIN.date().replace(year=BEGIN.year + (month - 1) // 12, month=(month - 1) % 12 + 1, day=1), time(), UTC
    )
