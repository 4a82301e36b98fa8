"""Is a policy file read as it is meant, and refused by name where it cannot be meant?"""

from __future__ import annotations

from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from schedules import Charge, Decline, Policy, PolicyError, plan_ahead
from schedules.budgets import Limit
from schedules.declines import DeclineClass, Verdict, classify
from schedules.hours import Window
from schedules.policy import Rung
from tests.schedules.builders import declined, payment


def load(folder: Path, text: str) -> Policy:
    """Load these lines as a policy file."""
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return Policy.load(path)


def test_choosing_nothing_is_a_complete_policy(tmp_path: Path) -> None:
    """Four weeks, ten of the days silent, no Indian cards, nobody asked at night."""
    policy = Policy.default()
    assert load(tmp_path, "") == policy == Policy()
    assert (policy.deadline_days, policy.silent_days, policy.ending) == (28, 10, "leave")
    assert policy.excluded_countries == ("IN",)
    assert not any(window.at_night for window in policy.windows.values())
    assert not policy.payday_midnight
    assert [rung.day for rung in policy.ladder] == [0, 4, 9, 14]


def test_what_the_file_says_goes_over_the_defaults(tmp_path: Path) -> None:
    """Key by key inside tables; lists are replaced whole."""
    policy = load(
        tmp_path,
        """
        deadline_days = 40
        hold_hours = [12]
        excluded_countries = []
        [gaps_hours]
        retry_soon = [1, 3]
        [windows.funds]
        opens = 07:30:00
        [windows.contact]
        business_days = true
        [budgets]
        visa = [{attempts = 5, hours = 48}]
        jcb = [{attempts = 2, hours = 24}]
        [[ladder]]
        notice = "first"
        day = 0
        """,
    )
    assert (policy.deadline_days, policy.silent_days) == (40, 10)
    assert (policy.hold_hours, policy.excluded_countries) == ((12,), ())
    assert policy.gaps_hours == {"retry_later": (24, 48, 72, 96), "retry_soon": (1, 3)}
    assert policy.windows["funds"] == Window(time(7, 30), time(21))
    assert policy.windows["contact"] == Window(time(9), time(20), business_days=True)
    assert policy.windows["limit"] == Policy().windows["limit"]
    assert policy.budgets["visa"] == (Limit(5, 48),)
    assert policy.budgets["jcb"] == (Limit(2, 24),)
    assert policy.budgets["amex"] == Policy().budgets["amex"]
    assert policy.ladder == (Rung("first", 0),)


