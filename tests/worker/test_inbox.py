"""Does an event lead to the right case, once, in whatever order and number events come?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from schedules import Card, Decline, Policy
from tests.worker.bench import Scripted, Serve
from tests.worker.builders import (
    CARD,
    DAY,
    FUNDS,
    HOUR,
    JSON,
    START,
    add_attempt,
    at_once,
    event,
    everything,
    failed_charge,
    invoice,
    old_invoice,
    one,
    opened,
    payment,
    sql,
    the_attempts,
    the_case,
    told,
)
from worker import inbox, sweep
from worker.cases import lock
from worker.facts import uses_of
from worker.planning import plan
from worker.report import make_report

POLICY = Policy.default()


def hear(engine: Engine, *values: JSON, now: datetime = START) -> None:
    """Keep events and handle what waits."""
    with engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(value) for value in values])
    inbox.drain(engine, POLICY, now)


def test_a_failed_renewal_opens_a_case(engine: Engine) -> None:
    """Invoice, customer, subscription, amount and the instant of the failure come from the event."""
    hear(engine, event())
    row = the_case(engine)
    assert (row.payment_id, row.customer_id, row.subscription_id) == ("in_1", "cus_1", "sub_1")
    assert (row.amount_minor, row.currency, row.failed_at) == (1999, "usd", START)
    assert one(engine, "SELECT count(*) FROM events WHERE handled_at IS NOT NULL AND tries = 1") == 1


def test_the_old_shape_of_an_invoice_tells_card_and_codes() -> None:
    """Before 2025-03-31 the charge stood in the invoice: what it shows is not thrown away."""
    found = inbox.failed_payment(inbox.parse_event(event(subject=old_invoice())))
    assert found.card == Card("fpOLDshape", "visa", "credit", "DE", 8, 2028)
    assert found.decline == Decline("card_declined", outcome_type="issuer_declined")
    assert found.subscription_id == "sub_1"


@pytest.mark.parametrize(
    "change",
    [
        {"customer": {"id": "cus_1", "object": "customer"}},
        {"parent": {"subscription_details": {"subscription": {"id": "sub_1", "object": "subscription"}}}},
    ],
)
def test_expanded_objects_are_read_by_their_id(engine: Engine, change: JSON) -> None:
    """An endpoint may send objects where ids stand by default."""
    hear(engine, event(subject=invoice(**change)))
    row = the_case(engine)
    assert (row.customer_id, row.subscription_id) == ("cus_1", "sub_1")


def test_an_invoice_without_a_subscription_opens_a_case_too(engine: Engine) -> None:
    """A one-off invoice has no parent, in either shape."""
    hear(engine, event(subject=invoice(parent=None)), event("evt_2", subject=old_invoice(id="in_2", subscription=None)))
    assert [the_case(engine, number).subscription_id for number in (1, 2)] == [None, None]


def test_the_same_failure_heard_in_parallel_opens_one_case(engine: Engine) -> None:
    """Four events about one invoice, drained by four processes at once: one case, every event handled once."""
    with engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(event(f"evt_{n}")) for n in range(4)])
    assert sum(at_once([lambda: inbox.drain(engine, POLICY, START)] * 4)) == 4
    assert one(engine, "SELECT count(*) FROM cases") == 1
    assert one(engine, "SELECT count(*) FROM events WHERE handled_at IS NOT NULL AND tries = 1") == 4
    assert told(engine).count("opened") == 1


def test_the_first_failure_keeps_its_date(engine: Engine) -> None:
    """A later failure of the same invoice is news for the case, never a new beginning."""
    hear(engine, event())
    hear(engine, event("evt_2", created=int((START + DAY).timestamp())), now=START + DAY)
    assert (the_case(engine).failed_at, the_case(engine).news) == (START, 1)


@pytest.mark.parametrize("kind", ["invoice.paid", "invoice.payment_succeeded"])
def test_a_payment_ends_the_case_at_once(engine: Engine, kind: str) -> None:
    """Nothing is left to recover, and nothing more has to be asked."""
    hear(engine, event())
    hear(engine, event("evt_2", kind), now=START + HOUR)
    row = the_case(engine)
    assert (row.state, row.recovered_by, row.closed_at, row.due_at) == ("recovered", "customer", START + HOUR, None)


@pytest.mark.parametrize("kind", ["invoice.voided", "invoice.marked_uncollectible"])
def test_a_voided_invoice_is_read_before_the_case_ends(engine: Engine, kind: str) -> None:
    """Why it was voided stands at the provider: the case is due for a reading at once."""
    hear(engine, event())
    hear(engine, event("evt_2", kind), now=START + HOUR)
    row = the_case(engine)
    assert (row.state, row.step["step"], row.due_at) == ("silent", "refresh", START)


def test_a_customer_who_cancels_is_not_counted_as_released(serve: Serve) -> None:
    """The provider voids the invoice of a canceled subscription: the case ends as canceled."""
    street = serve(Scripted(acts=[("cancel", START + HOUR)]))
    opened(street.engine)
    street.work(START)
    street.hear(START + 2 * HOUR)
    street.work(START + 2 * HOUR)
    assert (the_case(street.engine).state, street.summary["writes"]) == ("canceled", 0)


def test_an_ended_case_never_moves(engine: Engine) -> None:
    """Whatever is said about it afterwards, the row stays as it was closed."""
    hear(engine, event())
    hear(engine, event("evt_2", "invoice.paid"), now=START + HOUR)
    before = the_case(engine)
    kinds = ["invoice.payment_failed", "invoice.voided", "customer.updated", "payment_method.attached", "invoice.paid"]
    later = [
        event(f"evt_late_{kind}", kind, {**invoice(), "id": "cus_1"} if kind == "customer.updated" else None)
        for kind in kinds
    ]
    hear(engine, *later, now=START + DAY)
    assert the_case(engine) == before
    assert one(engine, "SELECT count(*) FROM events WHERE handled_at IS NULL") == 0


def test_paid_before_failed_ends_recovered(serve: Serve) -> None:
    """The events come in the wrong order: the case is opened, read, and closed, without a charge."""
    street = serve(Scripted(acts=[("paid", START + HOUR)]))
    now = START + 2 * HOUR
    street.instant[0] = now
    street.control("advance", {})
    hear(street.engine, event("evt_2", "invoice.paid"), now=now)
    hear(street.engine, event("evt_1"), now=now)
    street.run()
    assert (the_case(street.engine).state, street.summary["writes"]) == ("recovered", 0)


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("payment_method.attached", {"id": "pm_1", "customer": "cus_1"}),
        ("payment_method.automatically_updated", {"id": "pm_1", "customer": {"id": "cus_1"}}),
        ("customer.updated", {"id": "cus_1"}),
        ("customer.subscription.deleted", {"id": "sub_1", "customer": "cus_1"}),
        ("charge.dispute.created", {"id": "dp_1", "charge": "ch_9", "payment_intent": "pi_1"}),
        ("charge.refunded", {"id": "ch_9", "payment_intent": {"id": "pi_1"}}),
        ("customer.source.updated", {"id": "card_1", "customer": "cus_1"}),
        ("invoice.finalized", {"id": "in_1"}),
        ("invoice.updated", {"id": "in_1"}),
        ("mandate.updated", {"id": "mandate_1", "payment_method": "pm_1"}),
    ],
)
def test_a_change_wakes_the_cases_it_concerns(engine: Engine, kind: str, subject: JSON) -> None:
    """They are read again at once; nobody else's case is."""
    for number in (1, 2):
        opened(engine, payment(number))
    ids = "intent_id = 'pi_' || id, method_id = 'pm_' || id"
    sql(engine, f"UPDATE cases SET refreshed_at = now(), due_at = :at, {ids}", at=START + DAY)  # noqa: S608
    hear(engine, event("evt_9", kind, subject), now=START + HOUR)
    row = the_case(engine, 1)
    assert (row.due_at, row.step["step"], row.news) == (START + HOUR, "refresh", 1)
    assert (the_case(engine, 2).due_at, the_case(engine, 2).news) == (START + DAY, 0)


