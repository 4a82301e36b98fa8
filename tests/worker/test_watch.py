"""Do heartbeats tell of work done, and do health, readiness and metrics say what is wrong?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from tests.worker.bench import Serve
from tests.worker.builders import HOUR, MINUTE, START, add_case, event, one, sql, until
from tests.worker.test_web import Web, serving
from worker import app, jobs, stops, tasks, watch
from worker.embedded import Servers
from worker.roles import Roles

AGE = "UPDATE heartbeats SET at = at - CAST(:age AS interval) WHERE role = :role"


def aged(engine: Engine, role: str, seconds: int) -> None:
    """Let a role's last work lie back."""
    sql(engine, AGE, age=f"{seconds} s", role=role)


def why(engine: Engine) -> tuple[str, ...]:
    """Return what keeps the installation from being ready, ticks coming every ten seconds."""
    return watch.health(engine, 10, START).why


def told(web: Web, path: str = "/healthz") -> tuple[int, dict[str, Any]]:
    """Ask for health; return status and body."""
    status, body = web.ask("GET", path)
    return status, json.loads(body)


# Heartbeats


@pytest.mark.usefixtures("configured")
def test_a_task_that_was_done_is_a_heartbeat_and_one_that_failed_is_none(engine: Engine) -> None:
    """A tick on a database that answers is noted; work on a case that does not exist is no work that was done."""
    tasks.tick.apply()
    tasks.work.apply(args=(1, "no token"))
    found = sql(engine, "SELECT role, what FROM heartbeats")
    assert [tuple(row) for row in found] == [("worker", watch.TICK)]


def test_an_answered_event_is_a_heartbeat_of_the_web_and_a_refused_one_is_none(engine: Engine) -> None:
    """Strangers do not make it look alive."""
    with serving(engine) as web:
        assert web.send(json.dumps(event()).encode(), secret="whsec_other") == 400
        assert one(engine, "SELECT count(*) FROM heartbeats") == 0
        assert web.send(json.dumps(event()).encode()) == 200
    assert one(engine, "SELECT role || ' ' || what FROM heartbeats") == "web answered"


def test_a_busy_process_writes_every_few_seconds_only(engine: Engine) -> None:
    """The second note within five seconds changes nothing; a later one does."""
    watch.did(engine, "worker", watch.TICK)
    first = one(engine, "SELECT at FROM heartbeats")
    watch.did(engine, "worker", watch.TICK)
    assert one(engine, "SELECT at FROM heartbeats") == first
    aged(engine, "worker", 6)
    watch.did(engine, "worker", watch.TICK)
    assert one(engine, "SELECT at FROM heartbeats") > first


def test_a_busy_process_asks_the_database_every_few_seconds_only(engine: Engine) -> None:
    """Each kind of work on its own; who wiped the table meanwhile waits for the next note."""
    at = [0.0]
    pulse, names = watch.Pulse(engine, "worker", lambda: at[0]), "SELECT what FROM heartbeats ORDER BY what"
    for instant, expected in ((0, ["a", "b"]), (4.9, []), (5, ["a", "b"])):
        sql(engine, "DELETE FROM heartbeats")
        at[0] = instant
        for what in ("a", "b", "a"):
            pulse.did(what)
        assert [row.what for row in sql(engine, names)] == expected


def test_a_note_that_cannot_be_written_costs_no_work() -> None:
    """The database is away: the caller does not notice."""
    nowhere = app.make_engine("postgresql+psycopg://dunning@127.0.0.1:9/dunning")
    watch.did(nowhere, "worker", watch.TICK)
    nowhere.dispose()


def test_real_roles_beat_by_what_they_do(engine: Engine, running: Servers, serve: Serve, tmp_path: Path) -> None:
    """Beat by its hints, the worker by a tick, and by the catch-up that it begins with."""
    bench = serve()
    environment = {
        "DUNNING_HOME": str(tmp_path),
        "DUNNING_DATABASE_URL": running.database_url,
        "DUNNING_BROKER_URL": running.broker_url,
        "DUNNING_STRIPE_API_KEY": "sk_test_1",
        "DUNNING_STRIPE_API_BASE": f"http://127.0.0.1:{bench.port}",
        "DUNNING_TICK_SECONDS": "0.5",
    }
    wanted = {("beat", watch.SENT), ("worker", watch.TICK), ("worker", "dunning.catch_up")}
    with Roles(environment, tmp_path) as roles:
        for name, more in (("worker", ("--concurrency=1",)), ("beat", ())):
            roles.start(name, ["worker.cli", name, *more])
        until(lambda: wanted <= {tuple(row) for row in sql(engine, "SELECT role, what FROM heartbeats")}, seconds=60)
    assert len(sql(engine, "SELECT DISTINCT name FROM heartbeats")) == 2


# Readiness


def test_it_is_ready_while_ticks_are_done(engine: Engine) -> None:
    """For six ticks after the last one."""
    watch.did(engine, "worker", watch.TICK)
    aged(engine, "worker", 55)
    assert why(engine) == ()
    aged(engine, "worker", 10)
    [reason] = why(engine)
    assert reason.startswith("no tick for 65 s")


def test_without_any_tick_beat_is_asked_for(engine: Engine) -> None:
    """A fresh installation without beat, or one whose beat ended."""
    assert why(engine) == ("no tick yet: is beat running?",)
    watch.did(engine, "beat", watch.SENT)
    aged(engine, "beat", 95)
    assert why(engine) == ("no tick yet: is beat running?",)


