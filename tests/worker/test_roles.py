"""Do the roles of one machine live and die together?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.worker.builders import until
from worker.roles import Roles

REPO = Path(__file__).parents[2]
CHILD = """
import os, pathlib, signal, sys
from worker.roles import stop_on_signals, stop_with_parent
stop_on_signals()
stop_with_parent()
place = pathlib.Path(sys.argv[1])
(place / "part").write_text(str(os.getpid()))
(place / "part").replace(place / "pid")
print("here I am", flush=True)
try:
    signal.pause()
except KeyboardInterrupt:
    (place / "left").touch()
"""
PARENT = """
import os, signal, sys
from worker.roles import Roles
Roles({}).start("child", ["child", sys.argv[1]])
signal.pause()
"""

SWALLOWED = """
import os, signal, sys
from worker.roles import stop_on_signals
stop_on_signals()
class Response:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        print("not reached")
try:
    Response()
    while True:
        signal.pause()
except KeyboardInterrupt:
    print("left")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with a module `child` that a role can run."""
    (tmp_path / "child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{REPO}")
    return tmp_path


def pid_of(place: Path) -> int:
    """Wait until the child runs; return its process id."""
    until((place / "pid").exists)
    return int((place / "pid").read_text())


def runs(pid: int) -> bool:
    """Say whether a process does anything; a zombie does not."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return not Path("/proc").exists()
    return False


def test_leaving_stops_every_role(place: Path) -> None:
    """Each is asked, leaves its contexts, and is gone."""
    with Roles({}) as roles:
        roles.start("child", ["child", str(place)])
        pid = pid_of(place)
        assert runs(pid)
    assert not runs(pid)
    assert (place / "left").exists()


def test_leaving_by_an_exception_stops_every_role_too(place: Path) -> None:
    """Whatever ended the parent's work, no child stays."""

    def work() -> None:
        with Roles({}) as roles:
            roles.start("child", ["child", str(place)])
            pid_of(place)
            raise LookupError

    with pytest.raises(LookupError):
        work()
    assert not runs(pid_of(place))


def test_a_child_dies_with_a_killed_parent(place: Path) -> None:
    """The parent gets kill -9 and can tell nobody: the child notices by itself and leaves in order."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(place)], cwd=REPO)
    pid = pid_of(place)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(20)
    until(lambda: not runs(pid))
    assert (place / "left").exists()


def test_ctrl_c_is_for_the_parent(place: Path) -> None:
    """The whole group of a terminal is told; the role outlives it until its parent asks."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(place)], cwd=REPO, start_new_session=True)
    pid = pid_of(place)
    assert os.getpgid(pid) == pid != os.getpgid(parent.pid)
    os.killpg(parent.pid, signal.SIGKILL)
    parent.wait(20)
    until(lambda: not runs(pid))
    assert (place / "left").exists()


def test_an_interrupt_that_a_destructor_swallowed_comes_again() -> None:
    """Python ignores what a destructor raises: without care Ctrl-C would be lost."""
    command = [sys.executable, "-c", SWALLOWED]
    ended = subprocess.run(command, check=False, cwd=REPO, capture_output=True, text=True, timeout=20)
    assert (ended.stdout, ended.stderr) == ("left\n", "")


def test_a_role_that_ends_is_started_again(place: Path) -> None:
    """Only the dead one, with the same command, and it is counted."""
    with Roles({}) as roles:
        roles.start("child", ["child", str(place)])
        first = pid_of(place)
        assert roles.revive() == []
        (place / "pid").unlink()
        os.kill(first, signal.SIGKILL)
        until(lambda: not runs(first))
        until(lambda: roles.revive() == ["child"])
        assert pid_of(place) != first
        assert roles.restarts == 1


def test_what_a_role_prints_is_kept_in_its_log(place: Path) -> None:
    """One file for each role, appended to, for the owner alone."""
    for _ in range(2):
        with Roles({}, logs=place / "logs") as roles:
            roles.start("child", ["child", str(place)])
            pid_of(place)
            until(lambda: "here I am" in (place / "logs" / "child.log").read_text())
        (place / "pid").unlink()
    log = place / "logs" / "child.log"
    assert log.read_text().count("here I am") == 2
    assert log.stat().st_mode & 0o077 == 0
