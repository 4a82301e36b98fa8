"""Does the demo keep its promises, with a worker killed and with Ctrl-C? As a user runs it: a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 100
PAYMENTS = 8
ROLE = "worker.cli worker"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a folder which the account of the embedded servers can reach under root too."""
    base = Path(tempfile.mkdtemp(prefix="dunning-demo-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Return a function that starts a demo in a process group of its own; what is left of it is killed."""
    running: list[subprocess.Popen[str]] = []

    def begin(payments: int = PAYMENTS, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "worker.cli", "demo", f"--payments={payments}", "--seed=1", "--json", *more]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "DUNNING_HOME": str(home)},
            start_new_session=True,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        below = belonging_to(process.pid, home)
        if process.poll() is None:
            process.kill()
        process.communicate()
        for pid in below & alive():
            os.kill(pid, signal.SIGKILL)


def processes() -> dict[int, tuple[int, str, str]]:
    """Return parent, state and command line of every process of this machine."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,state=,args="], capture_output=True, text=True, check=True
    ).stdout
    split = (line.split(None, 3) for line in listed.splitlines())
    return {int(pid): (int(parent), state, " ".join(more)) for pid, parent, state, *more in split}


def alive() -> set[int]:
    """Return every process that has not ended."""
    return {pid for pid, (_, state, _) in processes().items() if not state.startswith("Z")}


def belonging_to(pid: int, home: Path) -> set[int]:
    """Return every process of a demo but itself: its children, the servers in its folder, theirs, and so on."""
    listed = processes()
    found = {pid, *(each for each, (_, _, command) in listed.items() if str(home) in command)}
    while more := {child for child, (parent, _, _) in listed.items() if parent in found} - found:
        found |= more
    return found - {pid}


def worker_of(demo: subprocess.Popen[str]) -> int:
    """Return the process of the demo's worker role."""
    listed = processes()
    (found,) = (p for p, (parent, _, command) in listed.items() if parent == demo.pid and ROLE in command)
    return found


def until(demo: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Wait for a condition while the demo runs."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert demo.poll() is None, f"the demo ended early: {demo.communicate()}"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def until_at_work(demo: subprocess.Popen[str], home: Path) -> None:
    """Wait until the demo's worker has done something for a case."""
    log = home / "demo" / "logs" / "worker.log"
    until(demo, lambda: log.exists() and '"event": "work"' in log.read_text(encoding="utf-8", errors="replace"))


def result_of(demo: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a demo told at its end, which must be a good one."""
    told, errors = demo.communicate(timeout=SECONDS)
    assert demo.returncode == 0, errors or told
    result: dict[str, Any] = json.loads(told)
    return result


def assert_kept(result: dict[str, Any], payments: int) -> None:
    """Every promise that the bank's ledger can judge was kept, and every case came to its end."""
    assert (result["bank"]["double_charges"], result["bank"]["off_hours"], result["broken"]) == (0, 0, {})
    assert result["cases"] == result["bank"]["payments"] == payments
    assert result["recovered_count"] == result["bank"]["approved"] > 0


def test_a_demo_charges_nobody_twice_and_never_at_night(start: Start) -> None:
    """Eight failed renewals, every process real: it ends well, and the bank's ledger says so."""
    result = result_of(start())
    assert_kept(result, PAYMENTS)
    assert result["restarts"] == 0


def test_a_demo_in_observe_mode_writes_nothing_to_the_bank(start: Start) -> None:
    """It plans and measures to the end; what comes back, customers and the card updater brought."""
    result = result_of(start(PAYMENTS, "--mode=observe"))
    assert (result["bank"]["writes"], result["broken"], result["notices"]) == (0, {}, 0)
    assert result["cases"] == PAYMENTS


def test_a_demo_whose_worker_is_killed_loses_nothing_and_charges_nobody_twice(start: Start, home: Path) -> None:
    """SIGKILL in the middle of the work: the role is started again, leases run out, and the month ends as well."""
    demo = start(5)
    until_at_work(demo, home)
    os.kill(worker_of(demo), signal.SIGKILL)
    result = result_of(demo)
    assert_kept(result, 5)
    assert result["restarts"] >= 1


def test_an_interrupted_demo_leaves_no_process_behind(start: Start, home: Path) -> None:
    """Ctrl-C reaches the whole process group; roles, servers and their children end with it."""
    demo = start()
    until_at_work(demo, home)
    below = belonging_to(demo.pid, home)
    os.killpg(demo.pid, signal.SIGINT)
    told = demo.communicate(timeout=SECONDS)
    assert demo.returncode == 130, told
    assert len(below) > len(("bank", "web", "worker", "beat", "postgres", "valkey"))
    deadline = time.monotonic() + SECONDS
    while left := below & alive() | belonging_to(demo.pid, home) & alive():
        assert time.monotonic() < deadline, f"still running: {[processes().get(pid) for pid in left]}"
        time.sleep(0.02)
