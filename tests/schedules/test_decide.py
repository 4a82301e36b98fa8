"""Does the one decision do what a billing clerk would expect, case by case?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from schedules import Charge, Close, Contact, Decline, Facts, Policy, Refresh, Step, Wait, next_step, plan_ahead
from schedules.budgets import Limit
from schedules.decide import last_word, may_speak
from schedules.policy import Rung
from tests.schedules.builders import DAY, FAILED, HOUR, MINUTE, attempt, berlin, card, declined, facts, payment

POLICY = Policy()
DEADLINE = FAILED + 28 * DAY
LETTERS = {Refresh: "R", Charge: "$", Contact: "C", Wait: "W", Close: "X"}
ONE_OF_EACH_CLASS = (
    "insufficient_funds",
    "issuer_not_available",
    "expired_card",
    "authentication_required",
    "lost_card",
    "duplicate_transaction",
)


def calendar(code: str, policy: Policy = POLICY) -> tuple[Step, ...]:
    """The whole case of a card that is refused with ``code`` each time."""
    return plan_ahead(payment(decline=declined(code)), policy, FAILED)


def letters(steps: tuple[Step, ...]) -> str:
    """One letter for each step: read the card, charge, contact, wait, close."""
    return "".join(LETTERS[type(step)] for step in steps)


def told(step: Step) -> Step:
    """A step without its reasons: what is done, and when."""
    return replace(step, reasons=())


def decide(known: Facts, now: datetime = FAILED + HOUR, policy: Policy = POLICY) -> Step:
    """The next step, without its reasons."""
    return told(next_step(known, policy, now))


def refused(*cards_and_codes: tuple[str, str], **changes: Any) -> Facts:
    """A case with one attempt a day, each on the card of this number and refused with this code."""
    tries = tuple(
        attempt(number, FAILED + number * DAY, code, card=card(fingerprint=fingerprint))
        for number, (fingerprint, code) in enumerate(cards_and_codes, start=1)
    )
    return replace(facts(attempts=tries, refreshed_at=FAILED + len(tries) * DAY + MINUTE), **changes)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("insufficient_funds", "R$R$R$RC$RC$RC$RC$RX"),
        ("do_not_honor", "R$R$R$R$RCCCCX"),
        ("issuer_not_available", "R$R$R$R$RCCCCX"),
        ("expired_card", "RRRRCCCCX"),
        ("authentication_required", "RCRRRCCCX"),
        ("lost_card", "RCRRRCCCX"),
        ("revocation_of_authorization", "RCCCCX"),
        ("recipient_deceased", "RX"),
        ("duplicate_transaction", "RX"),
        ("a_code_of_tomorrow", "R$R$R$R$RCCCCX"),
    ],
)
def test_each_class_has_its_own_calendar(code: str, expected: str) -> None:
    """Read first; charge in silence, hold for the updater, speak at once, or hand back."""
    assert letters(calendar(code)) == expected


def test_lack_of_funds_is_silent_for_ten_days_then_both() -> None:
    """Three charges before the first word, by the clock of Berlin."""
    steps = calendar("insufficient_funds")
    charges = [step.at for step in steps if isinstance(step, Charge)]
    contacts = [step for step in steps if isinstance(step, Contact)]
    assert [step.notice for step in contacts] == ["first", "reminder", "second_reminder", "last_chance"]
    assert contacts[0].at >= FAILED + 10 * DAY > charges[2]
    assert charges[0] >= FAILED + 72 * HOUR
    assert min(later - at for at, later in pairwise(charges)) >= 72 * HOUR
    assert steps[-1] == Close(DEADLINE, "lost", steps[-1].reasons)


def test_an_expired_card_is_read_three_times_before_anybody_is_disturbed() -> None:
    """A day, two and three after the failure; then the customer, in the morning."""
    steps = calendar("expired_card")
    assert [step.at - FAILED for step in steps[:4]] == [timedelta(0), DAY, 2 * DAY, 3 * DAY]
    assert berlin(6, 9) < steps[4].at < berlin(6, 12)


def test_a_lost_card_is_told_to_the_customer_on_the_same_day() -> None:
    """Silence does not help; the card is still read again, in case a successor comes."""
    contact = calendar("lost_card")[1]
    assert isinstance(contact, Contact)
    assert berlin(3, 9) < contact.at < berlin(3, 12)


def test_what_the_merchant_has_to_mend_is_released_and_nobody_is_written_to() -> None:
    """Neither charge nor contact."""
    close = calendar("duplicate_transaction")[-1]
    assert isinstance(close, Close)
    assert (close.at, close.outcome) == (FAILED, "released")


@pytest.mark.parametrize("code", [*ONE_OF_EACH_CLASS, "a_code_of_tomorrow"])
def test_every_step_says_why_and_is_the_same_when_asked_at_its_instant(code: str) -> None:
    """First the class and the evidence, then the rule that asked for the instant."""
    known, now = facts(code, refreshed_at=None), FAILED
    for step in calendar(code):
        assert step.reasons[0].startswith("class: ")
        assert step.reasons[1].partition(": ")[0] in {"evidence", "unknown"}
        assert all(rule and asked for rule, _, asked in (reason.partition(": ") for reason in step.reasons[2:]))
        assert len(step.reasons) > 2
        assert next_step(known, POLICY, now) == step
        assert decide(known, step.at) == told(step)
        known, now = done(known, step), step.at


def done(known: Facts, step: Step) -> Facts:
    """The case after this step; a charge is refused with the code of the renewal."""
    match step:
        case Refresh():
            return replace(known, refreshed_at=step.at)
        case Charge():
            tried = attempt(step.attempt, step.at, card=known.card, decline=known.payment.decline)
            return replace(known, attempts=(*known.attempts, tried), uses=(*known.uses, step.at))
        case Contact():
            return replace(known, contacted=(*known.contacted, step.at), customer_contacts=(step.at,))
        case _:
            return known


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        ("paid", "recovered"),
        ("canceled", "canceled"),
        ("voided", "released"),
        ("disputed", "released"),
        ("lapsed", "lost"),
    ],
)
@pytest.mark.parametrize("paused", [True, False])
def test_what_is_over_is_closed_at_once(ended: str, outcome: str, paused: bool) -> None:
    """Even unread, even paused, even after the deadline: the provider's word is final."""
    for now in (FAILED, FAILED + HOUR, DEADLINE + DAY):
        known = facts(ended=ended, paused=paused, refreshed_at=None)
        assert next_step(known, POLICY, now) == Close(now, outcome, (f"ended: {ended}",))


