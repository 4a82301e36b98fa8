"""Do cases that are worked on together fare as each would by itself, whatever happens to the others?"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from schedules import FailedPayment, Policy
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    CARD,
    DAY,
    FUNDS,
    HOUR,
    LOST,
    START,
    TECHNICAL,
    add_case,
    one,
    opened,
    payment,
    reasons_of,
    sql,
    the_attempts,
    the_case,
    until,
)
from worker import charging
from worker.calls import Calls
from worker.stripe_gateway import StripeGateway

MANY = 12


@pytest.fixture
def calls() -> Iterator[Calls]:
    """Give threads as a worker has them."""
    threads = Calls(8)
    yield threads
    threads.close()


def renewals(number: int = MANY, **changes: Any) -> list[FailedPayment]:
    """Return failed renewals of as many customers and cards."""
    cards = [replace(CARD, fingerprint=f"card{each}") for each in range(1, number + 1)]
    return [payment(each, card=card, **changes) for each, card in enumerate(cards, start=1)]


def all_due(serve: Serve, failed: list[FailedPayment], **world: Any) -> Bench:
    """Return a bank over cases that have been read, at the instant at which every one of them is due."""
    street = serve(Scripted(failed, **world))
    for each in failed:
        opened(street.engine, each)
    street.work(START)
    street.instant[0] = max(the_case(street.engine, number).due_at for number in range(1, len(failed) + 1))
    return street


def together(street: Bench, calls: Calls | None, **changes: Any) -> dict[int, bool | Exception]:
    """Claim all that is due, and work on it as on one message."""
    now = street.instant[0]
    return charging.work_each(replace(street.desk(now), calls=calls, **changes), street.claim(now))


def test_each_case_has_its_own_attempt_and_key(serve: Serve, calls: Calls) -> None:
    """Twelve charges, twelve numbers one, and twelve keys that name the first request for their invoice."""
    street = all_due(serve, renewals())
    assert set(together(street, calls).values()) == {True}
    installed = one(street.engine, "SELECT id FROM install")
    for number in range(1, MANY + 1):
        row, [attempt] = the_case(street.engine, number), the_attempts(street.engine, number)
        assert (row.state, row.recovered_by, row.lease_token, attempt.number) == ("recovered", "silent_retry", None, 1)
        assert attempt.idempotency_key == f"dunning-{installed}-in_{number}-1"
    assert len(street.ledger) == MANY
    street.agrees()


def test_the_second_request_for_a_case_is_numbered_by_its_own_attempts(serve: Serve, calls: Calls) -> None:
    """However many charges of others are written down with it."""
    street = all_due(serve, renewals(), declines=[FUNDS] * MANY)
    together(street, calls)
    street.instant[0] = max(the_case(street.engine, number).due_at for number in range(1, MANY + 1))
    together(street, calls)
    keys = [row.idempotency_key for number in range(1, MANY + 1) for row in the_attempts(street.engine, number)]
    assert {key.rpartition("-")[2] for key in keys} == {"1", "2"}
    assert len(set(keys)) == len(keys) == 2 * MANY
    street.agrees()


def test_what_is_planned_together_is_what_is_planned_alone(serve: Serve, calls: Calls) -> None:
    """The next step of every refused case, its instant and its reasons are the same."""
    plans = []
    for alone in (True, False):
        street = all_due(serve, renewals(), declines=[FUNDS] * MANY)
        now = street.instant[0]
        hints = street.claim(now)
        for some in [[hint] for hint in hints] if alone else [hints]:
            charging.work_each(replace(street.desk(now), calls=calls), some)
        plans.append([(the_case(street.engine, n).due_at, reasons_of(street.engine, n)) for n in range(1, MANY + 1)])
        sql(street.engine, "TRUNCATE cases, attempts, history, outbox RESTART IDENTITY CASCADE")
    assert plans[0] == plans[1]


def test_two_cases_of_one_card_never_share_its_last_use(serve: Serve, calls: Calls) -> None:
    """Nine of ten uses a day are spent: of two that are worked on together the second sees the first's attempt."""
    pair = [payment(number, customer_id=f"cus_{number}", decline=TECHNICAL) for number in (1, 2)]
    street = serve(Scripted(list(pair)))
    for failed in pair:
        opened(street.engine, failed)
    for number in range(3, 10):
        spent = {"failed_at": START, "failed_card": {"fingerprint": CARD.fingerprint}}
        add_case(street.engine, payment_id=f"in_{number}", due_at=START + 9 * DAY, **spent)
    street.work(START)
    street.instant[0] = max(the_case(street.engine, number).due_at for number in (1, 2))
    assert together(street, calls) == {1: True, 2: True}
    assert len(street.ledger) == 1
    [waiting] = [row for row in (the_case(street.engine, number) for number in (1, 2)) if row.closed_at is None]
    assert waiting.due_at >= START + DAY
    assert any(reason.startswith("budget:") for reason in reasons_of(street.engine, waiting.id))


