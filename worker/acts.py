"""What is due about cases? They are taken over, read and spoken of; whoever charges is in ``worker.attempts``.

Functions with a ``Connection`` work within one transaction, on cases that it has locked and that its caller saves.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from schedules import Contact
from worker import stops
from worker.cases import Case, lock, one_at_a_time, save, under_way
from worker.desk import DONE_BY_US, Answered, Desk, Held, due, held
from worker.evidence import store_reading
from worker.planning import decide
from worker.speaking import speak

if TYPE_CHECKING:
    from worker.readings import Reading


def begin(db: Connection, desk: Desk, taken: list[Case]) -> list[Held]:
    """Return what is due about cases that were taken over. An attempt without an outcome comes before everything else.

    What was planned is not decided anew here: each act decides again, by what it has read.
    """
    busy = under_way(db, (case.id for case in taken))
    acts = {case.id: _planned(case, busy, desk.now) for case in taken}
    steps = decide(db, [case for case in taken if acts[case.id] == ""], desk.policy, desk.now)
    stopped = stops.reason(db) if "charge" in acts.values() else None
    found: list[Held] = []
    for case in taken:
        act = acts[case.id]
        if case.id in steps:
            found += due(case, steps[case.id], desk.now)
        elif act is None:
            case.let_go()
        elif act == "charge" and stopped:
            stops.hold_back(db, case, stopped, desk.now)
        else:
            found.append(held(case, act))
    return found


def _planned(case: Case, busy: set[int], now: datetime) -> str | None:
    """Return the act that is due, "" where that is to be decided, None where nothing is due."""
    if case.due_at > now:
        return None
    planned = case.step["step"] if case.step else ""
    return "settle" if case.id in busy else planned if planned in DONE_BY_US else ""


def look(desk: Desk, held: Held) -> Reading:
    """Read the provider; before a charge, or where no other engine is wanted, have it not retry by itself."""
    reading = read(desk, held, held.charge_id)
    policy = desk.policy.of(held.arm, held.segment)
    wanted = (held.act == "charge" or policy.hands_off) and policy.take_over and desk.live
    if not (wanted and reading.retried_by_provider):
        return reading
    desk.gateway.stop_retries(held.payment_id, held.account)
    return read(desk, held)


def read(desk: Desk, held: Held, known: str | None = None) -> Reading:
    """Read the provider; ``known``: a refused charge of which no more than its id has to be shown."""
    backups = desk.policy.of(held.arm, held.segment).other_cards
    return desk.gateway.read(held.payment_id, held.account, backups=backups, known=known)


def refreshed(db: Connection, desk: Desk, found: list[Answered]) -> list[Held]:
    """Store what was read, and decide."""
    for each in found:
        store_reading(db, each.case, each.answer, each.held.news, desk.now)
    steps = decide(db, [each.case for each in found], desk.policy, desk.now)
    return [more for each in found for more in due(each.case, steps[each.case.id], desk.now)]


def say(desk: Desk, held: Held) -> list[Held]:
    """Decide again while no other case of the customer can speak, then speak; only then is the cool-down certain."""
    with desk.engine.begin() as db:
        one_at_a_time(db, [held.customer_id])
        case = lock(db, held.case_id, held.token)
        step = decide(db, [case], desk.policy, desk.now)[case.id]
        if isinstance(step, Contact) and step.at <= desk.now:
            speak(db, case, step.notice, desk.policy, desk.now)
            step = decide(db, [case], desk.policy, desk.now)[case.id]
        more = due(case, step, desk.now)
        save(db, [case], desk.lease_seconds)
    return more