def test_a_paused_case_waits_until_its_deadline() -> None:
    """Nothing is charged or said; news are read, and the deadline holds all the same."""
    known = facts(paused=True)
    assert decide(known) == Wait(DEADLINE)
    assert decide(known, DEADLINE) == Close(DEADLINE, "lost")
    assert decide(replace(known, refreshed_at=None)) == Refresh(FAILED + HOUR)


def test_an_invoice_that_another_engine_retries_is_read_daily_and_left_alone() -> None:
    """Neither charge nor notice; the deadline holds, and take_over is the explicit choice against it."""
    known = facts("lost_card", retried_elsewhere=True)
    assert decide(known) == Refresh(FAILED + MINUTE + DAY)
    assert decide(known, FAILED + 3 * DAY) == Refresh(FAILED + 3 * DAY)
    assert decide(replace(known, refreshed_at=DEADLINE - HOUR), DEADLINE - HOUR) == Wait(DEADLINE)
    assert decide(replace(known, refreshed_at=DEADLINE), DEADLINE) == Close(DEADLINE, "lost")
    assert isinstance(decide(known, policy=Policy(take_over=True)), Contact)
    assert isinstance(decide(facts(retried_elsewhere=True), policy=Policy(take_over=True)), Charge)


def test_a_case_is_read_before_it_is_closed_for_time() -> None:
    """It may have been paid while nobody looked."""
    assert decide(facts(refreshed_at=None), DEADLINE + DAY) == Refresh(DEADLINE + DAY)
    assert decide(facts(refreshed_at=DEADLINE + DAY), DEADLINE + DAY) == Close(DEADLINE + DAY, "lost")


