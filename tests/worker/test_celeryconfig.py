"""Is the queue set up so that losing it loses nothing?"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from celery.worker.consumer import Consumer

from worker.celery_app import SafeConsumer
from worker.settings import load_settings

REPO = Path(__file__).parents[2]


@pytest.fixture
def config() -> dict[str, Any]:
    """Read the settings as Celery does."""
    return runpy.run_path(str(REPO / "celeryconfig.py"))


def test_the_broker_carries_hints_only(config: dict[str, Any]) -> None:
    """Late acks, JSON, no results, no second run of a task that killed its worker, no publishing that hangs."""
    expected = {
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_publish_retry": False,
        "worker_prefetch_multiplier": 1,
        "broker_connection_max_retries": None,
    }
    assert {name: config[name] for name in expected} == expected
    assert not [name for name in config if name.startswith(("result_backend", "task_routes", "task_default_eta"))]


def test_no_broker_call_waits_for_ever(config: dict[str, Any]) -> None:
    """Without a socket time limit a hanging broker would hang the sweep."""
    transport = config["broker_transport_options"]
    assert 0 < transport["socket_connect_timeout"] <= transport["socket_timeout"] <= 30
    assert transport["visibility_timeout"] > load_settings().lease_seconds


def test_a_tick_that_was_not_read_is_thrown_away(config: dict[str, Any]) -> None:
    """After a standstill of the workers the queue does not hold an hour of ticks, or of anything else from beat."""
    jobs = config["beat_schedule"].values()
    names = ("tick", "catch_up", "sweep_invoices", "audit", "clean_up", "risk", "prevent")
    assert {job["task"] for job in jobs} == {f"dunning.{name}" for name in names}
    assert all(job["options"]["expires"] == job["schedule"] for job in jobs)


def test_celery_itself_sees_these_settings() -> None:
    """The app has no result backend, knows the tasks by their own names, and uses our consumer."""
    program = (
        "from celery.utils.imports import symbol_by_name as find; from worker import tasks; app = tasks.celery_app;"
        "print(app.conf.result_backend, app.conf.task_acks_late, find(app.conf.worker_consumer).__name__,"
        " sorted(name for name in app.tasks if not name.startswith('celery.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    names = [
        *("audit", "catch_up", "clean_up", "deliver", "prevent", "risk", "sweep_invoices"),
        *("tell", "tick", "work", "work_each"),
    ]
    assert done.stdout.strip() == f"None True SafeConsumer {[f'dunning.{name}' for name in names]}"
    assert issubclass(SafeConsumer, Consumer)