@pytest.mark.parametrize("kind", sorted({*inbox.CHANGED, *inbox.TAKEN_BACK}))
@pytest.mark.parametrize("subject", [{}, {"id": None, "customer": None}, {"id": 5, "customer": [], "charge": {}}])
def test_a_change_of_nothing_in_particular_concerns_no_case(engine: Engine, kind: str, subject: JSON) -> None:
    """A case of which neither subscription, method nor payment is known is not taken for one that is meant."""
    opened(engine, payment(subscription_id=None))
    hear(engine, event("evt_9", kind, subject))
    assert (the_case(engine).news, one(engine, "SELECT error FROM events")) == (0, None)


def test_a_method_that_was_detached_wakes_the_cases_of_whose_it_was(engine: Engine) -> None:
    """It belongs to nobody any more; the customer stands in what was before."""
    opened(engine)
    gone = {"object": {"id": "pm_1", "customer": None}, "previous_attributes": {"customer": "cus_1"}}
    hear(engine, event("evt_9", "payment_method.detached", data=gone))
    assert the_case(engine).news == 1


@pytest.mark.parametrize(
    ("before", "is_news"),
    [
        ({"next_payment_attempt": 1786000000}, True),
        ({"amount_remaining": 2500, "total": 2500}, True),
        ({"attempt_count": 1, "hosted_invoice_url": "https://invoice.stripe.example/i/0"}, False),
        ({}, True),
        (None, True),
        ("odd", True),
    ],
)
def test_an_invoice_that_was_updated_is_news_where_it_matters(engine: Engine, before: object, is_news: bool) -> None:
    """Of the many updates of an invoice only those are kept that may change what we would do."""
    opened(engine)
    told_of = inbox.parse_event(
        event("evt_9", "invoice.updated", data={"object": invoice(), "previous_attributes": before})
    )
    assert told_of.ours is is_news