@pytest.mark.parametrize("code", [*ONE_OF_EACH_CLASS, "a_code_of_tomorrow"])
def test_the_card_is_read_again_after_every_failure(code: str) -> None:
    """A reading from before the failure counts as none."""
    now = FAILED + DAY + HOUR
    assert decide(facts(code, refreshed_at=None)) == Refresh(FAILED + HOUR)
    assert decide(facts(code, refreshed_at=FAILED - MINUTE)) == Refresh(FAILED + HOUR)
    assert decide(facts(code, attempts=(attempt(code=code),)), now) == Refresh(now)


def test_the_first_notice_asks_for_a_confirmation_where_the_bank_wants_the_payer() -> None:
    """The ladder goes on as ever; of another customer action the first notice is the usual one."""
    said = [step.notice for step in calendar("authentication_required") if isinstance(step, Contact)]
    assert said == ["authentication", "reminder", "second_reminder", "last_chance"]
    first = next(step for step in calendar("invalid_account") if isinstance(step, Contact))
    assert first.notice == "first"


def test_the_last_word_waits_for_daylight_for_another_day_and_for_the_cool_down() -> None:
    """An hour after the end at the earliest; a cool-down shorter than a day does not bring it to a day of a notice."""
    quiet = Policy(spread_minutes=0, cooldown_hours=1)
    by_night = last_word(facts(), quiet, berlin(10, 3))
    assert by_night is not None
    assert berlin(10, 9, 5) <= by_night < berlin(10, 20)
    assert last_word(facts(), quiet, berlin(10, 12)) == berlin(10, 13)
    told_before = facts(customer_contacts=(berlin(10, 11),))
    assert last_word(told_before, quiet, berlin(10, 12)) == berlin(11, 11)
    assert last_word(told_before, replace(quiet, cooldown_hours=48), berlin(10, 12)) == berlin(12, 11)


@pytest.mark.parametrize("code", ["insufficient_funds", "expired_card", "authentication_required", "lost_card"])
@pytest.mark.parametrize("changes", [{"fingerprint": "fp_second"}, {"exp_year": 2034}, {"exp_month": 11}])
def test_a_changed_card_is_charged_once_at_the_next_open_window(code: str, changes: dict[str, object]) -> None:
    """New number or new expiry, whatever the old one was refused for; by night it waits for the morning."""
    step = next_step(facts(code, card=card(**changes)), POLICY, FAILED + HOUR)
    assert isinstance(step, Charge)
    assert berlin(3, 6, 5) <= step.at < berlin(3, 8, 5)
    assert "new_credential: one charge on a changed card" in step.reasons
    assert decide(facts(code, card=card(**changes)), berlin(3, 14)) == Charge(berlin(3, 14), 1)


def test_a_changed_card_that_is_refused_is_judged_by_its_own_refusal() -> None:
    """The old card was lost, the new one has no money: it is tried again in three days, from its own count."""
    known = refused(("fp_second", "insufficient_funds"), card=card(fingerprint="fp_second"))
    known = replace(known, payment=payment(decline=declined("lost_card")))
    step = next_step(known, POLICY, FAILED + DAY + HOUR)
    assert isinstance(step, Charge)
    assert step.attempt == 2
    assert FAILED + 4 * DAY <= step.at < FAILED + 5 * DAY


def test_a_changed_card_has_the_budget_of_its_own_number() -> None:
    """Spent by other cases of the merchant: as soon as one use has left the window."""
    policy = Policy(budgets={"visa": (Limit(2, 48),)})
    known = facts("expired_card", card=card(fingerprint="fp_second"), uses=(FAILED - 9 * HOUR, FAILED - 8 * HOUR))
    step = next_step(known, policy, FAILED + HOUR)
    assert told(step) == Charge(FAILED + 39 * HOUR, 1)
    assert any(reason.startswith("budget: spent until") for reason in step.reasons)
    assert decide(replace(known, uses=known.uses[1:]), berlin(3, 14), policy) == Charge(berlin(3, 14), 1)


