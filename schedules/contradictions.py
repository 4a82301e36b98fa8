"""Which choices of a policy are void, because other choices of the same policy outlive or overrule them?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from schedules.declines import TABLE, DeclineClass
from schedules.facts import hours
from schedules.hours import next_open
from schedules.places import ZONES_OF_COUNTRY, place_of
from schedules.policy import Policy

SUNDAY = datetime(2026, 10, 25, tzinfo=UTC)  # any day would do


def contradictions(policy: Policy) -> Iterator[str]:
    """Yield every choice of a policy that another one of its choices makes void, as ``key: why``."""
    yield from _void_rungs(policy)
    if policy.rival is not None and not policy.experiment.rival_percent:
        yield "rival: nobody follows it while experiment.rival_percent is 0"
    if max(policy.hold_hours, default=0) >= policy.deadline_days * 24:
        yield f"hold_hours: {policy.hold_hours[-1]} h are over only after the deadline of {policy.deadline_days} days"
    for name, gaps in policy.gaps_hours.items():
        least = _least_wait(policy, DeclineClass(name)) // hours(1)
        for number, gap in enumerate(gaps):
            if gap < least:
                yield f"gaps_hours.{name}[{number}]: {gap} h never count, every code of the class asks for {least} h"
            if gap >= policy.deadline_days * 24:
                yield f"gaps_hours.{name}[{number}]: {gap} h are over only after the deadline"
    for name, window in policy.windows.items():
        if any(next_open(SUNDAY, window, place_of(country, None), 0) is None for country in ZONES_OF_COUNTRY):
            yield f"windows.{name}: never opens in some countries"


def _void_rungs(policy: Policy) -> Iterator[str]:
    last = timedelta(0)
    for number, rung in enumerate(policy.ladder):
        day = timedelta(days=rung.day)
        if timedelta(days=policy.silent_days) + day >= timedelta(days=policy.deadline_days):
            yield f"ladder[{number}]: day {rung.day} after {policy.silent_days} silent days is not before the deadline"
        if number and day - last < hours(policy.cooldown_hours):
            yield f"ladder[{number}]: day {rung.day} comes within the cool-down of {policy.cooldown_hours} h"
        last = day


def _least_wait(policy: Policy, decline_class: DeclineClass) -> timedelta:
    """Return the shortest wait that a card's decline code of this class asks for."""
    rows = {**TABLE, **{(row.source, row.code): row for row in policy.overrides}}.values()
    return min(row.wait for row in rows if row.source == "stripe_card" and row.decline_class is decline_class)
