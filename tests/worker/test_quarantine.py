"""Is a case that ends its workers set aside, and nobody else? Crashed claims in a row are what counts."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Engine

from tests.worker.bench import LEASE, Bench, Serve
from tests.worker.builders import START, add_case, at_once, opened, sql, the_case, told
from worker import charging, sweep
from worker.cases import take_over
from worker.repair import Wish, carry_out

EXPIRE = "UPDATE cases SET lease_until = clock_timestamp() - interval '1 second' WHERE lease_token IS NOT NULL"


def claimed(street: Bench) -> list[int]:
    """Let what was taken before be forgotten, sweep once, take over what is offered, and return it."""
    sql(street.engine, EXPIRE)
    hints: list[tuple[int, str]] = []
    sweep.tick(street.desk(START), lambda _task, number, token: hints.append((number, token)))
    with street.engine.begin() as db:
        taken = [take_over(db, {number: UUID(token)}, LEASE) for number, token in hints]
    return sorted(case.id for cases in taken for case in cases)


def crashes(engine: Engine, case_id: int) -> int:
    """Return how often a case was taken and not given back, in a row."""
    found: int = the_case(engine, case_id).claims
    return found


def test_a_case_that_is_never_given_back_is_set_aside_after_three_claims(serve: Serve) -> None:
    """It stays open, its history tells, nobody holds it and nobody is offered it; a person may take it up again."""
    street = serve()
    case_id = add_case(street.engine)
    assert [claimed(street) for _ in range(5)] == [[case_id]] * 3 + [[], []]
    row = the_case(street.engine, case_id)
    assert (row.state, row.lease_token, row.closed_at, told(street.engine)) == ("silent", None, None, ["quarantined"])
    assert row.quarantined_at is not None
    wish = Wish("retry", "a test", street.policy, START)
    assert [each.done for each in carry_out(street.engine, wish, [str(case_id)])] == [True]
    assert claimed(street) == [case_id]
    assert told(street.engine)[:2] == ["quarantined", "taken_up"]


def test_what_is_given_back_counts_no_crash(serve: Serve) -> None:
    """Two crashes and a pass that ends well: the count begins anew."""
    street = serve()
    opened(street.engine)
    assert claimed(street) == claimed(street) == [1]
    assert crashes(street.engine, 1) == 2
    sql(street.engine, EXPIRE)
    hints: list[tuple[int, str]] = []
    sweep.tick(street.desk(START), lambda _task, number, token: hints.append((number, token)))
    for number, token in hints:
        assert charging.work(street.desk(START), number, UUID(token))
    assert crashes(street.engine, 1) == 0


def test_a_hint_that_was_lost_is_no_crash(serve: Serve) -> None:
    """The queue was emptied before a worker saw it: nobody died of the case."""
    street = serve()
    case_id = add_case(street.engine)
    for _ in range(6):
        sql(street.engine, EXPIRE)
        found = sweep.tick(street.desk(START), lambda *_hint: None)
        assert found.cases == 1
    assert (crashes(street.engine, case_id), the_case(street.engine, case_id).quarantined_at) == (0, None)


def test_who_was_in_two_crashes_is_worked_on_alone(serve: Serve) -> None:
    """Three cases share two crashes: from then on one of them is offered at a time, beside any other case."""
    street = serve()
    three = [add_case(street.engine, payment_id=f"in_{number}") for number in (1, 2, 3)]
    assert claimed(street) == claimed(street) == three
    fresh = add_case(street.engine, payment_id="in_4")
    first = claimed(street)
    assert len(first) == 2
    assert fresh in first
    hints: list[int] = []
    at_once([lambda: sweep.tick(street.desk(START), lambda _task, number, _token: hints.append(number))] * 4)
    assert hints == []
