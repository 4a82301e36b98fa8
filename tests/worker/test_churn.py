"""Is churn counted to the customer and the cent? By hand, on the nineteen subscriptions of ``town.py``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from sqlalchemy import Engine

from schedules.arms import Experiment
from tests.worker.builders import sql
from tests.worker.town import NOW, SAID, add_subscription, give_up, settle
from worker.churn import Churn, make_churn, spreadsheet
from worker.churn.charts import months
from worker.churn.counts import course
from worker.churn.sql import DIMENSIONS, KINDS, Period, Question, period
from worker.clock import set_clock
from worker.intervals import newcombe, wilson
from worker.report.sql import day_named

Operate = Callable[..., CompletedProcess[str]]
NOVEMBER = Period(datetime(2025, 11, 1, tzinfo=UTC), datetime(2025, 12, 1, tzinfo=UTC))
BASIC = ("usd", 1000, "basic", "US", "card")


@pytest.fixture
def town(engine: Engine) -> Engine:
    """Give a database with the town in it."""
    settle(engine)
    return engine


def ask(engine: Engine, now: datetime = NOW, of: Period | None = None, **question: Any) -> Churn:
    """Return the churn of a period; without one, of January."""
    with engine.connect() as db:
        return make_churn(db, now, Question(of or period(NOW), **question))


def lost_of(engine: Engine) -> dict[str, int]:
    """Return the customers lost in January, by the kinds that there are."""
    return {kind: count for kind, count in ask(engine).total.lost.items() if count}


# What is counted


def test_the_whole_is_counted_to_the_customer_and_the_cent(town: Engine) -> None:
    """Every figure as one can count it in the table.

    Active on January 1st are the lines 1 to 10, 15 and 19: 12 subscriptions. Of these 7 and 8 are one customer's, and
    ``cus_1`` of the other account is another customer than ours: 11 customers.
    Lost by February 1st are the lines 2, 3, 4, 5, 6, 8, 10, 15, 19: 9. ``cus_7`` keeps line 7 and ``cus_14`` has line
    16: 2 contracted. The other 7 are gone: 2, 10 and 19 chose to; 3 by the provider, 5 by us, 6 given up: a payment;
    4 by a dispute.
    """
    told = ask(town).as_json()["total"]
    value, kinds = told.pop("value"), told.pop("kinds")
    assert told == {
        "group": "all",
        "customers": 11,
        "lost": 7,
        "share": 0.6364,  # 7 / 11
        "interval": tuple(round(end, 4) for end in wilson(7, 11) or ()),
        "contracted": 2,
        "subscriptions": 12,
        "subscriptions_lost": 9,
        "unpriced": 1,  # line 10
        "unpriced_lost": 1,
    }
    assert {kind: (each["lost"], each["share"]) for kind, each in kinds.items()} == {
        "voluntary": (3, 0.2727),
        "involuntary": (3, 0.2727),
        "disputed": (1, 0.0909),
        "other": (0, 0.0),
    }
    assert value == {
        "usd": {
            "customers": 7,  # cus_1, 2, 3, 5, 7, 9 and the other cus_1
            "customers_lost": 5,  # cus_2, 3, 5, 9 and the other cus_1
            "start": 7500,  # 1000 + 2000 + 1000 + 1000 + 1000 + 500 + 1000: lines 1, 2, 3, 5, 7, 8, 19
            "lost": 5500,
            "share": 0.7333,  # 5500 / 7500
            "voluntary": 3500,  # 2000 + 500 + 1000: lines 2, 8, 19
            "involuntary": 2000,  # 1000 + 1000: lines 3, 5
            "disputed": 0,
            "other": 0,
            "contracted": 500,  # line 8
        },
        "eur": {
            "customers": 3,
            "customers_lost": 2,
            "start": 5500,  # 1500 + 2500 + 1500: lines 4, 6, 15; line 16 began later
            "lost": 5500,
            "share": 1.0,
            "voluntary": 1500,  # line 15
            "involuntary": 2500,  # line 6
            "disputed": 1500,  # line 4
            "other": 0,
            "contracted": 1500,
        },
        "jpy": {
            **dict.fromkeys((*KINDS, "lost", "customers_lost", "contracted"), 0),
            "customers": 1,
            "start": 980,
            "share": 0.0,  # line 9 left in February
        },
    }


def test_what_nobody_can_say_is_counted_apart_and_named(town: Engine) -> None:
    """Lines 11, 12, 13, 17, and line 14, which began and ended within January; none is in a share."""
    assert ask(town).apart == {"gone": 1, "trialing": 1, "never_began": 1, "ends_ahead": 1, "within": 1}


GROUPS = {
    "kind": [("voluntary", 11, 3), ("involuntary", 11, 3), ("disputed", 11, 1)],
    "tenure": [("0 to 3 months", 5, 2), ("3 to 12 months", 4, 3), ("over 12 months", 2, 2)],
    "plan": [("basic", 8, 4), ("pro", 2, 2), ("metered", 1, 1), ("addon", 0, 0)],
    "country": [("US", 6, 4), ("DE", 3, 2), ("JP", 1, 0), ("unknown", 1, 1)],
    "method": [("card", 10, 6), ("sepa_debit", 1, 1)],
    "reason": [
        ("involuntary", 11, 3),
        ("nothing said", 11, 1),
        ("disputed", 11, 1),
        ("too_expensive", 11, 1),
        ("unused", 11, 1),
        ("switched_service", 11, 0),  # of line 15, whose customer is still there
    ],
    "arm": [("a", 11, 7)],
}


@pytest.mark.parametrize("by", list(DIMENSIONS))
def test_groups_are_told_apart_and_add_up_to_the_whole(town: Engine, by: str) -> None:
    """The groups as counted by hand, in order; who left, and every amount, is that of the whole once added up."""
    found = ask(town, by=by)
    assert [(each.group, each.customers, each.lost_count) for each in found.groups] == GROUPS[by]
    for name in ("lost_count", "contracted", "subscriptions_lost", "unpriced_lost"):
        assert sum(getattr(each, name) for each in found.groups) == getattr(found.total, name)
    for currency, total in found.total.value.items():
        own = [each.value[currency] for each in found.groups if currency in each.value]
        assert {kind: sum(each.lost[kind] for each in own) for kind in KINDS} == total.lost
        if DIMENSIONS[by].base:
            assert sum(each.start for each in own) == total.start


def test_what_leavers_said_is_counted_by_tenure_and_plan(town: Engine) -> None:
    """One line for each: the feedback, the provider's reason, how long they had paid, and for what."""
    voluntary = [each for each in ask(town).reasons if each.kind == "voluntary"]
    assert {(each.feedback, each.reason, each.tenure, each.plan, each.subscriptions) for each in voluntary} == {
        ("switched_service", SAID, "3 to 12 months", "basic", 1),
        ("too_expensive", SAID, "3 to 12 months", "pro", 1),
        ("unused", SAID, "3 to 12 months", "metered", 1),
        (None, SAID, "0 to 3 months", "basic", 1),
        (None, None, "0 to 3 months", "addon", 1),
    }