@pytest.mark.parametrize("kind", ["invoice.updated", "customer.updated", "payment_method.attached"])
def test_a_change_that_we_made_ourselves_is_no_news(engine: Engine, kind: str) -> None:
    """Otherwise each of our own writes would be followed by a reading, and that by another step."""
    opened(engine)
    subject = {"id": "cus_1" if kind == "customer.updated" else "in_1", "customer": "cus_1"}
    ours = {"id": "req_1", "idempotency_key": "dunning-x-in_1-1"}
    hear(engine, event("evt_9", kind, subject, request=ours))
    assert the_case(engine).news == 0
    hear(engine, event("evt_10", kind, subject, request={"id": "req_1", "idempotency_key": "shop-1"}))
    assert the_case(engine).news == 1


def test_our_own_charge_is_followed_by_no_reading_of_its_events(serve: Serve) -> None:
    """The bank tells of the payment in four events; none of them wakes anything."""
    street = serve(Scripted(declines=[FUNDS]))
    street.hear(START)
    street.work(START)
    at = street.go_on()
    assert [each.state for each in the_attempts(street.engine)] == ["declined"]
    news, due = the_case(street.engine).news, the_case(street.engine).due_at
    street.hear(at)
    assert (the_case(street.engine).news, the_case(street.engine).due_at) == (news, due)


