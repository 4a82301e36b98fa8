"""Does every rule change an outcome? Each is switched off in turn, and a case it is meant for comes out otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schedules import Card, Decline, Facts, FailedPayment, Policy, Step, case, charges, decide, declines, hours, places
from schedules.ahead import plan_ahead
from schedules.budgets import Limit
from schedules.case import Case
from schedules.decide import next_step
from schedules.policy import DeclineRule
from tests.schedules.builders import DAY, FAILED, HOUR, attempt, card, declined, facts, payment

POLICY = Policy()
CHRISTMAS = datetime(2026, 12, 23, 3, tzinfo=UTC)
JANUARY = datetime(2026, 1, 26, 3, 10, tzinfo=UTC)


def calendar(code: str = "insufficient_funds", policy: Policy = POLICY, at: datetime = FAILED, **of: Any) -> list[Step]:
    """Every step of a case without its reasons; ``of`` changes the German Visa card and what the bank said."""
    decline = {key: of.pop(key) for key in [*of] if key in Decline.__slots__}
    failed = payment(failed_at=at, card=card(**of), decline=declined(code, **decline))
    return [replace(step, reasons=()) for step in plan_ahead(failed, policy, at)]


def british_debit(policy: Policy = POLICY, **changes: Any) -> Step:
    """The next step for a British debit card without funds, four days before the last working day of the month."""
    mine = Card("fp", "visa", "debit", "GB", 1, 2028)
    failed = FailedPayment("in_1", "cus_1", "sub_1", 1000, "gbp", JANUARY, declined(), mine)
    known = facts(payment=failed, card=mine, refreshed_at=JANUARY, uses=(JANUARY,), **changes)
    return replace(next_step(known, policy, JANUARY), reasons=())


def decided(known: Facts, now: datetime = FAILED + HOUR) -> Step:
    """The next step, without its reasons."""
    return replace(next_step(known, POLICY, now), reasons=())


@dataclass(frozen=True)
class Rule:
    """A rule, the case it is for, what is replaced to switch it off, and by what."""

    name: str
    case: Callable[[], object]
    of: Any
    attribute: str
    off: Any


RULES = (
    Rule(
        "the stricter evidence wins",
        lambda: calendar(outcome_type="blocked", outcome_reason="highest_risk_level"),
        declines,
        "STRICTNESS",
        {each: -rank for each, rank in declines.STRICTNESS.items()},
    ),
    Rule(
        "a network code is read in the table of its brand",
        lambda: calendar("generic_decline", network_decline_code="57"),
        declines,
        "NETWORK_TABLES",
        {},
    ),
    Rule(
        "a merchant's own meaning of a code counts",
        lambda: calendar(
            policy=Policy(declines=(DeclineRule("stripe_card", "insufficient_funds", "customer_action"),))
        ),
        Policy,
        "overrides",
        (),
    ),
    Rule(
        "a US bank debit is presented again for lack of funds only",
        lambda: calendar("processing_error", brand="us_bank_account", country="US"),
        declines,
        "ONLY_FUNDS",
        frozenset(),
    ),
    Rule(
        "a spent budget is waited for",
        lambda: calendar(policy=Policy(budgets={"visa": (Limit(2, 240),)})),
        charges,
        "free_from",
        lambda at, *_: at,
    ),
    Rule(
        "a debit is presented as often as its scheme allows",
        lambda: calendar(brand="acss_debit", country="CA"),
        charges,
        "free_from",
        lambda at, *_: at,
    ),
    Rule(
        "an advised wait is kept",
        lambda: calendar(brand="mastercard", network_advice_code="30"),
        Case,
        "allowed",
        property(lambda self: self.facts.last_failure),
    ),
    Rule("a bank is asked in its hours", calendar, case, "next_open", lambda at, *_: at),
    Rule("an edge of the window is left to clocks that differ", calendar, hours, "EDGE", timedelta(0)),
    Rule(
        "weekends and holidays of the bank are left out",
        lambda: calendar("do_not_honor", at=CHRISTMAS),
        hours,
        "closed_days",
        lambda *_: frozenset(),
    ),
    Rule(
        "a country with several zones is asked when all of them are open",
        lambda: calendar(country="US"),
        places,
        "ZONES_OF_COUNTRY",
        {"US": ("America/New_York",)},
    ),
    Rule(
        "a debit keeps the hours of its rail",
        lambda: calendar(brand="sepa_debit", at=FAILED + DAY),
        places,
        "RAILS",
        {},
    ),
    Rule(
        "a rail takes no repetition after its time",
        lambda: calendar(
            brand="pix", country="BR", policy=Policy(gaps_hours={"retry_later": (200,), "retry_soon": (2,)})
        ),
        Case,
        "last_charge",
        Case.deadline,
    ),
    Rule("a charge for lack of funds goes on a payday", british_debit, charges, "nearest_payday", lambda *_: None),
    Rule(
        "a customer's own payday stands before the country's",
        lambda: british_debit(successes=tuple(datetime(2025, month, 28, 12, tzinfo=UTC) for month in (8, 10, 11))),
        charges,
        "habits_of",
        lambda *_: ("last",),
    ),
    Rule(
        "a payday's first minutes are used where the merchant wants it",
        lambda: british_debit(Policy(payday_midnight=True)),
        charges,
        "_at_midnight",
        lambda *_: None,
    ),
    Rule("a batch is spread", calendar, Case, "fraction", lambda *_: 0.0),
    Rule(
        "short hops come to an end",
        lambda: calendar("issuer_not_available", at=FAILED + 3 * DAY),
        Case,
        "hop",
        property(lambda self: self.verdict.decline_class == "retry_soon"),
    ),
    Rule(
        "an excluded country is not charged",
        lambda: calendar(country="IN"),
        Policy,
        "excluded_countries",
        property(lambda _: ()),
    ),
    Rule(
        "a card is never charged after never",
        lambda: decided(
            facts(
                attempts=(attempt(),),
                payment=payment(decline=declined("lost_card")),
                refreshed_at=FAILED + 2 * DAY,
            ),
            FAILED + 2 * DAY,
        ),
        Case,
        "forbidden",
        property(lambda _: False),
    ),
    Rule(
        "a card is read after every failure",
        calendar,
        decide,
        "_refresh",
        lambda _: None,
    ),
    Rule(
        "silence is given its time",
        calendar,
        Case,
        "silent_until",
        property(lambda self: self.facts.payment.failed_at),
    ),
    Rule(
        "a card that the customer stored is charged at once",
        lambda: decided(
            facts(card=card(fingerprint="fp_2"), card_entered_at=FAILED + HOUR, refreshed_at=FAILED + HOUR)
        ),
        Case,
        "entered",
        property(lambda _: False),
    ),
    Rule(
        "a card is charged so often and no more",
        lambda: calendar("do_not_honor"),
        charges,
        "_forbidden",
        lambda _: None,
    ),
    Rule(
        "withdrawn consent binds every card",
        lambda: decided(facts("revocation_of_authorization", card=card(fingerprint="fp_2"))),
        charges,
        "_forbidden",
        lambda _: None,
    ),
    Rule(
        "a customer is left alone for the cool-down",
        lambda: decided(facts("lost_card", customer_contacts=(FAILED,))),
        Policy,
        "cooldown_hours",
        property(lambda _: 1),
    ),
    Rule("the deadline ends the case", calendar, Case, "deadline", property(lambda _: FAILED + 90 * DAY)),
    Rule(
        "the updater is given time to answer",
        lambda: calendar("expired_card"),
        decide,
        "_look_again",
        lambda *_: None,
    ),
    Rule(
        "a customer is written to in daylight",
        lambda: calendar("lost_card"),
        case,
        "next_open",
        lambda at, *_: at,
    ),
)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    """Forget the answers of pure functions, before a rule is switched off and after."""
    forget()
    yield
    forget()


def forget() -> None:
    """Empty every cache of the package."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("schedules."):
            for value in vars(module).values():
                getattr(value, "cache_clear", lambda: None)()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_without_the_rule_the_case_comes_out_otherwise(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed is used."""
    kept = rule.case()
    forget()
    monkeypatch.setattr(rule.of, rule.attribute, rule.off)
    assert rule.case() != kept