def test_an_earlier_period_is_compared_with_an_interval(town: Engine) -> None:
    """On November 1st 9 customers were there, of the lines 2, 3, 4, 6, 7, 9, 10, 15 and 18; 18 was lost."""
    found = ask(town, before=NOVEMBER)
    assert found.before
    assert (found.before.customers, found.before.lost["involuntary"], found.before.lost_count) == (9, 1, 1)
    told = {each.kind: (each.points, each.interval) for each in found.changes}
    assert {kind: points for kind, (points, _) in told.items()} == {
        "all": 52.53,  # 7 / 11 - 1 / 9
        "voluntary": 27.27,  # 3 / 11 - 0 / 9
        "involuntary": 16.16,  # 3 / 11 - 1 / 9
    }
    low, high = newcombe((3, 11), (1, 9)) or (0, 0)
    assert told["involuntary"][1] == (round(100 * low, 2), round(100 * high, 2))


def test_arms_are_drawn_as_the_policy_draws_them_and_compared_with_the_control(engine: Engine) -> None:
    """The database's hash is the one of the policy, for every customer; each arm less those who are left alone."""
    drawn = Experiment("spring", 20, "provider", 30)
    names = [f"cus_{number}é" for number in range(300)]
    for number, name in enumerate(names):
        ended = "2026-01-15" if number % 3 == 0 else None
        add_subscription(engine, number, name, *BASIC, "2025-01-01", ended, "active", "payment_failed", None)
    found = ask(engine, by="arm", experiment=drawn)
    left = [name for number, name in enumerate(names) if number % 3 == 0]
    assert {each.group: (each.customers, each.lost_count) for each in found.arms} == {
        arm: (sum(drawn.arm_of(name) == arm for name in names), sum(drawn.arm_of(name) == arm for name in left))
        for arm in ("a", "b", "control")
    }
    assert {each.group: each.customers for each in found.groups} == {each.group: each.customers for each in found.arms}
    a, control = found.arms[0].share(), found.arms[2].share()
    effect = next(each for each in found.effects if (each.of, each.kind) == ("a", "involuntary"))
    assert effect.points == round(100 * (a.part / a.whole - control.part / control.whole), 2)
    assert [(each.of, each.over) for each in found.effects[::3]] == [("a", "control"), ("b", "control")]