def test_acts_of_every_kind_go_on_side_by_side(serve: Serve, calls: Calls) -> None:
    """One is read for the first time, one charged, one spoken of, and the outcome of one is found out."""
    fresh, charged, spoken, unknown = renewals(4)
    spoken = replace(spoken, decline=LOST)
    street = serve(Scripted([fresh, charged, spoken, unknown]), policy=replace(Policy.default(), silent_days=0))
    for each in (fresh, charged, spoken, unknown):
        opened(street.engine, each)
    sql(street.engine, "UPDATE cases SET due_at = :later WHERE id = 1", later=START + HOUR)
    street.work(START)
    street.instant[0] = max(the_case(street.engine, number).due_at for number in (2, 4))
    now = street.instant[0]
    street.fault("500_after")
    [(_, token)] = [hint for hint in street.claim(now) if hint[0] == 4]
    charging.work(street.desk(now), 4, token)
    assert the_attempts(street.engine, 4)[0].state == "unknown"
    sql(street.engine, "UPDATE cases SET lease_token = NULL, lease_until = NULL, due_at = least(due_at, :now)", now=now)
    done = together(street, calls)
    assert done == {1: True, 2: True, 3: True, 4: True}
    assert the_case(street.engine, 1).refreshed_at == now
    assert [the_case(street.engine, number).state for number in (2, 3, 4)] == ["recovered", "contacting", "recovered"]
    street.agrees()


class Held(StripeGateway):
    """A gateway in which the charge of one invoice takes as long as the test wants."""

    def __init__(self, own: StripeGateway, go_on: Event) -> None:
        self.own, self.go_on = own, go_on

    def read(self, *told: Any, **more: Any) -> Any:
        """Read as always."""
        return self.own.read(*told, **more)

    def pay(self, payment_id: str, *told: Any, **more: Any) -> Any:
        """Charge as always, but the first one late."""
        if payment_id == "in_1":
            assert self.go_on.wait(20)
        return self.own.pay(payment_id, *told, **more)


def test_a_slow_answer_holds_up_nobody_else(serve: Serve, calls: Calls) -> None:
    """Eleven charges are settled and their cases closed while the twelfth is still on its way."""
    street, go_on = all_due(serve, renewals()), Event()
    with ThreadPoolExecutor(1) as worker:
        gateway = Held(street.desk(street.instant[0]).gateway, go_on)
        done = worker.submit(together, street, calls, gateway=gateway)
        until(lambda: one(street.engine, "SELECT count(*) FROM cases WHERE closed_at IS NOT NULL") == MANY - 1)
        assert the_attempts(street.engine)[0].state == "sent"
        go_on.set()
        assert set(done.result(20).values()) == {True}
    assert the_case(street.engine).state == "recovered"
    street.agrees()