def test_a_card_whose_brand_is_written_in_capitals_has_the_same_budget() -> None:
    """The decline is read without regard to case, so is the limit."""
    policy = Policy(budgets={"visa": (Limit(1, 720),)})
    assert not isinstance(decide(facts(card=card(brand="Visa")), policy=policy), Charge)


def test_a_card_entered_by_the_customer_is_charged_at_once_at_night_too() -> None:
    """Somebody is waiting in front of a screen."""
    night = berlin(4, 3)
    for code in ("insufficient_funds", "expired_card", "authentication_required", "lost_card"):
        known = facts(code, card=card(fingerprint="fp_second"), card_entered_at=night, refreshed_at=night)
        assert decide(known, night) == Charge(night, 1)
    again = facts("authentication_required", card_entered_at=night, refreshed_at=night)
    assert decide(again, night) == Charge(night, 1)


def test_a_card_entered_before_the_last_failure_waits_like_any_other() -> None:
    """It has had its charge."""
    known = refused(("fp_second", "insufficient_funds"), card=card(fingerprint="fp_second"), card_entered_at=FAILED)
    assert decide(known, FAILED + DAY + HOUR).at >= FAILED + 4 * DAY


@pytest.mark.parametrize("entered", [None, FAILED + 2 * DAY])
def test_a_forbidden_card_that_comes_back_is_still_forbidden(entered: datetime | None) -> None:
    """Lost, replaced, and put back: what the bank said of it is not forgotten, nor forgiven by typing it in."""
    known = refused(("fp_second", "insufficient_funds"), card_entered_at=entered)
    known = replace(known, payment=payment(decline=declined("lost_card")), refreshed_at=FAILED + 2 * DAY)
    step = next_step(known, POLICY, FAILED + 2 * DAY)
    assert not isinstance(step, Charge)
    assert step.reasons[0] == "class: never"


@pytest.mark.parametrize("code", ["revocation_of_authorization", "stop_payment_order"])
@pytest.mark.parametrize("entered", [None, FAILED + 2 * DAY])
def test_withdrawn_consent_is_never_charged_on_any_card(code: str, entered: datetime | None) -> None:
    """Whichever refusal of the case said so, and whoever stored the card."""
    third = card(fingerprint="fp_third")
    first = replace(facts(code, card=third), payment=payment(decline=declined(code)))
    later = refused(("fp_second", code), card=third)
    for known in (first, later):
        read = replace(known, card_entered_at=entered, refreshed_at=FAILED + 2 * DAY)
        assert isinstance(decide(read, FAILED + 2 * DAY), Contact)


@pytest.mark.parametrize("fingerprint", ["fp_first", "fp_second", "fp_third"])
def test_the_death_of_the_payer_ends_it_whichever_card_is_stored_by_now(fingerprint: str) -> None:
    """No charge and no contact, as soon as any refusal says so."""
    known = refused(("fp_second", "recipient_deceased"), card=card(fingerprint=fingerprint))
    now = FAILED + DAY + HOUR
    assert decide(known, now) == Close(now, "released")


@pytest.mark.parametrize("country", ["IN", "in"])
def test_an_indian_card_is_not_charged_but_its_customer_is_told(country: str) -> None:
    """Its rules need the customer; a card from elsewhere is charged again."""
    known = facts(card=card(country=country), payment=payment(card=card(country=country)))
    assert isinstance(decide(known), Contact)
    entered = replace(known, card=card(country=country, fingerprint="fp_second"), card_entered_at=FAILED + MINUTE)
    assert isinstance(decide(entered), Contact)
    assert isinstance(decide(replace(known, card=card(fingerprint="fp_second"))), Charge)