def test_without_an_experiment_there_are_no_arms(town: Engine) -> None:
    """Nothing to compare."""
    assert (ask(town).arms, ask(town).effects) == ((), [])


# When, and why


def test_the_instant_of_the_end_belongs_to_the_period_and_that_of_its_start_does_not(engine: Engine) -> None:
    """Who ends with January is lost in it, and was not there in February."""
    february = period(NOW).end
    for number, moment in enumerate((february - timedelta(seconds=1), february, february + timedelta(seconds=1))):
        row = (number, f"cus_{number}", *BASIC, "2025-05-01", None, "canceled", SAID, None)
        add_subscription(engine, *row, ended_at=moment)
    march = Period(february, february + timedelta(days=28))
    assert (ask(engine).total.customers, ask(engine).total.lost_count) == (3, 2)
    assert (ask(engine, of=march).total.customers, ask(engine, of=march).total.lost_count) == (1, 1)


@pytest.mark.parametrize(
    ("closed", "kind"),
    [("2026-01-18", "involuntary"), ("2026-01-20", "involuntary"), ("2026-01-17", "voluntary")],
)
def test_an_end_by_our_own_worker_was_no_wish_of_the_customer(engine: Engine, closed: str, kind: str) -> None:
    """A case that ended in vain at most two days before; one of long ago has nothing to do with it."""
    add_subscription(engine, 1, "cus_1", *BASIC, "2025-01-01", "2026-01-20", "canceled", SAID, None)
    give_up(engine, 1, closed)
    assert lost_of(engine) == {kind: 1}


def test_a_case_that_ended_as_disputed_makes_a_dispute_unless_another_came_after(engine: Engine) -> None:
    """It is the last word about the subscription, or it is history."""
    add_subscription(engine, 1, "cus_1", *BASIC, "2025-01-01", "2026-01-20", "canceled", SAID, None)
    give_up(engine, 1, "2026-01-10", state="released", ended="disputed")
    assert lost_of(engine) == {"disputed": 1}
    give_up(engine, 1, "2026-01-15", state="recovered", ended="paid")
    assert lost_of(engine) == {"voluntary": 1}


@pytest.mark.parametrize(
    ("status", "lost"),
    [("past_due", {"involuntary": 1}), ("unpaid", {"involuntary": 1}), ("paused", {"involuntary": 1}), ("active", {})],
)
def test_what_was_given_up_and_goes_on_unpaid_is_lost(engine: Engine, status: str, lost: dict[str, int]) -> None:
    """One that is active again has paid, or has been forgiven."""
    add_subscription(engine, 1, "cus_1", *BASIC, "2025-01-01", None, status, None, None)
    give_up(engine, 1, "2026-01-10")
    assert lost_of(engine) == lost


def test_what_was_given_up_several_times_is_lost_once_at_the_first_since_it_paid(engine: Engine) -> None:
    """The case of last spring was followed by one that came back; those of December and January were not."""
    add_subscription(engine, 1, "cus_1", *BASIC, "2025-01-01", None, "past_due", None, None)
    give_up(engine, 1, "2025-03-10")
    give_up(engine, 1, "2025-05-10", state="recovered")
    assert lost_of(engine) == {}
    give_up(engine, 1, "2026-01-10")
    assert lost_of(engine) == {"involuntary": 1}
    give_up(engine, 1, "2026-01-11")
    assert (lost_of(engine), ask(engine).total.subscriptions_lost) == ({"involuntary": 1}, 1)
    give_up(engine, 1, "2025-12-10")
    assert (lost_of(engine), ask(engine).total.customers) == ({}, 0)


