"""Is the chance of a charge what the file of the model says, and is the file read or refused by name?"""

from __future__ import annotations

import json
from datetime import date, datetime
from math import exp
from pathlib import Path
from random import Random

import pytest

from schedules import Policy, PolicyError
from schedules.learned import Model, Seen, came, chance, day_score, gap_score, sigmoid, terms

US = Seen(
    "funds/debit",
    "US",
    ("brand=visa", "code=insufficient_funds"),
    2,
    date(2026, 11, 3),
    date(2026, 11, 5),
    date(2026, 11, 7),
    ("fridays",),
    ("1", "15", "last"),
)
NINE = datetime(2026, 11, 14, 9)  # noqa: DTZ001 - the issuer's wall clock; a Saturday


def test_the_names_say_what_is_seen() -> None:
    """The day after the 13th, to which the 15th has moved, for a debit that was refused on the 5th."""
    names = set(terms(US, NINE))
    plain = {
        "hour=9",
        "weekday=sat",
        "monthday=14",
        "payday=1",
        "since=7",
        "gap=6",
        "advised=5",
        "came=21",
        "past=00",
        "tried=2",
        "try=2",
    }
    own = {"funds/debit", "country=US", "brand=visa", "code=insufficient_funds"}
    assert plain | own <= names
    assert {f"funds/debit {name}" for name in plain | own - {"funds/debit"}} <= names
    assert {f"funds/debit US {name}" for name in plain} == names - {each for each in names if " US " not in each}


def test_a_chance_is_the_sum_of_the_named_weights() -> None:
    """By hand: the weights of other hours, kinds and countries count for nothing."""
    weights = {
        "hour=9": 0.5,
        "funds/debit hour=9": -0.2,
        "funds/debit DE hour=9": 9.0,
        "hour=10": 9.0,
        "funds/debit": 0.1,
    }
    assert chance(Model("m", -1.0, weights), US, NINE) == pytest.approx(1 / (1 + exp(0.6)))


def test_the_tables_of_a_plan_add_up_to_the_same_chance() -> None:
    """Whatever the weights: what a plan takes from tables is what the names say."""
    dice = Random(7)
    days = [NINE.replace(day=day, hour=hour) for day in range(6, 28) for hour in (6, 13, 20)]
    weights = {name: dice.uniform(-1, 1) for day in days for name in terms(US, day)}
    model = Model("m", -0.4, weights)
    scores = model.scores(US.kind, US.country)
    for day in days:
        own = model.base + model.sum(US.own) + scores.number[US.number]
        added = (
            scores.hour[day.hour] + day_score(scores, US, day.date()) + gap_score(scores, US, US.refused, day.date())
        )
        assert sigmoid(own + added) == pytest.approx(chance(model, US, day))


@pytest.mark.parametrize(
    ("refused", "day", "expected"),
    [
        (date(2026, 11, 5), date(2026, 11, 5), (0, 0)),
        (date(2026, 11, 5), date(2026, 11, 6), (1, 0)),
        (date(2026, 11, 6), date(2026, 11, 12), (0, 0)),
        (date(2026, 11, 6), date(2026, 11, 13), (1, 1)),
        (date(2026, 11, 5), date(2026, 12, 31), (2, 2)),
    ],
)
def test_paydays_since_a_refusal_are_counted(refused: date, day: date, expected: tuple[int, int]) -> None:
    """Fridays; the 1st, the 15th and the last as payroll moves them: after the refusal, up to the day, two at most."""
    assert came(US, refused, day) == expected


def test_a_policy_finds_its_model_beside_it(tmp_path: Path) -> None:
    """By a relative path or a whole one; an empty one returns to the rules, and a rival may have its own."""
    model = Model("v7", -1.25, {"hour=9": 0.5})
    (tmp_path / "model.json").write_text(json.dumps(model.as_json()))
    file = tmp_path / "policy.toml"
    for line in ('model = "model.json"', f"model = {json.dumps(str(tmp_path / 'model.json'))}"):
        file.write_text(line)
        found = Policy.load(file).model
        assert found is not None
        assert found.as_json() == model.as_json()
    file.write_text('model = ""')
    assert Policy.load(file).model is None
    file.write_text('[experiment]\nrival_percent = 50\n[rival]\nmodel = "model.json"')
    policy = Policy.load(file)
    assert policy.model is None
    assert policy.rival is not None
    assert policy.rival.model is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "model.json: Expecting property name"),
        ('{"version": "v", "base": 0}', "model.json: weights: missing"),
        (
            '{"version": "v", "base": 0, "weights": {"hour=9": "much"}}',
            "weights: hour=9: expected a number, found 'much'",
        ),
        ('{"version": "v", "base": 0, "weights": {"hour=9": NaN}}', "weights: hour=9: expected a number"),
        ("[]", "expected an object"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path: Path, text: str | None, expected: str) -> None:
    """The message names the policy, the model and what is wrong."""
    if text is not None:
        (tmp_path / "model.json").write_text(text)
    file = tmp_path / "policy.toml"
    file.write_text('model = "model.json"')
    with pytest.raises(PolicyError, match=r"policy\.toml") as told:
        Policy.load(file)
    assert expected in str(told.value)


def test_a_model_that_is_no_path_is_refused(tmp_path: Path) -> None:
    """A number names no file."""
    file = tmp_path / "policy.toml"
    file.write_text("model = 7")
    with pytest.raises(PolicyError, match="model: expected the path of a file, found 7"):
        Policy.load(file)
