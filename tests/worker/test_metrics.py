"""Do the figures for Prometheus tell what the database holds, and all of them that can be told?"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from tests.worker.builders import START, add_attempt, add_case, add_notice, one, sql
from worker import jobs, stops, watch
from worker.app import make_engine
from worker.metrics import exposition
from worker.models import UNCERTAIN
from worker.replay import note_failure

OVER: dict[str, Any] = {"closed_at": START, "due_at": None}
Told = dict[tuple[str, ...], float]


def told(engine: Engine) -> Told:
    """Return every sample an hour after the start, by its name and the values of its labels in alphabetical order."""
    families = text_string_to_metric_families(exposition(engine, START + timedelta(hours=1)).decode())
    samples = [sample for family in families for sample in family.samples]
    return {(each.name, *(each.labels[name] for name in sorted(each.labels))): each.value for each in samples}


def add_won(engine: Engine, number: int, by: str, **changes: Any) -> int:
    """Store a case whose money came back."""
    return add_case(engine, payment_id=f"in_{number}", state="recovered", recovered_by=by, **OVER, **changes)


def test_an_empty_installation_tells_zeros(engine: Engine) -> None:
    """A counter that begins with its first row would hide it: Prometheus sees growth only from what it has seen."""
    found = told(engine)
    assert found.pop(("dunning_tick_age_seconds",)) == math.inf
    assert set(found.values()) == {0}
    assert {("dunning_recovered_total", "silent_retry"), ("dunning_attempts_total", "declined")} <= found.keys()


def test_money_is_told_by_currency_and_means_and_never_added_up(engine: Engine) -> None:
    """At risk is what is open; back is what came, by any means."""
    add_case(engine)
    add_case(engine, payment_id="in_2", state="paused", paused=True, currency="eur", amount_minor=500)
    add_won(engine, 3, "silent_retry")
    add_won(engine, 4, "customer", currency="eur", amount_minor=700)
    add_case(engine, payment_id="in_5", state="lost", **OVER)
    found = told(engine)
    assert {key[1:]: value for key, value in found.items() if key[0] == "dunning_at_risk_minor"} == {
        ("usd",): 1999,
        ("eur",): 500,
    }
    assert {key[1:]: value for key, value in found.items() if key[0] == "dunning_recovered_minor_total"} == {
        ("silent_retry", "usd"): 1999,
        ("customer", "eur"): 700,
    }
    assert found[("dunning_recovered_total", "silent_retry")] == found[("dunning_recovered_total", "customer")] == 1
    assert (found[("dunning_cases_opened_total",)], found[("dunning_cases", "paused")]) == (5, 1)
    ended = {key[1]: value for key, value in found.items() if key[0] == "dunning_cases_ended_total"}
    assert ended == {"recovered": 2, "lost": 1, "canceled": 0, "released": 0}


def test_attempts_are_counted_once_they_are_settled(engine: Engine) -> None:
    """One without an outcome may still get any: it is no part of a counter."""
    for number, (state, seconds) in enumerate({"declined": 2, "succeeded": 4, "foreign": 900}.items(), start=1):
        case_id = add_case(engine, payment_id=f"in_{number}")
        told_at = {"sent_at": START, "settled_at": START + timedelta(seconds=seconds)}
        names = {"payment_id": f"in_{number}", "idempotency_key": f"k{number}"}
        add_attempt(engine, case_id, state=state, **names, **told_at)
    add_attempt(engine, add_case(engine, payment_id="in_9"), payment_id="in_9", idempotency_key="k9", state="unknown")
    found = told(engine)
    outcomes = {key[1]: value for key, value in found.items() if key[0] == "dunning_attempts_total"}
    assert outcomes == {"declined": 1, "succeeded": 1, "foreign": 1, "not_executed": 0, "observed": 0}
    assert found[("dunning_attempts_unresolved", "unknown")] == 1
    assert (found[("dunning_charge_seconds_count",)], found[("dunning_charge_seconds_sum",)]) == (2, 6)


def test_messages_are_told_by_what_became_of_them(engine: Engine) -> None:
    """Left, due, perhaps arrived, given up; one that was left out on purpose is none of these."""
    case_id, gone = add_case(engine), {"due_at": None}
    add_notice(engine, case_id, name="first", delivered_at=START, **gone)
    add_notice(engine, case_id, name="second", error=UNCERTAIN, **gone)
    add_notice(engine, case_id, name="third", error="SMTP: refused (550)", **gone)
    add_notice(engine, case_id, name="last", error="the case has ended", **gone)
    add_notice(engine, case_id, name="waiting", due_at=START + timedelta(hours=2))
    add_notice(engine, case_id, name="due", due_at=START + timedelta(minutes=50))
    found = told(engine)
    assert {key[1:]: value for key, value in found.items() if key[0] == "dunning_notices_total"} == {
        ("mail", "first"): 1
    }
    assert found[("dunning_messages_due", "notice")] == 1
    assert found[("dunning_oldest_message_due_seconds",)] == 600
    undelivered = {key[1]: value for key, value in found.items() if key[0] == "dunning_messages_undelivered"}
    assert undelivered == {"uncertain": 1, "given_up": 1}


def test_what_waits_for_a_person_is_told(engine: Engine) -> None:
    """A case that is set aside, an event that failed for good, a failed job, a broken statement, a stop."""
    add_case(engine, quarantined_at=START)
    new = "INSERT INTO events (id, type, payload, tries, received_at) VALUES (:id, 'invoice.paid', '{}', :tries, :at)"
    age = one(engine, "SELECT clock_timestamp() - interval '1 hour'")
    sql(engine, new, id="evt_1", tries=5, at=age)
    sql(engine, new, id="evt_2", tries=0, at=age)
    note_failure(engine, "dunning.work", 1, ValueError("of no kind"))
    assert jobs.begin(engine, "audit")
    jobs.done(engine, "audit", {"broken": ["one success an invoice"]})
    stops.stop(engine, stops.OPERATOR, "a test", START)
    found = told(engine)
    singles = (
        "cases_quarantined",
        "events_failed",
        "events_waiting",
        "failed_jobs",
        "audit_broken",
        "charging_stopped",
    )
    assert {name: found[(f"dunning_{name}",)] for name in singles} == dict.fromkeys(singles, 1)
    assert 3600 <= found[("dunning_oldest_event_seconds",)] < 3700


def test_work_that_is_done_and_a_provider_that_is_away_are_told(engine: Engine) -> None:
    """Ages are machine time, so they are of the last seconds."""
    watch.did(engine, "worker", watch.TICK)
    watch.did(engine, "beat", watch.SENT)
    sql(engine, "INSERT INTO limits (name, next_at, failures) VALUES ('circuit', clock_timestamp(), 5)")
    found = told(engine)
    assert 0 <= found[("dunning_tick_age_seconds",)] < 60
    assert 0 <= found[("dunning_heartbeat_age_seconds", "beat")] < 60
    assert found[("dunning_provider_circuit_open",)] == 1


def test_figures_that_cannot_be_read_take_no_others_with_them(engine: Engine) -> None:
    """A table that is locked, broken or missing is named by the figures that it belongs to."""
    add_case(engine)
    sql(engine, "ALTER TABLE outbox RENAME TO lost_outbox")
    try:
        found = told(engine)
    finally:
        sql(engine, "ALTER TABLE lost_outbox RENAME TO outbox")
    assert {key[1] for key, value in found.items() if key[0] == "dunning_unread" and value} == {"messages"}
    assert found[("dunning_cases_due",)] == 1
    assert ("dunning_oldest_message_due_seconds",) not in found


def test_without_a_database_every_part_is_named() -> None:
    """The scrape itself succeeds: so an alarm can tell why the other figures are missing."""
    engine = make_engine("postgresql+psycopg://dunning@127.0.0.1:9/dunning")
    found = told(engine)
    engine.dispose()
    assert {key[0] for key in found} == {"dunning_unread"}
    assert set(found.values()) == {1}


def test_no_figure_names_a_customer(engine: Engine) -> None:
    """Neither an id nor anything else that belongs to one case."""
    case_id = add_case(engine, payment_id="in_canary", customer_id="cus_canary", subscription_id="sub_canary")
    add_notice(engine, case_id, kind="card", name="pm_canary", channel="stripe")
    add_attempt(engine, case_id, payment_id="in_canary", idempotency_key="canary")
    assert "canary" not in exposition(engine, START).decode()