@pytest.mark.parametrize(
    ("kind", "subject", "what"),
    [
        ("charge.refunded", {"id": "ch_1_1", "payment_intent": "pi_1"}, "refunded"),
        ("charge.dispute.created", {"id": "dp_1", "charge": "ch_1_1", "payment_intent": "pi_1"}, "disputed"),
    ],
)
def test_money_that_is_taken_back_stands_in_the_history_of_its_case(
    serve: Serve, kind: str, subject: JSON, what: str
) -> None:
    """The case was recovered and has ended; it does not move, and whoever looks at it sees what became of it."""
    street = serve()
    street.hear(START)
    street.run()
    before = the_case(street.engine)
    assert (before.state, before.intent_id) == ("recovered", "pi_1")
    for _ in range(2):
        hear(street.engine, event("evt_9", kind, subject), now=START + 20 * DAY)
    assert the_case(street.engine) == before
    assert told(street.engine)[-1] == what
    assert told(street.engine).count(what) == 1
    with street.engine.connect() as db:
        found = make_report(db, START).total
    assert (found.recovered_count, found.taken_back) == (1, 1)


@pytest.mark.parametrize("change", [{"cancel_at_period_end": True}, {"pause_collection": {"behavior": "void"}}])
def test_a_subscription_that_will_end_or_is_paused_still_owes_its_open_invoice(serve: Serve, change: JSON) -> None:
    """It is read again and recovered all the same: both are about invoices to come."""
    street = serve()
    street.hear(START)
    street.work(START)
    street.shown["subscription"] = change
    changed = {"id": "sub_1", "customer": "cus_1", **change}
    hear(street.engine, event("evt_9", "customer.subscription.updated", changed), now=START + HOUR)
    assert the_case(street.engine).step["step"] == "refresh"
    street.run()
    assert (the_case(street.engine).state, the_case(street.engine).recovered_by) == ("recovered", "silent_retry")


def test_what_our_own_key_caused_is_no_news(engine: Engine) -> None:
    """The refusal of our own charge is known from its answer; somebody else's charge is not."""
    hear(engine, event())
    hear(engine, event("evt_2", request={"id": "req_1", "idempotency_key": "dunning-x-in_1-1"}))
    assert the_case(engine).news == 0
    hear(engine, event("evt_3", request={"id": "req_2", "idempotency_key": "shop-1"}), event("evt_4", request="req_3"))
    assert the_case(engine).news == 2


def test_an_event_that_cannot_be_handled_is_kept_and_holds_up_no_other(engine: Engine) -> None:
    """It keeps its error, waits, is handled once it can be, and the events behind it are handled meanwhile."""
    hear(engine)
    sql(
        engine,
        "INSERT INTO events (id, type, payload) VALUES ('evt_0', 'invoice.payment_failed', '{\"id\": \"evt_0\"}')",
    )
    hear(engine, event("evt_1"))
    [row] = sql(engine, "SELECT error, tries, handled_at, retry_at > now() AS later FROM events WHERE id = 'evt_0'")
    assert (row.tries, row.handled_at, row.later) == (1, None, True)
    assert row.error.startswith("BadEvent: event without")
    assert the_case(engine).payment_id == "in_1"
    assert inbox.drain(engine, POLICY, START) == 0
    mended = event("evt_0", subject=invoice(id="in_2", customer="cus_2"))
    sql(
        engine,
        "UPDATE events SET retry_at = now() - interval '1 s', payload = CAST(:p AS jsonb) WHERE id = 'evt_0'",
        p=json.dumps(mended),
    )
    assert inbox.drain(engine, POLICY, START) == 1
    assert the_case(engine, 2).payment_id == "in_2"
    assert one(engine, "SELECT error FROM events WHERE id = 'evt_0'") is None


def test_cases_of_many_renewals_are_opened_together(engine: Engine) -> None:
    """In one transaction; of two events about one payment the other is news of the case that the first one opened."""
    many = [event(f"evt_{number}", subject=invoice(id=f"in_{number}")) for number in range(5)]
    hear(engine, *many, event("evt_5", subject=invoice(id="in_4")))
    assert one(engine, "SELECT count(DISTINCT CAST(xmin AS text)) FROM cases WHERE news = 0") == 1
    assert one(engine, "SELECT array_agg(news ORDER BY payment_id) FROM cases") == [0, 0, 0, 0, 1]
    assert one(engine, "SELECT count(*) FROM events WHERE handled_at IS NOT NULL AND tries = 1") == 6


