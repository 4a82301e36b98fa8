"""What would a policy have done to the stored cases, and is nothing claimed of it that nobody knows?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from sqlalchemy import Engine

from tests.simulate.builders import CARD, DAY, ENTERED, FUNDS, HOUR, RENEWED, START, failed
from tests.worker.builders import add_attempt, add_case, add_notice, payment, sql
from worker.clock import set_clock
from worker.simulate.fixed import Fixed
from worker.simulate.history import Change, Hindsight, Hindsights, Logged, Notice, Past, hindsight
from worker.simulate.past import past_cases
from worker.simulate.policies import Plan, plan_named

Run = Callable[..., CompletedProcess[str]]
FIXED = plan_named("fixed")
LATER = START + 60 * DAY
MINUTE = timedelta(minutes=1)


def past(*charges: Logged, **changes: object) -> Past:
    """A case of the past in which these charges were answered; it was lost, unless told otherwise."""
    return Past(failed(card=CARD), charges=charges, **changes)  # type: ignore[arg-type]


def seen(*pasts: Past, plan: Plan = FIXED) -> Hindsight:
    """Replay the past under the fixed calendar."""
    return hindsight(plan, pasts, LATER)


def test_a_charge_that_the_log_knows_within_an_hour_is_matched() -> None:
    """An hour later to the second is near, a second more is not; what is unknown counts as refused."""
    log = (Logged(START + DAY + HOUR, CARD, FUNDS), Logged(START + 3 * DAY - HOUR - timedelta(seconds=1), CARD, FUNDS))
    found = seen(past(*log))
    assert (found.charges, found.declined, found.approved, found.unknown) == (8, 1, 0, 7)
    assert (found.low, found.high) == (0, 1)


def test_an_approval_of_the_log_is_known_only_at_its_instant() -> None:
    """At the hour of the third charge it ends the case; six hours away it stays unknown, and may have come or not."""
    won = Logged(START + 5 * DAY + 20 * MINUTE, CARD, None)
    found = seen(past(won, recovered_at=won.at))
    assert (found.charges, found.approved, found.unknown, found.low, found.high) == (3, 1, 2, 1, 1)
    missed = Logged(START + 5 * DAY + 6 * HOUR, CARD, None)
    found = seen(past(missed, recovered_at=missed.at))
    assert (found.approved, found.unknown, found.low, found.high) == (0, 8, 0, 1)


def test_a_charge_of_another_card_is_no_match() -> None:
    """The log knows how the entered card fared, not how the old one would have."""
    assert seen(past(Logged(START + DAY, ENTERED, None))).approved == 0


def test_a_policy_that_asks_and_tells_nobody_has_nothing_unknown() -> None:
    """Then the bounds meet: what did not come back by itself is lost."""
    silent = Plan("nothing", Fixed((), ()))
    found = seen(past(Logged(START + DAY, CARD, None), recovered_at=START + DAY), plan=silent)
    assert (found.charges, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("notices", "low"),
    [
        ((), 1),
        ((Notice(START + DAY, reached=False),), 1),
        ((Notice(START + DAY, reached=True),), 0),
        ((Notice(START + 5 * DAY, reached=True),), 1),
    ],
    ids=["never told", "a notice that did not arrive", "told before", "told after"],
)
def test_what_a_customer_did_untouched_is_certain_and_after_a_notice_it_is_not(
    notices: tuple[Notice, ...], low: int
) -> None:
    """Under a policy that writes to nobody; who had been told before paying might not have paid."""
    silent = Plan("silent", Fixed((), ()))
    found = seen(past(notices=notices, end=("paid", START + 4 * DAY), recovered_at=START + 4 * DAY), plan=silent)
    assert (found.low, found.high) == (low, 1)


def test_what_a_customer_did_after_the_same_notices_is_certain() -> None:
    """The log holds the notices of the calendar; one more before the act, and it is unknown again."""
    told = (Notice(START + 10 * MINUTE, reached=True), Notice(START + 3 * DAY, reached=True))
    paid = past(notices=told, end=("paid", START + 4 * DAY), recovered_at=START + 4 * DAY)
    same = seen(paid, plan=Plan("same", Fixed((), (0, 3))))
    assert (same.low, same.high, same.notices, same.notices_matched) == (1, 1, 2, 2)
    more = seen(paid, plan=Plan("more", Fixed((), (0, 2, 3))))
    assert (more.low, more.high, more.notices, more.notices_matched) == (0, 1, 3, 2)


def test_a_card_of_the_updater_is_there_for_every_policy_and_an_entered_one_only_for_some() -> None:
    """The updater knows of no notices; the customer had been told before entering a card."""
    renewed = past(Logged(START + 3 * DAY, RENEWED, None), changes=(Change(START + 2 * DAY, RENEWED, by_hand=False),))
    assert seen(renewed).low == 1
    entered = past(
        Logged(START + 2 * DAY, ENTERED, None),
        changes=(Change(START + 2 * DAY, ENTERED, by_hand=True),),
        notices=(Notice(START + DAY, reached=True),),
    )
    assert (seen(entered).approved, seen(entered).low) == (0, 0)
    untold = past(*entered.charges, changes=entered.changes)
    assert (seen(untold).approved, seen(untold).low) == (1, 1)


def test_a_retry_of_the_provider_is_no_recovery_of_another_policy() -> None:
    """It was somebody's charge: known at its hour, unknown at every other."""
    won = Logged(START + 4 * DAY, CARD, None, ours=False)
    found = seen(past(won, recovered_at=won.at))
    assert (found.low, found.high) == (0, 1)
    told = Hindsights(LATER, [past(won, recovered_at=won.at)], [found]).really
    assert (told["recovered"], told["charges"]) == (1, 0)


