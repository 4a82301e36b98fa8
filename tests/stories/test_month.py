"""What happens in a month? Each story asserts exactly the effects of each day, and no others.

A diary's days count from the first failure in the customer's own calendar; days without an effect are not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, time, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import select

from schedules import Card, Decline, Policy
from tests.stories.month import Month
from tests.stories.scripted import FAILED_AT, FUNDS, NEWER, VISA, Scripted, a_payment, local
from worker.models import attempts, history

Play = Callable[..., Month]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
COOL_DOWN = timedelta(hours=Policy.default().cooldown_hours)
LOST = Decline("lost_card", "do_not_try_again", "41", None, "issuer_declined", "lost_card")
EXPIRED = Decline("expired_card", None, "54", None, "issuer_declined", "expired_card")
OLD_CARD = replace(VISA, exp_month=12, exp_year=2025)
MASTERCARD = replace(VISA, brand="mastercard")
GERMAN = replace(VISA, country="DE")
UNTOLD = frozenset({"invoice.payment_failed"})


def within(instants: list[datetime], opens: time, closes: time) -> bool:
    """Whether every local instant lies in these hours."""
    return all(opens <= at.time() <= closes for at in instants)


# Silence


def test_lack_of_funds_is_paid_on_the_third_silent_retry_and_the_customer_never_hears_of_it(play: Play) -> None:
    """Three days apart, in bank hours; the third charge is approved and nobody was written to."""
    month = play(Scripted((a_payment(),), {"in_1": [FUNDS, FUNDS, None]}))
    assert month.diary() == {
        0: ["silent"],
        3: ["charge: insufficient_funds"],
        6: ["charge: insufficient_funds"],
        9: ["charge: approved", "recovered by silent_retry"],
    }
    assert within(month.charged_at(), time(6, 5), time(20, 55))


def test_an_expired_card_is_charged_once_when_the_updater_has_answered(play: Play) -> None:
    """The renewed card arrives at night of day 2; the one charge waits for the bank to open."""
    world = Scripted(
        (a_payment(decline=EXPIRED, card=OLD_CARD),),
        {"in_1": [None]},
        updates={"in_1": [(local("2026-01-14 02:00"), replace(OLD_CARD, exp_year=2030))]},
    )
    month = play(world)
    assert month.diary() == {0: ["silent"], 2: ["charge: approved", "recovered by card_update"]}
    assert within(month.charged_at(), time(6, 5), time(21, 55))


def test_an_updated_card_is_found_without_any_event(play: Play) -> None:
    """The updater's event is lost; the reading of the third day finds the card all the same."""
    world = Scripted(
        (a_payment(decline=EXPIRED, card=OLD_CARD),),
        {"in_1": [None]},
        updates={"in_1": [(local("2026-01-14 12:00"), replace(OLD_CARD, exp_year=2030))]},
    )
    month = play(world, told=UNTOLD)
    assert month.diary() == {0: ["silent"], 3: ["charge: approved", "recovered by card_update"]}


def test_a_mastercard_advice_to_wait_two_days_is_kept_to_the_minute(play: Play) -> None:
    """Advice 26 asks for 48 hours; the same decline without it would be charged on the next day."""
    advised = Decline("generic_decline", None, None, "26")
    credit = replace(MASTERCARD, funding="credit")  # salary arrives on debit cards: they have paydays of their own
    month = play(Scripted((a_payment(card=credit, decline=advised),), {"in_1": [None]}))
    assert month.diary() == {0: ["silent"], 2: ["charge: approved", "recovered by silent_retry"]}
    assert month.charged_at()[0] >= FAILED_AT + 2 * DAY


def test_without_the_advice_the_same_decline_is_charged_on_the_next_day(play: Play) -> None:
    """The counterpart: it was the advice that moved the charge."""
    month = play(Scripted((a_payment(card=MASTERCARD, decline=Decline("generic_decline")),), {"in_1": [None]}))
    assert month.diary() == {0: ["silent"], 1: ["charge: approved", "recovered by silent_retry"]}


