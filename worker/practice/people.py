"""Who are the customers of the built-in world, and what is wrong with their cards?

A person is drawn once, from the seed and the payment's own id alone, and never changes. The cause, the
paydays and the fate of the card are hidden; only ``payment`` shows outside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from schedules.facts import Card, FailedPayment
from worker.practice.beliefs import Beliefs, pick
from worker.practice.paydays import payday_instants
from worker.practice.refusals import Why, next_payday, refusal

START = datetime(2026, 1, 5, tzinfo=UTC)
TAIL_DAYS, LAST_ACT_DAYS = 28, 60  # after two months nobody comes back to an old invoice
HARD = frozenset({"expired", "lost", "closed", "authentication", "other"})


@dataclass(frozen=True, slots=True)
class Person:
    """One customer with one failed renewal, seen from inside."""

    payment: FailedPayment
    cause: str
    code: str
    zone: ZoneInfo
    paydays: tuple[datetime, ...]
    never_funded: bool
    credit_free_at: datetime
    updated_at: datetime | None
    own_acts: tuple[tuple[str, datetime], ...]


def dice(seed: int, payment_id: str, purpose: str, counter: int = 0) -> Random:
    """Return the random source for one purpose of one payment: the order of processing cannot change it."""
    return Random(f"{seed}:{payment_id}:{purpose}:{counter}")


def draw_person(seed: int, number: int, days: int, beliefs: Beliefs) -> Person:
    """Draw the person behind the payment with this number."""
    roll = dice(seed, f"in_{seed}_{number:05d}", "person")
    countries = beliefs.tables["countries"]
    code = pick(roll, {name: row["weight"] for name, row in countries.items()})
    country = countries[code]
    cause = pick(roll, _causes(beliefs, country["region"]))
    zone = ZoneInfo(pick(roll, country["zones"]))
    debit = roll.random() < beliefs["debit.funds" if cause == "funds" else "debit.rest"]
    never = roll.random() < beliefs["funds.never"]
    paydays = _paydays(roll, code, country, zone, days) if cause == "funds" and debit else ()
    failed_at = _failed_at(roll, paydays, days, beliefs, never=never)
    card = _card(roll, code, _expiry(roll, cause, failed_at), beliefs, debit=debit)
    why = Why(cause, pick(roll, beliefs.tables["codes"][cause]), card.brand, next_payday(paydays, failed_at))
    return Person(
        payment=FailedPayment(
            payment_id=f"in_{seed}_{number:05d}",
            customer_id=f"cus_{seed}_{number:05d}",
            subscription_id=f"sub_{seed}_{number:05d}",
            failed_at=failed_at,
            decline=refusal(roll, why, beliefs),
            card=card,
            **_terms(roll, country, zone),
        ),
        cause=cause,
        code=why.code,
        zone=zone,
        paydays=paydays,
        never_funded=never,
        credit_free_at=failed_at + timedelta(days=roll.expovariate(beliefs["funds.credit_per_day"])),
        updated_at=_updated_at(roll, cause, country["region"], failed_at, beliefs),
        own_acts=_own_acts(roll, failed_at, beliefs),
    )


def _terms(roll: Random, country: dict[str, Any], zone: ZoneInfo) -> dict[str, Any]:
    """What the customer pays, and since when; where a country has several zones the merchant knows half of them."""
    told = len(country["zones"]) > 1 and roll.random() < 1 / 2
    return {
        "amount_minor": roll.choice(country["prices"]),
        "currency": country["currency"],
        "time_zone": str(zone) if told else None,
        "locale": country["locale"],
        "tenure_days": 30 * (1 + int(roll.expovariate(1 / 10))),
    }


def _causes(beliefs: Beliefs, region: str) -> dict[str, float]:
    weights = {name.removeprefix("causes."): n for name, n in beliefs.numbers.items() if name.startswith("causes.")}
    return weights | {"authentication": beliefs.numbers.get(f"authentication.{region}", weights["authentication"])}


def _paydays(roll: Random, code: str, country: dict[str, Any], zone: ZoneInfo, days: int) -> tuple[datetime, ...]:
    span = (START - timedelta(days=45), START + timedelta(days=days + 45))
    return tuple(payday_instants(pick(roll, country["cycles"]), roll.randrange(2), code, str(zone), span))


def _failed_at(roll: Random, paydays: tuple[datetime, ...], days: int, beliefs: Beliefs, *, never: bool) -> datetime:
    """Any hour of the first days; with paydays rather when the money is gone than when it has just come."""
    while True:
        at = START + timedelta(seconds=int(roll.random() * max(days - TAIL_DAYS, 1) * 86400))
        wait = next_payday(paydays, at)
        if wait is None:
            return at
        arrives = (beliefs["funds.before_payday"] if wait < timedelta(days=4) else 1) / beliefs["funds.before_payday"]
        passes = 0.0 if never else funded(paydays, at, beliefs)
        if roll.random() < arrives * (1 - passes):
            return at


def funded(paydays: tuple[datetime, ...], at: datetime, beliefs: Beliefs) -> float:
    """Return how likely there is money at this instant, so long after the last payday."""
    last = max((payday for payday in paydays if payday <= at), default=paydays[0])
    spent_days = max((at - last) / timedelta(days=1) - 0.5, 0.0)
    kept: float = 0.5 ** (spent_days / beliefs["funds.half_life_days"])
    return beliefs["funds.between"] + (beliefs["funds.payday"] - beliefs["funds.between"]) * kept


def _expiry(roll: Random, cause: str, failed_at: datetime) -> tuple[int, int]:
    months = failed_at.year * 12 + failed_at.month - 1 + (-1 if cause == "expired" else roll.randint(1, 48))
    return months // 12, months % 12 + 1


def _card(roll: Random, country: str, expiry: tuple[int, int], beliefs: Beliefs, *, debit: bool) -> Card:
    prepaid = debit and roll.random() < 1 / 20
    return Card(
        fingerprint=fingerprint(roll),
        brand=pick(roll, beliefs.tables["brands"]),
        funding="prepaid" if prepaid else "debit" if debit else "credit",
        country=country,
        exp_month=expiry[1],
        exp_year=expiry[0],
    )


def fingerprint(roll: Random) -> str:
    """Return sixteen characters that stand for one card number."""
    return "".join(roll.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789", k=16))


def renewed(card: Card, roll: Random, *, new_number: bool) -> Card:
    """Return the card that follows this one: valid some years longer, under a new number or the old one."""
    number = fingerprint(roll) if new_number else card.fingerprint
    year = max(card.exp_year or 0, START.year) + roll.randint(3, 4)
    return replace(card, fingerprint=number, exp_year=year, exp_month=roll.randint(1, 12))


def _updated_at(roll: Random, cause: str, region: str, failed_at: datetime, beliefs: Beliefs) -> datetime | None:
    hours = roll.uniform(beliefs["updater.first_hours"], beliefs["updater.last_hours"])
    share = beliefs.numbers.get(f"updater.{cause}_{region}", beliefs.numbers.get(f"updater.{cause}", 0.0))
    return failed_at + timedelta(seconds=int(hours * 3600)) if roll.random() < share else None


def _own_acts(roll: Random, failed_at: datetime, beliefs: Beliefs) -> tuple[tuple[str, datetime], ...]:
    """When would this customer act without being asked: mend it, and leave?"""
    risk, early, late = roll.expovariate(1), beliefs["customers.mends_first_week"], beliefs["customers.mends_later"]
    mends = risk / early if risk < 7 * early else 7 + (risk - 7 * early) / late
    how = "card" if roll.random() < 2 / 3 else "paid"
    leaves = roll.expovariate(1) / max(beliefs["customers.cancels"], 1e-9)
    acts = ((how, mends), ("cancel", leaves))
    return tuple((act, days_after(failed_at, days)) for act, days in acts if days < LAST_ACT_DAYS)


def days_after(start: datetime, days: float) -> datetime:
    """Return the whole second so many days later: providers tell whole seconds only."""
    return start.replace(microsecond=0) + timedelta(seconds=1 + int(days * 86400))
