"""Is this installation's own part in order? Checks that only look; each tells a person what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from redis import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError

from schedules import Policy, PolicyError
from schedules.contradictions import contradictions
from worker import database, wording
from worker.clock import machine_now
from worker.hooks import BY_WEBHOOK
from worker.logs import log
from worker.mail import Mailbox
from worker.models import MACHINE_NOW
from worker.smtp import NoMailServer
from worker.words import NotWritten, read_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import date, datetime

    from worker.settings import Settings

SKEW_TO_TELL, MOST_SKEW = timedelta(seconds=5), timedelta(seconds=60)
UNREACHABLE = "no connection"
UNIX = ("redis+socket://", "unix://")
MAIL_FROM = "billing@localhost"
KEEPS = "set maxmemory-policy noeviction: a full broker must refuse hints, not forget them"


class NotReady(RuntimeError):
    """Something must be mended before this role starts."""


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found. Not ok stops the recovery of money; ``advice`` says how to mend, or to better, it."""

    name: str
    ok: bool
    detail: str
    advice: str | None = None


def carefully(name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """Return what a look found; one that raises is one failed check, and keeps no other from being made."""
    try:
        return list(look())
    except Exception as error:  # noqa: BLE001 - its text may name hosts and users, so only its kind is told
        detail = f"could not be looked at: {type(error).__name__}"
        return [Check(name, ok=False, detail=detail, advice="report it as a fault of dunning")]


def mode(settings: Settings) -> Check:
    """Tell whether anything is charged."""
    if settings.mode == "observe":
        advice = "when you agree with its plans, set DUNNING_MODE=live"
        return Check("mode", ok=True, detail="observe: it plans, and writes nothing to Stripe", advice=advice)
    money = "charges real customers" if settings.live_key else "no real money, the key is not a live one"
    return Check("mode", ok=True, detail=f"live: {money}")


def schema(engine: Engine) -> Check:
    """Tell whether the database answers and has the shape of this version."""
    try:
        database.require_current(engine)
    except database.MigrationMissing as error:
        return Check("database", ok=False, detail=str(error), advice="run `dunning db upgrade`")
    except OperationalError as error:  # its text names hosts and users
        detail, advice = f"no connection: {type(error.orig).__name__}", "see DUNNING_DATABASE_URL and the server's log"
        return Check("database", ok=False, detail=detail, advice=advice)
    return Check("database", ok=True, detail="in the shape of this version")


def database_clock(engine: Engine, read_clock: Callable[[], datetime]) -> Check:
    """Compare the clock of the database, by which leases and keys age, with that of this machine."""
    with engine.connect() as db:
        theirs = db.execute(select(MACHINE_NOW)).scalar_one()
    return clock("clock of the database", theirs, read_clock())


def clock(name: str, theirs: datetime, ours: datetime) -> Check:
    """Compare a clock with that of this machine: signatures, leases and ages of keys rely on all of them."""
    apart = abs(theirs - ours)
    advice = "let NTP set the clocks of this machine and of the servers" if apart > SKEW_TO_TELL else None
    return Check(
        name, ok=apart <= MOST_SKEW, detail=f"{apart.total_seconds():.0f} s from this machine's", advice=advice
    )


def broker(url: str) -> Check:
    """Tell whether the broker answers, and never throws away what it holds."""
    try:
        with Redis.from_url(redis_url(url), socket_connect_timeout=5, socket_timeout=5) as server:
            server.ping()
            return _told_of_eviction(_eviction(server))
    except RedisError as error:
        detail, advice = f"{UNREACHABLE}: {type(error).__name__}", "see DUNNING_BROKER_URL and the server's log"
        return Check("broker", ok=False, detail=detail, advice=advice)


def _told_of_eviction(policy: str | None) -> Check:
    if policy is None:
        return Check("broker", ok=True, detail="answers; its maxmemory-policy is unknown", advice=KEEPS)
    kept = policy == "noeviction"
    return Check("broker", ok=kept, detail=f"answers; maxmemory-policy is {policy}", advice=None if kept else KEEPS)


def refuse_to_start(engine: Engine, settings: Settings, read_clock: Callable[[], datetime] = machine_now) -> None:
    """Raise ``NotReady`` when a clock or the broker's eviction would do harm; a broker that is away is waited for."""
    for each in (database_clock(engine, read_clock), broker(settings.broker_url or "")):
        if not each.ok and each.detail.startswith(UNREACHABLE):
            log.warning("broker", detail=each.detail)
        elif not each.ok:
            msg = f"{each.name}: {each.detail}; {each.advice}"
            raise NotReady(msg)
        elif each.advice:
            log.warning(each.name, detail=each.detail, advice=each.advice)


def redis_url(url: str) -> str:
    """Return the address of a broker as redis writes it: Celery has a word of its own for a socket."""
    scheme, socket = UNIX
    return url.replace(scheme, socket).partition("?")[0] if url.startswith(scheme) else url


def _eviction(server: Redis) -> str | None:
    """Return what the server does when it is full, or None where the account may not ask."""
    try:
        found = server.config_get("maxmemory-policy")
    except ResponseError:
        return None
    return str(found.get("maxmemory-policy")) if isinstance(found, dict) else None


def policy_of(settings: Settings) -> tuple[Policy, list[Check]]:
    """Return the policy in force with what is wrong in it; one that cannot be used is replaced by the default."""
    where = f"the file {settings.policy}" if settings.policy else "the default policy"
    try:
        policy = Policy.load(settings.policy) if settings.policy else Policy.default()
    except PolicyError as error:
        advice = "mend it, `dunning policy check` tells when it is right; the worker does not start with it"
        return Policy.default(), [Check("policy", ok=False, detail=str(error), advice=advice)]
    void = [
        Check("policy", ok=True, detail=line, advice="one of the two choices has to change")
        for line in contradictions(policy)
    ]
    return policy, void or [Check("policy", ok=True, detail=f"{where} contradicts itself nowhere")]


def mail(settings: Settings) -> Check:
    """Tell where notices go, and whether the mail server lets us in."""
    if settings.smtp_url is None:
        detail = f"kept as files in {settings.home / 'notices'}; no customer gets one"
        return Check("mail", ok=True, detail=detail, advice="set DUNNING_SMTP_URL before going live")
    try:
        Mailbox.from_settings(settings, seconds=5).reach()
    except NoMailServer as error:
        advice = "see DUNNING_SMTP_URL and the server's log; notices wait, and leave by themselves once it is mended"
        return Check("mail", ok=False, detail=str(error), advice=advice)
    if settings.mail_from == MAIL_FROM:
        return Check("mail", ok=True, detail=f"from {MAIL_FROM}", advice="set DUNNING_MAIL_FROM to an address of yours")
    return Check("mail", ok=True, detail="by SMTP")


def tell_of_mail(settings: Settings) -> None:
    """Log that no notice can leave: nobody's start is stopped by a mail server that may come back."""
    if not (found := mail(settings)).ok:
        log.error("mail", detail=found.detail, advice=found.advice)


def notices(settings: Settings, policy: Policy, today: date) -> Check:
    """Tell whether every notice can be written."""
    try:
        wording.check(wording.Letterhead.from_settings(settings), policy, today)
    except NotWritten as error:
        advice = "mend the file, or the ladder of the policy; the worker does not start with it"
        return Check("notices", ok=False, detail=str(error), advice=advice)
    said = ", ".join(wording.names(policy))
    return Check("notices", ok=True, detail=f"{said}: in {len(read_words(settings.templates))} languages")


def hooks(settings: Settings, policy: Policy) -> Check:
    """Tell whether there is somebody to tell what the policy wants told by webhook."""
    channels = dict.fromkeys(name for each in policy.every for name in each.channels if name in BY_WEBHOOK)
    events = dict.fromkeys(name for each in policy.every for name in each.hooks)
    wanted = [*events, *(f"notices by {channel}" for channel in channels)]
    missing = [f"DUNNING_{name}" for name in ("HOOK_URL", "HOOK_SECRET") if not getattr(settings, name.lower())]
    if wanted and missing:
        advice = "set it, or take them out of the policy; the worker does not start with it"
        detail = f"the policy wants {', '.join(wanted)} told, and {' and '.join(missing)} is not set"
        return Check("webhooks to you", ok=False, detail=detail, advice=advice)
    return Check("webhooks to you", ok=True, detail=", ".join(wanted) or "none")


def webhook_secret(settings: Settings) -> Check:
    """Tell whether events can be verified."""
    number = len(settings.stripe_webhook_secret)
    if not number:
        advice = "set DUNNING_STRIPE_WEBHOOK_SECRET; without it only `dunning sync` and `dunning ingest` bring events"
        return Check("webhook secret", ok=True, detail="none: every webhook is refused", advice=advice)
    more = None if number == 1 else "remove the old secret once Stripe's roll is over"
    return Check("webhook secret", ok=True, detail=f"{number} set", advice=more)
