"""Can an operator find any case, read why, and put it right, without touching the database?"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from sqlalchemy import Engine

from schedules import Decline, Policy
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    DAY,
    HOUR,
    LOST,
    START,
    add_attempt,
    add_case,
    at_once,
    one,
    opened,
    payment,
    sql,
    the_case,
    told,
)
from worker import repair
from worker.planning import open_case
from worker.repair import Filters, Wish

EXPIRED = Decline("expired_card")
Operate = Callable[..., CompletedProcess[str]]


def wish(name: str, **changes: Any) -> Wish:
    """What an operator wants at the start."""
    return Wish(**{"name": name, "reason": "a test", "policy": Policy(ending="cancel"), "now": START, **changes})


def act(engine: Engine, name: str, *asked: str, **changes: Any) -> list[tuple[bool, str]]:
    """Carry a wish out for some cases, and return what became of each."""
    return [(each.done, each.why) for each in repair.carry_out(engine, wish(name, **changes), asked)]


def read_again(street: Bench) -> None:
    """Let the worker read the card of every open case."""
    for row in sql(street.engine, "SELECT due_at FROM cases WHERE due_at <= :now", now=START):
        street.work(row.due_at)


# What is done


def test_a_paused_case_waits_until_it_is_resumed(engine: Engine) -> None:
    """A second pause is none; its history tells who, and why."""
    opened(engine)
    before = the_case(engine).step
    assert act(engine, "pause", "1", "in_1") == [
        (True, "nothing is charged, said or ended until it is resumed"),
        (False, "it is paused already"),
    ]
    row = the_case(engine)
    assert row.state == "paused"
    assert one(engine, "SELECT detail ->> 'reason' FROM history WHERE what = 'paused'") == "a test"
    [(done, why), again] = act(engine, "resume", "in_1", "in_1")
    assert (done, why, again) == (True, f"next: refresh at {before['at']}", (False, "it is not paused"))
    assert (the_case(engine).state, the_case(engine).step) == ("silent", before)


@pytest.mark.parametrize(("name", "state", "endings"), [("stop", "lost", ["cancel"]), ("release", "released", [])])
def test_a_case_is_ended_once_with_or_without_the_merchants_ending(
    engine: Engine, name: str, state: str, endings: list[str]
) -> None:
    """To stop is to lose it now; to release is to leave everything as it is."""
    opened(engine)
    [first, second] = act(engine, name, "1", "1")
    assert (first[0], second) == (True, (False, f"it has ended: {state}"))
    assert the_case(engine).state == state
    assert [row.name for row in sql(engine, "SELECT name FROM outbox WHERE kind = 'ending'")] == endings


@pytest.mark.parametrize("name", ["stop", "release", "retry"])
def test_a_case_with_a_charge_of_unknown_outcome_is_left_alone(engine: Engine, name: str) -> None:
    """Whoever ends it now would not see the money that may have come."""
    add_attempt(engine, opened(engine), state="unknown")
    assert act(engine, name, "1") == [(False, repair.UNDER_WAY)]
    assert the_case(engine).closed_at is None


@pytest.mark.parametrize("name", ["stop", "release"])
def test_a_case_that_a_worker_holds_is_not_ended_under_its_hands(engine: Engine, name: str) -> None:
    """A lease that has run out holds nobody up."""
    opened(engine)
    lease = "UPDATE cases SET lease_token = gen_random_uuid(), lease_until = clock_timestamp() + :until"
    sql(engine, lease, until=timedelta(minutes=1))
    assert act(engine, name, "1") == [(False, repair.BUSY)]
    sql(engine, lease, until=timedelta(minutes=-1))
    assert act(engine, name, "1")[0][0]


def test_a_charge_that_is_asked_for_goes_at_the_next_open_hour(serve: Serve) -> None:
    """Of an expired card, too; it is made once, by a worker, as every other charge."""
    street = serve(Scripted([payment(decline=EXPIRED)]))
    street.hear(START)
    read_again(street)
    planned = the_case(street.engine).due_at
    [(done, why)] = act(street.engine, "retry", "in_1", now=START + HOUR)
    row = the_case(street.engine)
    assert (done, why) == (True, "next: charge at 2026-01-12T16:00:00Z")
    assert row.due_at < planned
    street.work(row.due_at)
    assert [each["approved"] for each in street.books.ledger.attempts] == [True]
    assert (the_case(street.engine).state, told(street.engine).count("charged")) == ("recovered", 1)


def test_a_charge_that_is_forbidden_cannot_be_asked_for(serve: Serve) -> None:
    """Nothing is changed, and the operator reads which rule it is."""
    street = serve(Scripted([payment(decline=LOST)]))
    street.hear(START)
    read_again(street)
    before = the_case(street.engine)
    [(done, why)] = act(street.engine, "retry", "in_1")
    assert (done, why) == (False, "no charge is possible: never is not charged again on this card")
    assert the_case(street.engine) == before


def test_a_case_that_was_set_aside_is_taken_up_again_by_a_retry(engine: Engine) -> None:
    """Whatever comes next."""
    opened(engine)
    sql(engine, "UPDATE cases SET quarantined_at = clock_timestamp(), claims = 3")
    assert act(engine, "retry", "1")[0][0]
    assert (the_case(engine).quarantined_at, the_case(engine).claims) == (None, 0)
    assert told(engine)[-3:] == ["planned", "taken_up", "asked_for"]


@pytest.mark.parametrize("name", list(repair.ACTS))
def test_a_dry_run_tells_the_same_and_changes_nothing(engine: Engine, name: str) -> None:
    """Not even the history; the numbers of rows that were never written are the only trace."""
    opened(engine)
    if name == "resume":
        act(engine, "pause", "1")
    before = the_case(engine), told(engine)
    dry = list(repair.carry_out(engine, wish(name, dry=True), ["1"]))
    assert (the_case(engine), told(engine)) == before
    assert list(repair.carry_out(engine, wish(name), ["1"])) == dry
    assert dry[0].done


def test_of_two_operators_at_once_one_is_told_that_it_is_done(engine: Engine) -> None:
    """Eight at once end a case: one does, and the merchant's ending is posted once."""
    opened(engine)
    done = at_once([lambda: act(engine, "stop", "1")[0]] * 8)
    assert sorted(done) == [(False, "it has ended: lost")] * 7 + [(True, "lost; the ending is cancel")]
    assert one(engine, "SELECT count(*) FROM outbox WHERE kind = 'ending'") == 1


