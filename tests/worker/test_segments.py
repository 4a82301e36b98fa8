"""Does a case follow its segment from its opening to its end, and is each segment told?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from schedules import FailedPayment, Policy
from schedules.arms import Experiment
from schedules.policy import Rung
from schedules.segments import Segment
from tests.worker.bench import Scripted, Serve
from tests.worker.builders import DAY, START, add_case, event, invoice, one, opened, payment, sql, the_case
from worker import doctor
from worker.inbox import parse_event
from worker.models import subscriptions
from worker.planning import open_case, open_cases
from worker.report import make_report
from worker.report.sql import Question
from worker.settings import load_settings

Run = Callable[..., CompletedProcess[str]]
LOYAL = Segment("loyal", tenure_days_from=365)
FILE = """
[[segments]]
name = "loyal"
tenure_days_from = 365
deadline_days = 42
ending = "release"
[segments.windows.funds]
opens = 09:00:00
"""


def of_loyal(**changes: Any) -> Policy:
    """Return a policy with one segment, for whoever has been a customer for a year."""
    return Policy(segments=((LOYAL, Policy(**changes)),))


def subscribed(engine: Engine, number: int = 1, **changes: Any) -> None:
    """Store a subscription that began 400 days before the failure."""
    blank = {"id": f"sub_{number}", "customer_id": f"cus_{number}", "status": "active", "currency": "usd"}
    row = {**blank, "started_at": START - 400 * DAY, "plan": "gold", "card": {}, **changes}
    with engine.begin() as db:
        db.execute(insert(subscriptions).values(row))


def open_it(engine: Engine, policy: Policy, failed: FailedPayment | None = None) -> int:
    """Open a case under a policy."""
    with engine.begin() as db:
        return open_case(db, failed or payment(tenure_days=400), None, policy, START)


# Which segment


def test_a_case_keeps_the_segment_it_was_opened_with(serve: Serve) -> None:
    """It ends as that says, though the file has changed; a case without one follows the file."""
    street = serve(Scripted([payment(tenure_days=400)]), policy=of_loyal(max_attempts=0, ending="cancel"))
    open_it(street.engine, street.policy)
    later = Policy(segments=((replace(LOYAL, tenure_days_from=9999), Policy(max_attempts=0, ending="release")),))
    street.policy = later
    street.run()
    assert (the_case(street.engine).segment, the_case(street.engine).state) == ("loyal", "released")
    assert [each for each in street.ledger if each["by"] == "merchant"] == []


def test_a_loyal_customer_is_handed_to_a_person_when_the_longer_grace_is_over(serve: Serve) -> None:
    """Nothing is canceled, and the merchant's system is told, so that somebody calls."""
    policy = Policy(ending="cancel", max_attempts=0, notice_ended=False)
    gentle = replace(policy, deadline_days=42, ending="release", hooks=("case.released",))
    street = serve(Scripted([payment()]), policy=replace(policy, segments=((LOYAL, gentle),)))
    open_it(street.engine, street.policy)
    street.run()
    row = the_case(street.engine)
    assert (row.state, row.closed_at) == ("released", row.failed_at + timedelta(days=42))
    assert street.summary["writes"] == 0
    assert one(street.engine, "SELECT count(*) FROM outbox WHERE kind = 'hook' AND name = 'case.released'") == 1


def test_what_the_provider_showed_of_the_subscription_decides(engine: Engine) -> None:
    """An event tells neither tenure nor the name of a price; the customer's first subscription counts."""
    subscribed(engine, started_at=START - 3 * DAY)
    subscribed(engine, 2, id="sub_old", customer_id="cus_1", plan="old", started_at=START - 400 * DAY)
    policy = Policy(segments=((LOYAL, Policy()), (Segment("gold", plans=("gold",)), Policy())))
    failed = [payment(1, tenure_days=None), payment(2, tenure_days=None), payment(3, tenure_days=3)]
    subscribed(engine, 3)
    with engine.begin() as db:
        open_cases(db, [(each, None) for each in failed], policy, START)
    found = sql(engine, "SELECT segment, tenure_days FROM cases ORDER BY payment_id")
    assert [tuple(row) for row in found] == [("loyal", 400), (None, None), ("gold", 3)]


@pytest.mark.parametrize(
    ("lines", "plan"),
    [
        ([{"pricing": {"price_details": {"price": "price_1"}}}], "price_1"),
        ([{"pricing": {"price_details": {"price": {"id": "price_1"}}}}], "price_1"),
        ([{"price": {"id": "price_1"}}, {"price": {"id": "price_0"}}, {"price": {"id": "price_1"}}], "price_0+price_1"),
        ([{"pricing": None}, {"price": None}, {}, 3, {"price": {"id": "a price"}}], None),
        (3, None),
        (None, None),
    ],
)
def test_the_prices_of_an_invoice_are_its_plan_in_either_shape(lines: Any, plan: str | None) -> None:
    """What has another shape tells nothing, and loses no event."""
    shown = parse_event(event(subject=invoice(lines={"object": "list", "data": lines})))
    assert shown.payment
    assert shown.payment.plan == plan