@pytest.mark.parametrize(
    ("failed", "day", "charged_on"),
    [("2026-03-26 20:30", 4, "2026-03-30"), ("2026-10-22 06:30", 3, "2026-10-25")],
    ids=["an hour is lost", "an hour is won"],
)
def test_a_retry_planned_over_a_change_of_clocks_stays_in_local_hours(
    play: Play, failed: str, day: int, charged_on: str
) -> None:
    """72 hours later is 21:30 in spring (closed: the next morning) and 05:30 in autumn (not open yet)."""
    berlin = "Europe/Berlin"
    credit = replace(GERMAN, funding="credit")  # no payday moves the retry
    payment = a_payment(failed_at=local(failed, berlin), time_zone=berlin, card=credit)
    month = play(Scripted((payment,), {"in_1": [None]}))
    assert month.diary(berlin) == {0: ["silent"], day: ["charge: approved", "recovered by silent_retry"]}
    assert [at.date().isoformat() for at in month.charged_at()] == [charged_on]
    assert within(month.charged_at(), time(6, 5), time(8, 5))


# Contact


def test_a_lost_card_is_never_charged_but_the_customers_new_one_is_at_once(play: Play) -> None:
    """Notices by the ladder; the new card comes in the middle of the night of day 6 and is charged in that minute."""
    entered = local("2026-01-18 03:00")
    world = Scripted((a_payment(decline=LOST),), {"in_1": [None]}, acts={"in_1": [("card", entered)]})
    month = play(world)
    assert month.diary() == {
        0: ["notice first", "contacting"],
        4: ["notice reminder"],
        6: ["charge: approved", "recovered by after_contact"],
    }
    assert [each["fingerprint"] for each in month.charges] == [NEWER.fingerprint]
    assert [at.replace(second=0, microsecond=0) for at in month.charged_at()] == [entered]


def test_when_nobody_answers_the_case_is_lost_at_its_deadline_and_ends_the_subscription_once(play: Play) -> None:
    """Silent days first, then four notices with silent charges between them, then the merchant's ending."""
    month = play(Scripted((a_payment(),)), policy=replace(Policy.default(), ending="cancel"))
    assert month.diary() == {
        0: ["silent"],
        3: ["charge: insufficient_funds"],
        6: ["charge: insufficient_funds"],
        9: ["charge: insufficient_funds"],
        10: ["notice first", "contacting"],
        13: ["charge: insufficient_funds"],
        14: ["notice reminder"],
        18: ["charge: insufficient_funds"],  # a day later than the gap: Friday the 30th is a payday
        21: ["notice second_reminder"],  # day 19 is a Saturday
        24: ["notice last_chance"],
        25: ["charge: insufficient_funds"],
        28: ["notice ended", "lost", "DELETE /v1/subscriptions/sub_1 200"],
    }
    assert within(month.charged_at(), time(6, 5), time(20, 55))
    assert all(time(9) <= at.astimezone(month.charged_at()[0].tzinfo).time() <= time(20) for at in month.mailed)
    assert all(later - earlier >= COOL_DOWN for earlier, later in pairwise(month.mailed))


@pytest.mark.parametrize(
    ("ending", "outcome", "asked", "said"),
    [
        ("leave", "lost", None, []),
        ("release", "released", None, []),
        ("cancel", "lost", "DELETE /v1/subscriptions/sub_1", ["notice ended"]),
        ("mark_uncollectible", "lost", "POST /v1/invoices/in_1/mark_uncollectible", []),
        ("pause", "lost", "POST /v1/subscriptions/sub_1", ["notice paused"]),
    ],
)
def test_each_ending_is_carried_out_at_the_deadline_and_written_down(
    play: Play, ending: str, outcome: str, asked: str | None, said: list[str]
) -> None:
    """Only what the policy says is asked of the provider, once; the history of the case tells it, and a notice."""
    month = play(Scripted((a_payment(decline=LOST),)), policy=replace(Policy.default(), ending=ending))
    assert month.diary()[28] == [*said, outcome, *([f"{asked} 200"] if asked else [])]
    assert len(month.record.writes()) == bool(asked)
    with month.engine.connect() as db:
        lines = db.execute(select(history.c.what, history.c.detail).order_by(history.c.id)).all()
    closed = [(line.what, line.detail["outcome"]) for line in lines if line.what == "closed"]
    ended = [(line.what, line.detail["name"]) for line in lines if line.detail.get("kind") == "ending"]
    assert (closed, ended) == ([("closed", outcome)], [("delivered", ending)] if asked else [])