def test_an_unknown_code_is_retried_later_and_named() -> None:
    """Beside what is known of the same refusal."""
    step = next_step(facts("a_code_of_tomorrow"), POLICY, FAILED + HOUR)
    assert isinstance(step, Charge)
    assert step.reasons[:2] == ("class: retry_later", "unknown: code:a_code_of_tomorrow")
    both = payment(decline=Decline("lost_card", network_decline_code="Q7"))
    reasons = next_step(facts(payment=both), POLICY, FAILED + HOUR).reasons
    assert reasons[:3] == ("class: never", "evidence: stripe_card:lost_card", "unknown: network_decline_code:Q7")


def test_attempts_count_from_one_to_the_last() -> None:
    """Four are allowed after do_not_honor; the policy may allow fewer, or none."""
    assert [step.attempt for step in calendar("do_not_honor") if isinstance(step, Charge)] == [1, 2, 3, 4]
    assert letters(calendar("do_not_honor", Policy(max_attempts=1))) == "R$RCCCCX"
    assert letters(calendar("do_not_honor", Policy(max_attempts=0))) == "RCCCCX"
    third = refused(("fp_first", "do_not_honor"), ("fp_first", "do_not_honor"), ("fp_first", "do_not_honor"))
    fourth = refused(*[("fp_first", "do_not_honor")] * 4)
    assert isinstance(decide(third, FAILED + 3 * DAY + HOUR), Charge)
    assert isinstance(decide(fourth, FAILED + 4 * DAY + HOUR), Contact)


def test_the_deadline_holds_to_the_minute() -> None:
    """A charge in the last minute, none at the deadline; after it the case is closed when it is looked at."""
    policy = Policy(deadline_days=10, silent_days=10, ladder=())
    entered = facts(card=card(fingerprint="fp_second"), card_entered_at=FAILED + MINUTE)
    deadline = FAILED + 10 * DAY
    assert decide(entered, deadline - MINUTE, policy) == Charge(deadline - MINUTE, 1)
    assert decide(entered, deadline, policy) == Close(deadline, "lost")
    assert decide(entered, deadline + MINUTE, policy) == Close(deadline + MINUTE, "lost")


def test_an_instant_at_the_deadline_is_no_instant() -> None:
    """A wait of three days, or a budget that is free again after three days, or a minute earlier."""
    noon = berlin(3, 12)
    known = facts(payment=payment(failed_at=noon), refreshed_at=noon, uses=(noon,))
    policy = Policy(deadline_days=3, silent_days=3, spread_minutes=0, ladder=())
    assert decide(known, noon, policy) == Close(noon + 3 * DAY, "lost")
    spent = replace(known, card=card(fingerprint="fp_second"), uses=(noon - 27 * DAY - MINUTE,))
    assert decide(spent, noon, replace(policy, budgets={"visa": (Limit(1, 720),)})) == Charge(
        noon + 3 * DAY - MINUTE, 1
    )
    told_before = replace(known, customer_contacts=(noon,))
    notice = Policy(deadline_days=3, silent_days=0, cooldown_hours=72, ladder=(Rung("first", 0),))
    assert decide(told_before, noon, notice) == Close(noon + 3 * DAY, "lost")
    assert decide(told_before, noon, replace(notice, cooldown_hours=71)) == Contact(noon + 71 * HOUR, "first")
    spent = replace(spent, uses=(noon - 27 * DAY,))
    assert decide(spent, noon, replace(policy, budgets={"visa": (Limit(1, 720),)})) == Close(noon + 3 * DAY, "lost")


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [("leave", "lost"), ("cancel", "lost"), ("mark_uncollectible", "lost"), ("release", "released")],
)
def test_a_case_ends_as_the_merchant_chose(ending: str, outcome: str) -> None:
    """At the deadline, when nothing is left before it and when it has come."""
    close = calendar("lost_card", Policy(ending=ending))[-1]
    assert told(close) == Close(DEADLINE, outcome)
    assert any(reason.startswith("deadline: ") for reason in close.reasons)


