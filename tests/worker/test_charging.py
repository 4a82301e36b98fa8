"""Does a due case move as the decision says, with the bank and our rows telling the same story?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Row, select, text

from schedules import Card, Decline, Policy
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    CARD,
    DAY,
    ENTERED,
    FUNDS,
    HOUR,
    LOST,
    MINUTE,
    RENEWED,
    START,
    TECHNICAL,
    add_case,
    at_once,
    event,
    failed_charge,
    one,
    opened,
    payment,
    reasons_of,
    sql,
    the_attempts,
    the_case,
    told,
    until,
)
from worker import charging, inbox
from worker.cases import lock, save
from worker.evidence import store_reading
from worker.facts import uses_of
from worker.models import UNCERTAIN, cases
from worker.notices import OBSERVED
from worker.report import make_report
from worker.stripe_gateway import Unavailable
from worker.suppressions import OPTED_OUT, REASONS

STOPPED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.mark.parametrize("ours", [False, True])
def test_a_known_charge_that_is_not_read_again_changes_no_case(serve: Serve, ours: bool) -> None:
    """The renewal's charge, or one of ours that a reading has shown: the row becomes the same, field by field."""
    street = serve(Scripted(declines=[FUNDS]))
    opened(street.engine)
    now = street.go_on()
    if ours:
        street.hear(street.go_on())
        now = street.go_on()
    known = the_case(street.engine).charge_id
    assert known == ("ch_1_1" if ours else "ch_1_0")
    assert stored(street, now + HOUR, known) == stored(street, now + HOUR, None)


def stored(street: Bench, now: datetime, known: str | None) -> Row[Any]:
    """Return the case as it would be after a reading; nothing is kept."""
    reading = street.desk(now).gateway.read("in_1", known=known)
    with street.engine.connect() as db:
        case = lock(db, 1)
        store_reading(db, case, reading, 1, now)
        save(db, [case])
        return db.execute(select(cases)).one()


def test_a_refresh_stores_the_card_and_the_evidence(serve: Serve) -> None:
    """An event shows neither card nor codes; the first step reads both, and what failed is known from then on."""
    street = serve()
    opened(street.engine, payment(decline=Decline(), card=Card()))
    assert street.work(START) == 1
    row = the_case(street.engine)
    assert (row.card, row.failed_card, row.decline) == (asdict(CARD), asdict(CARD), asdict(FUNDS))
    assert (row.refreshed_at, row.lease_token, row.state) == (START, None, "silent")
    assert row.step["step"] == "charge"
    assert row.due_at > START
    assert street.summary["writes"] == 0


def test_an_approved_charge_recovers_the_case(serve: Serve) -> None:
    """One silent retry that the bank approves ends the case as recovered by it, at the planned instant."""
    street = serve()
    opened(street.engine)
    street.work(START)
    planned = the_case(street.engine).due_at
    street.run()
    row, [attempt] = the_case(street.engine), the_attempts(street.engine)
    assert (row.state, row.recovered_by, row.closed_at) == ("recovered", "silent_retry", planned)
    assert (attempt.number, attempt.state, attempt.at, attempt.fingerprint) == (
        1,
        "succeeded",
        planned,
        CARD.fingerprint,
    )
    assert [each["idempotency_key"] for each in street.ledger] == [attempt.idempotency_key]
    street.agrees()


@pytest.mark.parametrize(("later", "waited"), [(17 * HOUR, True), (HOUR, False)])
def test_a_charge_remembers_whether_it_waited_for_the_bank_to_open(
    serve: Serve, later: timedelta, *, waited: bool
) -> None:
    """At three in the morning in New York it is closed, at eleven it is not; the plan says so to the end."""
    failed = payment(failed_at=START + later)
    street = serve(Scripted([failed]))
    opened(street.engine, failed)
    street.work(START + later)
    reasons = reasons_of(street.engine)
    street.work(the_case(street.engine).due_at)
    [attempt] = the_attempts(street.engine)
    assert attempt.waited is waited is any(why.startswith("window: ") for why in reasons)