def test_two_cases_of_one_customer_never_speak_within_the_cool_down(play: Play) -> None:
    """Two lost cards, two ladders: the first notices take turns, and once two are a week's worth they go together."""
    other = replace(VISA, fingerprint="OTHERotherOTHER1")
    second = a_payment(payment_id="in_2", subscription_id="sub_2", failed_at=FAILED_AT + 30 * HOUR, card=other)
    month = play(Scripted((a_payment(decline=LOST), replace(second, decline=LOST))))
    assert month.diary(names=("in_1", "in_2")) == {
        0: ["in_1: notice first", "in_1: contacting"],
        1: ["in_2: silent"],
        2: ["in_2: notice first", "in_2: contacting"],
        8: ["in_1: notice reminder", "in_2: notice reminder"],
        10: ["in_1: notice second_reminder", "in_2: notice second_reminder"],
        15: ["in_1: notice last_chance", "in_2: notice last_chance"],
        28: ["in_1: lost"],
        29: ["in_2: lost"],
    }
    assert all(later - earlier >= COOL_DOWN for earlier, later in pairwise(month.mailed))


def test_two_invoices_of_one_customer_that_fail_on_one_day_are_told_together(play: Play) -> None:
    """Each climbs its whole ladder, and the customer gets four messages instead of eight."""
    second = a_payment(payment_id="in_2", subscription_id="sub_2", failed_at=FAILED_AT + 5 * HOUR)
    month = play(Scripted((a_payment(), second)))
    for payment_id in ("in_1", "in_2"):
        told = [effect for _, of, effect in month.seen if of == payment_id and effect.startswith("notice")]
        assert told == ["notice first", "notice reminder", "notice second_reminder", "notice last_chance"]
    assert len(month.mailed) == len(Policy.default().ladder)
    assert all(later - earlier >= COOL_DOWN for earlier, later in pairwise(month.mailed))


def test_a_customer_with_three_failing_subscriptions_gets_exactly_these_messages(play: Play) -> None:
    """Never two within two days nor three within a week, on business days; whoever is paid is spoken of no more."""
    second = a_payment(payment_id="in_2", subscription_id="sub_2", failed_at=FAILED_AT + 30 * HOUR, decline=LOST)
    third = a_payment(payment_id="in_3", subscription_id="sub_3", failed_at=FAILED_AT + 5 * DAY)
    acts = {"in_2": [("paid", local("2026-01-27 12:00"))]}
    month = play(Scripted((a_payment(), second, third), acts=acts))
    assert month.messages() == [
        "Tue 13 Jan 16h first: in_2",
        "Tue 20 Jan 10h reminder: in_2",
        "Thu 22 Jan 10h first: in_1, in_2",
        "Tue 27 Jan 10h reminder: in_1, in_2, in_3",
        "Mon 02 Feb 09h reminder: in_1, in_3",
        "Thu 05 Feb 10h last_chance: in_1, in_3",
        "Tue 10 Feb 10h last_chance: in_3",
    ]
    assert len(month.mailed) == 7


