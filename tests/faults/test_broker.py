"""What is lost when the queue is? Nothing: it carries hints. Real Valkey, killed, stopped, emptied and filled."""

from __future__ import annotations

import os
import signal
import time
from importlib.metadata import version
from pathlib import Path
from threading import Event

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from tests.faults.conftest import Build
from tests.faults.harness import LEASE, SOCKET_TIMEOUT, Ground, House, town, until
from worker.roles import Roles


def at_work(build: Build, number: int = 12) -> House:
    """Return an installation whose charges are all due, four of them in their calls."""
    house = build(town(number))
    house.start("worker")
    house.open_all()
    house.read_all()
    house.gate.close("door", every=True)
    house.let_charges_be_due()
    house.start("beat")
    until(lambda: house.gate.payments >= 4, "four calls")
    return house


def outage(seconds: float) -> None:
    """Let machine time pass: that long is the fault itself."""
    Event().wait(seconds)


def test_an_emptied_queue_and_a_killed_worker_lose_no_step(build: Build) -> None:
    """Fault 13: a hundred cases claimed, many in the queue; all of them are charged once their leases have run out."""
    house = at_work(build, 100)
    with house.ground.valkey() as line:
        until(lambda: line.llen("celery") >= 5, "a full queue")  # of nine cases each: more than forty wait
        line.flushall()
    house.kill("worker")
    house.gate.open()
    house.start("worker")
    house.expire()
    house.settle(120)
    assert house.approved == 100
    house.kept()


def test_a_worker_outlives_its_broker(build: Build) -> None:
    """Fault 14: killed with work in flight and back after two seconds; the same worker goes on, each charge is one."""
    house = at_work(build)
    house.ground.end("valkey")
    outage(2)
    house.ground.start()
    house.gate.open()
    house.expire()
    house.settle()
    assert house.process("worker").poll() is None
    assert (house.approved, house.bench.summary["attempts"]) == (12, 12)
    house.kept()


@pytest.mark.parametrize("plain", [False, True], ids=["SafeConsumer", "plain Celery"])
def test_plain_celery_ends_with_its_broker_and_ours_does_not(ground: Ground, tmp_path: Path, plain: bool) -> None:
    """Fault 14, the canary: unacknowledged messages are held when Valkey is killed."""
    ground.renew()
    broker = f"redis://127.0.0.1:{ground.broker.port}/0"
    settings = {"DUNNING_BROKER_URL": broker, "PLAIN": "1"[: int(plain)]}
    with Roles(settings, tmp_path / "logs") as roles:
        command = ["celery", "-A", "tests.faults.plain:app", "worker", "--concurrency=4", "--without-mingle"]
        roles.start("celery", [*command, "--without-gossip", "--loglevel=INFO"])
        worker = roles.running["celery"]
        send_naps(broker, tmp_path)
        ground.end("valkey")
        ground.start()
        log = tmp_path / "logs" / "celery.log"
        until(
            lambda: "Unrecoverable" in (told := log.read_text()) or told.count("Connected to redis") > 1, "a reaction"
        )
        (tmp_path / "over").touch()
        if plain:
            words = f"Celery {version('celery')} outlives its broker by itself: SafeConsumer can go"
            until(lambda: worker.poll() is not None, words, 20)
            assert worker.poll() == 1, words
        else:
            assert worker.poll() is None
            send_naps(broker, tmp_path / "again")


def send_naps(broker: str, folder: Path) -> None:
    """Send two tasks that take their time, and wait until both have begun."""
    folder.mkdir(exist_ok=True)
    with Celery(broker=broker) as app:
        for number in range(2):
            app.send_task("nap", args=(str(folder / f"begun.{number}"), str(folder / "over")))
    until(lambda: all((folder / f"begun.{number}").exists() for number in range(2)), "two naps")
    if folder.name == "again":
        (folder / "over").touch()


def test_a_broken_line_to_the_broker_sends_no_request_twice(build: Build) -> None:
    """Fault 15: every client of Valkey is cut off in mid-task; messages come twice, requests do not."""
    house = at_work(build)
    with house.ground.valkey() as line:
        line.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    house.ground.broker.reset()
    house.gate.open()
    house.expire()
    house.settle()
    assert (house.approved, house.bench.summary["attempts"], house.gate.payments) == (12, 12, 12)
    house.kept()


@pytest.mark.slow
def test_a_broker_that_hangs_holds_up_nobody_for_ever(build: Build, ground: Ground) -> None:
    """Fault 16: stopped for a minute; sending gives up in time, and everything is charged once when it wakes."""
    house = at_work(build)
    house.start("web")
    broker = ground.pid("valkey")
    os.kill(broker, signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(OperationalError):
        house.tick()
    assert time.monotonic() - begun < 3 * SOCKET_TIMEOUT
    house.gate.open()
    outage(60 - (time.monotonic() - begun))
    red = house.health("readyz")
    os.kill(broker, signal.SIGCONT)
    house.settle(2 * LEASE + 60)
    assert house.approved == 12
    house.kept()
    assert red[0] == 503, red
    until(lambda: house.health("readyz")[0] == 200, "green health")


def test_a_full_broker_is_told_of_and_its_steps_wait(build: Build) -> None:
    """Fault 17: nothing can be published, which the worker logs; with room again all is charged."""
    house = build(town(12))
    house.start("worker")
    house.start("beat")
    house.open_all()
    house.read_all()
    with house.ground.valkey() as line:
        line.config_set("maxmemory", 1)
        house.let_charges_be_due()
        until(lambda: "used memory" in (house.folder / "logs" / "beat.log").read_text(), "a line in the log")
        assert house.approved == 0
        line.config_set("maxmemory", 0)
    house.expire()
    house.settle()
    assert house.approved == 12
    house.kept()


def test_a_worker_that_takes_a_message_from_a_full_broker_lives(build: Build) -> None:
    """Fault 17, too: what was taken cannot be noted as taken; the worker connects again and goes on."""
    house = build(town(12))
    house.start("worker")
    house.ready("worker")
    worker = house.process("worker")
    worker.send_signal(signal.SIGSTOP)
    for _ in range(20):
        house.celery.send_task("dunning.tick")
    log = house.folder / "logs" / "worker.log"
    with house.ground.valkey() as line:
        line.config_set("maxmemory", 1)
        worker.send_signal(signal.SIGCONT)
        until(lambda: "used memory" in log.read_text(), "a line in the log")
        line.config_set("maxmemory", 0)
    house.open_all()
    house.read_all()
    house.let_charges_be_due()
    house.settle()
    assert house.approved == 12
    assert worker.poll() is None
    house.kept()


def test_an_evicted_queue_is_filled_again(build: Build) -> None:
    """Fault 17, with a policy that throws queues away: what was in it is sent again when the leases have run out."""
    house = at_work(build, 30)
    with house.ground.valkey() as line:
        until(lambda: line.llen("celery") > 0, "a queue")
        line.delete("celery")
    house.gate.open()
    house.expire()
    house.settle()
    assert house.approved == 30
    house.kept()