def test_work_says_that_it_did_the_work_when_the_case_ends(serve: Serve) -> None:
    """Recovering a case is work done, not a hint that somebody else had used."""
    street = serve()
    opened(street.engine)
    street.work(START)
    due = the_case(street.engine).due_at
    [(number, token)] = street.claim(due)
    assert charging.work(street.desk(due), number, token)
    assert the_case(street.engine).state == "recovered"


def test_a_declined_charge_keeps_its_full_evidence(serve: Serve) -> None:
    """Each refusal is one numbered attempt with every code of the bank, and the next step is planned after it."""
    second = Decline("do_not_honor", None, "05", None, "issuer_declined")
    street = serve(Scripted(declines=[FUNDS, second]))
    opened(street.engine)
    street.run()
    rows = the_attempts(street.engine)
    assert [(row.number, row.state) for row in rows] == [(1, "declined"), (2, "declined"), (3, "succeeded")]
    assert [row.decline for row in rows] == [asdict(FUNDS), asdict(second), None]
    assert [row.charge_id for row in rows[:2]] == ["ch_1_1", "ch_1_2"]
    assert rows[0].at + DAY <= rows[1].at
    assert len({row.idempotency_key for row in rows}) == 3
    street.agrees()


def test_a_card_renewed_by_the_network_is_charged_and_credited_to_the_updater(serve: Serve) -> None:
    """The expiry changes without anybody entering a card: one charge on it, recovered by card_update."""
    street = serve(Scripted([payment(decline=LOST)], updates=[(START + 20 * HOUR, RENEWED)]))
    opened(street.engine, payment(decline=LOST))
    street.run()
    row, [attempt] = the_case(street.engine), the_attempts(street.engine)
    assert (row.state, row.recovered_by) == ("recovered", "card_update")
    assert (attempt.by_updater, attempt.card) == (True, asdict(RENEWED))


def test_a_card_entered_by_the_customer_is_credited_to_the_customer(serve: Serve) -> None:
    """A new card of the customer's own is charged once, and nobody claims to have won it silently."""
    street = serve(Scripted(acts=[("card", START + 5 * HOUR)], updates=[(START + 5 * HOUR, ENTERED)]))
    opened(street.engine)
    street.work(START)
    street.hear(START + 6 * HOUR)
    street.run()
    row, [attempt] = the_case(street.engine), the_attempts(street.engine)
    assert (row.state, row.recovered_by, row.card_entered_at) == ("recovered", "customer", START + 6 * HOUR)
    assert (attempt.card, attempt.by_updater) == (asdict(ENTERED), False)


def test_a_payment_after_a_notice_is_credited_to_the_contact(serve: Serve) -> None:
    """A lost card is never charged; the customer is told, pays by hand, and the case is recovered after_contact."""
    street = serve(Scripted([payment(decline=LOST)], acts=[("paid", START + 5 * DAY)]))
    opened(street.engine, payment(decline=LOST))
    while one(street.engine, "SELECT count(*) FROM outbox") == 0:
        street.go_on()
    assert the_case(street.engine).state == "contacting"
    sql(street.engine, "UPDATE outbox SET delivered_at = at, due_at = NULL")
    street.hear(START + 5 * DAY)
    row = the_case(street.engine)
    assert (row.state, row.recovered_by) == ("recovered", "after_contact")
    assert street.summary["writes"] == 0


@pytest.mark.parametrize(
    ("error", "delivered_at", "means"),
    [
        (REASONS[OPTED_OUT], None, "customer"),
        (OBSERVED, None, "customer"),
        (UNCERTAIN, None, "after_contact"),
        (None, START + 10 * DAY, "customer"),
    ],
    ids=["not wanted", "not sent", "perhaps delivered", "after the payment"],
)
def test_a_payment_is_credited_to_a_notice_only_if_it_may_have_been_read(
    serve: Serve, error: str | None, delivered_at: datetime | None, means: str
) -> None:
    """What never left the outbox, or only later, has won nothing back."""
    street = serve(Scripted([payment(decline=LOST)], acts=[("paid", START + 5 * DAY)]))
    opened(street.engine, payment(decline=LOST))
    street.work(START)
    became = {"error": error, "delivered_at": delivered_at}
    sql(street.engine, "UPDATE outbox SET due_at = NULL, error = :error, delivered_at = :delivered_at", **became)
    street.hear(START + 5 * DAY)
    assert the_case(street.engine).recovered_by == means


