"""Does the command learn from stored charges, say what is missing, and write nothing that is not better?"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from schedules import Decline
from tests.worker.builders import CARD, DAY, FUNDS, HOUR, START, add_attempt, add_case
from tests.worker.conftest import Run
from worker.learn import chosen, logged

SECOND = Decline(code="do_not_honor")


def store(engine: Engine, number: int, answers: list[str]) -> int:
    """Store a case with its charges, a day apart; the second one was drawn."""
    case_id = add_case(engine, payment_id=f"in_{number}", customer_id=f"cus_{number}", failed_card=asdict(CARD))
    for index, state in enumerate(answers, start=1):
        add_attempt(
            engine,
            case_id,
            number=index,
            payment_id=f"in_{number}",
            idempotency_key=f"{number}-{index}",
            state=state,
            card=asdict(CARD),
            at=START + index * DAY,
            settled_at=START + index * DAY,
            decline=None if state == "succeeded" else asdict(FUNDS if index == 1 else SECOND),
            model="v1" if index == 2 else None,
            propensity=0.25 if index == 2 else None,
        )
    return case_id


def test_stored_charges_come_back_with_what_was_known_then(engine: Engine) -> None:
    """Each knows the refusals before it and no more; what others charged is known, and is no sample of ours."""
    store(engine, 1, ["declined", "declined", "foreign", "succeeded"])
    with engine.connect() as db:
        found = list(logged(db))
    assert [(each.at - START, each.passed, each.propensity) for each in found] == [
        (DAY, False, None),
        (2 * DAY, False, 0.25),
        (4 * DAY, True, None),
    ]
    assert [[one.number for one in each.facts.attempts] for each in found] == [[], [1], [1, 2, 3]]
    assert found[1].facts.attempts[0].decline == FUNDS
    assert found[0].facts.card == CARD


def test_only_a_chosen_instant_teaches_about_instants(engine: Engine) -> None:
    """Not the first charge of a changed card, nor one that the customer was waiting for."""
    case_id = store(engine, 1, ["declined", "declined"])
    new = replace(CARD, fingerprint="fp_new")
    row = {"payment_id": "in_1", "idempotency_key": "new", "settled_at": START, "decline": asdict(FUNDS)}
    add_attempt(engine, case_id, number=3, state="declined", at=START + 3 * DAY, card=asdict(new), **row)
    with engine.connect() as db:
        assert [each.at for each in chosen(logged(db))] == [START + DAY, START + 2 * DAY]


def test_a_customers_earlier_recoveries_are_known_and_later_ones_are_not(engine: Engine) -> None:
    """Their paydays show in them."""
    add_case(engine, payment_id="in_0", customer_id="cus_1", state="recovered", closed_at=START, due_at=None)
    later = START + 2 * DAY + HOUR
    add_case(engine, payment_id="in_9", customer_id="cus_1", state="recovered", closed_at=later, due_at=None)
    store(engine, 1, ["declined", "declined", "declined"])
    with engine.connect() as db:
        found = [each.facts.successes for each in logged(db)]
    assert found == [(START,), (START,), (START, later)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--simulate", "20", "--json"], "set explore_percent above 0"),
        (["--world", "town.py:Town"], "--world needs --simulate"),
        (["--simulate", "20", "--world", "town.py:Town"], "town.py"),
        (["--policy", "none.toml"], "none.toml"),
    ],
)
def test_what_is_missing_is_said(run: Run, tmp_path: Path, arguments: list[str], expected: str) -> None:
    """One line, and no file."""
    out = tmp_path / "model.json"
    done = run("learn", *arguments, "--out", str(out))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not out.exists()
    assert expected in done.stderr


def test_a_model_that_is_not_better_is_told_and_not_written(run: Run, tmp_path: Path) -> None:
    """A hundred payments prove nothing: everything is shown, the exit code is 1, and there is no file."""
    policy, out = tmp_path / "policy.toml", tmp_path / "model.json"
    policy.write_text("explore_percent = 50\n")
    done = run("learn", "--simulate", "300", "--policy", str(policy), "--out", str(out), "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["better"], told["enough"]) == (1, False, False)
    assert told["running"]["matched"] > told["model"]["matched"]
    assert not out.exists()
    shown = run("learn", "--simulate", "300", "--policy", str(policy), "--out", str(out))
    assert "not promoted: too few charges" in shown.stderr
    assert "doubly robust" in shown.stdout
