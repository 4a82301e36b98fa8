"""How many decisions a second does one core make? Those that a world of failed payments really asks for.

They are recorded by playing the built-in world: fresh failures, cases just read, refused once to eight times, with
notices and without, of many countries and rails. Caches are warm, but of another world's payments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from time import process_time

from benchmarks.measure import Row, Scale, interleave
from schedules import Facts, FailedPayment, Policy, Step, next_step
from schedules.ahead import plan_ahead
from schedules.learned import WEEKDAYS, Model
from worker.practice.world import BuiltInWorld
from worker.simulate import play

LEAST = 10_000
WARM, TIMED = 1, 2  # seeds
FEWER = 8  # a decision with a model costs more: every eighth one is timed
Asked = tuple[Facts, datetime]


def measure(scale: Scale) -> list[Row]:
    """Return decisions and whole calendars a second, under the rules and with a model."""
    rules, modelled = Policy.default(), replace(Policy.default(), model=a_model())
    number = scale.of(2000)
    warm, timed = asked(WARM, number), asked(TIMED, number)
    few, failed = timed[::FEWER], list(BuiltInWorld(TIMED, number).failures())
    ways: dict[str, Callable[[], float]] = {
        "next_step, rules": lambda: rate(lambda: decide(timed, rules), len(timed)),
        "next_step, a model": lambda: rate(lambda: decide(few, modelled), len(few)),
        "plan_ahead, rules": lambda: rate(lambda: plan(failed, rules), len(failed)),
    }
    decide(warm, rules)
    decide(warm[::FEWER], modelled)
    asks = {"next_step, rules": LEAST}
    return [
        Row("decide", what, "calls/s", runs, least=asks.get(what))
        for what, runs in interleave(ways, scale.rounds).items()
    ]


def asked(seed: int, payments: int) -> list[Asked]:
    """Return every question that a world's payments ask of the default policy, in the order of its time."""
    found: list[Asked] = []
    policy = Policy.default()

    def listen(facts: Facts, now: datetime) -> Step:
        found.append((facts, now))
        return next_step(facts, policy, now)

    for _ in play(BuiltInWorld(seed, payments), listen, cooldown=timedelta(hours=policy.cooldown_hours)):
        pass
    return found


def decide(questions: Sequence[Asked], policy: Policy) -> None:
    """Answer them."""
    for facts, now in questions:
        next_step(facts, policy, now)


def plan(failed: Sequence[FailedPayment], policy: Policy) -> None:
    """Tell the whole calendar of each."""
    for payment in failed:
        plan_ahead(payment, policy, payment.failed_at)


def rate(act: Callable[[], None], count: int) -> float:
    """Return how many a second of one core's own time."""
    begun = process_time()
    act()
    return count / (process_time() - begun)


def a_model() -> Model:
    """Return weights of the size that ``dunning learn`` finds, for every hour, weekday and try."""
    hours = {f"hour={hour}": 0.3 - abs(hour - 10) / 40 for hour in range(24)}
    days = {f"weekday={day}": number / 50 for number, day in enumerate(WEEKDAYS)}
    kinds = {f"{kind} {name}": value / 2 for kind in ("funds/debit", "funds/credit") for name, value in hours.items()}
    tries = {f"try={number}": -number / 10 for number in range(1, 9)}
    paid = {f"payday={days}": 0.5 - days / 10 for days in range(8)}
    return Model("benchmark", -1.5, {**hours, **days, **kinds, **tries, **paid})