def test_an_invoice_paid_elsewhere_is_not_charged(serve: Serve) -> None:
    """The guard read before a charge finds the invoice paid: no request is sent, and the customer gets the credit."""
    street = serve(Scripted(acts=[("paid", START + 2 * HOUR)]))
    opened(street.engine)
    street.run()
    row = the_case(street.engine)
    assert (row.state, row.recovered_by, the_attempts(street.engine)) == ("recovered", "customer", [])
    assert street.summary["writes"] == 0


def test_a_canceled_subscription_ends_the_case_without_a_charge(serve: Serve) -> None:
    """The customer chose to leave: not ours to fight."""
    street = serve(Scripted(acts=[("cancel", START + 2 * HOUR)]))
    opened(street.engine)
    street.run()
    assert (the_case(street.engine).state, street.summary["writes"]) == ("canceled", 0)


IN_FLIGHT = [
    ("payment_intent", {"status": "processing"}),
    ("payment_intent", {"status": "requires_action"}),
]
RETRIED = {"next_payment_attempt": 1900000000}


@pytest.mark.parametrize(("kind", "shown"), IN_FLIGHT)
def test_a_charge_under_way_elsewhere_holds_ours_back(serve: Serve, kind: str, shown: dict[str, Any]) -> None:
    """While the provider is still at it nothing is sent; an hour later the case is looked at again, and charged."""
    street = serve()
    opened(street.engine)
    street.work(START)
    street.shown[kind] = shown
    now = street.go_on()
    assert (the_case(street.engine).due_at, the_attempts(street.engine)) == (now + HOUR, [])
    assert (told(street.engine)[-1], street.summary["writes"]) == ("held_back", 0)
    street.shown.clear()
    street.run()
    assert the_case(street.engine).recovered_by == "silent_retry"
    street.agrees()


def test_an_invoice_that_the_provider_retries_is_looked_at_daily_and_charged_when_that_gives_up(serve: Serve) -> None:
    """One engine only: neither a charge nor a notice of ours while next_payment_attempt is set."""
    street = serve(policy=Policy(silent_days=0))
    opened(street.engine)
    street.shown["invoice"] = RETRIED
    for day in range(3):
        street.work(START + day * DAY)
        row = the_case(street.engine)
        assert (row.due_at, row.step["step"]) == (START + (day + 1) * DAY, "refresh")
        assert reasons_of(street.engine)[-1].startswith("one_engine: ")
    assert (street.summary["writes"], one(street.engine, "SELECT count(*) FROM outbox")) == (0, 0)
    street.shown.clear()
    street.run()
    assert the_case(street.engine).state == "recovered"
    street.agrees()


def test_what_is_paid_while_the_provider_retries_is_not_said_to_be_the_customers_doing(serve: Serve) -> None:
    """Nor ours: the report tells it apart."""
    street = serve()
    opened(street.engine)
    street.shown["invoice"] = RETRIED
    street.work(START)
    street.shown.clear()
    street.charge_elsewhere(START + DAY)
    street.go_on()
    row = the_case(street.engine)
    assert (row.state, row.recovered_by, the_attempts(street.engine)) == ("recovered", "provider", [])


def test_a_merchant_who_takes_over_ends_the_providers_retries_before_the_first_charge(serve: Serve) -> None:
    """The explicit choice: auto_advance is turned off, then ours goes on; in observe mode nothing is written."""
    street = serve(policy=Policy(take_over=True))
    opened(street.engine)
    street.shown["invoice"] = RETRIED
    street.run()
    assert the_case(street.engine).state == "recovered"
    assert street.summary["writes"] == 2
    street.agrees()


def test_observe_mode_takes_nothing_over(serve: Serve) -> None:
    """It plans as if it had, and writes nothing."""
    street = serve(policy=Policy(take_over=True), live=False)
    opened(street.engine)
    street.shown["invoice"] = RETRIED
    street.run()
    assert (the_case(street.engine).state, street.summary["writes"]) == ("lost", 0)


