"""Does the simulator take the steps that the worker takes, and does it know them again in the worker's rows?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select

from schedules import Policy
from tests.conftest import start_afresh
from tests.stories.month import Month, a_month
from worker.models import cases
from worker.practice.world import BuiltInWorld
from worker.simulate import Played, play
from worker.simulate.history import Hindsights, Past, hindsight
from worker.simulate.past import past_cases
from worker.simulate.policies import plan_named

SEED, PAYMENTS, DAYS = 1, 100, 34


@dataclass
class Course:
    """What anybody outside could see of one payment: charges with their answers, notices, and the end."""

    charges: list[tuple[datetime, int, str | None]] = field(default_factory=list)
    notices: list[tuple[datetime, str]] = field(default_factory=list)
    end: tuple[str, datetime, str | None] | None = None


class Quiet(Month):
    """A month that is asked for its courses at the end only."""

    def _look(self, now: datetime) -> None:
        """Keep no diary."""


def simulated(played: Iterable[Played]) -> dict[str, Course]:
    """Return the course of every payment in the simulator."""
    return {
        each.payment.payment_id: Course(
            [(one.step.at, one.step.attempt, one.decline.code if one.decline else None) for one in each.tries],
            each.contacts,
            (each.outcome, each.closed_at, each.means) if each.closed_at else None,
        )
        for each in played
    }


def worked(month: Month) -> dict[str, Course]:
    """Return the course of every payment as the bank, the mailbox and the database saw it."""
    courses: dict[str, Course] = defaultdict(Course)
    for each in month.charges:
        if each["by"] == "merchant":
            charges = courses[each["invoice"]].charges
            charges.append((datetime.fromisoformat(each["at"]), len(charges) + 1, each["code"]))
    for at, payment_id, effect in month.seen:
        if effect.startswith("notice "):
            courses[payment_id].notices.append((at, effect.removeprefix("notice ")))
    with month.engine.connect() as db:
        for row in db.execute(select(cases)):
            courses[row.payment_id].end = (row.state, row.closed_at, row.recovered_by)
    return courses


@dataclass
class Real:
    """What the real worker did: the course of every payment, its past as the rows tell it, and when that was read."""

    courses: dict[str, Course]
    pasts: list[Past]
    now: datetime


@pytest.fixture(scope="module")
def real(migrated: Engine, tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Play a month of the real worker against the practice bank."""
    start_afresh(migrated)
    world, folder = BuiltInWorld(SEED, PAYMENTS, DAYS), tmp_path_factory.mktemp("month")
    with a_month(migrated, folder, world, policy=Policy.default(), kind=Quiet) as month:
        month.play(DAYS + 2)
        courses, now = worked(month), month.clock[0] + timedelta(days=30)
    with migrated.connect() as db:
        return Real(courses, past_cases(db), now)


def test_the_simulator_and_the_worker_take_the_same_steps(real: Real) -> None:
    """Every charge at the same instant with the same answer, every notice, and the same end of each of 100 payments."""
    plan = plan_named("default")
    courses = simulated(play(BuiltInWorld(SEED, PAYMENTS, DAYS), plan.decide, cooldown=plan.cooldown))
    assert len(courses) == PAYMENTS
    assert {course.end[0] for course in courses.values() if course.end} >= {"recovered", "lost", "canceled"}
    assert real.courses == courses


def test_the_policy_that_really_ran_matches_everything_it_did(real: Real) -> None:
    """The stored cases, replayed under their own policy: nothing is unknown, and the bounds meet at the truth."""
    really = Hindsights(real.now, real.pasts, []).really
    found = hindsight(plan_named("default"), real.pasts, real.now)
    assert (found.charges, found.unknown) == (really["charges"], 0)
    assert found.low == found.high == really["recovered"] > 0
    assert found.notices == found.notices_matched == really["notices"] > 0


def test_of_a_policy_that_did_not_run_bounds_are_told(real: Real) -> None:
    """The fixed calendar would have charged when nobody did: what is certain of it lies below what may have been."""
    really, found = Hindsights(real.now, real.pasts, []).really, hindsight(plan_named("fixed"), real.pasts, real.now)
    assert found.unknown > found.approved + found.declined
    assert found.low < really["recovered"] < found.high