@pytest.mark.parametrize("code", ["revocation_of_authorization", "stop_payment_order"])
def test_withdrawn_consent_is_never_charged_not_even_on_a_new_card(play: Play, code: str) -> None:
    """The customer stopped the payments: they may still pay by themselves, and a new card changes nothing."""
    acts = {"in_1": [("card", local("2026-01-18 12:00"))]}
    month = play(Scripted((a_payment(decline=Decline(code)),), {"in_1": [None]}, acts=acts))
    assert month.diary() == {
        0: ["notice first", "contacting"],
        4: ["notice reminder"],
        9: ["notice second_reminder"],
        14: ["notice last_chance"],
        28: ["lost"],
    }


# The customer acts first


def test_a_customer_who_leaves_ends_the_case_and_nothing_more_happens(play: Play) -> None:
    """The subscription is canceled and its invoice voided: a choice of the customer, not a loss to fight."""
    month = play(Scripted((a_payment(),), acts={"in_1": [("cancel", local("2026-01-20 12:00"))]}))
    assert month.diary() == {
        0: ["silent"],
        3: ["charge: insufficient_funds"],
        6: ["charge: insufficient_funds"],
        8: ["canceled"],
    }


@pytest.mark.parametrize("told", [None, UNTOLD], ids=["the event arrives", "the event is lost"])
def test_an_invoice_paid_on_its_page_before_the_planned_charge_is_not_charged(
    play: Play, told: frozenset[str] | None
) -> None:
    """Minutes before the retry the customer pays; with or without an event nothing is sent to the bank."""
    acts = {"in_1": [("paid", local("2026-01-15 10:00"))]}
    month = play(Scripted((a_payment(),), acts=acts), told=told)
    assert month.diary() == {0: ["silent"], 3: ["customer pays: approved", "recovered by customer"]}
    assert month.ledger["summary"]["writes"] == 0


def test_an_invoice_paid_while_our_charge_is_on_its_way_is_charged_by_nobody_else(play: Play) -> None:
    """The payment comes between our last reading and our request: the bank refuses, and the case is recovered."""
    paid = local("2026-01-15 11:40")

    def pay_first(exchange: Any, clock: list[datetime]) -> None:
        if exchange.path.endswith("/pay"):
            clock[0] = max(clock[0], paid)

    month = play(Scripted((a_payment(),), acts={"in_1": [("paid", paid)]}), on_request=pay_first)
    assert month.diary() == {0: ["silent"], 3: ["customer pays: approved", "recovered by customer"]}
    assert (len(month.record.pays()), month.ledger["summary"]["refused_on_paid"]) == (1, 1)


# Observe mode


def test_a_month_of_observing_plans_everything_and_writes_nothing(play: Play) -> None:
    """Every class of case runs to its end; the bank saw reads only and no customer got a message."""
    more = {"subscription_id": None, "customer_id": "cus_2"}
    payments = (
        a_payment(),
        a_payment(payment_id="in_2", decline=LOST, **more),
        a_payment(payment_id="in_3", decline=EXPIRED, **{**more, "customer_id": "cus_3"}, card=OLD_CARD),
    )
    renewed: list[tuple[datetime, Card]] = [(FAILED_AT + DAY, replace(OLD_CARD, exp_year=2030))]
    month = play(
        Scripted(payments, updates={"in_3": renewed}), live=False, policy=replace(Policy.default(), ending="cancel")
    )
    assert month.diary(names=("in_1", "in_2", "in_3")) == {
        0: ["in_1: silent", "in_2: contacting", "in_3: silent"],
        4: ["in_3: contacting"],
        10: ["in_1: contacting"],
        28: ["in_1: lost", "in_2: lost", "in_3: lost"],
    }
    assert month.ledger["summary"]["writes"] == 0
    assert not month.record.writes()
    with month.engine.connect() as db:
        ours = attempts.c.case_id.is_not(None)  # the renewals themselves were heard of as refused charges
        states = db.execute(select(attempts.c.state).where(ours).distinct()).scalars().all()
        planned = db.execute(select(history.c.id).where(history.c.what == "planned")).scalars().all()
    assert states == ["observed"]
    assert len(planned) > 20