def test_a_customer_is_not_contacted_twice_within_the_cool_down_over_all_cases() -> None:
    """Two days after the notice of another case, in the morning."""
    known = facts("lost_card", customer_contacts=(berlin(4, 19, 30), berlin(2, 18)))
    quiet = Policy(hold_hours=(), contacts_per_week=3)
    assert decide(known, berlin(4, 20), quiet) == Contact(berlin(6, 19, 30), "first")
    late = replace(quiet, cooldown_hours=49)
    step = decide(known, berlin(4, 20), late)
    assert berlin(9, 9) < step.at < berlin(9, 12), "a Monday"
    assert decide(known, berlin(4, 20), replace(quiet, cooldown_hours=30 * 24)) == Close(DEADLINE, "lost")


@pytest.mark.parametrize("code", ["do_not_honor", "authentication_required", "expired_card"])
def test_a_charge_that_an_operator_asks_for_waits_for_no_ladder(code: str) -> None:
    """But for the next open hour: asked for at 03:00, two nights after the last refusal, it goes on that morning."""
    asked = berlin(6, 3)
    known = facts(code, attempts=(attempt(1, berlin(4, 21), code),), refreshed_at=asked, asked_at=asked)
    step, unasked = decide(known, asked), decide(replace(known, asked_at=None), asked)
    assert isinstance(step, Charge)
    assert berlin(6, 6) < step.at < berlin(6, 12)
    assert not isinstance(unasked, Charge) or unasked.at > berlin(6, 20)


def test_an_operator_cannot_ask_for_what_is_forbidden() -> None:
    """A lost card, withdrawn consent, a pause, another engine at work, a spent budget: none gives way."""
    asked = berlin(4, 10)
    known = {"refreshed_at": asked, "asked_at": asked}
    for code in ("lost_card", "revocation_of_authorization"):
        assert not isinstance(decide(facts(code, **known), asked), Charge)
    assert isinstance(decide(facts("insufficient_funds", paused=True, **known), asked), Wait)
    assert isinstance(decide(facts("insufficient_funds", retried_elsewhere=True, **known), asked), Refresh)
    spent = replace(POLICY, budgets={"visa": (Limit(1, 48),)})
    step = decide(facts("insufficient_funds", uses=(FAILED,), **known), asked, spent)
    assert isinstance(step, Charge)
    assert step.at >= FAILED + 48 * HOUR


def test_a_wish_is_fulfilled_once() -> None:
    """After the next refusal the ladder counts again."""
    tried = attempt(1, berlin(4, 10), "insufficient_funds")
    known = facts(attempts=(tried,), refreshed_at=berlin(4, 11), asked_at=berlin(4, 9))
    assert decide(known, berlin(4, 12)) == decide(replace(known, asked_at=None), berlin(4, 12))


def test_a_customer_gets_no_more_notices_in_seven_days_than_the_policy_says() -> None:
    """Of two that two cases sent, the first leaves the week on the 9th; several cases in one message count once."""
    known = facts("lost_card", customer_contacts=(berlin(2, 18), berlin(4, 19, 30), berlin(4, 19, 30)))
    [once, twice] = [Policy(hold_hours=(), contacts_per_week=number) for number in (1, 2)]
    assert decide(known, berlin(6, 20), twice) == Contact(berlin(9, 18), "first")
    assert decide(known, berlin(6, 20), once) == Contact(berlin(11, 19, 30), "first")


@pytest.mark.parametrize(
    ("channel", "at", "opens"),
    [
        ("mail", berlin(4, 9, 10), berlin(4, 9, 10)),
        ("sms", berlin(4, 16, 50), berlin(4, 16, 50)),
        ("app", berlin(4, 19, 30), berlin(4, 19, 30)),
    ],
)
def test_a_notice_may_leave_within_the_hours_of_its_channel(channel: str, at: datetime, opens: datetime) -> None:
    """A Wednesday, in the customer's own zone."""
    assert may_speak(facts("lost_card"), Policy(), at, channel) == opens


@pytest.mark.parametrize(("channel", "day"), [("mail", 9), ("sms", 10), ("app", 9)])
def test_a_notice_waits_for_the_hours_of_its_channel(channel: str, day: int) -> None:
    """From Friday evening to Monday morning."""
    found = may_speak(facts("lost_card"), Policy(), berlin(6, 20, 30), channel)
    assert found is not None
    assert berlin(9, day) < found < berlin(9, day + 2, 10)


