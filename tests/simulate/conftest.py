"""What the tests of the simulator share with those of the worker: a command as an operator runs it."""

from __future__ import annotations

from tests.worker.conftest import commands, run

__all__ = ["commands", "run"]
