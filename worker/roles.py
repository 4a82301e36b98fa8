"""How do the roles of one machine run together? Child processes of one group that live and die with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

STOP_SECONDS = 50  # longer than worker_soft_shutdown_timeout: what is under way is settled
AGAIN_SECONDS = 0.05
ORPHANS = "DUNNING_STOP_WITH_PARENT"


@dataclass(slots=True)
class Roles:
    """A set of running roles. Used as a context: leaving it stops them all, however it is left."""

    environment: Mapping[str, str]
    logs: Path | None = None
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    commands: dict[str, Sequence[str]] = field(default_factory=dict)
    restarts: int = 0

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start ``python -m …`` as a child whose end of a pipe tells it when the parent is gone.

        It has a process group of its own: Ctrl-C is for the parent, which then stops the roles in order.
        """
        self.commands[name] = command
        output = self._output(name)
        environment = {**os.environ, **self.environment, ORPHANS: "1"}
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            process_group=0,
        )
        if output is not None:
            os.close(output)

    def _output(self, name: str) -> int | None:
        if self.logs is None:
            return None
        self.logs.mkdir(parents=True, exist_ok=True)
        return os.open(self.logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def revive(self) -> list[str]:
        """Start every role again that has ended; return their names."""
        dead = [name for name, process in self.running.items() if process.poll() is not None]
        for name in dead:
            self._hang_up(name)
            self.start(name, self.commands[name])
        self.restarts += len(dead)
        return dead

    def _hang_up(self, name: str) -> None:
        pipe = self.running[name].stdin
        if pipe is not None:
            pipe.close()

    def stop(self) -> None:
        """End all roles: ask, wait, and kill what does not listen."""
        for process in self.running.values():
            if process.poll() is None:
                process.terminate()
        for name, process in self.running.items():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._hang_up(name)
        self.running.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def stop_with_parent() -> None:
    """In a child started by ``Roles``: end when the parent is gone, even if it was killed."""
    if os.environ.pop(ORPHANS, None) is None:
        return

    pipe = sys.stdin.fileno()

    def wait() -> None:
        while os.read(pipe, 1):  # not sys.stdin: its lock, held by a daemon thread, breaks the interpreter's end
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def stop_on_signals() -> None:
    """Let SIGTERM end this process the way Ctrl-C does, so that every context is left.

    Ctrl-C too is asked for by name: a process started in the background of a script inherits that it is ignored, while
    the roles below it would listen. A destructor that is running swallows the interrupt: it then comes again.
    """

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    def again(lost: Any) -> None:
        if lost.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            sys.__unraisablehook__(lost)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, interrupt)
    sys.unraisablehook = again
