"""Does virtual time go as the protocol says, and does the fixed rival do what everybody does?"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from schedules import Charge, Facts, Step
from tests.simulate.builders import CARD, DAY, FUNDS, HOUR, LOST, RENEWED, START, Written, failed, played
from worker.simulate import NoEnd, play
from worker.simulate.fixed import Fixed

FORBIDDEN = ("sqlalchemy", "psycopg", "celery", "kombu", "redis", "requests", "urllib3", "stripe", "http.client", "ssl")


def test_the_simulator_loads_neither_database_nor_queue_nor_network() -> None:
    """Importing it, its rival, figures and the built-in world brings in none of their modules."""
    code = (
        "import sys; import worker.simulate.compare, worker.simulate.fixed, worker.practice.worlds\n"
        "from worker.practice.world import BuiltInWorld\n"
        f"print([name for name in {FORBIDDEN!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_world_is_asked_in_time_order_and_closed_once() -> None:
    """Of two payments that overlap, each is asked later and later, until the last case has ended."""
    world = Written([failed(), failed(2, failed_at=START + 5 * HOUR)])
    assert [each.outcome for each in played(world, "default")] == ["lost", "lost"]
    instants = [at for _, _, at in world.asked]
    assert len(instants) > 10
    assert instants == sorted(instants)
    assert world.closed == 1


def test_a_world_is_closed_although_its_play_ends_early() -> None:
    """Who stops asking closes it, too."""
    world = Written([failed(), failed(2)])
    some = play(world, Fixed())
    next(some)
    some.close()
    assert world.closed == 1


def test_a_policy_that_never_comes_to_an_end_is_named_with_its_payment() -> None:
    """A charge again and again at the same instant is no month that anybody waits for."""

    def always(facts: Facts, now: datetime) -> Step:
        return Charge(now, len(facts.attempts) + 1)

    with pytest.raises(NoEnd, match="in_1: no end"):
        list(play(Written(), always))


def test_the_fixed_rival_charges_eight_times_in_two_weeks_at_the_hour_of_the_failure() -> None:
    """And it writes on days 0, 3, 7 and 14; then the invoice lies open until day 28."""
    [one] = played(Written())
    assert [(each.step.at - START) / DAY for each in one.tries] == [1, 3, 5, 7, 9, 11, 13, 14]
    assert [((at - START) / DAY, name) for at, name in one.contacts] == [
        (0, "first"),
        (3, "reminder"),
        (7, "second_reminder"),
        (14, "last_chance"),
    ]
    assert (one.outcome, one.closed_at) == ("lost", START + 28 * DAY)


def test_the_fixed_rival_stops_charging_after_a_refusal_for_good_until_the_card_changes() -> None:
    """A lost card is tried once; the one that the customer enters on day 6 is charged at once, then by the calendar."""
    acts = {"in_1": [("card", START + 6 * DAY + HOUR)]}
    [one] = played(Written(answers={"in_1": [FUNDS, LOST, FUNDS]}, acts=acts))
    assert [(each.step.at - START) / DAY for each in one.tries][:2] == [1, 3]
    assert one.tries[2].step.at == START + 6 * DAY + HOUR
    assert one.tries[3].step.at == START + 7 * DAY


def test_the_fixed_rival_leaves_cards_of_india_alone_as_providers_do() -> None:
    """They are never charged again; the customer is written to all the same."""
    [one] = played(Written([failed(card=replace(CARD, country="IN"))]))
    assert (one.tries, len(one.contacts)) == ([], 4)


def test_a_fixed_calendar_may_keep_an_hour_of_the_card() -> None:
    """At two in the morning of New York, whatever the hour of the failure."""
    [one] = list(play(Written(), Fixed((3, 5), (), hour=2)))
    assert [each.step.at.isoformat() for each in one.tries] == [
        "2026-01-15T07:00:00+00:00",
        "2026-01-17T07:00:00+00:00",
    ]
    assert one.contacts == []


@pytest.mark.parametrize("policy", ["default", "fixed"])
def test_a_customer_who_pays_or_leaves_ends_the_case_at_that_instant(policy: str) -> None:
    """Nothing is charged or said after it."""
    at = START + 2 * DAY + HOUR
    for act, outcome in (("paid", "recovered"), ("cancel", "canceled")):
        world = Written(acts={"in_1": [(act, at)]})
        [one] = played(world, policy)
        assert (one.outcome, one.closed_at) == (outcome, at)
        assert all(when <= at for _, _, when in world.asked)


def test_what_brought_the_money_back_is_told_in_the_order_of_the_report() -> None:
    """Updater before contact, contact before silence; alone is who pays without a word of ours."""

    class Renewing(Written):
        """Its updater renews the card an hour after the failure."""

        def card(self, payment_id: str, at: datetime) -> object:  # type: ignore[override]
            """Return the renewed card."""
            return RENEWED if at > START + HOUR else super().card(payment_id, at)

    def means(world: Written, policy: str = "default") -> str | None:
        [one] = played(world, policy)
        return one.means

    assert means(Written(answers={"in_1": [None]})) == "silent_retry"
    assert means(Written(answers={"in_1": [None]}), "fixed") == "after_contact"
    assert means(Renewing(answers={"in_1": [None]}), "fixed") == "card_update"
    assert means(Written(acts={"in_1": [("paid", START + DAY)]})) == "customer"
    assert means(Written(acts={"in_1": [("card", START + timedelta(days=1))]}, answers={"in_1": [None]})) == "customer"
