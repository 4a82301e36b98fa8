"""Is this installation in order? Checks that only look; each tells a person what to do about it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Engine, func, select, union_all
from sqlalchemy.exc import OperationalError

from schedules import Decline, Policy
from schedules.declines import classify
from worker import database
from worker.models import attempts, cases

if TYPE_CHECKING:
    from datetime import datetime

LOOK_BACK = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Check:
    """What one look at the installation found; ``advice`` says how to mend or to better it."""

    name: str
    ok: bool
    detail: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class UnknownCode:
    """A code of refusals that no table can read, as ``field:code``, and the classes these refusals were given."""

    code: str
    count: int
    treated_as: tuple[str, ...]


def checks(engine: Engine, policy: Policy, now: datetime) -> list[Check]:
    """Return every check, the database first: without it the others cannot be made."""
    first = _database(engine)
    return [first, *map(_told, unknown_codes(engine, policy, now))] if first.ok else [first]


def _database(engine: Engine) -> Check:
    try:
        database.require_current(engine)
    except database.MigrationMissing as error:
        return Check("database", ok=False, detail=str(error), advice="run `dunning db upgrade`")
    except OperationalError as error:  # its text names hosts and users
        detail, advice = f"no connection: {type(error.orig).__name__}", "see DUNNING_DATABASE_URL and the server's log"
        return Check("database", ok=False, detail=detail, advice=advice)
    return Check("database", ok=True, detail="in the shape of this version")


def unknown_codes(engine: Engine, policy: Policy, now: datetime) -> list[UnknownCode]:
    """Return the codes that no table can read in the refusals of all cases in the last 90 days, the commonest first."""
    renewed = select(cases.c.decline, cases.c.failed_card["brand"].astext.label("brand"))
    charged = select(attempts.c.decline, attempts.c.card["brand"].astext).where(
        attempts.c.at > now - LOOK_BACK, attempts.c.state.in_(("declined", "foreign")), attempts.c.case_id.is_not(None)
    )
    refused = union_all(renewed.where(cases.c.failed_at > now - LOOK_BACK), charged).subquery()
    counted = select(refused.c.decline, refused.c.brand, func.count()).group_by(refused.c.decline, refused.c.brand)
    counts: Counter[str] = Counter()
    treated: dict[str, set[str]] = {}
    with engine.connect() as db:
        for decline, brand, number in db.execute(counted):
            verdict = classify(Decline(**decline), brand, policy.overrides)
            for code in verdict.unknown:
                counts[code] += number
                treated.setdefault(code, set()).add(verdict.decline_class)
    return [UnknownCode(code, number, tuple(sorted(treated[code]))) for code, number in counts.most_common()]


def _told(unknown: UnknownCode) -> Check:
    """An unknown code fails nothing: it has a meaning by default, which the merchant may know better."""
    detail = f"{unknown.count} refusals in {LOOK_BACK.days} days, treated as {', '.join(unknown.treated_as)}"
    advice = "add a [[declines]] rule to the policy to say what it means"
    return Check(f"unknown decline code {unknown.code}", ok=True, detail=detail, advice=advice)
