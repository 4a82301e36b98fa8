"""Is what failed kept, told and handled again, without a charge that was made before?"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from subprocess import CompletedProcess

import pytest
from sqlalchemy import Engine

from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import DAY, HOUR, LOST, START, add_case, one, opened, payment, sql, the_case, told
from worker import inbox, replay
from worker.inbox import MOST_TRIES

Operate = Callable[..., CompletedProcess[str]]
GIVEN_UP = "UPDATE events SET handled_at = NULL, tries = :most, error = 'KeyError: gone' WHERE type = :type"
FAILED = "invoice.payment_failed"


def tick(street: Bench, now: datetime = START) -> None:
    """Handle the events that wait."""
    inbox.drain(street.engine, street.policy, now)


def event_of(engine: Engine, kind: str = FAILED) -> str:
    """Return the id of the stored event of a type."""
    found: str = one(engine, "SELECT id FROM events WHERE type = :kind", kind=kind)
    return found


def test_an_event_that_was_given_up_is_handled_again_and_opens_its_case(operate: Operate, serve: Serve) -> None:
    """The error is named in the dry run, which changes nothing; then a tick handles it."""
    street = serve(Scripted([payment()]))
    street.hear(START)
    event_id = event_of(street.engine)
    for table in ("history", "cases"):
        sql(street.engine, f"DELETE FROM {table}")  # noqa: S608 - our own names
    sql(street.engine, GIVEN_UP, most=MOST_TRIES, type=FAILED)
    dry = operate("replay", "--failed", "--dry-run")
    assert (dry.returncode, f"{event_id}: given up: KeyError: gone" in dry.stdout) == (0, True)
    tick(street)
    assert sql(street.engine, "SELECT 1 FROM cases") == []
    assert operate("replay", "--event", event_id).returncode == 0
    tick(street)
    assert [row.payment_id for row in sql(street.engine, "SELECT payment_id FROM cases")] == ["in_1"]
    assert one(street.engine, "SELECT handled_at IS NOT NULL FROM events WHERE id = :id", id=event_id)


def test_every_event_of_a_case_can_be_replayed_at_any_time_without_another_charge(
    operate: Operate, serve: Serve
) -> None:
    """Before, between and after its charges: the same ones, and the case ends once."""
    street = serve(Scripted([payment()]))
    street.hear(START)
    street.run()
    charged = [each["at"] for each in street.books.ledger.attempts]
    row, history = the_case(street.engine), told(street.engine)
    assert (row.state, len(charged)) == ("recovered", 1)
    done = operate("replay", "--since", "1h", "--yes", "--json")
    verdicts = json.loads(done.stdout)["verdicts"]
    assert len(verdicts) == one(street.engine, "SELECT count(*) FROM events") > 1
    assert all("nothing is charged" in each["why"] for each in verdicts)
    tick(street, START + DAY)
    assert one(street.engine, "SELECT count(*) FROM events WHERE handled_at IS NULL") == 0
    assert [each["at"] for each in street.books.ledger.attempts] == charged
    assert (the_case(street.engine), told(street.engine)) == (row, history)


def test_what_cannot_be_replayed_is_named_and_holds_up_nothing(operate: Operate, serve: Serve) -> None:
    """An unknown id, one that waits already, and a good one between them."""
    street = serve(Scripted([payment()]))
    street.hear(START)
    good, waits = event_of(street.engine), event_of(street.engine, "charge.failed")
    sql(street.engine, "UPDATE events SET handled_at = NULL WHERE id = :id", id=waits)
    done = operate("replay", "--event", "evt_nowhere", "--event", good, "--event", waits, "--json")
    verdicts = json.loads(done.stdout)["verdicts"]
    assert (done.returncode, [each["done"] for each in verdicts]) == (1, [False, True, False])
    assert "no such event" in verdicts[0]["why"]
    assert "it waits already" in verdicts[2]["why"]
    assert f"case 1 ({the_case(street.engine).state})" in verdicts[1]["why"]


def test_a_choice_by_type_is_asked_about_and_can_be_cut(operate: Operate, serve: Serve) -> None:
    """Without a yes nothing is done."""
    street = serve(Scripted([payment(1), payment(2)]))
    street.hear(START)
    refused = operate("replay", "--type", FAILED, given=b"n\n")
    assert (refused.returncode, "handle 2 events and 0 jobs again?" in refused.stderr) == (1, True)
    done = operate("replay", "--type", FAILED, "--limit", "1", "--yes")
    assert (done.returncode, "1 of 1 done" in done.stdout) == (0, True)
    assert one(street.engine, "SELECT count(*) FROM events WHERE handled_at IS NULL") == 1


@pytest.mark.parametrize("given", [[], ["--failed", "--type", FAILED], ["--event", "evt_1", "--task", "1"]])
def test_one_choice_is_made(operate: Operate, given: list[str]) -> None:
    """None of them means all by accident."""
    done = operate("replay", *given)
    assert (done.returncode, "one of them" in done.stderr) == (2, True)


def test_a_time_that_is_none_is_named(operate: Operate) -> None:
    """Before anything is touched."""
    done = operate("replay", "--since", "yesterday")
    assert (done.returncode, "'yesterday' is no time" in done.stderr) == (2, True)


# Jobs


def test_a_job_that_failed_is_kept_once_with_its_count_and_without_secrets(operate: Operate, engine: Engine) -> None:
    """The same job again raises the count; what is no job of ours is told apart by its number."""
    for error in (KeyError("first"), ValueError("whsec_canary0123456789canary")):
        replay.note_failure(engine, "dunning.work", 7, error)
    replay.note_failure(engine, "dunning.audit", None, OSError("disk"))
    listed = json.loads(operate("job", "list", "--json").stdout)
    assert {(each["task"], each["about"], each["count"]) for each in listed} == {
        ("dunning.work", 7, 2),
        ("dunning.audit", None, 1),
    }
    assert "canary" not in str(listed)
    assert "ValueError" in operate("job", "list").stdout


def test_a_failed_job_about_a_case_makes_it_due_and_the_case_decides(operate: Operate, engine: Engine) -> None:
    """One of an ended case moves nothing."""
    opened(engine, payment(decline=LOST))
    sql(engine, "UPDATE cases SET due_at = :late", late=START + HOUR)
    ended = add_case(engine, payment_id="in_9", state="lost", due_at=None, closed_at=START)
    for case_id in (1, ended):
        replay.note_failure(engine, "dunning.work", case_id, KeyError("x"))
    [first, second] = (row.id for row in sql(engine, "SELECT id FROM failures ORDER BY id"))
    dry = operate("replay", "--task", str(first), "--dry-run")
    assert (dry.returncode, the_case(engine).due_at) == (0, START + HOUR)
    done = operate("replay", "--task", str(first), "--task", str(second), "--json")
    assert json.loads(done.stdout)["done"] == 2
    assert (the_case(engine).due_at, the_case(engine, ended).due_at) == (START + HOUR / 2, None)
    assert sql(engine, "SELECT id FROM failures") == []


def test_a_job_is_dropped_by_number(operate: Operate, engine: Engine) -> None:
    """A second time it is not there."""
    replay.note_failure(engine, "dunning.audit", None, OSError("disk"))
    number = str(one(engine, "SELECT id FROM failures"))
    assert operate("job", "drop", number).returncode == 0
    again = operate("job", "drop", number)
    assert (again.returncode, "no such failed job" in again.stdout) == (1, True)
    assert operate("job", "list").stdout.strip() == "No job has failed."
