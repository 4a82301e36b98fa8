"""Are the merchant's systems told once of everybody whose renewal is off, with a moment that makes sense?"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, insert, select

from schedules import Policy
from tests.worker.bench import Bench, Serve
from tests.worker.builders import CARD, DAY, START, one, sql
from tests.worker.conftest import Run
from tests.worker.postbox import mailbox
from tests.worker.test_hooks import Receiver, receiver
from worker import notices
from worker.leases import claim_due
from worker.leavers import OFF, ON, announce, best_moment, leaving
from worker.models import outbox, subscriptions
from worker.readings import card_of

__all__ = ["receiver"]
NEW_YORK = ZoneInfo("America/New_York")
HOOKED = Policy(hooks=(OFF, ON))
ENDS = START + 20 * DAY


def leaver(engine: Engine, **changes: Any) -> None:
    """Store a monthly subscription whose customer switched renewal off the day before the start."""
    blank = {"id": "sub_1", "customer_id": "cus_1", "status": "active", "started_at": START - 100 * DAY}
    chosen = {"cancel_at": ENDS, "canceled_at": START - DAY, "feedback": "too_expensive", "plan": "gold"}
    money = {"amount_minor": 1999, "monthly_minor": 1999, "currency": "usd", "country": "US"}
    card = {name: getattr(card_of(None), name) for name in CARD.__slots__}
    with engine.begin() as db:
        db.execute(insert(subscriptions).values({**blank, **chosen, **money, "card": card, **changes}))


def moment(engine: Engine, now: datetime = START) -> datetime | None:
    """Return the best moment to remind the only leaver."""
    with engine.connect() as db:
        [row] = leaving(db, now)
        return best_moment(row, Policy(), now)


@pytest.mark.parametrize(
    ("changes", "days"),
    [
        ({}, 7),
        ({"amount_minor": 24000, "monthly_minor": 2000, "cancel_at": START + 200 * DAY}, 30),
        ({"amount_minor": 461, "monthly_minor": 1999, "cancel_at": START + 20 * DAY}, 2),
        ({"amount_minor": None, "monthly_minor": None}, 7),
    ],
    ids=["monthly", "yearly", "weekly", "no fixed price"],
)
def test_the_moment_depends_on_the_period_and_lies_in_the_customers_hours(
    engine: Engine, changes: dict[str, Any], days: int
) -> None:
    """So many days before the end, or on the next day of business."""
    leaver(engine, **changes)
    ends = changes.get("cancel_at", ENDS)
    at = moment(engine)
    assert at is not None
    assert ends - days * DAY <= at < ends - (days - 4) * DAY
    assert 9 <= at.astimezone(NEW_YORK).hour < 20


@pytest.mark.parametrize(("ends", "left"), [(START + 3 * DAY, True), (START + timedelta(hours=1), False)])
def test_the_moment_is_never_in_the_past(engine: Engine, ends: datetime, *, left: bool) -> None:
    """Whoever chose late can be reminded in the next hour that is open, unless that comes after the end."""
    leaver(engine, cancel_at=ends)
    at = moment(engine)
    assert (at is not None) is left
    assert at is None or START <= at < ends


def test_the_hook_tells_once_that_renewal_is_off_and_again_that_it_is_on(
    serve: Serve,
    receiver: Receiver,
) -> None:
    """With money, choice and moment, and no person; another choice later is another message."""
    street = serve(policy=HOOKED)
    leaver(street.engine)
    assert [announce(street.desk(START)) for _ in range(2)] == [{OFF: 1, ON: 0}, {OFF: 0, ON: 0}]
    deliver(street, receiver, START)
    [told] = receiver.taken
    assert (told["type"], told["timestamp"]) == (OFF, "2026-01-12T15:00:00Z")
    assert told["data"].pop("best_moment") > "2026-01-25"
    assert told["data"] == {
        "subscription_id": "sub_1",
        "account": None,
        "customer_id": "cus_1",
        "plan": "gold",
        "amount_minor": 1999,
        "monthly_minor": 1999,
        "currency": "usd",
        "tenure_days": 100,
        "started_at": "2025-10-04T15:00:00Z",
        "off_since": "2026-01-11T15:00:00Z",
        "ends_at": "2026-02-01T15:00:00Z",
        "feedback": "too_expensive",
    }
    sql(street.engine, "UPDATE subscriptions SET cancel_at = NULL, canceled_at = NULL")
    assert [announce(street.desk(START + DAY))[ON] for _ in range(2)] == [1, 0]
    deliver(street, receiver, START + DAY)
    assert [each["type"] for each in receiver.taken] == [OFF, ON]
    sql(street.engine, "UPDATE subscriptions SET cancel_at = :at, canceled_at = :now", at=ENDS, now=START + 2 * DAY)
    assert announce(street.desk(START + 2 * DAY)) == {OFF: 1, ON: 0}


def deliver(street: Bench, receiver: Receiver, now: datetime) -> None:
    """Deliver what is due."""
    with street.engine.begin() as db:
        due = claim_due(db, outbox, now, 100, 180)
    desk = replace(street.desk(now), hooks=receiver.hooks())
    for number, token in due:
        assert notices.deliver(desk, mailbox(Path("nowhere")), number, UUID(token))


def test_nothing_is_told_that_the_policy_does_not_name_and_nobody_is_written_to(serve: Serve) -> None:
    """A leaver is the merchant's to remind, or not."""
    street = serve(policy=Policy(prevent_notice=True))
    leaver(street.engine)
    assert announce(street.desk(START)) == {OFF: 0, ON: 0}
    with street.engine.connect() as db:
        assert db.execute(select(outbox)).all() == []


@pytest.mark.parametrize("changes", [{"ended_at": START}, {"cancel_at": START - DAY}, {"status": "gone"}])
def test_who_is_gone_already_is_on_no_list(engine: Engine, changes: dict[str, Any]) -> None:
    """There is nothing to remind of."""
    leaver(engine, **changes)
    with engine.connect() as db:
        assert leaving(db, START) == []


def test_the_command_lists_them(engine: Engine, operate: Run) -> None:
    """For people, machines and spreadsheets."""
    leaver(engine)
    [told] = json.loads(operate("renewals", "--json").stdout)
    [row] = csv.DictReader(io.StringIO(operate("renewals", "--csv").stdout))
    assert (told["subscription_id"], row["ends_at"]) == ("sub_1", "2026-02-01T15:00:00Z")
    assert told["best_moment"] == row["best_moment"]
    assert "1 with automatic renewal off" in operate("renewals").stdout
    assert operate("renewals", "--json", "--csv").returncode == 2


def test_prevent_says_what_it_did(engine: Engine, operate: Run) -> None:
    """Nobody is at risk here, and the leaver is told to nobody: the policy names no hook."""
    leaver(engine)
    done = operate("prevent", "--json", DUNNING_STRIPE_API_KEY="sk_test_1")
    assert json.loads(done.stdout)["subscriptions"] == []
    assert one(engine, "SELECT count(*) FROM outbox") == 0