def test_the_control_arm_is_left_alone_in_every_segment(serve: Serve) -> None:
    """A segment that charges charges nobody there."""
    policy = replace(of_loyal(ending="cancel"), experiment=Experiment("spring", 100))
    street = serve(Scripted([payment()]), policy=policy)
    open_it(street.engine, policy)
    street.run()
    row = the_case(street.engine)
    assert (row.segment, row.arm, row.state, street.summary["writes"]) == ("loyal", "control", "lost", 0)


def test_two_cases_of_a_customer_in_different_segments_are_decided_each_by_its_own(serve: Serve) -> None:
    """One speaks for both; the other's next step stays that of the usual policy."""
    now = Policy(silent_days=0, max_attempts=0)
    other = payment(2, customer_id="cus_1", tenure_days=3)
    policy = replace(now, segments=((LOYAL, replace(now, ladder=(Rung("first", 0),), deadline_days=60)),))
    street = serve(Scripted([payment(), other]), policy=policy)
    open_it(street.engine, policy)
    open_it(street.engine, policy, other)
    street.run(2)
    street.run(1)
    ends = [(each.closed_at - each.failed_at).days for each in (the_case(street.engine, 1), the_case(street.engine, 2))]
    assert ends == [60, 28]
    said = sql(street.engine, "SELECT case_id, count(*) AS said FROM outbox GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in said] == [(1, 1), (2, 4)]


def test_without_segments_a_case_has_none_and_no_table_is_asked(engine: Engine) -> None:
    """What was opened before there were segments is as it was."""
    subscribed(engine)
    opened(engine, payment(tenure_days=None))
    row = the_case(engine)
    assert (row.segment, row.tenure_days) == (None, None)
    assert "segment" not in one(engine, "SELECT detail FROM history WHERE what = 'opened'")


# What is told


def test_the_report_shows_each_segment(engine: Engine) -> None:
    """With those of the usual policy as a group of their own."""
    for number, segment in enumerate(("loyal", "loyal", None), 1):
        back = {"state": "recovered", "recovered_by": "silent_retry", "closed_at": START + DAY, "due_at": None}
        add_case(engine, payment_id=f"in_{number}", segment=segment, **(back if number == 1 else {}))
    with engine.connect() as db:
        found = make_report(db, START + 40 * DAY, Question(by="segment"))
    assert [(each.group, each.cases, each.recovered_count) for each in found.groups] == [
        ("loyal", 2, 1),
        ("(usual)", 1, 0),
    ]


def test_cases_are_found_by_their_segment(operate: Run, engine: Engine) -> None:
    """In the list of the command."""
    add_case(engine, segment="loyal")
    add_case(engine, payment_id="in_2")
    told = json.loads(operate("case", "list", "--segment", "loyal", "--json").stdout)
    assert [each["payment_id"] for each in told] == ["in_1"]


def test_cases_of_a_segment_that_is_gone_are_told_by_the_doctor(engine: Engine) -> None:
    """They follow the usual policy: nothing fails."""
    add_case(engine, segment="loyal")
    checks = {each.name: each for each in doctor.examine(engine, load_settings(), START).checks}
    found = checks["segment loyal"]
    assert found.ok
    assert "1 open cases belong to it" in found.detail


def test_policy_show_and_check_and_plan_follow_the_segments(commands: Run, tmp_path: Path) -> None:
    """What is shown can be used as a file; a choice that is void in a segment is named."""
    file, copy, lines = (tmp_path / name for name in ("policy.toml", "copy.toml", "payments.jsonl"))
    file.write_text(FILE)
    copy.write_text(commands("policy", "show", DUNNING_POLICY=str(file)).stdout)
    assert Policy.load(copy) == Policy.load(file)
    assert (
        json.loads(commands("policy", "show", "--json", DUNNING_POLICY=str(file)).stdout)["segments"][0]["name"]
        == "loyal"
    )
    assert commands("policy", "check", str(file)).returncode == 0
    known = {"customer_id": "cus_1", "amount_minor": 1999, "currency": "usd", "failed_at": START.isoformat()}
    given = [{**known, "payment_id": f"in_{days}", "tenure_days": days} for days in (364, 365)]
    lines.write_text("".join(json.dumps(each) + "\n" for each in given))
    told = commands("plan", str(lines), "--policy", str(file), "--json").stdout.splitlines()
    ends = [json.loads(line)["steps"][-1] for line in told]
    assert [(end["outcome"], end["at"][:10]) for end in ends] == [("lost", "2026-02-09"), ("released", "2026-02-23")]
    file.write_text(FILE + "[[segments.ladder]]\nnotice = 'first'\nday = 40\n")
    void = commands("policy", "check", str(file))
    assert "segments[0].ladder[0]: day 40 after 10 silent days is not before the deadline" in void.stderr