@pytest.fixture
def picky(engine: Engine) -> Iterator[None]:
    """Have a database that takes no case of the payment ``in_2``."""
    sql(engine, "ALTER TABLE cases ADD CONSTRAINT picky CHECK (payment_id <> 'in_2')")
    yield
    sql(engine, "ALTER TABLE cases DROP CONSTRAINT picky")


@pytest.mark.usefixtures("picky")
@pytest.mark.parametrize("at_once", [False, True])
def test_one_case_that_cannot_be_opened_holds_up_none_beside_it(engine: Engine, at_once: bool) -> None:
    """Stored first or taken in at once: its event waits with the error, and the other cases are there."""
    many = [inbox.parse_event(event(f"evt_{number}", subject=invoice(id=f"in_{number}"))) for number in range(5)]
    with engine.begin() as db:
        new = inbox.take_in(db, many, POLICY, START) if at_once else inbox.keep(db, many)
    assert len(new) == 5
    assert inbox.drain(engine, POLICY, START) == 5
    assert one(engine, "SELECT array_agg(payment_id ORDER BY id) FROM cases") == ["in_0", "in_1", "in_3", "in_4"]
    assert one(engine, "SELECT id FROM events WHERE handled_at IS NULL AND error LIKE '%picky%'") == "evt_2"
    assert one(engine, "SELECT count(*) FROM events WHERE handled_at IS NULL") == 1


def test_what_is_taken_in_at_once_is_handled_as_if_it_had_waited(engine: Engine) -> None:
    """The same case, the same lines of history; nothing is left to do, and a repetition changes nothing."""
    told = [inbox.parse_event(event()), inbox.parse_event(event("evt_2", "invoice.paid", invoice(id="in_9")))]
    with engine.begin() as db:
        assert inbox.take_in(db, told, POLICY, START) == {"evt_1", "evt_2"}
    hear(engine, event("evt_3", subject=invoice(id="in_2")))
    columns = "due_at, state, step, decline_class, arm, failed_at, news"
    at_once, waited = sql(engine, f"SELECT {columns} FROM cases ORDER BY id")  # noqa: S608 - ours
    assert at_once == waited
    lines = [[(row.what, row.at, row.detail) for row in lines_of(engine, number)] for number in (1, 2)]
    assert lines[0] == lines[1]
    with engine.begin() as db:
        assert inbox.take_in(db, told, POLICY, START + HOUR) == set()
    assert the_case(engine).news == 0


def lines_of(engine: Engine, case_id: int) -> list[Any]:
    """Return the history of a case."""
    return sql(engine, "SELECT * FROM history WHERE case_id = :case_id ORDER BY id", case_id=case_id)


def test_the_first_step_of_a_case_is_what_planning_it_again_gives(engine: Engine) -> None:
    """It is written without a look at other rows: they have no say in it, whatever the card and the customer did."""
    for number in (1, 2):
        opened(engine, payment(number, customer_id="cus_1"))
    add_attempt(engine, 1, state="declined", settled_at=START, fingerprint=CARD.fingerprint, decline={})
    before = the_case(engine, 2)
    with engine.begin() as db:
        plan(db, lock(db, 2), POLICY, START)
    assert the_case(engine, 2) == before


def test_an_event_that_never_can_be_handled_is_given_up(engine: Engine) -> None:
    """After five tries it stays for a person, with its error, and does not count as waiting."""
    sql(engine, "INSERT INTO events (id, type, payload) VALUES ('evt_0', 'invoice.payment_failed', '{}')")
    tries = 0
    while inbox.drain(engine, POLICY, START):
        tries += 1
        sql(engine, "UPDATE events SET retry_at = now() - interval '1 s'")
    assert tries == 5
    with engine.connect() as db:
        assert inbox.waiting(db) == 0
    assert one(engine, "SELECT error FROM events") is not None