def test_who_has_lost_the_lease_is_left_alone_and_the_others_go_on(serve: Serve, calls: Calls) -> None:
    """Somebody has taken one over while it was charged: its answer is not written down, all others are."""
    street, go_on = all_due(serve, renewals()), Event()
    with ThreadPoolExecutor(1) as worker:
        gateway = Held(street.desk(street.instant[0]).gateway, go_on)
        done = worker.submit(together, street, calls, gateway=gateway)
        until(lambda: one(street.engine, "SELECT count(*) FROM cases WHERE closed_at IS NOT NULL") == MANY - 1)
        sql(street.engine, "UPDATE cases SET lease_token = gen_random_uuid() WHERE id = 1")
        before = the_case(street.engine)
        go_on.set()
        found = done.result(20)
    assert [number for number, verdict in found.items() if verdict is not True] == [1]
    assert (found[1], the_case(street.engine), the_attempts(street.engine)[0].state) == (False, before, "sent")


def test_what_cannot_be_written_down_spoils_no_other(serve: Serve, calls: Calls) -> None:
    """An amount that no column takes: that case is looked at again later, and tells why; the others are charged."""
    street = all_due(serve, renewals())
    gateway = street.desk(street.instant[0]).gateway

    class Strange(Held):
        def read(self, payment_id: str, *told: Any, **more: Any) -> Any:
            reading = super().read(payment_id, *told, **more)
            return replace(reading, amount_minor=10**30) if payment_id == "in_3" else reading

    go_on = Event()
    go_on.set()
    found = together(street, calls, gateway=Strange(gateway, go_on))
    assert [number for number, verdict in found.items() if verdict is not True] == [3]
    row = the_case(street.engine, 3)
    assert (row.state, row.lease_token, row.due_at > street.instant[0]) == ("silent", None, True)
    assert len(street.ledger) == MANY - 1
    street.agrees()


def test_what_waits_too_long_for_a_thread_is_not_asked_and_still_due(serve: Serve, calls: Calls) -> None:
    """Its lease might not outlast the answer: nothing is sent, nothing is counted, nothing is told."""
    street = all_due(serve, renewals())
    before = one(street.engine, "SELECT count(*) FROM history")
    assert set(together(street, calls, lease_seconds=0).values()) == {True}
    rows = [the_case(street.engine, number) for number in range(1, MANY + 1)]
    assert {(row.lease_token, row.claims, row.due_at <= street.instant[0]) for row in rows} == {(None, 0, True)}
    assert (street.ledger, one(street.engine, "SELECT count(*) FROM history")) == ([], before)
    together(street, calls)
    assert len(street.ledger) == MANY


def test_a_case_that_may_have_ended_its_worker_is_taken_by_itself(serve: Serve, calls: Calls) -> None:
    """While the others are under way it is not; then it is worked on, and nothing is held against it any more."""
    street, go_on = all_due(serve, renewals(3)), Event()
    sql(street.engine, "UPDATE cases SET claims = 1 WHERE id = 2")
    with ThreadPoolExecutor(1) as worker:
        gateway = Held(street.desk(street.instant[0]).gateway, go_on)
        done = worker.submit(together, street, calls, gateway=gateway)
        until(lambda: the_case(street.engine, 3).closed_at is not None)
        assert (the_case(street.engine, 1).claims, the_case(street.engine, 2).claims) == (1, 1)
        assert the_attempts(street.engine, 2) == []
        go_on.set()
        assert done.result(20) == {1: True, 2: True, 3: True}
    assert [the_case(street.engine, number).state for number in (1, 2, 3)] == ["recovered"] * 3
    street.agrees()


def test_without_threads_it_is_asked_about_one_after_the_other(serve: Serve) -> None:
    """So tools work; the outcome is the same."""
    street = all_due(serve, renewals(3))
    assert together(street, None) == {1: True, 2: True, 3: True}
    assert len(street.ledger) == 3
