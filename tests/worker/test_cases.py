"""Is a case opened once, owned by one worker at a time, and turned into facts without loss?"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, select

from schedules import Card, Decline, Facts, Policy
from tests.worker.builders import (
    CARD,
    DAY,
    FUNDS,
    HOUR,
    JSON,
    LOST,
    MINUTE,
    START,
    add_attempt,
    add_case,
    add_notice,
    at_once,
    one,
    opened,
    payment,
    sql,
    the_case,
    told,
)
from worker import cases as service
from worker.cases import LeaseLost
from worker.facts import facts_of
from worker.leases import claim_due
from worker.models import cases
from worker.planning import look_again, plan

POLICY = Policy.default()


def claim(engine: Engine, limit: int = 100, now: timedelta = timedelta()) -> list[tuple[int, UUID]]:
    """Claim what is due, with a lease of three minutes."""
    with engine.begin() as db:
        return [(number, UUID(token)) for number, token in claim_due(db, cases, START + now, limit, 180)]


def take(engine: Engine, case_id: int, hint: UUID) -> UUID | None:
    """Take a case over with the token of a hint."""
    with engine.begin() as db:
        taken: list[UUID] = [case.lease_token for case in service.take_over(db, {case_id: hint}, 180)]
        return taken[0] if taken else None


def facts(engine: Engine, case_id: int, now: timedelta = timedelta()) -> Facts:
    """Build the facts of a case."""
    with engine.connect() as db:
        return facts_of(db, db.execute(select(cases).where(cases.c.id == case_id)).one(), START + now)


def test_a_case_is_opened_once(engine: Engine) -> None:
    """The second failure of the same invoice finds the first case, untouched and with its first date."""
    first = opened(engine)
    before = the_case(engine, first)
    later = payment(failed_at=START + DAY, amount_minor=5, decline=LOST)
    assert opened(engine, later, START + DAY) == first
    assert the_case(engine, first) == before
    assert (before.failed_at, before.amount_minor, told(engine)) == (START, 1999, ["opened", "planned"])


def test_a_case_opened_by_eight_sessions_at_once_is_one_case(engine: Engine) -> None:
    """Eight processes hear of the same failure at the same moment: all of them get the one case."""
    found = at_once([lambda: opened(engine)] * 8)
    assert len(set(found)) == 1
    assert (one(engine, "SELECT count(*) FROM cases"), told(engine, found[0])) == (1, ["opened", "planned"])


def test_a_new_case_is_due_for_a_reading_at_once(engine: Engine) -> None:
    """Nothing is decided on what an event said: the first step reads the provider."""
    opened(engine)
    row = the_case(engine)
    assert (row.state, row.step["step"], row.due_at) == ("silent", "refresh", START)


def test_each_due_case_goes_to_one_claimer(engine: Engine) -> None:
    """Eight claimers at once share 200 due cases without taking one twice, and leave none."""
    for number in range(200):
        add_case(engine, payment_id=f"in_{number}")

    def take_all() -> list[int]:
        taken: list[int] = []
        while found := claim(engine, 7):
            taken += [number for number, _ in found]
        return taken

    taken = [number for some in at_once([take_all] * 8) for number in some]
    taken += [number for number, _ in claim(engine, 200)]
    assert len(taken) == 200
    assert len(set(taken)) == 200


def test_only_what_is_due_and_free_is_claimed(engine: Engine) -> None:
    """The future, the ended and the owned stay where they are; the oldest come first."""
    oldest = add_case(engine, payment_id="in_1", due_at=START - DAY)
    add_case(engine, payment_id="in_2", due_at=START + MINUTE)
    add_case(engine, payment_id="in_3", due_at=None, state="lost", closed_at=START)
    add_case(engine, payment_id="in_4", due_at=START - HOUR)
    assert [number for number, _ in claim(engine, 1)] == [oldest]
    assert [number for number, _ in claim(engine)] == [4]
    assert claim(engine) == []


def test_a_hint_is_used_once(engine: Engine) -> None:
    """Of five deliveries of one message at once, one takes the case over; the used token is worth nothing more."""
    add_case(engine)
    [(case_id, hint)] = claim(engine)
    taken = at_once([lambda: take(engine, case_id, hint)] * 5)
    assert len([token for token in taken if token is not None]) == 1
    assert take(engine, case_id, hint) is None
    assert the_case(engine).claims == 1


def test_a_forged_hint_takes_nothing(engine: Engine) -> None:
    """A token that was never given, or that of another case, changes no row."""
    add_case(engine)
    add_case(engine, payment_id="in_2")
    hints = dict(claim(engine))
    before = the_case(engine, 1)
    assert take(engine, 1, uuid4()) is None
    assert take(engine, 1, hints[2]) is None
    assert the_case(engine, 1) == before


def test_a_case_that_was_let_go_is_free_again(engine: Engine) -> None:
    """Without an instant it keeps its own, with one it is looked at then."""
    add_case(engine)
    for until, due in ((None, START), (START + HOUR, START + HOUR), (START, START)):
        [(case_id, hint)] = claim(engine, now=DAY)
        with engine.begin() as db:
            case = service.lock(db, case_id, hint)
            case.let_go(until)
            service.save(db, [case])
        row = the_case(engine)
        assert (row.lease_token, row.lease_until, row.due_at) == (None, None, due)


def test_a_case_whose_owner_is_gone_is_claimed_again(engine: Engine) -> None:
    """Not while its lease runs, but as soon as it has run out; then the old owner is nobody."""
    add_case(engine)
    [(case_id, hint)] = claim(engine)
    owner = take(engine, case_id, hint)
    assert claim(engine) == []
    sql(engine, "UPDATE cases SET lease_until = now() - interval '1 second'")
    [(_, second)] = claim(engine)
    assert second != owner
    with engine.begin() as db, pytest.raises(LeaseLost):
        service.lock(db, case_id, owner)


def test_an_expired_lease_goes_to_one_of_many(engine: Engine) -> None:
    """Eight sweeps find the same abandoned case at once: one gets it."""
    add_case(engine)
    claim(engine)
    sql(engine, "UPDATE cases SET lease_until = now() - interval '1 second'")
    assert sum(len(found) for found in at_once([lambda: claim(engine)] * 8)) == 1


def test_a_lost_lease_locks_nothing(engine: Engine) -> None:
    """A worker that wakes up late gets no case to change."""
    add_case(engine)
    [(case_id, hint)] = claim(engine)
    sql(engine, "UPDATE cases SET lease_until = now() - interval '1 second'")
    claim(engine)
    before = the_case(engine)
    with engine.begin() as db:
        assert service.lock_held(db, {case_id: hint}) == {}
        with pytest.raises(LeaseLost):
            service.lock(db, case_id, hint)
    assert the_case(engine) == before


def test_facts_hold_what_the_case_remembers(engine: Engine) -> None:
    """The renewal comes back from the database as it was, to the last field."""
    failed = payment(time_zone=None, locale="de-AT", tenure_days=3, currency="kwd", amount_minor=2**40)
    known = facts(engine, opened(engine, failed))
    assert known.payment == failed
    assert (known.card, known.attempts, known.uses, known.refreshed_at) == (CARD, (), (START,), None)


def test_a_case_of_which_nothing_is_known_makes_facts_too(engine: Engine) -> None:
    """An event without card, codes, place or subscription is no reason to fail."""
    failed = payment(
        subscription_id=None, card=Card(), decline=Decline(), time_zone=None, locale=None, tenure_days=None
    )
    known = facts(engine, opened(engine, failed))
    assert (known.payment, known.uses) == (failed, ())


def test_attempts_of_facts_are_the_answers_of_this_case(engine: Engine) -> None:
    """Refusals in their order, those of observe mode too; not what is open, was not executed, or is another's."""
    mine, other = opened(engine), opened(engine, payment(2))
    kept = {"decline": asdict(FUNDS), "card": asdict(CARD), "settled_at": START}
    add_attempt(engine, mine, state="observed", number=2, idempotency_key="k2", at=START + 2 * DAY, **kept)
    add_attempt(engine, mine, state="declined", number=1, idempotency_key="k1", at=START + DAY, **kept)
    add_attempt(engine, mine, state="not_executed", number=3, idempotency_key="k3", **kept)
    add_attempt(engine, mine, state="sent", number=3, idempotency_key="k4")
    add_attempt(engine, other, payment_id="in_2", state="declined", idempotency_key="k5", **kept)
    found = facts(engine, mine, 3 * DAY).attempts
    assert [(each.number, each.at) for each in found] == [(1, START + DAY), (2, START + 2 * DAY)]
    assert {(each.card, each.decline) for each in found} == {(CARD, FUNDS)}


