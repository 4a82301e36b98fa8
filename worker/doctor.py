"""Is this installation in order? All checks together, and the decline codes that nobody knows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Engine, cast, func, select, union_all
from sqlalchemy.dialects.postgresql import JSONB

from schedules import Decline, Policy
from schedules.declines import classify
from worker import account, checks, stops, watch
from worker.checks import Check, carefully
from worker.clock import machine_now
from worker.models import DECLINE, UNCERTAIN, attempts, cases, outbox
from worker.stripe_gateway import GatewayError, NoAccess, StripeGateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from worker.settings import Settings

LOOK_BACK = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class UnknownCode:
    """A code of refusals that no table can read, as ``field:code``, and the classes these refusals were given."""

    code: str
    count: int
    treated_as: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Examined:
    """Everything that was found, in the order in which it is told."""

    checks: list[Check]
    unknown: list[UnknownCode]


def examine(engine: Engine, settings: Settings, now: datetime) -> Examined:
    """Make every check; what cannot be looked at is told, and keeps no other from being made."""
    policy, of_policy = checks.policy_of(settings)
    schema = carefully("database", lambda: [checks.schema(engine)])
    unknown: list[UnknownCode] = []

    def codes() -> list[Check]:
        unknown.extend(unknown_codes(engine, policy, now))
        return [_told(each) for each in unknown]

    found = [checks.mode(settings), *of_policy, *carefully("mail", lambda: [checks.mail(settings)])]
    found += [checks.notices(settings, policy, now.date()), checks.hooks(settings, policy), *schema]
    if schema[0].ok:
        found += carefully("clock of the database", lambda: [checks.database_clock(engine, machine_now)])
    found += carefully("broker", lambda: [checks.broker(settings.broker_url or "")])
    found += [checks.webhook_secret(settings), account.key(settings)]
    if settings.stripe_api_key is not None:
        found += carefully("Stripe", lambda: _stripe(settings))
    if schema[0].ok:
        found += carefully("charging", lambda: _at_work(engine, settings, now))
        found += carefully("messages", lambda: _uncertain(engine, now))
        found += carefully("segments", lambda: _segments(engine, policy))
        found += carefully("decline codes", codes)
    return Examined(found, unknown)


def _at_work(engine: Engine, settings: Settings, now: datetime) -> Iterator[Check]:
    """Tell whether somebody is at work, and what keeps everybody from charging."""
    health = watch.health(engine, settings.tick_seconds, now)
    for each in health.shown["stopped"]:
        advice = "`dunning resume-charging` ends it" if each["by"] == stops.OPERATOR else "run `dunning sync`"
        yield Check("charging", ok=True, detail=f"stopped since {each['since']}: {each['why']}", advice=advice)
    advice = "start `dunning up`, or `dunning worker` and `dunning beat`"
    yield from (Check("workers", ok=True, detail=why, advice=advice) for why in health.why)


def _uncertain(engine: Engine, now: datetime) -> Iterator[Check]:
    """Tell of messages that may have left: nobody repeats them, so a person decides."""
    perhaps = outbox.c.error == UNCERTAIN, outbox.c.due_at.is_(None), outbox.c.merged_into.is_(None)
    with engine.connect() as db:
        number = db.execute(select(func.count()).where(*perhaps, outbox.c.at > now - LOOK_BACK)).scalar_one()
    if number:
        advice = "`dunning outbox list` names them; the mail server's log knows their Message-ID"
        yield Check("messages", ok=True, detail=f"{number} perhaps delivered, and not repeated", advice=advice)


def _segments(engine: Engine, policy: Policy) -> Iterator[Check]:
    """Tell of open cases whose segment the policy has no longer: they follow the usual policy."""
    open_ones = cases.c.closed_at.is_(None), cases.c.segment.is_not(None)
    with engine.connect() as db:
        found = db.execute(select(cases.c.segment, func.count()).where(*open_ones).group_by(cases.c.segment)).all()
    known = {who.name for who, _ in policy.segments}
    for name, number in sorted((name, number) for name, number in found if name not in known):
        detail = f"{number} open cases belong to it, and the policy has none of that name: they follow the usual one"
        yield Check(f"segment {name}", ok=True, detail=detail, advice="keep it until they have ended")


def _stripe(settings: Settings) -> Iterator[Check]:
    try:
        look = StripeGateway.from_settings(settings).look()
    except GatewayError as error:
        mend = "give the key its rights, or set another one in DUNNING_STRIPE_API_KEY and start again"
        wait = "see https://status.stripe.com and the network; cases wait and go on by themselves"
        yield Check("Stripe", ok=False, detail=str(error), advice=mend if isinstance(error, NoAccess) else wait)
        return
    yield checks.clock("clock of Stripe", look.at, machine_now())
    yield from account.told_by(look)


def unknown_codes(engine: Engine, policy: Policy, now: datetime) -> list[UnknownCode]:
    """Return the codes that no table can read in the refusals of all cases in the last 90 days, the commonest first."""
    renewed = select(cases.c.decline, cases.c.failed_card["brand"].astext.label("brand"))
    charged = select(attempts.c.decline, attempts.c.card["brand"].astext).where(
        attempts.c.at > now - LOOK_BACK, attempts.c.state.in_(("declined", "foreign")), attempts.c.case_id.is_not(None)
    )
    refused = union_all(renewed.where(cases.c.failed_at > now - LOOK_BACK), charged).subquery()
    decline = cast(refused.c.decline, JSONB)  # plain JSON is not comparable
    counted = select(cast(decline, DECLINE), refused.c.brand, func.count()).group_by(decline, refused.c.brand)
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
