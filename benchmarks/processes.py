"""What do processes cost? Seconds of CPU, and memory of which a shared page counts once, of whole families."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MEGA = 1_000_000


@dataclass(frozen=True, slots=True)
class Family:
    """Processes by their ids, each with its descendants."""

    roots: tuple[int, ...]

    def cpu(self) -> float:
        """Return the seconds that all of them have worked, those that they waited for too."""
        return self._sum(lambda each: sum(each.cpu_times()[:4]))

    def memory(self) -> float:
        """Return their megabytes: their own pages, and their share of those they have in common."""
        return self._sum(lambda each: each.memory_full_info().pss / MEGA)

    def _sum(self, figure: Callable[[psutil.Process], float]) -> float:
        """Add up a figure of all that live; one may end while it is looked at."""
        total = 0.0
        for root in self.roots:
            with suppress(psutil.NoSuchProcess):
                first = psutil.Process(root)
                for each in (first, *first.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        total += figure(each)
        return total


def servers(folder: Path) -> Family:
    """Return the embedded PostgreSQL and Valkey of an installation's folder."""
    home = (folder / "servers").resolve()
    files = (home / "postgres" / "postmaster.pid", home / "valkey.pid")
    return Family(tuple(int(file.read_text().split()[0]) for file in files))