@pytest.mark.parametrize(("kind", "shown"), [*IN_FLIGHT, ("invoice", RETRIED)])
def test_a_case_can_end_while_a_charge_is_under_way_elsewhere(serve: Serve, kind: str, shown: dict[str, Any]) -> None:
    """Canceled is canceled, also when the guard read shows a payment intent that waits for somebody."""
    street = serve()
    opened(street.engine)
    street.work(START)
    street.shown[kind] = shown
    street.shown["subscription"] = {"status": "canceled"}
    street.run()
    assert the_case(street.engine).state == "canceled"


def test_a_disputed_charge_releases_the_case(serve: Serve) -> None:
    """Nobody is dunned for a charge that is in dispute."""
    street = serve()
    street.shown["charge"] = {"disputed": True}
    opened(street.engine)
    street.work(START)
    assert (the_case(street.engine).state, street.summary["writes"]) == ("released", 0)


def test_observe_mode_plans_to_the_end_and_writes_nothing(serve: Serve) -> None:
    """Every charge and notice of the calendar is planned and noted, and the bank sees nothing but reading."""
    street = serve(live=False)
    opened(street.engine)
    street.run()
    rows = the_attempts(street.engine)
    assert {row.state for row in rows} == {"observed"}
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) > 1
    assert one(street.engine, "SELECT count(*) FROM outbox WHERE kind = 'notice'") == 4
    assert (the_case(street.engine).state, street.summary["writes"], street.ledger) == ("lost", 0, [])


def test_a_closed_case_is_left_alone(serve: Serve) -> None:
    """After its end a case is never claimed again and its row never changes."""
    street = serve()
    opened(street.engine)
    street.run()
    before = the_case(street.engine)
    assert street.work(START + 40 * DAY) == 0
    assert the_case(street.engine) == before


def test_an_exception_pushes_the_case_forward_and_gives_the_lease_back(serve: Serve) -> None:
    """With the bank unreachable the task fails, and the case waits five minutes without an owner."""
    street = serve()
    opened(street.engine)
    [(number, token)] = street.claim(START)
    port, street.port = street.port, 9  # the discard port: nobody listens
    with pytest.raises(Unavailable):
        charging.work(street.desk(START), number, token)
    row = the_case(street.engine)
    assert (row.due_at, row.lease_token, row.state) == (START + 5 * MINUTE, None, "silent")
    assert street.claim(START + 4 * MINUTE) == []
    street.port = port
    street.run()
    assert the_case(street.engine).state == "recovered"


def test_five_deliveries_of_one_hint_make_one_request(serve: Serve) -> None:
    """A message delivered five times at once is worked on once; the other four answer that it was not theirs."""
    street = serve()
    opened(street.engine)
    street.work(START)
    due = the_case(street.engine).due_at
    [(number, token)] = street.claim(due)
    desk = street.desk(due)
    worked = at_once([lambda: charging.work(desk, number, token)] * 5)
    assert (len(street.ledger), worked.count(True)) == (1, 1)
    street.agrees()


def test_two_cases_never_share_the_last_use_of_a_card(serve: Serve) -> None:
    """Two invoices, one Mastercard, nine of its ten uses a day spent: of two workers at once only one charges."""
    pair = [payment(number, customer_id="cus_1", decline=TECHNICAL) for number in (1, 2)]
    street = serve(Scripted(list(pair)))
    for failed in pair:
        opened(street.engine, failed)
    for number in range(3, 10):  # the failed renewals of seven more subscriptions
        add_case(
            street.engine, payment_id=f"in_{number}", failed_at=START, failed_card=asdict(CARD), due_at=START + 9 * DAY
        )
    street.work(START)
    due = max(the_case(street.engine, number).due_at for number in (1, 2))
    assert due < START + DAY
    desk = street.desk(due)
    hints = street.claim(due)
    # Nobody may write an attempt down until both workers have come as far as they can.
    with street.engine.connect() as gate, ThreadPoolExecutor(2) as pool:
        gate.execute(text("LOCK TABLE attempts IN SHARE MODE"))
        workers = [pool.submit(charging.work, desk, number, token) for number, token in hints]
        until(lambda: one(street.engine, STOPPED) == 2)
        gate.rollback()
        assert [each.result(20) for each in workers] == [True, True]
    assert len(street.ledger) == 1
    [waiting] = [row for row in (the_case(street.engine, n) for n in (1, 2)) if row.closed_at is None]
    assert waiting.due_at >= START + DAY
    assert any(reason.startswith("budget:") for reason in reasons_of(street.engine, waiting.id))