def test_refusals_of_others_stand_among_ours_in_order_of_time(engine: Engine) -> None:
    """Heard of late, it has a later number; the waits count from the last refusal, whoever asked for it."""
    case_id = opened(engine)
    kept = {"decline": asdict(FUNDS), "card": asdict(CARD), "settled_at": START}
    add_attempt(engine, case_id, state="declined", number=1, at=START + DAY, **kept)
    add_attempt(engine, case_id, state="foreign", number=3, idempotency_key="ch_3", at=START + 2 * DAY, **kept)
    add_attempt(engine, case_id, state="declined", number=2, idempotency_key="k2", at=START + 3 * DAY, **kept)
    known = facts(engine, case_id, 4 * DAY)
    assert ([each.number for each in known.attempts], known.last_failure) == ([1, 3, 2], START + 3 * DAY)


def test_uses_are_counted_over_all_cases_of_the_card(engine: Engine) -> None:
    """Renewals and charges of every case on this fingerprint in 30 days, unknown outcomes included, sorted."""
    mine, other = opened(engine), opened(engine, payment(2, failed_at=START + HOUR))
    opened(engine, payment(3, card=replace(CARD, fingerprint="another")))
    opened(engine, payment(4, failed_at=START - 40 * DAY))
    used: JSON = {"fingerprint": CARD.fingerprint, "decline": {}}
    add_attempt(engine, mine, at=START + DAY, state="unknown", **used)
    add_attempt(
        engine,
        other,
        payment_id="in_2",
        at=START + 2 * HOUR,
        state="declined",
        settled_at=START,
        idempotency_key="k2",
        **used,
    )
    add_attempt(
        engine, other, payment_id="in_2", number=2, state="not_executed", settled_at=START, idempotency_key="k3", **used
    )
    expected = (START, START + HOUR, START + 2 * HOUR, START + DAY)
    assert facts(engine, mine, 2 * DAY).uses == facts(engine, other, 2 * DAY).uses == expected