def test_a_reason_of_the_providers_own_is_no_guess(engine: Engine) -> None:
    """It is neither a wish nor a payment, and is told as the provider has it."""
    add_subscription(engine, 1, "cus_1", *BASIC, "2025-01-01", "2026-01-20", "canceled", "canceled_by_policy", None)
    assert lost_of(engine) == {"other": 1}
    assert [each.group for each in ask(engine, by="reason").groups] == ["canceled_by_policy"]


def test_who_changes_the_subscription_stays_and_who_loses_the_last_one_is_lost_by_it(engine: Engine) -> None:
    """Two end in January, the later one for a payment; with a third that begins meanwhile the customer stays."""
    add_subscription(engine, 1, "cus_1", *BASIC, "2025-01-01", "2026-01-10", "canceled", SAID, None)
    add_subscription(engine, 2, "cus_1", *BASIC, "2025-01-01", "2026-01-20", "canceled", "payment_failed", None)
    assert lost_of(engine) == {"involuntary": 1}
    add_subscription(engine, 3, "cus_1", *BASIC, "2026-01-15", None, "active", None, None)
    total = ask(engine).total
    assert (total.lost_count, total.contracted, total.value["usd"].contracted) == (0, 1, 2000)


def test_months_of_tenure_are_those_of_the_calendar(engine: Engine) -> None:
    """Three months after November 30th is February 28th; a day before it is not three yet."""
    february = Period(datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC))
    for number, ended in enumerate(("2026-02-27", "2026-02-28")):
        row = (number, f"cus_{number}", *BASIC, "2025-11-30", ended, "canceled", SAID, None)
        add_subscription(engine, *row)
    found = ask(engine, datetime(2026, 3, 5, tzinfo=UTC), february, by="tenure")
    assert [(each.group, each.customers, each.lost_count) for each in found.groups] == [
        ("0 to 3 months", 2, 1),
        ("3 to 12 months", 0, 1),
    ]
    crossed = found.groups[1].share()
    assert (crossed.part, crossed.value, crossed.interval) == (1, None, None)


def test_nobody_there_divides_by_nothing(engine: Engine) -> None:
    """No share, no group, no change."""
    found = ask(engine, by="plan", before=NOVEMBER)
    told = found.as_json()
    assert (told["total"]["share"], told["groups"], told["changes"], told["total"]["value"]) == (None, [], [], {})
    assert len(spreadsheet.table(found).splitlines()) == 2


def test_a_period_is_final_when_it_is_over(town: Engine) -> None:
    """Until then more may leave."""
    end = period(NOW).end
    assert (ask(town, end).final, ask(town, end - timedelta(seconds=1)).final) == (True, False)


@pytest.mark.parametrize(
    ("begin", "end", "told"),
    [
        (None, None, {"from": "2026-01-01", "to": "2026-02-01"}),
        ("2025-12-31", None, {"from": "2025-12-31", "to": "2026-01-31"}),
        (None, "2025-03-31", {"from": "2025-02-28", "to": "2025-03-31"}),
    ],
)
def test_a_period_is_a_month_unless_it_is_told(begin: str | None, end: str | None, told: dict[str, str]) -> None:
    """Of nothing, the last full month; of one day, a month from it."""
    first, last = (day_named(day) if day else None for day in (begin, end))
    assert period(NOW, first, last).as_json() == told


# How it is told


def test_each_month_counts_what_the_report_of_that_month_counts(town: Engine) -> None:
    """The last twelve full ones; the picture has as many as the table."""
    with town.connect() as db:
        found = course(db, NOW)
    assert (found[0].begins, found[-1].begins, len(found)) == (date(2025, 2, 1), date(2026, 1, 1), 12)
    for month in found:
        begin = datetime.combine(month.begins, datetime.min.time(), UTC)
        assert month.lost == ask(town, of=period(NOW, begin)).total.lost
    assert sum(sum(month.lost.values()) for month in found) == 8
    assert "in each of 12 months, by kind: 8 together" in months(found)