def test_a_card_is_charged_again_once_its_budget_is_free(serve: Serve) -> None:
    """A spent budget is a later instant: with ten uses today the charge waits until the first has left the day."""
    street = serve(Scripted([payment(decline=TECHNICAL)]))
    opened(street.engine, payment(decline=TECHNICAL))
    for number in range(2, 11):
        add_case(
            street.engine, payment_id=f"in_{number}", failed_at=START, failed_card=asdict(CARD), due_at=START + 9 * DAY
        )
    street.work(START)
    street.run()
    [attempt] = the_attempts(street.engine)
    assert START + DAY <= attempt.at < START + 2 * DAY


def test_the_keys_name_the_installation_and_the_invoice(serve: Serve) -> None:
    """A key is derived, not random: a restored backup replays a charge instead of making it again."""
    street = serve(Scripted(declines=[FUNDS]))
    opened(street.engine)
    street.run()
    installed = one(street.engine, "SELECT id FROM install")
    keys = [row.idempotency_key for row in the_attempts(street.engine)]
    assert keys == [f"dunning-{installed}-in_1-1", f"dunning-{installed}-in_1-2"]


def test_a_paused_case_is_not_charged(serve: Serve) -> None:
    """While a person holds the case it only waits."""
    street = serve()
    opened(street.engine)
    street.work(START)
    sql(street.engine, "UPDATE cases SET paused = true")
    street.go_on()
    row = the_case(street.engine)
    assert (row.state, row.step["step"], street.summary["writes"]) == ("paused", "wait", 0)


def test_an_event_during_a_reading_asks_for_another_one(serve: Serve) -> None:
    """News that came while the provider was being asked is not taken as read."""
    street = serve(Scripted([payment(decline=LOST)]))
    opened(street.engine, payment(decline=LOST))
    street.work(START)
    later = START + HOUR
    sql(street.engine, "UPDATE cases SET news = news + 1, due_at = :at", at=later)
    street.work(later)
    row = the_case(street.engine)
    assert (row.refreshed_at, row.news_read) == (later, 1)


def test_the_same_case_is_charged_at_the_same_instants_twice(serve: Serve) -> None:
    """No dice: two installations with the same payments make the same plan to the second."""
    plans = []
    for _ in range(2):
        street = serve(Scripted(declines=[FUNDS, replace(FUNDS)]))
        sql(street.engine, "TRUNCATE cases, attempts, history, outbox, events RESTART IDENTITY CASCADE")
        opened(street.engine)
        street.run()
        plans.append([row.at for row in the_attempts(street.engine)])
    assert plans[0] == plans[1]
    assert len(plans[0]) == 3


@pytest.mark.parametrize("heard", [True, False], ids=["heard of", "found by reading"])
def test_a_refusal_of_somebody_elses_charge_moves_the_backoff(serve: Serve, heard: bool) -> None:
    """The next charge waits from that refusal on, with the next number and a key of its own; reports count ours."""
    unexplained = Decline("do_not_honor", network_decline_code="05", outcome_type="issuer_declined")
    street = serve(Scripted([payment(decline=unexplained)], declines=[unexplained]))
    opened(street.engine, payment(decline=unexplained))
    street.work(START)
    planned = the_case(street.engine).due_at
    theirs = planned - HOUR
    street.charge_elsewhere(theirs)
    if heard:
        street.hear(theirs)
        street.work(theirs)
    street.run()
    (foreign, ours), at = the_attempts(street.engine), theirs.replace(microsecond=0)
    assert (foreign.number, foreign.state, foreign.at, foreign.decline) == (1, "foreign", at, asdict(unexplained))
    assert (ours.number, ours.state, ours.at >= at + DAY > planned) == (2, "succeeded", True)
    assert told(street.engine).count("charged_elsewhere") == 1
    with street.engine.connect() as db:
        assert make_report(db, START).total.attempts == 1
    street.agrees()