def test_what_lies_ahead_is_no_past() -> None:
    """Ten days after the failure a policy has made five of its charges, sent three notices and lost nothing yet."""
    now = START + 10 * DAY
    found = hindsight(FIXED, [past()], now)
    assert (found.charges, found.unknown, found.notices) == (5, 5, 3)
    both = Hindsights(now, [past(), Past(failed(2, failed_at=START - 21 * DAY))], [found])
    assert both.unfinished == 1


def test_violations_of_the_past_are_judged_as_those_of_a_world() -> None:
    """An American Express card at three in the morning of New York, nine uses in a fortnight."""
    night = failed(failed_at=START.replace(hour=8), card=replace(CARD, brand="amex"))
    found = seen(Past(night))
    assert (found.closed, found.budget, found.never) == (8, 1, 0)


# The rows


def stored(engine: Engine) -> int:
    """Store a case that a charge on the updated card won: refusal, foreign refusal, renewal, approval."""
    one = payment()
    case = add_case(
        engine,
        failed_at=START,
        decline=asdict(FUNDS),
        failed_card=asdict(CARD),
        card=asdict(RENEWED),
        state="recovered",
        ended="paid",
        due_at=None,
        closed_at=START + 5 * DAY,
        recovered_by="card_update",
        time_zone=one.time_zone,
    )
    own = {"card": asdict(CARD), "decline": asdict(FUNDS), "settled_at": START}
    add_attempt(engine, case, state="declined", at=START + DAY, **own)
    add_attempt(engine, case, number=2, idempotency_key="ch_9", state="foreign", at=START + 2 * DAY, **own)
    add_attempt(engine, case, number=3, idempotency_key="k2", state="not_executed", at=START + 3 * DAY, **own)
    won = {**own, "card": asdict(RENEWED), "decline": None}
    add_attempt(engine, case, number=3, idempotency_key="k3", state="succeeded", at=START + 5 * DAY, **won)
    detail = json.dumps({"outcome": "updated", "by_hand": False})
    sql(
        engine,
        "INSERT INTO history (case_id, at, what, detail) VALUES (:id, :at, 'refreshed', CAST(:detail AS jsonb))",
        id=case,
        at=START + 4 * DAY,
        detail=detail,
    )
    add_notice(engine, case, at=START + 4 * DAY, delivered_at=START + 4 * DAY, due_at=None)
    add_notice(engine, case, name="thanks", at=START + 6 * DAY, delivered_at=START + 6 * DAY, due_at=None)
    return case


def test_the_rows_of_a_case_become_its_past(engine: Engine) -> None:
    """Answered charges, the change of the card, and the notices of the ladder; what was not executed is none."""
    stored(engine)
    with engine.connect() as db:
        [found] = past_cases(db)
    assert found.charges == (
        Logged(START + DAY, CARD, FUNDS),
        Logged(START + 2 * DAY, CARD, FUNDS, ours=False),
        Logged(START + 5 * DAY, RENEWED, None),
    )
    assert found.changes == (Change(START + 4 * DAY, RENEWED, by_hand=False),)
    assert found.notices == (Notice(START + 4 * DAY, reached=True),)
    assert (found.end, found.recovered_at) == (None, START + 5 * DAY)


@pytest.mark.parametrize(
    ("ended", "state", "means", "end"),
    [
        ("paid", "recovered", "customer", ("paid", START + 2 * DAY)),
        ("paid", "recovered", "after_contact", ("paid", START + 2 * DAY)),
        ("paid", "recovered", "provider", None),
        ("canceled", "canceled", None, ("cancel", START + 2 * DAY)),
        ("disputed", "released", None, ("cancel", START + 2 * DAY)),
        (None, "lost", None, None),
    ],
)
def test_how_a_case_ended_is_told_by_who_ended_it(
    engine: Engine, ended: str | None, state: str, means: str | None, end: tuple[str, object] | None
) -> None:
    """The customer, the provider's own retry as an approved charge, or our deadline, which is nobody's act."""
    closed = {"state": state, "ended": ended, "recovered_by": means, "due_at": None, "closed_at": START + 2 * DAY}
    add_case(engine, failed_at=START, failed_card=asdict(CARD), card=asdict(CARD), **closed)
    with engine.connect() as db:
        [found] = past_cases(db)
    assert found.end == end
    provider = (Logged(START + 2 * DAY, CARD, None, ours=False),) if means == "provider" else ()
    assert found.charges == provider


def test_the_command_tells_what_was_and_what_might_have_been(run: Run, engine: Engine, tmp_path: Path) -> None:
    """As text and as JSON, of the rows of this database; without cases it says so."""
    clock = tmp_path / "clock"
    set_clock(clock, LATER)
    history = ("simulate", "--history", "--policy", "fixed")
    assert run(*history, DUNNING_CLOCK_FILE=str(clock)).stdout.splitlines() == ["0 stored cases", "No cases."]
    stored(engine)
    told = json.loads(_again(run, clock, *history, "--json"))
    assert told["really"] == {"cases": 1, "charges": 2, "recovered": 1, "recovered_share": 1.0, "notices": 1}
    [fixed] = told["policies"]
    assert (told["unfinished"], fixed["charges"], fixed["unknown"]) == (0, 3, 1)
    assert fixed["matched"] == {"approved": 1, "declined": 1}
    assert fixed["recovered_share"] == {"low": 1.0, "high": 1.0}
    text = _again(run, clock, *history)
    assert "100.0% to 100.0%" in text
    assert "Unknown is unknown" in text


def _again(run: Run, clock: Path, *arguments: str) -> str:
    return run(*arguments, DUNNING_CLOCK_FILE=str(clock)).stdout