def test_a_card_without_a_fingerprint_shares_no_budget(engine: Engine) -> None:
    """What is not known to be the same card is not counted as one."""
    first, _ = opened(engine, payment(card=Card())), opened(engine, payment(2, card=Card()))
    assert facts(engine, first).uses == ()


def test_contacts_are_counted_over_all_cases_of_the_customer(engine: Engine) -> None:
    """The cool-down is the customer's, the ladder is the case's; an ending is no contact."""
    mine, other = opened(engine), opened(engine, payment(2, customer_id="cus_1"))
    stranger = opened(engine, payment(3))
    add_notice(engine, other, at=START + HOUR)
    add_notice(engine, mine, at=START + DAY)
    add_notice(engine, mine, kind="ending", name="cancel", at=START)
    add_notice(engine, stranger, customer_id="cus_3", at=START)
    known = facts(engine, mine)
    assert known.contacted == (START + DAY,)
    assert known.customer_contacts == (START + HOUR, START + DAY)


def test_news_makes_a_reading_stale(engine: Engine) -> None:
    """A reading counts only while no event has come since; then the next step is to read again."""
    case_id = opened(engine)
    sql(engine, "UPDATE cases SET refreshed_at = :at", at=START + HOUR)
    assert facts(engine, case_id).refreshed_at == START + HOUR
    with engine.begin() as db:
        look_again(db, [service.lock(db, case_id)], POLICY, START + 2 * HOUR)
    assert facts(engine, case_id).refreshed_at is None
    row = the_case(engine)
    assert (row.step["step"], row.due_at) == ("refresh", START)


def test_what_is_due_keeps_its_place_in_the_line(engine: Engine) -> None:
    """Planned again an hour late it is no younger than what became due meanwhile, and no new plan."""
    case_id = opened(engine)
    before = the_case(engine)
    with engine.begin() as db:
        plan(db, service.lock(db, case_id), POLICY, START + HOUR)
    assert the_case(engine) == before
    assert told(engine) == ["opened", "planned"]


def test_planning_twice_writes_one_line_of_history(engine: Engine) -> None:
    """The same plan is no news."""
    case_id = opened(engine)
    for _ in range(3):
        with engine.begin() as db:
            plan(db, service.lock(db, case_id), POLICY, START)
    assert told(engine) == ["opened", "planned"]


def test_a_case_with_an_open_attempt_is_not_closed(engine: Engine) -> None:
    """The deadline passes while an outcome is unknown: the case stays open until it is known."""
    case_id = opened(engine)
    add_attempt(engine, case_id)
    sql(engine, "UPDATE cases SET ended = 'paid'")
    with engine.begin() as db:
        plan(db, service.lock(db, case_id), POLICY, START + DAY)
    row = the_case(engine)
    assert (row.closed_at, row.step["step"]) == (None, "close")


@pytest.mark.parametrize(
    ("ending", "messages"), [("leave", 0), ("cancel", 1), ("mark_uncollectible", 1), ("pause", 1), ("release", 0)]
)
def test_the_merchants_ending_of_a_lost_case_is_put_into_the_outbox(engine: Engine, ending: str, messages: int) -> None:
    """What the policy says about a lost case is carried out later; leave and release change nothing there."""
    case_id = opened(engine)
    policy = replace(POLICY, ending=ending)
    over = START + timedelta(days=policy.deadline_days)
    sql(engine, "UPDATE cases SET refreshed_at = :at", at=over)
    with engine.begin() as db:
        plan(db, service.lock(db, case_id), policy, over)
    row = the_case(engine)
    assert (row.state, row.due_at, row.step) == ("released" if ending == "release" else "lost", None, None)
    assert one(engine, "SELECT count(*) FROM outbox WHERE kind = 'ending' AND name = :name", name=ending) == messages
