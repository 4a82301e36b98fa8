"""What does one worker work with, and what does it know of a case that it holds?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Engine, Row

from schedules import Policy, Step
from worker.calls import Calls
from worker.cases import Case
from worker.hooks import Hooks
from worker.links import Links
from worker.stripe_gateway import StripeGateway

ASK_AGAIN, SECOND_READ = timedelta(minutes=5), timedelta(hours=1)
DONE_BY_US = ("refresh", "charge", "contact")  # of the steps; for the others a worker has only to look again


@dataclass(frozen=True, slots=True)
class Desk:
    """What one worker works with. ``now`` is the business instant at which the task began.

    ``calls`` are the threads in which the provider is asked; without them it is asked about one case after the other.
    """

    engine: Engine
    gateway: StripeGateway
    policy: Policy
    live: bool
    lease_seconds: float
    now: datetime
    links: Links | None = None
    hooks: Hooks | None = None
    calls: Calls | None = None


class Held(NamedTuple):
    """A case under our lease, and the act that is due; ``news`` counts the events that were known when it was decided.

    ``attempt`` is what is to be sent; ``again``: it may have been sent before.
    """

    case_id: int
    token: UUID
    payment_id: str
    customer_id: str
    account: str | None
    arm: str
    segment: str | None
    charge_id: str | None
    act: str
    news: int
    attempt: Row[Any] | None = None
    again: bool = False


class Answered(NamedTuple):
    """A locked case, what was asked about it, and the answer."""

    case: Case
    held: Held
    answer: Any


def held(case: Case, act: str, attempt: Row[Any] | None = None, *, again: bool = False) -> Held:
    """Return what is to be known of a case when its row is not locked any more."""
    whose = case.customer_id, case.account, case.arm, case.segment
    return Held(case.id, case.lease_token, case.payment_id, *whose, case.charge_id, act, case.news, attempt, again)


def due(case: Case, step: Step, now: datetime) -> list[Held]:
    """Return the act of a step that is due at once; else the case is given back."""
    act = type(step).__name__.lower()
    if act in DONE_BY_US and step.at <= now:
        return [held(case, act)]
    case.let_go()
    return []