def test_a_failing_handler_leaves_nothing_half_done(engine: Engine) -> None:
    """What the handler had written before it failed is taken back; only the event remembers."""
    charge = {**old_invoice()["charge"], "failure_code": ["a code is no list"]}  # noticed only when the case is planned
    odd = event(subject=old_invoice(charge=charge))
    with engine.begin() as db:
        inbox.keep(db, [inbox.Event("evt_1", "invoice.payment_failed", None, START, odd)])
    inbox.drain(engine, POLICY, START)
    counted = [one(engine, f"SELECT count(*) FROM {table}") for table in ("cases", "history", "outbox")]  # noqa: S608
    assert counted == [0, 0, 0]
    assert one(engine, "SELECT error FROM events") is not None


def test_the_account_of_a_connected_merchant_is_kept(engine: Engine) -> None:
    """Later requests about the case go to the account the event came from."""
    hear(engine, event(account="acct_7"))
    assert the_case(engine).account == "acct_7"


def test_one_tick_leads_from_an_event_to_a_hint(serve: Serve) -> None:
    """Events are handled first, then what is due is claimed once; the next tick finds nothing new."""
    street = serve()
    with street.engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(event())])
    sent: list[tuple[str, int, str]] = []
    found = sweep.tick(street.desk(START), lambda *hint: sent.append(hint))
    assert found == sweep.Swept(events=1, cases=1, messages=0)
    assert [(task, number) for task, number, _ in sent] == [("dunning.work", 1)]
    assert str(the_case(street.engine).lease_token) == sent[0][2]
    assert sweep.tick(street.desk(START), lambda *hint: sent.append(hint)) == sweep.Swept(0, 0, 0)


def uses(engine: Engine) -> tuple[datetime, ...]:
    """Return what is known of the card's uses."""
    with engine.connect() as db:
        return uses_of(db, CARD.fingerprint, START + DAY)


def test_a_refused_charge_of_no_case_is_kept_for_its_card(engine: Engine) -> None:
    """Whatever it was for and however often it is told: one use of the card, and no word about the person."""
    told_of = event("evt_1", "charge.failed", failed_charge()), event("evt_2", "charge.failed", failed_charge())
    hear(engine, *told_of)
    [row] = the_attempts(engine, None)
    assert (row.case_id, row.state, row.at, row.charge_id) == (None, "foreign", START + HOUR, "ch_shop")
    assert (row.payment_id, row.amount_minor, row.fingerprint) == ("pi_shop", 500, CARD.fingerprint)
    assert row.decline == asdict(Decline("insufficient_funds", None, "51", None, "issuer_declined"))
    assert uses(engine) == (START + HOUR,)
    assert "customer.example" not in everything(engine)


def test_a_bank_debit_that_was_refused_is_kept_with_its_rail(engine: Engine) -> None:
    """Its account has a fingerprint as a card has."""
    debit = {"type": "sepa_debit", "sepa_debit": {"fingerprint": "ACCTacct", "last4": "3000"}}
    hear(engine, event("evt_1", "charge.failed", failed_charge(payment_method_details=debit, outcome=None)))
    [row] = the_attempts(engine, None)
    assert (row.fingerprint, row.card["brand"], row.decline["code"]) == ("ACCTacct", "sepa_debit", "card_declined")


def test_somebody_elses_charge_wakes_the_cases_of_its_customer(engine: Engine) -> None:
    """It may have been for their invoice: only a reading can tell."""
    opened(engine)
    opened(engine, payment(2))
    hear(engine, event("evt_9", "charge.failed", failed_charge()), now=START + HOUR)
    assert (the_case(engine, 1).news, the_case(engine, 2).news) == (1, 0)


