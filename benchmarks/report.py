"""How long do an operator's questions take with a million cases? Commands as whole processes, pages over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import requests
from sqlalchemy import text

from benchmarks.measure import Row, Scale, interleave
from benchmarks.past import WEEKS, fill
from benchmarks.place import place
from benchmarks.startup import run
from benchmarks.waiting import LIVED
from worker import app
from worker.clock import set_clock
from worker.practice.people import START
from worker.roles import Roles
from worker.simulate.play import MONTH

COUNT, TOKEN = 1_000_000, "t" * 40
CASE, KEPT, EVENTS = "a case with its indexes", "its attempts, history and messages", "its events"
COMMANDS = {
    "dunning report": (),
    "dunning report --by class": ("--by", "class"),
    "dunning report --from, of the last month": ("--from", f"{START + WEEKS - MONTH:%Y-%m-%d}"),
}
PAGES = {
    "console, overview": "",
    "console, list of cases": "/cases",
    "console, list of the largest amounts": "/cases?sort=amount&desc=yes",
    "console, page of a case": "/cases/70",
    "console, report": "/report",
}


def measure(scale: Scale) -> list[Row]:
    """Fill a database and ask; what is asked once before is not counted."""
    with TemporaryDirectory(prefix="dunning-bench-") as scratch:
        clock = Path(scratch) / "clock"
        set_clock(clock, START + WEEKS)
        with place(DUNNING_CLOCK_FILE=str(clock), DUNNING_CONSOLE_TOKEN=TOKEN) as folder:
            fill(app.engine(), scale.of(COUNT))
            with _console(folder) as page:
                found = interleave(_ways(page), scale.rounds)
            sizes = {what: _bytes(tables) / of for what, (tables, of) in _stored(scale.of(COUNT)).items()}
    rows = [Row("report", what, "s", runs) for what, runs in found.items()]
    return rows + [Row("report", what, "bytes", (size,)) for what, size in sizes.items()]


def _stored(count: int) -> dict[str, tuple[tuple[str, ...], int]]:
    """Return by what is told of a case the tables, and how many cases they are about; events are not multiplied."""
    return {
        CASE: (("cases",), count),
        KEPT: (("attempts", "history", "outbox"), count),
        EVENTS: (("events",), LIVED),
    }


def _bytes(tables: tuple[str, ...]) -> int:
    """Return the size of some tables with their indexes, of those in parts the sum."""
    parts = "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(CAST(:name AS regclass))"
    size = text(f"SELECT coalesce(({parts}), pg_total_relation_size(CAST(:name AS regclass)))")
    with app.engine().connect() as db:
        return sum(int(db.execute(size, {"name": name}).scalar_one()) for name in tables)


def _ways(page: Callable[[str], float]) -> dict[str, Callable[[], float]]:
    ways: dict[str, Callable[[], float]] = {
        what: partial(run, ("-m", "worker.cli", "report", *options)) for what, options in COMMANDS.items()
    }
    ways["dunning case list"] = partial(run, ("-m", "worker.cli", "case", "list"))
    ways |= {what: partial(page, path) for what, path in PAGES.items()}
    for way in ways.values():
        way()
    return ways


@contextmanager
def _console(folder: Path) -> Iterator[Callable[[str], float]]:
    """Run ``dunning web`` and log in; give what fetches a page and returns the seconds it took."""
    file = folder / "port"
    with Roles({}, folder / "logs") as roles, requests.Session() as browser:
        roles.start("web", ("worker.cli", "web", "--port=0", f"--port-file={file}"))
        while not file.exists():
            time.sleep(0.1)
        base = f"http://127.0.0.1:{file.read_text()}/console"
        browser.post(f"{base}/login", {"token": TOKEN}, headers={"Sec-Fetch-Site": "same-origin"}, timeout=60)
        yield partial(_fetch, browser, base)


def _fetch(browser: requests.Session, base: str, path: str) -> float:
    begun = time.perf_counter()
    browser.get(base + path, timeout=600).raise_for_status()
    return time.perf_counter() - begun