def test_nobody_is_written_to_on_a_holiday_of_their_own_country() -> None:
    """On Good Friday, shops in Berlin are closed, whatever country the card is from."""
    known = facts("lost_card")
    found = may_speak(known, Policy(), datetime(2026, 4, 3, 10, tzinfo=UTC), "mail")
    assert found is not None
    assert found.date() == date(2026, 4, 7), "after Easter Monday"


def test_the_ladder_counts_from_the_first_notice_of_the_case() -> None:
    """The second of four, four days later, in spite of what another case has sent meanwhile."""
    first = berlin(4, 10)
    known = facts("lost_card", contacted=(first,), customer_contacts=(first, berlin(7, 10)))
    step = decide(replace(known, refreshed_at=berlin(6, 5)), berlin(7, 11))
    assert isinstance(step, Contact)
    assert (step.notice, step.at >= berlin(9, 10)) == ("reminder", True)


def test_the_last_reading_of_the_card_comes_before_the_first_notice() -> None:
    """Both are due three days after a failure in the daytime: the updater is asked first."""
    failed = berlin(3, 14)
    known = facts("expired_card", payment=payment(decline=declined("expired_card"), failed_at=failed))
    read = replace(known, refreshed_at=failed + 2 * DAY)
    assert decide(read, failed + 2 * DAY) == Refresh(failed + 3 * DAY)
    assert decide(replace(read, refreshed_at=failed + 3 * DAY), failed + 3 * DAY) == Contact(failed + 3 * DAY, "first")


@pytest.mark.parametrize(
    ("zone", "country", "earliest"),
    [
        ("Asia/Tokyo", "DE", berlin(4, 1)),
        (None, "JP", berlin(4, 1)),
        ("Mars/Olympus", "JP", berlin(4, 1)),
        ("Asia/Tokyo", None, berlin(4, 1)),
        (None, None, berlin(4, 10)),
    ],
)
def test_notices_keep_to_the_daylight_of_the_customer(
    zone: str | None, country: str | None, earliest: datetime
) -> None:
    """Their own zone where it is known, else the card's country; a name that is no zone is not known."""
    known = facts(payment=payment(decline=declined("lost_card"), time_zone=zone))
    step = decide(replace(known, card=card(country=country)), berlin(3, 21), Policy(hold_hours=()))
    assert isinstance(step, Contact)
    assert earliest <= step.at < earliest + 3 * HOUR


def test_looking_again_before_a_planned_instant_does_not_move_it() -> None:
    """Not even when the window has opened meanwhile: news of a case must not undo the spread."""
    retried, changed = facts(), facts("expired_card", card=card(fingerprint="fp_second"))
    lost = facts("lost_card", payment=payment(decline=declined("lost_card"), payment_id="in_3"))
    for known in (retried, changed, lost):
        step = decide(known)
        for minutes in range(0, int((step.at - FAILED) / MINUTE), 10):
            assert decide(known, FAILED + minutes * MINUTE) == step


def test_a_missed_instant_is_made_up_at_once_while_the_window_is_open() -> None:
    """Else when it opens next."""
    planned = decide(facts()).at
    assert decide(facts(), planned + HOUR) == Charge(planned + HOUR, 1)
    assert berlin(7, 6, 5) <= decide(facts(), berlin(6, 23)).at < berlin(7, 8, 5)


def test_a_batch_of_cases_does_not_fire_in_one_minute() -> None:
    """The spread comes from the payment: the same for the same, different for others."""
    minutes = {decide(facts(payment=payment(payment_id=f"in_{number}"))).at for number in range(50)}
    assert len(minutes) > 40
    assert decide(facts()) == decide(facts())


def test_an_instant_without_a_zone_is_refused() -> None:
    """Naive times have no place here."""
    with pytest.raises(ValueError, match="time zone"):
        decide(facts(), FAILED.replace(tzinfo=None))
