"""How long does it take to find and lease what is due, whatever else waits? In databases from ten thousand cases on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from statistics import median

import click
from sqlalchemy import Engine, make_url, text

from benchmarks.measure import Row, Scale, interleave, ratios
from benchmarks.place import place
from benchmarks.waiting import LIVED, NOW, live, multiply
from schedules import Policy
from worker import sweep
from worker.app import engine, make_engine
from worker.desk import Desk
from worker.leases import claim_due
from worker.models import cases
from worker.settings import load_settings
from worker.stripe_gateway import StripeGateway

PENDING = {"10 k": 10_000, "100 k": 100_000, "1 M": 1_000_000, "10 M": 10_000_000}
DUE, LEASE, CLAIMERS, LOOKS = 1_000, 60, 4, 50
MONTH = 4  # times that every case is worked on in it
VACUUMED = 0.02  # share of dead rows at which autovacuum comes, as the table says
SINCE = NOW - timedelta(hours=1)
LATER = f"timestamptz '{NOW}' + interval '1 day' + interval '30 days' * random()"
SOME = "id IN (SELECT :first + floor(random() * :pending)::bigint FROM generate_series(1, 3 * :number)) LIMIT :number"
MAKE_DUE = f"UPDATE cases SET due_at = :since WHERE id IN (SELECT id FROM cases WHERE {SOME})"  # noqa: S608
TAKE_OVER = "UPDATE cases SET lease_token = gen_random_uuid(), claims = claims + 1 WHERE due_at = :since"
PLAN = f"UPDATE cases SET due_at = {LATER} WHERE due_at = :since"  # noqa: S608
LET_GO = "UPDATE cases SET lease_token = NULL, lease_until = NULL, claims = 0 WHERE id = ANY(:ids)"


def measure(scale: Scale) -> list[Row]:
    """Claim in every size by turns; look in vain, side by side, beside a long transaction, and after a month."""
    with place(), _towns(scale) as (towns, filled):
        due = scale.of(DUE)
        ways = {name: partial(_once, town, due) for name, town in towns.items()}
        for way in ways.values():
            way()
        runs = interleave(ways, scale.rounds)
        rows = [Row("claim", f"{due:,} due among {name}", "ms", runs[name]) for name in towns]
        rows.append(Row("claim", "the same, 10 M to 10 k", "×", ratios(runs["10 M"], runs["10 k"]), most=1.3))
        rows += [*_in_vain(towns["10 M"], scale), *_side_by_side(towns["1 M"], scale)]
        rows += [*_beside_a_transaction(towns["100 k"], scale), *_after_a_month(towns["100 k"], scale)]
        return [*rows, Row("claim", "filling and indexing 10 M", "s", (filled,))]


@contextmanager
def _towns(scale: Scale) -> Iterator[tuple[dict[str, Engine], float]]:
    """Give a database for each number of waiting cases, and how many seconds the last one took to fill."""
    live(engine())
    engine().dispose()
    towns, seconds = dict[str, Engine](), 0.0
    try:
        for name, count in PENDING.items():
            towns[name] = _copy(f"town{count}")
            begun = time.perf_counter()
            _fill(towns[name], scale.of(count))
            seconds = time.perf_counter() - begun
            click.echo(f"  {name}: filled in {seconds:.0f} s", err=True)
        yield towns, seconds
    finally:
        for town in towns.values():
            town.dispose()


def _copy(name: str) -> Engine:
    """Return an engine on a new copy of the installation's database."""
    here = make_url(str(load_settings().database_url))
    urls = (here.set(database=base).render_as_string(hide_password=False) for base in ("postgres", name))
    outside, inside = map(make_engine, urls)
    with outside.execution_options(isolation_level="AUTOCOMMIT").connect() as db:
        db.execute(text(f"CREATE DATABASE {name} TEMPLATE dunning"))
    outside.dispose()
    return inside


def _fill(town: Engine, count: int) -> None:
    """Add waiting cases, and only then the indexes that are of no use in between."""
    indexes = sorted(cases.indexes, key=lambda index: str(index.name))
    with town.begin() as db:
        for index in indexes:
            index.drop(db)
    multiply(town, count)
    with town.begin() as db:
        db.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL maintenance_work_mem = '1GB'"))
        for index in indexes:
            index.create(db)
    _vacuum(town)


def _vacuum(town: Engine) -> None:
    with town.execution_options(isolation_level="AUTOCOMMIT").connect() as db:
        db.execute(text("SET statement_timeout = 0"))
        db.execute(text("VACUUM (ANALYZE) cases"))
        db.execute(text("CHECKPOINT"))


def _once(town: Engine, number: int) -> float:
    """Make cases due, claim them as the sweep does, and let them wait again; return the claim's milliseconds."""
    _make_due(town, number)
    begun = time.perf_counter()
    ids = _claim(town, number)
    took = 1000 * (time.perf_counter() - begun)
    _go_on(town, ids)
    return took


