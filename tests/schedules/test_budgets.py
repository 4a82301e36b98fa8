"""Is a card charged as often as its network allows, and not once more?"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from schedules.budgets import Limit, free_from
from tests.schedules.builders import DAY, FAILED, HOUR, MINUTE

DAILY = Limit(3, 24)


def hourly(count: int) -> tuple[datetime, ...]:
    """So many uses, an hour apart, the first at the failure."""
    return tuple(FAILED + number * HOUR for number in range(count))


def test_a_card_without_limits_is_free_at_once() -> None:
    """Not every brand publishes one."""
    assert free_from(FAILED, hourly(40), ()) == FAILED


def test_below_its_limit_a_card_is_free_at_once() -> None:
    """The last charge of a budget is a charge like any other."""
    assert free_from(FAILED + 2 * HOUR, hourly(2), [DAILY]) == FAILED + 2 * HOUR


def test_a_spent_budget_frees_when_its_oldest_use_leaves_the_window() -> None:
    """It yields a later instant, not an error."""
    assert free_from(FAILED + 3 * HOUR, hourly(3), [DAILY]) == FAILED + DAY


@pytest.mark.parametrize("early", [MINUTE, 0 * MINUTE])
def test_a_use_counts_until_the_window_is_over_to_the_minute(early: timedelta) -> None:
    """A day later it is gone; a minute before that it is not."""
    assert free_from(FAILED + DAY - early, hourly(3), [DAILY]) == FAILED + DAY


def test_overspent_by_others_it_waits_for_enough_uses_to_leave() -> None:
    """Five uses where three are allowed: the third latest decides."""
    assert free_from(FAILED + 5 * HOUR, hourly(5), [DAILY]) == FAILED + 2 * HOUR + DAY


def test_the_strictest_of_several_limits_decides() -> None:
    """Whichever frees last."""
    assert free_from(FAILED + 3 * HOUR, hourly(3), [DAILY, Limit(1, 2), Limit(3, 720)]) == FAILED + 30 * DAY


def test_the_order_of_the_uses_does_not_matter() -> None:
    """They come from several cases."""
    uses = hourly(4)
    assert free_from(FAILED + DAY / 2, uses[::-1], [DAILY]) == free_from(FAILED + DAY / 2, uses, [DAILY])


@pytest.mark.parametrize(("attempts", "hours"), [(0, 24), (1, 0), (-1, 24), (1, 721)])
def test_a_limit_that_cannot_be_kept_is_refused(attempts: int, hours: int) -> None:
    """No charge at all is no limit, and uses are remembered for 30 days."""
    with pytest.raises(ValueError, match="a limit needs"):
        Limit(attempts, hours)


def test_a_limit_counts_only_while_it_is_in_force() -> None:
    """Not before its first day, still on its last, not after it."""
    day = FAILED.date()
    spent = hourly(3)
    at = FAILED + 3 * HOUR
    assert free_from(at, spent, [Limit(3, 24, since=day)]) == FAILED + DAY
    assert free_from(at, spent, [Limit(3, 24, until=day)]) == FAILED + DAY
    assert free_from(at, spent, [Limit(3, 24, since=(FAILED + 2 * DAY).date())]) == at
    assert free_from(at, spent, [Limit(3, 24, until=(FAILED - DAY).date())]) == at


def test_a_limit_that_comes_into_force_on_the_way_is_kept() -> None:
    """Waiting for one limit leads into the first day of a stricter one."""
    stricter = Limit(1, 48, since=(FAILED + DAY).date())
    assert free_from(FAILED + 3 * HOUR, hourly(3), [DAILY, stricter]) == FAILED + 2 * HOUR + 2 * DAY