def test_where_beat_sends_and_nothing_is_done_the_worker_is_asked_for(engine: Engine) -> None:
    """Other work of the worker is no tick."""
    watch.did(engine, "beat", watch.SENT)
    watch.did(engine, "worker", "dunning.work")
    [reason] = why(engine)
    assert "is a worker running" in reason


def test_readiness_is_red_and_health_is_green_where_events_can_be_taken(engine: Engine) -> None:
    """A supervisor restarts no web because beat is away."""
    with serving(engine) as web:
        assert [told(web, path)[0] for path in ("/healthz", "/readyz")] == [200, 503]
        watch.did(engine, "worker", watch.TICK)
        assert [told(web, path)[0] for path in ("/healthz", "/readyz")] == [200, 200]
        assert told(web, "/readyz") == told(web)


def test_without_the_database_both_are_red() -> None:
    """And say what is wrong, without its address."""
    nowhere = app.make_engine("postgresql+psycopg://dunning@127.0.0.1:9/dunning")
    with serving(nowhere) as web:
        answers = [told(web, path) for path in ("/healthz", "/readyz")]
    nowhere.dispose()
    assert (
        answers == [(503, {"healthy": False, "live": True, "ready": False, "why": ["database: OperationalError"]})] * 2
    )


def test_a_database_of_another_version_is_not_ready(engine: Engine) -> None:
    """A newer version has migrated it while this one still runs: events are taken."""
    version = one(engine, "SELECT version_num FROM alembic_version")
    sql(engine, "UPDATE alembic_version SET version_num = '0001'")
    try:
        with serving(engine) as web:
            status, body = told(web)
    finally:
        sql(engine, "UPDATE alembic_version SET version_num = :version", version=version)
    assert (status, body["healthy"], body["ready"]) == (200, True, False)
    assert "dunning db upgrade" in body["why"][0]


# What else is told


@pytest.mark.usefixtures("configured")
def test_health_tells_of_stops_and_of_the_last_audit(engine: Engine) -> None:
    """Since when and why nothing is charged; what the audit found broken."""
    stops.stop(engine, stops.OPERATOR, "the bank called", START)
    add_case(engine, due_at=START - 2 * HOUR)
    tasks.check()
    with serving(engine) as web:
        body = told(web)[1]
    assert body["stopped"] == [{"by": "operator", "since": "2026-01-12T15:00:00Z", "why": "the bank called"}]
    assert body["audit"]["broken"] == ["No case that is due is left lying for an hour, leased or not."]


@pytest.mark.usefixtures("configured")
def test_metrics_tell_what_is_late(engine: Engine) -> None:
    """Age of the tick, of the oldest due case, stops, and statements that are broken."""
    names = ("tick_age_seconds", "oldest_due_seconds", "charging_stopped", "audit_broken", "cases_due")
    with serving(engine) as web:
        assert [measured(web)[f"dunning_{name}"] for name in names] == [float("inf"), 0, 0, 0, 0]
        watch.did(engine, "worker", watch.TICK)
        add_case(engine, due_at=START)
        stops.stop(engine, stops.OPERATOR, "why", START)
        tasks.check()
        found = measured(web)
    assert found["dunning_tick_age_seconds"] < 60
    assert found["dunning_oldest_due_seconds"] > HOUR.total_seconds()
    assert [found[f"dunning_{name}"] for name in names[2:]] == [1, 1, 1]


def measured(web: Web) -> dict[str, float]:
    """Return the metrics without labels."""
    families = text_string_to_metric_families(web.ask("GET", "/metrics")[1].decode())
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


def test_the_oldest_due_case_is_told_and_one_set_aside_is_not(engine: Engine) -> None:
    """Business time."""
    add_case(engine, due_at=START - 3 * MINUTE)
    add_case(engine, payment_id="in_2", due_at=START - HOUR, quarantined_at=START)
    with engine.connect() as db:
        assert watch.due(db, START) == (1, 180.0)


@pytest.mark.usefixtures("configured")
def test_the_audit_raises_an_alert_once_a_day(
    engine: Engine, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """As an error with the statement, its rows and what to do; the beats of the same day are not heard."""
    add_case(engine, due_at=START)
    tasks.check()
    tasks.check()
    out = "".join(capfd.readouterr()) + caplog.text
    assert out.count("No case that is due is left lying") == 1
    assert "in_1" in out
    assert one(engine, "SELECT count(*) FROM jobs WHERE done_at IS NOT NULL") == 1


def test_a_daily_job_is_taken_by_one_and_again_the_next_day(engine: Engine) -> None:
    """Also when whoever took it was not heard of again; and not while somebody is at it."""
    assert [jobs.begin(engine, "audit"), jobs.begin(engine, "audit"), jobs.begin(engine, "clean_up")] == [
        True,
        False,
        True,
    ]
    sql(engine, "UPDATE jobs SET begun_at = begun_at - interval '1 hour'")
    assert jobs.begin(engine, "audit")
    jobs.done(engine, "audit", {"broken": []})
    sql(engine, "UPDATE jobs SET begun_at = begun_at - interval '22 hours', done_at = done_at - interval '22 hours'")
    assert not jobs.begin(engine, "audit")
    sql(engine, "UPDATE jobs SET done_at = done_at - interval '2 hours'")
    assert jobs.begin(engine, "audit")