@pytest.mark.parametrize("wall", ["06:00:00", '"06:00"', '"06:00:00"'])
def test_a_window_takes_a_time_and_a_text(tmp_path: Path, wall: str) -> None:
    """TOML wants seconds in a time; people write hours and minutes."""
    assert load(tmp_path, f"[windows.unexplained]\nopens = {wall}").windows["unexplained"].opens == time(6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deadline = 3", "deadline: unknown key, expected one of .*deadline_days"),
        ("[windows.funds]\nopen = 06:00:00", r"windows\.funds\.open: unknown key, expected one of .*opens"),
        ("[windows.fund]\nopens = 06:00:00\ncloses = 09:00:00", "windows: expected exactly .*funds"),
        ("[gaps_hours]\nsoon = [1]", "gaps_hours: expected exactly"),
        ("[budgets]\nvisa = [{attempts = 5, days = 1}]", r"budgets\.visa\[0\]\.days: unknown key"),
        ("[[ladder]]\nnotice = 'first'\nday = 0\nhour = 9", r"ladder\[0\]\.hour: unknown key"),
    ],
)
def test_an_unknown_key_is_named_at_any_depth(tmp_path: Path, text: str, message: str) -> None:
    """With what it might have been."""
    with pytest.raises(PolicyError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deadline_days = '28'", "deadline_days: expected an integer, found '28'"),
        ("deadline_days = 28.0", "deadline_days: expected an integer"),
        ("deadline_days = true", "deadline_days: expected an integer, found True"),
        ("ending = 3", "ending: expected a string"),
        ("hold_hours = 24", "hold_hours: expected an array"),
        ("hold_hours = [24, 'x']", r"hold_hours\[1\]: expected an integer"),
        ("hold_hours = [false]", r"hold_hours\[0\]: expected an integer"),
        ("windows = 'always'", "windows: expected a table"),
        ("[windows]\nfunds = 6", r"windows\.funds: expected a table"),
        ("[windows.funds]\nbusiness_days = 1", r"windows\.funds\.business_days: expected a boolean"),
        ("[windows.funds]\nopens = 6", r"windows\.funds\.opens: expected a local time such as 06:00, found 6"),
        ("[windows.funds]\nopens = '6 am'", r"windows\.funds\.opens: expected a local time such as 06:00"),
        ("[gaps_hours]\nretry_later = 24", r"gaps_hours\.retry_later: expected an array"),
        ("[budgets]\nvisa = [3]", r"budgets\.visa\[0\]: expected a table"),
        ("[budgets]\nvisa = [{attempts = 3}]", r"budgets\.visa\[0\]\.hours: missing"),
        ("[[ladder]]\nday = 1", r"ladder\[0\]\.notice: missing"),
    ],
)
def test_a_wrong_type_is_named(tmp_path: Path, text: str, message: str) -> None:
    """A truth value is not a number, and a number is not a text."""
    with pytest.raises(PolicyError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deadline_days = 0", "deadline_days: expected 1 to 365"),
        ("silent_days = 29", "silent_days: expected 0 to deadline_days"),
        ("ending = 'forget'", "ending: expected one of leave, cancel, mark_uncollectible, pause, release"),
        ("max_attempts = -1", "max_attempts: expected 0 to 100"),
        ("spread_minutes = 721", "spread_minutes: expected 0 to 720"),
        ("cooldown_hours = 0", "cooldown_hours: expected 1 to 8760"),
        ("cooldown_hours = 99999999999999", "cooldown_hours: expected 1 to 8760"),
        ("hold_hours = [48, 24]", "hold_hours: expected rising hours"),
        ("hold_hours = [-5]", "hold_hours: expected rising hours of 1 to 8760"),
        ("hold_hours = [99999999999999]", "hold_hours: expected rising hours of 1 to 8760"),
        ("excluded_countries = ['in']", "excluded_countries: unknown country in, expected ISO codes"),
        ("[gaps_hours]\nretry_later = []", "gaps_hours: expected hours of 1 to 8760"),
        ("[gaps_hours]\nretry_later = [0]", "gaps_hours: expected hours of 1 to 8760"),
        ("[gaps_hours]\nretry_soon = [99999999999999]", "gaps_hours: expected hours of 1 to 8760"),
        ("[windows.funds]\nopens = 22:00:00", r"windows\.funds: window 22:00:00-21:00:00 must be"),
        ("[windows.funds]\nopens = '06:00+01:00'", r"windows\.funds: window .* must be local time"),
        ("[budgets]\nvisa = [{attempts = 0, hours = 24}]", r"budgets\.visa\[0\]: a limit needs"),
        ("[budgets]\nvisa = [{attempts = 9, hours = 999}]", r"budgets\.visa\[0\]: a limit needs"),
        ("[budgets]\nVisa = []", "budgets: expected brands in small letters"),
        ("deadline_days = 12", "ladder: longer than deadline_days"),
        ("ladder = [{notice = 'a', day = 3}, {notice = 'b', day = 3}]", "ladder: expected rising days"),
        ("ladder = [{notice = 'a', day = -3}]", "ladder: expected rising days"),
        ("ladder = [{notice = 'a', day = 0}, {notice = 'a', day = 3}]", "ladder: expected different notices"),
        ("ladder = [{notice = '', day = 0}]", "ladder: expected different notices"),
    ],
)
def test_an_impossible_value_is_named(tmp_path: Path, text: str, message: str) -> None:
    """Each by itself, and where two contradict each other."""
    with pytest.raises(PolicyError, match=message):
        load(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As is one that is a folder."""
    with pytest.raises(PolicyError, match=r"none\.toml"):
        Policy.load(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match=str(tmp_path)):
        Policy.load(str(tmp_path))


@pytest.mark.parametrize("content", [b"deadline_days: 28", b"deadline_days = 1\ndeadline_days = 2", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    """With the place where reading stopped, as far as it is known."""
    path = tmp_path / "policy.toml"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=r"policy\.toml"):
        Policy.load(path)


@pytest.mark.parametrize("changes", [{"deadline_days": 366}, {"ending": "x"}, {"gaps_hours": {"retry_soon": (1,)}}])
def test_a_policy_made_in_code_is_checked_as_well(changes: dict[str, Any]) -> None:
    """There is no way around the checks."""
    with pytest.raises(PolicyError, match=next(iter(changes))):
        Policy(**changes)


def test_a_merchants_own_meaning_of_a_code_stands_before_the_tables(tmp_path: Path) -> None:
    """A code of the table and one that no table knows; everything else keeps its meaning."""
    policy = load(
        tmp_path,
        """
        [[declines]]
        source = "stripe_card"
        code = "do_not_honor"
        decline_class = "never"
        [[declines]]
        source = "stripe_card"
        code = "moon_phase"
        decline_class = "retry_soon"
        retry_limit = 2
        wait_hours = 5
        """,
    )

    def verdict(code: str) -> Verdict:
        return classify(Decline(code), "visa", policy.overrides)

    assert verdict("do_not_honor").decline_class is DeclineClass.NEVER
    known = verdict("moon_phase")
    assert (known.decline_class, known.retry_limit, known.wait) == (DeclineClass.RETRY_SOON, 2, timedelta(hours=5))
    assert known.unknown == ()
    assert verdict("insufficient_funds") == classify(Decline("insufficient_funds"), "visa")


def test_a_merchants_own_meaning_changes_the_calendar(tmp_path: Path) -> None:
    """What the merchant calls final is not charged again."""
    rule = '[[declines]]\nsource = "stripe_card"\ncode = "do_not_honor"\ndecline_class = "never"\n'
    failed = payment(decline=declined("do_not_honor"))
    steps = plan_ahead(failed, Policy(), failed.failed_at), plan_ahead(failed, load(tmp_path, rule), failed.failed_at)
    assert [any(isinstance(step, Charge) for step in each) for each in steps] == [True, False]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('source = "moon"', "source: expected one of ach"),
        ('decline_class = "maybe"', "decline_class: expected one of retry_soon"),
        ("retry_limit = -1", "retry_limit and wait_hours: expected"),
        ('colour = "red"', r"declines\[0\].colour: unknown key"),
    ],
)
def test_a_wrong_meaning_of_a_code_is_named(tmp_path: Path, line: str, told: str) -> None:
    """An unknown table or class, an impossible number, an unknown key."""
    usual = {"source": '"stripe_card"', "code": '"x"', "decline_class": '"never"'}
    key, _, value = line.partition(" = ")
    text = "\n".join(f"{name} = {given}" for name, given in {**usual, key: value}.items())
    with pytest.raises(PolicyError, match=told):
        load(tmp_path, f"[[declines]]\n{text}\n")


def test_a_limit_holds_from_one_date_to_another(tmp_path: Path) -> None:
    """Network rules change on a day that is known ahead."""
    policy = load(tmp_path, "[budgets]\nvisa = [{attempts = 5, hours = 48, since = 2026-04-18, until = 2026-12-31}]")
    [limit] = policy.budgets["visa"]
    assert (limit.since, limit.until) == (date(2026, 4, 18), date(2026, 12, 31))
    with pytest.raises(PolicyError, match="a date such as"):
        load(tmp_path, '[budgets]\nvisa = [{attempts = 5, hours = 48, since = "soon"}]')
