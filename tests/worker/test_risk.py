"""Is every subscription scored each night, from what is stored, and is only a better model ever written?"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from schedules.learned import Model
from schedules.tables import PolicyError
from tests.worker.bench import Serve
from tests.worker.builders import DAY, HOUR, START, add_case, one, sql
from tests.worker.conftest import Run
from tests.worker.town import add_subscription
from worker.practice.lives import lives
from worker.risk.judge import judge
from worker.risk.nightly import model_of, read_and_score
from worker.risk.samples import logged
from worker.risk.scores import highest, score_all
from worker.risk.seen import seen_now
from worker.risk.simulated import lessons
from worker.subscriptions import Counts

SOON = START + 10 * DAY
LATER = START + 120 * DAY
NOBODY = (1, "cus_1", "usd", 1000, "basic", "US", "card", "2025-06-01", None, "active", None, None)
CARD_OVER = {"brand": "visa", "exp_month": 1, "exp_year": 2026}


def seen_of(engine: Engine, now: Any = START) -> Any:
    """Return what is seen of the only subscription."""
    with engine.connect() as db:
        [(_, seen)] = seen_now(db, now)
    return seen


def test_the_provider_is_read_and_everything_is_scored(serve: Serve) -> None:
    """A renewal that failed is seen as unpaid, with its reasons; the same month has one line."""
    street = serve()
    street.hear(START)
    for number in range(2, 12):  # a reason is what lies above the usual
        add_subscription(street.engine, number, f"acct_2/cus_{number}", *NOBODY[2:], next_charge_at=SOON)
    for _ in range(2):
        counts = Counts()
        numbers = list(read_and_score(street.engine, street.desk(START).gateway, START, model_of(None), counts))
    assert (counts.read, numbers[-1]) == (1, 11)
    with street.engine.connect() as db:
        row = highest(db, START)[0]
    assert 0 < row.chance_30 <= row.chance_90 < 1
    assert any("unpaid since" in reason for reason in row.reasons)
    assert one(street.engine, "SELECT count(*) FROM risks") == 11


def test_what_is_seen_first_in_a_month_stays(engine: Engine) -> None:
    """The score is the latest one; what is learned from is what was known when nobody knew what came."""
    add_subscription(engine, *NOBODY, next_charge_at=SOON)
    list(score_all(engine, START))
    before = one(engine, "SELECT chance_90 FROM risks")
    sql(engine, "UPDATE subscriptions SET method = NULL")
    list(score_all(engine, START + DAY))
    assert one(engine, "SELECT chance_90 FROM risks") > before
    assert one(engine, "SELECT seen ->> 'method' FROM risks") == "card"
    assert one(engine, "SELECT seen_at FROM risks") == START
    list(score_all(engine, START + 31 * DAY))
    assert one(engine, "SELECT count(*) FROM risks") == 2


def test_cases_mandates_and_signals_are_seen(engine: Engine) -> None:
    """Each from its own table, as far as it was known at that instant."""
    add_subscription(engine, *NOBODY, next_charge_at=START + 25 * DAY, method_id="pm_1", card=CARD_OVER)
    won = {"state": "recovered", "due_at": None, "closed_at": START - 20 * DAY}
    add_case(engine, payment_id="in_1", subscription_id="sub_1", failed_at=START - 25 * DAY, **won)
    add_case(engine, payment_id="in_2", subscription_id="sub_1", failed_at=START - DAY)
    add_case(engine, payment_id="in_3", subscription_id="sub_1", failed_at=START + DAY)  # not yet
    for number, status in enumerate(("active", "inactive")):
        told = {"created": number, "data": {"object": {"payment_method": "pm_1", "status": status}}}
        statement = "INSERT INTO events (id, type, payload) VALUES (:id, 'mandate.updated', CAST(:told AS jsonb))"
        sql(engine, statement, id=f"evt_{number}", told=json.dumps(told))
    for number, value in enumerate((1, 5)):
        into = "INSERT INTO signals (id, customer_id, kind, value, at)"
        statement = f"{into} VALUES (:id, 'cus_1', 'tickets_unresolved', :v, :at)"
        sql(engine, statement, id=str(number), v=value, at=START - timedelta(days=2 - number))
    seen = seen_of(engine)
    assert (seen.declines, seen.recovered, seen.unpaid) == (2, 1, (START - DAY).date())
    assert (seen.mandate, seen.signals) == ("inactive", {"tickets_unresolved": 5})
    assert seen.expires(90) == "before"


def test_what_is_gone_or_has_ended_is_not_scored(engine: Engine) -> None:
    """Nobody guesses about it."""
    add_subscription(engine, *NOBODY[:9], "gone", None, None)
    add_subscription(engine, 2, *NOBODY[1:8], "2026-01-01", "canceled", None, None)
    assert list(score_all(engine, START)) == []


def test_a_lesson_is_what_was_seen_ninety_days_ago_and_what_came(engine: Engine) -> None:
    """Lost as the provider says, or as a case of ours; what was seen later teaches nothing yet."""
    for number in (1, 2, 3):
        add_subscription(engine, number, *NOBODY[1:], next_charge_at=SOON)
    list(score_all(engine, START))
    list(score_all(engine, START + 60 * DAY))
    sql(
        engine,
        "UPDATE subscriptions SET ended_at = :at, reason = 'payment_failed' WHERE id = 'sub_1'",
        at=START + 40 * DAY,
    )
    lost = {"state": "lost", "due_at": None, "closed_at": START + 20 * DAY}
    add_case(engine, payment_id="in_2", subscription_id="sub_2", **lost)
    with engine.connect() as db:
        found = {each.subscription_id: each.lost_after for each in logged(db, LATER)}
    assert found == {"sub_1": 40, "sub_2": 20, "sub_3": None}


def test_a_model_learned_from_a_year_beats_the_base_rate_and_expiry_on_other_lives() -> None:
    """Judged by lives that it has not seen; its chances hold, and the last tenth holds many of the lost."""
    verdict = judge(list(lessons(2000, 12)), list(lessons(2000, 11)))
    for each in verdict.horizons:
        assert each.calibrated
        assert each.gain["base rate"].low > 0
        assert each.gain["expiry alone"].low > 0
        assert each.lift > 3


def test_lives_are_the_same_whoever_else_is_drawn() -> None:
    """Each by its own number, and another seed draws others."""
    few, many = list(lives(3, 20)), list(lives(3, 40))
    assert [life.ended_at for life in few] == [life.ended_at for life in many[:20]]
    assert few != list(lives(4, 20))


def test_learning_from_the_bench_of_lives_writes_a_model_that_scores(operate: Run, tmp_path: Path) -> None:
    """By the commands; a file of another kind is refused by name."""
    out, other = tmp_path / "risk.json", tmp_path / "other.json"
    done = operate("risk", "learn", "--simulate", "5000", "--seed", "1", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["better"] is True
    helped = [(each["helped"], each["kept"]) for each in told["prevention"]]
    assert helped == sorted(helped)  # from a lower chance on more are looked after, and more stay
    assert helped[-1][1] > 0
    scored = operate("risk", "--no-read", "--model", str(out), "--json")
    assert json.loads(scored.stdout)["model"] == Model.load(out).version
    other.write_text(json.dumps(Model("timing-1", 0.0, {}).as_json()))
    with pytest.raises(PolicyError, match="no model of risk"):
        model_of(other)


def test_too_little_to_learn_from_is_said(operate: Run) -> None:
    """With how much there is, and how much is needed."""
    done = operate("risk", "learn")
    assert done.returncode == 1
    assert "0 scores of 90 days ago or more" in done.stderr


def test_the_highest_are_told_with_their_reasons(operate: Run, engine: Engine) -> None:
    """On a terminal, as JSON, and for a spreadsheet."""
    add_subscription(engine, *NOBODY, next_charge_at=START + HOUR)
    add_subscription(engine, 2, *NOBODY[1:6], None, *NOBODY[7:], next_charge_at=SOON)
    told = json.loads(operate("risk", "--no-read", "--json", "--least", "20%").stdout)
    assert [each["subscription"] for each in told["subscriptions"]] == ["sub_2"]
    assert "no payment method is stored" in told["subscriptions"][0]["reasons"]
    sheet = operate("risk", "--no-read", "--csv").stdout.splitlines()
    assert [line.split(",")[0] for line in sheet] == ["subscription", "sub_2", "sub_1"]
    assert "no payment method is stored" in operate("risk", "--no-read").stdout