# What is chosen


def test_filters_choose_open_cases_by_what_they_have_in_common(engine: Engine) -> None:
    """State, class, customer, account, when they are due, and those that need a person."""
    for number, failed in enumerate([payment(1), payment(2, decline=LOST), payment(3)], start=1):
        with engine.begin() as db:
            open_case(db, failed, "acct_9" if number == 3 else None, Policy(), START)
    sql(engine, "UPDATE cases SET due_at = :late WHERE id = 3", late=START + DAY)
    sql(engine, "UPDATE cases SET quarantined_at = clock_timestamp() WHERE id = 2")
    ended = add_case(engine, payment_id="in_9", state="lost", due_at=None, closed_at=START)
    wanted = {
        Filters(): ["1", "2", "3"],
        Filters(state="silent", customer_id="cus_2"): ["2"],
        Filters(decline_class="never"): ["2"],
        Filters(account="acct_9"): ["3"],
        Filters(due=timedelta(0)): ["1", "2"],
        Filters(stuck=True): ["2"],
        Filters(state="lost"): [],
    }
    with engine.connect() as db:
        assert {each: repair.matching(db, each, START) for each in wanted} == wanted
        assert repair.matching(db, Filters(stuck=True), START + 2 * HOUR) == ["1", "2"]
    assert str(ended) not in wanted[Filters()]


def test_a_charge_unknown_for_a_day_makes_a_case_stuck(engine: Engine) -> None:
    """A fresh one does not: it is being asked about."""
    add_attempt(engine, opened(engine), state="unknown")
    with engine.connect() as db:
        assert repair.matching(db, Filters(stuck=True), START) == []
    sql(engine, "UPDATE attempts SET sent_at = sent_at - interval '25 hours'")
    with engine.connect() as db:
        assert repair.matching(db, Filters(stuck=True), START) == ["1"]


# Commands


def test_a_file_of_ids_is_gone_through_to_its_end(operate: Operate, engine: Engine, tmp_path: Path) -> None:
    """Junk, unknown and doubled lines are named one by one, and hold up nothing around them."""
    opened(engine, payment(1))
    opened(engine, payment(2))
    ids = tmp_path / "ids.txt"
    ids.write_bytes(b"in_1\n\n  in_2 \nin_1\nno such; DROP TABLE\n\xff\xfe\n99999999999999999999\n")
    done = operate("case", "pause", "--file", str(ids), "--yes", "--json")
    verdicts = json.loads(done.stdout)["verdicts"]
    assert (done.returncode, [each["done"] for each in verdicts]) == (1, [True, True, False, False, False])
    assert {each["why"] for each in verdicts[2:]} == {"no such case"}
    assert [the_case(engine, number).state for number in (1, 2)] == ["paused", "paused"]


