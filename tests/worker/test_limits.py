"""Do all workers together ask the provider no faster than allowed, and not at all while it is down?"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import HOUR, START, at_once, event, one, opened, sql, the_attempts, the_case
from tests.worker.test_web import serving
from worker import charging
from worker.app import make_engine
from worker.limits import BREAKS, CIRCUIT, MOST_FAILURES, Limits, circuit
from worker.settings import LONGEST_WAIT
from worker.stripe_gateway import NotNow, Unavailable, Unknown

READS, PAYS = "get invoices", "post invoices/pay"
NEVER = timedelta(hours=1)


def unhurried(_seconds: float) -> None:
    """Take a slot without waiting for it."""


def limiter(engine: Engine, per_second: float = 100) -> Limits:
    """Return what one process goes by; these tests wait for nothing."""
    return Limits(engine, per_second, unhurried)


def clock(engine: Engine) -> datetime:
    """Return the machine's instant, on PostgreSQL's clock."""
    found: datetime = one(engine, "SELECT clock_timestamp()")
    return found


def row(engine: Engine, name: str) -> Any:
    """Return the row of an endpoint or of the circuit."""
    [found] = sql(engine, "SELECT * FROM limits WHERE name = :name", name=name)
    return found


def put_off(engine: Engine, name: str, by: timedelta) -> None:
    """Let the next request to an endpoint leave so much later than now."""
    statement = """INSERT INTO limits (name, next_at) VALUES (:name, clock_timestamp() + :by)
                   ON CONFLICT (name) DO UPDATE SET next_at = excluded.next_at"""
    sql(engine, statement, name=name, by=by)


def pass_over(engine: Engine) -> None:
    """Let the time go by for which the circuit is open."""
    sql(engine, "UPDATE limits SET next_at = clock_timestamp() WHERE name = 'circuit'")


def ask(limits: Limits, status: int | None = 200, endpoint: str = READS) -> None:
    """Make one request that is answered with this status, or not at all."""
    limits.heard(endpoint, status, limits.wait(endpoint))


def go_down(*all_limits: Limits) -> None:
    """Let requests of each fail in turn, until nothing is sent any more."""
    for number in range(MOST_FAILURES):
        all_limits[number % len(all_limits)].heard(READS, (None, 503)[number % 2], 0)


def state(engine: Engine) -> tuple[str, int]:
    """Return what the circuit shows, without its instant."""
    with engine.connect() as db:
        shown = circuit(db)
    return shown["state"], shown["failures"]


# The pace


def test_two_workers_keep_one_pace(engine: Engine) -> None:
    """Their slots are never nearer than the pace, whoever asks."""
    workers, slots = [limiter(engine, 10), limiter(engine, 10)], []
    for number in range(8):
        workers[number % 2].wait(READS)
        slots.append(row(engine, READS).next_at)
    assert all(later - earlier >= timedelta(seconds=0.1) for earlier, later in pairwise(slots))


@pytest.mark.parametrize(("per_second", "number"), [(10, 10), (100, 100)])
def test_requests_at_once_get_a_slot_each(engine: Engine, per_second: int, number: int) -> None:
    """Threads of two workers that ask together are spread over as many slots."""
    workers, before = [limiter(engine, per_second), limiter(engine, per_second)], clock(engine)
    at_once([partial(workers[each % 2].wait, READS) for each in range(number)])
    assert row(engine, READS).next_at - before >= timedelta(seconds=number / per_second)


def test_where_requests_wait_for_each_other_slots_are_taken_by_the_dozen(engine: Engine) -> None:
    """At a hundred a second, never for more than a tenth of a second; at the usual pace each by itself."""
    for per_second, most in ((100, 20), (15, 60)):
        limits, reserved = limiter(engine, per_second), set[datetime]()
        sql(engine, "DELETE FROM limits")
        for _ in range(60):
            limits.wait(READS)
            reserved.add(row(engine, READS).next_at)
        steps = [later - earlier for earlier, later in pairwise(sorted(reserved))]
        assert len(reserved) <= most
        assert max(steps) <= max(timedelta(seconds=0.11), timedelta(seconds=1.1 / per_second))


@pytest.mark.parametrize("status", [429, 500, None])
def test_whoever_hears_that_something_is_wrong_uses_no_slot_taken_before(engine: Engine, status: int | None) -> None:
    """The next request asks whether it may leave at all, and when."""
    limits = limiter(engine)
    for _ in range(20):
        limits.wait(READS)
    ask(limits, status)
    put_off(engine, READS, NEVER)
    with pytest.raises(Unavailable, match="rate limit"):
        limits.wait(READS)


def test_a_rest_saves_up_nothing(engine: Engine) -> None:
    """After an hour without requests the next two are spaced as ever: no burst."""
    limits = limiter(engine, 2)
    put_off(engine, READS, -HOUR)
    before = clock(engine)
    limits.wait(READS)
    limits.wait(READS)
    assert row(engine, READS).next_at - before >= timedelta(seconds=2 * 0.5)


def test_a_caller_sleeps_until_its_slot(engine: Engine) -> None:
    """Not shorter; with a free slot not at all."""
    slept: list[float] = []
    limits = Limits(engine, 100, slept.append)
    limits.wait(PAYS)
    put_off(engine, READS, timedelta(seconds=4))
    slot = row(engine, READS).next_at
    limits.wait(READS)
    assert slept[0] == 0
    assert clock(engine) + timedelta(seconds=slept[1]) >= slot
    assert slept[1] <= 4


def test_a_slot_too_far_away_is_refused_and_not_taken(engine: Engine) -> None:
    """Nobody sleeps for longer than the bound, and whoever was refused holds up nobody."""
    put_off(engine, READS, NEVER)
    before = row(engine, READS)
    with pytest.raises(Unavailable, match=f"rate limit: no turn for get invoices within {LONGEST_WAIT:g} s"):
        limiter(engine).wait(READS)
    assert row(engine, READS) == before


def test_each_endpoint_has_a_pace_of_its_own(engine: Engine) -> None:
    """A queue for charges does not hold up readings."""
    put_off(engine, PAYS, NEVER)
    assert limiter(engine).wait(READS) == 0


def test_each_429_costs_its_endpoint_a_second(engine: Engine) -> None:
    """The next slot is a second later, for all workers; other endpoints go on, and the provider is not down."""
    first, second = limiter(engine), limiter(engine)
    before = clock(engine)
    for limits in (first, second):
        ask(limits, 429, PAYS)
    assert row(engine, PAYS).next_at - before >= timedelta(seconds=2)
    assert sql(engine, "SELECT name FROM limits") == [(PAYS,)]
    assert state(engine) == ("closed", 0)


# The circuit


def test_five_failures_in_a_row_over_two_workers_open_the_circuit(engine: Engine) -> None:
    """Whichever worker asks next, on whatever endpoint, sends nothing, and takes no slot."""
    first, second = limiter(engine), limiter(engine)
    go_down(first, second)
    assert state(engine) == ("open", MOST_FAILURES)
    for limits, endpoint in ((first, READS), (second, PAYS)):
        with pytest.raises(Unavailable, match="the provider is down"):
            limits.wait(endpoint)
    assert sql(engine, "SELECT name FROM limits WHERE name = :name", name=PAYS) == []


@pytest.mark.parametrize("answer", [200, 402, 404, 409, 429])
def test_any_answer_of_the_provider_begins_the_count_anew(engine: Engine, answer: int) -> None:
    """A refusal too says that it is there: four failures, an answer and four more open nothing."""
    first, second = limiter(engine), limiter(engine)
    for status in (500, None, 502, None, answer, 500, None, 502, None):
        ask(first, status)
    assert state(engine) == ("closed", MOST_FAILURES - 1)
    assert second.wait(READS) == MOST_FAILURES - 1


def test_after_the_break_one_probe_is_let_through(engine: Engine) -> None:
    """Of eight requests of two workers one leaves, the others hear at once that nothing is sent."""
    workers = [limiter(engine), limiter(engine)]
    go_down(*workers)
    pass_over(engine)

    def tried(limits: Limits) -> bool:
        try:
            limits.wait(READS)
        except Unavailable:
            return False
        return True

    assert at_once([partial(tried, workers[number % 2]) for number in range(8)]).count(True) == 1
    assert state(engine) == ("probing", MOST_FAILURES)


def test_a_probe_that_is_answered_closes_the_circuit(engine: Engine) -> None:
    """Everybody goes on, and the count begins anew."""
    first, second = limiter(engine), limiter(engine)
    go_down(first)
    opened_at = row(engine, CIRCUIT).since
    pass_over(engine)
    ask(first)
    assert state(engine) == ("closed", 0)
    assert row(engine, CIRCUIT).since > opened_at
    assert second.wait(PAYS) == 0
    go_down(second)
    assert state(engine) == ("open", MOST_FAILURES)


def test_an_answer_that_comes_late_closes_the_circuit_too(engine: Engine) -> None:
    """The provider is there after all, and from then on failures count again."""
    limits = limiter(engine)
    limits.heard(READS, None, 0)
    failures = limits.wait(READS)
    go_down(limits)
    limits.heard(READS, 200, failures)
    assert state(engine) == ("closed", 0)
    go_down(limits)
    assert state(engine) == ("open", MOST_FAILURES)


def test_each_probe_that_fails_doubles_the_break_up_to_five_minutes(engine: Engine) -> None:
    """30 s, 60, 120, 240, and 300 from then on; since when it is down stays told."""
    limits, breaks, after = limiter(engine), list[float](), list[float]()
    go_down(limits)
    opened_at = row(engine, CIRCUIT).since
    for _ in range(6):
        pass_over(engine)
        before = clock(engine)
        ask(limits, None)
        breaks.append((row(engine, CIRCUIT).next_at - before).total_seconds())
        after.append((row(engine, CIRCUIT).next_at - clock(engine)).total_seconds())
    expected = [60, 120, 240, 300, 300, 300]
    assert all(least <= known <= most for least, known, most in zip(after, expected, breaks, strict=True))
    assert row(engine, CIRCUIT).since == opened_at


def test_the_failure_of_a_request_that_left_before_lengthens_no_break(engine: Engine) -> None:
    """Eight threads whose requests time out together open the circuit once, for the shortest break."""
    limits = limiter(engine)
    late = [limits.wait(READS) for _ in range(MOST_FAILURES + 8)]
    for failures in late:
        limits.heard(READS, None, failures)
    assert state(engine) == ("open", MOST_FAILURES)
    assert row(engine, CIRCUIT).next_at <= clock(engine) + timedelta(seconds=BREAKS[0])


def test_a_probe_whose_process_died_is_made_good_by_another(engine: Engine) -> None:
    """It holds the right to probe for a minute only."""
    limits = limiter(engine)
    go_down(limits)
    pass_over(engine)
    limits.wait(READS)
    with pytest.raises(Unavailable):
        limits.wait(READS)
    sql(engine, "UPDATE limits SET probe_until = clock_timestamp() WHERE name = 'circuit'")
    ask(limits)
    assert state(engine) == ("closed", 0)


def test_a_probe_without_a_slot_is_left_to_somebody_else(engine: Engine) -> None:
    """The right to probe goes back with the refusal, also when another kind of request asks first."""
    limits = limiter(engine)
    go_down(limits)
    pass_over(engine)
    put_off(engine, PAYS, NEVER)
    with pytest.raises(Unavailable, match="rate limit"):
        limits.wait(PAYS)
    ask(limits)
    assert state(engine) == ("closed", 0)


def test_without_the_database_nothing_is_sent() -> None:
    """Whoever cannot reserve a slot does not ask without one."""
    engine = make_engine("postgresql+psycopg://dunning@127.0.0.1:9/dunning")
    with pytest.raises(OperationalError):
        limiter(engine).wait(READS)
    engine.dispose()


# With the gateway


def ready(serve: Serve, engine: Engine, world: Scripted | None = None) -> Bench:
    """Return a bank with one case whose card has been read and whose charge is planned, asked at a pace."""
    street = serve(world, limiter=limiter(engine))
    opened(engine)
    street.work(START)
    return street


def test_every_request_is_named_without_its_ids(serve: Serve, engine: Engine) -> None:
    """Two invoices share the pace of their endpoint, and no row names one."""
    street = ready(serve, engine)
    street.run()
    assert set(sql(engine, "SELECT name FROM limits")) == {(READS,), (PAYS,), ("get payment_intents",)}


@pytest.mark.parametrize("fault", ["429", "409"])
def test_a_429_slows_down_and_uses_up_no_attempt(serve: Serve, engine: Engine, fault: str) -> None:
    """The charge comes again under the same number; only a rate limit costs its endpoint a second."""
    street = ready(serve, engine)
    street.fault(fault)
    before = clock(engine)
    street.go_on()
    assert (row(engine, PAYS).next_at - before >= timedelta(seconds=1)) == (fault == "429")
    street.run()
    assert [(each.number, each.state) for each in the_attempts(engine)] == [(1, "not_executed"), (1, "succeeded")]
    street.agrees()


def test_a_charge_without_a_turn_is_not_sent_and_uses_up_no_attempt(serve: Serve, engine: Engine) -> None:
    """Minutes later the same step comes again, under the same number."""
    street = ready(serve, engine)
    put_off(engine, PAYS, NEVER)
    now = street.go_on()
    assert now < the_case(engine).due_at < now + HOUR
    assert (the_attempts(engine)[0].error, street.summary["writes"]) == (
        f"rate limit: no turn for post invoices/pay within {LONGEST_WAIT:g} s",
        0,
    )
    put_off(engine, PAYS, timedelta())
    street.run()
    assert [(each.number, each.state) for each in the_attempts(engine)] == [(1, "not_executed"), (1, "succeeded")]
    street.agrees()


def test_an_unknown_outcome_stays_unknown_when_its_repetition_has_no_turn(serve: Serve, engine: Engine) -> None:
    """That nothing is sent now says nothing of the request before: the attempt is settled under its own key."""
    street = ready(serve, engine)
    street.fault("500_before")
    street.go_on()
    put_off(engine, PAYS, NEVER)
    street.go_on()
    [attempt] = the_attempts(engine)
    assert (attempt.state, attempt.settled_at, street.summary["writes"]) == ("unknown", None, 1)
    put_off(engine, PAYS, timedelta())
    street.run()
    assert [each["idempotency_key"] for each in street.ledger] == [attempt.idempotency_key]
    street.agrees()


def test_an_unknown_outcome_stays_unknown_while_the_circuit_is_open(serve: Serve, engine: Engine) -> None:
    """Nothing is read or sent, the case waits; when the provider is back, reading tells that it was paid."""
    street = ready(serve, engine)
    street.fault("500_after")
    now = street.go_on()
    go_down(limiter(engine))
    due = the_case(engine).due_at
    [(number, token)] = street.claim(due)
    with pytest.raises(Unavailable, match="the provider is down"):
        charging.work(street.desk(due), number, token)
    assert due > now
    assert (the_attempts(engine)[0].state, the_case(engine).due_at > due) == ("unknown", True)
    pass_over(engine)
    street.run()
    assert (the_case(engine).state, street.summary["writes"], state(engine)) == ("recovered", 1, ("closed", 0))


@pytest.mark.parametrize("again", [False, True])
def test_a_charge_while_the_circuit_is_open_is_told_by_what_left_before(
    serve: Serve, engine: Engine, again: bool
) -> None:
    """The first request was certainly not executed; of a repetition nobody knows. The bank sees neither."""
    street = ready(serve, engine)
    go_down(limiter(engine))
    outcome = street.desk(START).gateway.pay("in_1", "dunning-k", again=again)
    assert type(outcome) is (Unknown if again else NotNow)
    assert street.summary["writes"] == 0


def test_a_circuit_that_opens_between_two_tries_leaves_the_outcome_unknown(serve: Serve, engine: Engine) -> None:
    """The first try charged and lost its answer as the fifth failure: no second try, and not "not executed"."""
    street = ready(serve, engine)
    for _ in range(MOST_FAILURES - 1):
        limiter(engine).heard(READS, None, 0)
    street.fault("reset_after")
    outcome = street.desk(START).gateway.pay("in_1", "dunning-k")
    assert isinstance(outcome, Unknown)
    assert (state(engine), street.summary["writes"]) == (("open", MOST_FAILURES), 1)


def test_health_tells_whether_the_provider_is_asked(engine: Engine) -> None:
    """Open, probing and closed again, since when, after how many failures; events are taken all the time."""
    limits, seen = limiter(engine), []
    with serving(engine) as web:

        def look() -> None:
            status, body = web.ask("GET", "/healthz")
            provider = json.loads(body)["provider"]
            assert (status, datetime.fromisoformat(provider["since"])) == (200, row(engine, CIRCUIT).since)
            seen.append((provider["state"], provider["failures"]))

        go_down(limits)
        look()
        assert web.send(json.dumps(event()).encode()) == 200
        pass_over(engine)
        failures = limits.wait(READS)
        look()
        limits.heard(READS, 200, failures)
        look()
    assert seen == [("open", 5), ("probing", 5), ("closed", 0)]