def test_a_spreadsheet_has_one_row_for_each_group_and_the_whole_as_the_last(town: Engine) -> None:
    """Kinds, and money by currency, are columns; what has no value is empty."""
    rows = list(csv.DictReader(io.StringIO(spreadsheet.table(ask(town, by="plan")))))
    assert [(row["group"], row["customers"], row["lost"]) for row in rows] == [
        *((name, str(there), str(left)) for name, there, left in GROUPS["plan"]),
        ("all", "11", "7"),
    ]
    assert [row["lost_usd"] for row in rows] == ["3000", "2000", "0", "500", "5500"]
    assert [row["start_jpy"] for row in rows] == ["980", "", "", "", "980"]
    assert (rows[3]["lost_share"], rows[4]["lost_share"]) == ("", "0.6364")


@pytest.fixture
def told(operate: Operate, engine: Engine, tmp_path: Path) -> Operate:
    """Return a function that runs the command as an operator does, ten days after January."""
    settle(engine)
    set_clock(tmp_path / "february", NOW)
    return lambda *given: operate("report", "churn", *given, DUNNING_CLOCK_FILE=str(tmp_path / "february"))


def test_the_command_answers_in_every_form(told: Operate, tmp_path: Path) -> None:
    """Text, JSON and a file: one period, the same counts."""
    plain = told("--by", "reason", "--before", "2025-11-01..2025-12-01").stdout
    assert plain.startswith("Churn from 2026-01-01 to before 2026-02-01 (UTC)")
    assert "all                  7  63.6%  35.4% to 84.8%  €55.00 (100.0%), $55.00 (73.3%)" in plain
    assert "subscriptions in no share: 1 shown by the provider no longer, nor why, 1 in a trial now" in plain
    assert "too expensive                     0               1               0  1" in plain
    assert "lost more than from 2025-11-01 to before 2025-12-01, 31 days against 30" in plain
    shown = json.loads(told("--json", "--by", "plan").stdout)
    assert (shown["from"], shown["to"], shown["total"]["lost"], shown["final"]) == (
        "2026-01-01",
        "2026-02-01",
        7,
        True,
    )
    assert [each["group"] for each in shown["groups"]] == ["basic", "pro", "metered", "addon"]
    file = tmp_path / "churn.csv"
    assert "churn.csv: Churn from 2026-01-01" in told("--csv", str(file)).stdout
    assert [row["lost"] for row in csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))] == ["7"]


def test_the_command_of_an_empty_database_says_so(operate: Operate) -> None:
    """Nobody was there."""
    assert "Nobody was there at the start." in operate("report", "churn").stdout


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["churn", "--from", "2026-13-01"], "'--from': '2026-13-01' is no day"),
        (["churn", "--from", "2026-02-01", "--to", "2026-02-01"], "'--to': 2026-02-01 does not come after 2026-02-01"),
        (["churn", "--by", "mood"], "'--by': 'mood' is not one of"),
        (["churn", "--before", "2025-11-01"], "'--before': '2025-11-01': expected two days such as"),
        (["churn", "--before", "2025-12-01..2025-11-01"], "'--before': '2025-12-01..2025-11-01': expected two days"),
        (["churn", "--before", "x..y"], "'--before': 'x' is no day"),
        (["churn", "--from", "2026-01-01", "--before", "2025-12-15..2026-01-15"], "'--before': it ends after"),
        (["churn", "--csv", "/nowhere/churn.csv"], "'--csv': cannot write /nowhere/churn.csv: No such file"),
        (["--json", "churn"], "options of churn come after its name"),
        (["turn"], "No such command 'turn'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_by_the_name_of_its_option(operate: Operate, given: list[str], named: str) -> None:
    """One clear line, nothing on standard output, and exit code 2."""
    done = operate("report", *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr


def test_a_history_with_gaps_is_named_and_in_no_share(engine: Engine) -> None:
    """It began after it ended; it ended long ago; the same row is read again: nothing is counted that is not known."""
    add_subscription(engine, 1, "cus_1", *BASIC, "2026-01-20", "2026-01-20", "canceled", SAID, None)
    add_subscription(engine, 2, "cus_2", *BASIC, "2020-01-20", "2020-02-20", "canceled", SAID, None)
    add_subscription(engine, 3, "cus_3", *BASIC, "2025-01-20", None, "active", None, None)
    sql(engine, "UPDATE subscriptions SET read_at = clock_timestamp() WHERE id = 'sub_3'")
    found = ask(engine)
    assert (found.total.customers, found.total.lost_count, found.apart["never_began"]) == (1, 0, 1)