def test_many_cases_are_touched_only_with_a_yes_that_knows_what_it_means(operate: Operate, engine: Engine) -> None:
    """The question states number and effect; without an answer nothing is done."""
    opened(engine, payment(1))
    opened(engine, payment(2))
    refused = operate("case", "stop", "in_1", "in_2", given=b"n\n")
    assert refused.returncode == 1
    assert "stop 2 cases? They are lost at once" in refused.stderr
    assert one(engine, "SELECT count(*) FROM cases WHERE closed_at IS NULL") == 2
    done = operate("case", "stop", "--state", "silent", "--limit", "1", given=b"y\n")
    assert (done.returncode, "1 of 1 done" in done.stdout) == (0, True)
    assert one(engine, "SELECT count(*) FROM cases WHERE closed_at IS NULL") == 1


def test_a_dry_run_and_the_real_one_choose_the_same_cases(operate: Operate, engine: Engine) -> None:
    """Two hundred of them."""
    with engine.begin() as db:
        for number in range(1, 201):
            open_case(db, payment(number), None, Policy(), START)
    chosen = ("--class", "retry_later", "--limit", "150", "--json")
    dry, real = (json.loads(operate("case", "retry", *chosen, *how).stdout) for how in (["--dry-run"], ["--yes"]))
    assert (dry["dry_run"], dry["done"], real["done"]) == (True, 150, 150)
    assert dry["verdicts"] == real["verdicts"]


@pytest.mark.parametrize("given", [[], ["1", "--stuck"], ["1", "--file", "-"]])
def test_cases_are_named_in_one_way(operate: Operate, given: list[str]) -> None:
    """None of them means all by accident."""
    done = operate("case", "pause", *given)
    assert done.returncode == 2
    assert "one of the three" in done.stderr


def test_where_no_case_is_meant_nothing_is_asked(operate: Operate) -> None:
    """And nothing is wrong."""
    done = operate("case", "stop", "--stuck")
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 of 0 done\n", "")


def test_the_list_can_be_sorted_cut_and_read_by_a_spreadsheet(operate: Operate, engine: Engine) -> None:
    """The class of a refusal is shown, and can be asked for."""
    for number, cents in enumerate([500, 900, 700], start=1):
        opened(engine, payment(number, amount_minor=cents))
    rows = list(csv.DictReader(io.StringIO(operate("case", "list", "--csv", "--sort", "amount", "--desc").stdout)))
    assert [(row["payment_id"], row["class"]) for row in rows] == [(f"in_{n}", "retry_later") for n in (2, 3, 1)]
    assert [each["case_id"] for each in json.loads(operate("case", "list", "--limit", "1", "--json").stdout)] == [1]
    assert operate("case", "list", "--class", "never").stdout.strip() == "No cases."


def test_a_case_is_shown_with_all_that_happened_what_comes_why_and_what_would_change_it(
    operate: Operate, serve: Serve
) -> None:
    """The change is the same decision, asked with another fact."""
    street = serve(Scripted([payment()]))
    street.hear(START)
    read_again(street)
    shown = json.loads(operate("case", "show", "in_1", "--json").stdout)
    assert [line["what"] for line in shown["history"]] == ["opened", "planned", "refreshed", "planned"]
    assert {each["type"] for each in shown["events"]} == {"charge.failed", "invoice.payment_failed"}
    changes = {each["if"]: each["step"] for each in shown["would_change"]}
    assert changes["it is paid now"]["outcome"] == "recovered"
    assert changes["it is paused"]["step"] == "wait"
    asked = changes["an operator asks for a charge (`dunning case retry`)"]
    assert (asked["step"], asked["at"] < shown["step"]["at"]) == ("charge", True)
    text = operate("case", "show", "1").stdout
    assert all(reason in text for reason in shown["step"]["reasons"])
    assert "if it is paid now: close recovered at" in text
    assert all(each["id"] in text for each in shown["events"])


def test_every_planned_step_of_a_thousand_cases_has_its_reasons(operate: Operate, engine: Engine) -> None:
    """No step without an answer to why then."""
    with engine.begin() as db:
        for number in range(1, 1001):
            open_case(db, payment(number), None, Policy(), START)
    listed = json.loads(operate("case", "list", "--json").stdout)
    assert len(listed) == 1000
    assert one(engine, "SELECT count(*) FROM history WHERE what = 'planned' AND detail -> 'reasons' <> '[]'") == 1000


def test_a_long_list_is_cut_for_people_and_whole_for_machines(operate: Operate, engine: Engine) -> None:
    """It says how many there are beyond a screen."""
    with engine.begin() as db:
        for number in range(1, 61):
            open_case(db, payment(number), None, Policy(), START)
    told = operate("case", "list").stdout.splitlines()
    assert told[-1] == "and 10 more: --limit shows more of them, --csv and --json show all"
    assert len(told) == 1 + 50 + 1
    assert len(operate("case", "list", "--limit", "55").stdout.splitlines()) == 1 + 55
    assert len(json.loads(operate("case", "list", "--json").stdout)) == 60
    assert len(operate("case", "list", "--csv").stdout.splitlines()) == 1 + 60