def test_a_refused_charge_of_our_own_is_not_kept_twice(engine: Engine) -> None:
    """The attempt has been written down before the charge was made."""
    opened(engine)
    ours = {"id": "req_1", "idempotency_key": "dunning-x-in_1-1"}
    hear(engine, event("evt_9", "charge.failed", failed_charge(), request=ours))
    assert (one(engine, "SELECT count(*) FROM attempts"), the_case(engine).news) == (0, 0)


@pytest.mark.parametrize("first", ["event", "answer"])
def test_an_event_that_does_not_say_whose_charge_it_was_counts_once(engine: Engine, first: str) -> None:
    """Before or after our own answer: one charge is one use of the card."""
    case_id = opened(engine)
    answered: JSON = {"state": "declined", "settled_at": START, "at": START + HOUR, "decline": {}}

    def answer() -> None:
        add_attempt(engine, case_id, fingerprint=CARD.fingerprint, charge_id="ch_shop", **answered)

    acts = [lambda: hear(engine, event("evt_9", "charge.failed", failed_charge())), answer]
    for act in acts if first == "event" else reversed(acts):
        act()
    assert uses(engine) == (START, START + HOUR)


def test_a_renewal_counts_once_whatever_tells_of_it(serve: Serve) -> None:
    """Its charge, its invoice and the reading of it are one use of the card."""
    street = serve()
    street.hear(START)
    street.work(START)
    assert one(street.engine, "SELECT count(*) FROM attempts WHERE case_id IS NULL AND state = 'foreign'") == 1
    assert uses(street.engine) == (START,)


def test_a_foreign_charge_counts_once_when_event_and_reading_tell_of_it(serve: Serve) -> None:
    """The reading gives the row of the event its case, and the next event about it changes nothing."""
    street = serve(Scripted(declines=[FUNDS]))
    opened(street.engine)
    street.work(START)
    street.charge_elsewhere(START + HOUR)
    street.hear(START + HOUR)
    assert (uses(street.engine), the_attempts(street.engine)) == ((START, START + HOUR), [])
    street.work(START + HOUR)
    [row] = the_attempts(street.engine)
    assert (row.state, row.payment_id, row.number, uses(street.engine)) == ("foreign", "in_1", 1, (START, START + HOUR))
    charge = failed_charge(id=row.charge_id, created=int((START + HOUR).timestamp()))
    hear(street.engine, event("evt_again", "charge.failed", charge), now=START + 2 * HOUR)
    assert (the_attempts(street.engine), uses(street.engine)) == ([row], (START, START + HOUR))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "charge without a valid 'id'"),
        ({"created": "today"}, "'created' is not a time in seconds"),
        ({"amount": -1}, "charge with a wrong 'amount'"),
        ({"currency": "xxq"}, "charge with an unknown 'currency'"),
        ({"payment_intent": 5}, "charge without a valid 'payment_intent'"),
        ({"payment_method_details": {"card": {"fingerprint": 5}}}, "card without a valid 'fingerprint'"),
        ({"payment_method_details": ["card"]}, "a charge of an unknown shape"),
        ({"outcome": "bad"}, "a charge of an unknown shape"),
    ],
)
def test_a_charge_that_cannot_be_counted_is_refused(change: JSON, message: str) -> None:
    """What is missing or wrong is named, as it is of an invoice."""
    with pytest.raises(inbox.BadEvent, match=message):
        inbox.parse_event(event("evt_1", "charge.failed", failed_charge(**change)))


@pytest.mark.parametrize("name", ["customer", "outcome", "payment_intent", "payment_method_details", "failure_code"])
def test_a_charge_may_lack_what_not_every_charge_has(engine: Engine, name: str) -> None:
    """A guest has no customer, an old charge no outcome; it is kept with what it shows."""
    hear(engine, event("evt_1", "charge.failed", failed_charge(**{name: None})))
    assert one(engine, "SELECT count(*) FROM attempts WHERE charge_id = 'ch_shop'") == 1
    assert one(engine, "SELECT error FROM events") is None