def test_a_retry_before_the_first_reading_is_not_taken_for_the_renewal(serve: Serve) -> None:
    """The provider has retried by itself before we came: the renewal keeps its instant, the retry has its own."""
    street = serve(Scripted(declines=[LOST]))
    opened(street.engine, payment(decline=Decline(), card=Card()))
    street.charge_elsewhere(START + 3 * DAY)
    street.work(START + 4 * DAY)
    row, [retry] = the_case(street.engine), the_attempts(street.engine)
    assert (row.failed_at, row.decline, row.failed_card) == (START, asdict(Decline()), asdict(CARD))
    assert (retry.state, retry.at, retry.decline) == ("foreign", START + 3 * DAY, asdict(LOST))
    assert row.step["step"] != "charge"


def test_somebody_elses_retries_use_up_the_attempts_of_the_policy(serve: Serve) -> None:
    """With one retry allowed and made in the dashboard, none of ours is left."""
    street = serve(Scripted(declines=[FUNDS]), policy=replace(Policy.default(), max_attempts=1))
    opened(street.engine)
    street.work(START)
    street.charge_elsewhere(START + HOUR)
    street.run()
    assert ([row.state for row in the_attempts(street.engine)], len(street.ledger)) == (["foreign"], 1)
    assert the_case(street.engine).state == "lost"


def test_our_own_refusal_is_never_taken_for_somebody_elses(serve: Serve) -> None:
    """Heard of, answered and read, each in its turn: two refusals of ours and the renewal are three uses."""
    street = serve(Scripted(declines=[FUNDS, FUNDS]))
    opened(street.engine)
    while len(the_attempts(street.engine)) < 2:
        street.hear(street.go_on())
    sql(street.engine, "UPDATE cases SET due_at = :at, news = news + 1", at=street.instant[0])
    street.go_on()
    rows = the_attempts(street.engine)
    assert [(row.number, row.state) for row in rows] == [(1, "declined"), (2, "declined")]
    with street.engine.connect() as db:
        assert uses_of(db, CARD.fingerprint, street.instant[0]) == (START, *(row.at for row in rows))


def test_a_refusal_whose_charge_was_not_named_is_named_by_the_next_reading(serve: Serve) -> None:
    """The answer said no without saying which charge: what the bank shows afterwards is that charge."""
    street = serve(Scripted(declines=[FUNDS, LOST]))
    opened(street.engine)
    street.work(START)
    street.go_on()
    sql(street.engine, "UPDATE attempts SET charge_id = NULL, decline = '{}'")
    sql(street.engine, "UPDATE cases SET due_at = :at, news = news + 1", at=street.instant[0] + MINUTE)
    street.go_on()
    [attempt] = the_attempts(street.engine)
    assert (attempt.state, attempt.charge_id, attempt.decline) == ("declined", "ch_1_1", asdict(FUNDS))
    later = street.instant[0] + HOUR
    street.charge_elsewhere(later)
    street.hear(later)
    street.work(later)
    assert [row.state for row in the_attempts(street.engine)] == ["declined", "foreign"]


@pytest.mark.parametrize("theirs", [0, 1])
def test_a_one_off_charge_on_the_card_uses_up_its_budget(serve: Serve, theirs: int) -> None:
    """Nine renewals failed on a Mastercard today; with a tenth refusal, of no case at all, ours waits for tomorrow."""
    street = serve(Scripted([payment(decline=TECHNICAL)]))
    opened(street.engine, payment(decline=TECHNICAL))
    for number in range(2, 10):
        add_case(
            street.engine, payment_id=f"in_{number}", failed_at=START, failed_card=asdict(CARD), due_at=START + 9 * DAY
        )
    street.work(START)
    with street.engine.begin() as db:
        told_of = event("evt_9", "charge.failed", failed_charge(customer=None))
        inbox.keep(db, [inbox.parse_event(told_of)] * theirs)
    inbox.drain(street.engine, street.policy, START + HOUR)
    street.run()
    [attempt] = the_attempts(street.engine)
    assert (attempt.at >= START + DAY) == bool(theirs)