def _make_due(town: Engine, number: int) -> None:
    with town.begin() as db:
        pending = db.execute(text("SELECT max(id) FROM cases")).scalar_one() - LIVED
        given = {"first": LIVED + 1, "pending": pending, "number": number, "since": SINCE}
        made = db.execute(text(MAKE_DUE), given).rowcount
    if made != number:
        msg = f"{made} cases were made due instead of {number}"
        raise RuntimeError(msg)


def _claim(town: Engine, number: int) -> list[int]:
    with town.begin() as db:
        return [case_id for case_id, _ in claim_due(db, cases, NOW, number, LEASE, sweep.FREE, sweep.SOUND)]


def _go_on(town: Engine, ids: list[int]) -> None:
    """Do to claimed cases what a worker's transactions do: take over, plan, give back."""
    for statement in (TAKE_OVER, PLAN, LET_GO):
        with town.begin() as db:
            db.execute(text(statement), {"since": SINCE, "ids": ids})


def _in_vain(town: Engine, scale: Scale) -> list[Row]:
    """Look where nothing is due: the claim alone, and a whole tick."""
    gateway = StripeGateway("sk_test_1", "http://127.0.0.1:9", 1, 1)
    desk = Desk(town, gateway, Policy.default(), live=True, lease_seconds=3 * LEASE, now=SINCE)
    looks: dict[str, Callable[[], object]] = {
        "an empty look: the claim of cases": lambda: sweep._claim_cases(desk),  # noqa: SLF001 - without the rest
        "an empty look: the whole tick": lambda: sweep.tick(desk, lambda *_: None),
    }
    runs = interleave({name: partial(_median_of_many, look) for name, look in looks.items()}, scale.rounds)
    return [Row("claim", name, "ms", runs[name], most=3) for name in looks]


def _median_of_many(look: Callable[[], object]) -> float:
    took = []
    for _ in range(LOOKS):
        begun = time.perf_counter()
        look()
        took.append(1000 * (time.perf_counter() - begun))
    return median(took)


def _side_by_side(town: Engine, scale: Scale) -> list[Row]:
    """Have four claim what is due, a quarter of a claim at a time."""
    rates, twice = [], []
    for _ in range(scale.rounds):
        _make_due(town, 10 * scale.of(DUE))
        begun = time.perf_counter()
        with ThreadPoolExecutor(CLAIMERS) as pool:
            claimed = [
                each for ids in pool.map(_until_none, [town] * CLAIMERS, [scale.of(DUE)] * CLAIMERS) for each in ids
            ]
        rates.append(len(claimed) / (time.perf_counter() - begun))
        twice.append(len(claimed) - len(set(claimed)))
        _go_on(town, claimed)
    return [
        Row("claim", "four side by side", "rows/s", tuple(rates)),
        Row("claim", "four side by side: claimed twice", "rows", tuple(twice), most=0),
    ]


def _until_none(town: Engine, number: int) -> list[int]:
    found: list[int] = []
    while ids := _claim(town, number):
        found += ids
    return found


def _beside_a_transaction(town: Engine, scale: Scale) -> list[Row]:
    """Claim while somebody reads in one transaction, which keeps all that was due since from being removed."""
    due = scale.of(DUE)
    before = [_once(town, due) for _ in range(scale.rounds)]
    with town.connect().execution_options(isolation_level="REPEATABLE READ") as reader:
        reader.execute(text("SET idle_in_transaction_session_timeout = 0"))
        reader.execute(text("SELECT count(*) FROM stops"))
        during = [_once(town, due) for _ in range(10 * scale.rounds)][-scale.rounds :]
    return [
        Row("claim", f"{due:,} due after {9 * scale.rounds} claims in one long transaction", "ms", tuple(during)),
        Row("claim", "the same, to without it", "×", ratios(during, before)),
    ]


def _after_a_month(town: Engine, scale: Scale) -> list[Row]:
    """Claim after every case was worked on some times, vacuumed as often as autovacuum would."""
    due, count = scale.of(DUE), scale.of(PENDING["100 k"])
    _vacuum(town)
    before, size = [_once(town, due) for _ in range(scale.rounds)], _bytes(town, count)
    for _ in range(int(MONTH / VACUUMED)):
        _once(town, max(int(VACUUMED * count), 1))
        _vacuum(town)
    after = [_once(town, due) for _ in range(scale.rounds)]
    return [
        Row("claim", f"{due:,} due among 100 k after a month", "ms", tuple(after)),
        Row("claim", "the same, to before", "×", ratios(after, before)),
        Row("claim", "bytes of table and indexes after a month, to before", "×", (_bytes(town, count) / size,)),
    ]


def _bytes(town: Engine, count: int) -> float:
    with town.connect() as db:
        return float(db.execute(text("SELECT pg_total_relation_size('cases')")).scalar_one()) / count
