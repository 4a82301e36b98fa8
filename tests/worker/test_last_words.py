"""Is the customer told that a case is over: once, only when it is true, and on no day of another notice?"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Row, text

from schedules import Policy
from schedules.policy import Rung
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    CARD,
    DAY,
    HOUR,
    LOST,
    START,
    add_notice,
    mail_in,
    one,
    opened,
    payment,
    sql,
    text_of,
    the_case,
    told,
)
from worker import notices
from worker.audit import examine
from worker.leases import claim_due
from worker.mail import Mailbox
from worker.models import outbox
from worker.words import NotWritten

NEW_YORK = ZoneInfo("America/New_York")
LAST = """SELECT id, name, at, due_at, delivered_at, error FROM outbox
          WHERE name IN ('ended', 'paused', 'thanks', 'expiring')"""


def lost(serve: Serve, **policy: Any) -> Bench:
    """Return a bank whose one customer never answered, at the end of the case; nothing was delivered yet."""
    subscription = policy.pop("subscription_id", "sub_1")
    failed = payment(decline=LOST, subscription_id=subscription)
    street = serve(Scripted([failed]), policy=Policy(**{"ending": "cancel", **policy}))
    opened(street.engine, failed)
    street.run()
    assert the_case(street.engine).state == "lost"
    return street


def last(street: Bench) -> Row[Any]:
    """Return the one last notice of the outbox."""
    [row] = sql(street.engine, LAST)
    return row


def deliver(street: Bench, folder: Path, now: datetime, name: str) -> bool:
    """Deliver the message of this name, due or not; whoever holds another one has let it go."""
    sql(street.engine, "UPDATE outbox SET lease_token = NULL, lease_until = NULL")
    sql(street.engine, "UPDATE outbox SET due_at = :now WHERE name = :name", now=now, name=name)
    number = one(street.engine, "SELECT id FROM outbox WHERE name = :name", name=name)
    with street.engine.begin() as db:
        tokens = dict(claim_due(db, outbox, now, 10, 180))
    return notices.deliver(street.desk(now), Mailbox("billing@shop.example", folder), number, UUID(tokens[number]))


@pytest.mark.parametrize(
    ("ending", "name", "words"),
    [("cancel", "ended", "your subscription has ended"), ("pause", "paused", "your subscription is paused")],
)
def test_the_customer_is_told_what_has_become_of_the_subscription(
    serve: Serve, tmp_path: Path, ending: str, name: str, words: str
) -> None:
    """Once, after it was carried out, without any link, and the history of the case tells it."""
    street = lost(serve, ending=ending)
    row = last(street)
    assert (row.name, row.due_at) == (name, row.at)
    assert deliver(street, tmp_path, the_case(street.engine).closed_at, ending)
    assert deliver(street, tmp_path, row.due_at, name)
    [file] = tmp_path.glob("*.eml")
    mail = mail_in(file)
    assert mail["X-Dunning-Notice"] == name
    assert words in text_of(mail)
    assert "http" not in text_of(mail) + text_of(mail, "html")
    assert told(street.engine)[-1] == "delivered"


def test_the_last_notice_leaves_in_daylight_and_at_least_an_hour_after_the_end(serve: Serve) -> None:
    """The ending has time to be carried out."""
    street = lost(serve)
    row, closed = last(street), the_case(street.engine).closed_at
    assert closed + HOUR <= row.due_at < closed + DAY
    assert 9 <= row.due_at.astimezone(NEW_YORK).hour < 20


def test_it_is_not_said_before_it_is_true(serve: Serve, tmp_path: Path) -> None:
    """While the provider refuses to end the subscription the message waits, and its history says for what."""
    street = lost(serve)
    now = last(street).due_at
    with pytest.raises(NotWritten, match="has not ended yet"):
        deliver(street, tmp_path, now, "ended")
    row = last(street)
    assert now < row.due_at < now + HOUR
    assert (row.error, row.delivered_at) == ("the subscription has not ended yet", None)
    assert deliver(street, tmp_path, row.due_at, "cancel")
    assert deliver(street, tmp_path, row.due_at, "ended")


def test_who_pays_after_the_end_is_not_told_of_it(serve: Serve, tmp_path: Path) -> None:
    """The provider is asked at the moment of sending."""
    street = lost(serve)
    street.shown["invoice"] = {"status": "paid"}
    assert not deliver(street, tmp_path, last(street).due_at, "ended")
    assert list(tmp_path.iterdir()) == []
    assert last(street).error == notices.OVER


@pytest.mark.parametrize(
    "changes",
    [{"notice_ended": False}, {"ending": "leave"}, {"ending": "mark_uncollectible"}, {"subscription_id": None}],
    ids=["not wanted", "nothing ended", "written off", "no subscription"],
)
def test_nothing_is_said_where_nothing_ended_or_nobody_wants_it(serve: Serve, changes: dict[str, Any]) -> None:
    """No row, so no message."""
    assert sql(lost(serve, **changes).engine, LAST) == []


def test_a_failure_that_is_older_than_the_deadline_ends_no_subscription(serve: Serve) -> None:
    """A file of last year, or an outage of weeks: the case is lost, and nothing was asked of the provider."""
    failed = payment(failed_at=START - 29 * DAY)
    street = serve(Scripted([failed]), policy=Policy(ending="cancel"))
    opened(street.engine, failed)
    street.run()
    assert the_case(street.engine).state == "lost"
    assert sql(street.engine, "SELECT kind, name FROM outbox") == []
    assert street.books.ledger.attempts == []


def test_a_subscription_does_not_fail_and_end_on_one_day(serve: Serve) -> None:
    """The last rung is said hours before the end: what follows waits for the cool-down, and for another day."""
    ladder = (Rung("first", 0), Rung("last_chance", 27))
    street = lost(serve, ladder=ladder, deadline_days=28, cooldown_hours=2)
    before = one(street.engine, "SELECT at FROM outbox WHERE name = 'last_chance'")
    at = last(street).at
    assert the_case(street.engine).closed_at - before < DAY * 2
    assert at.astimezone(NEW_YORK).date() > before.astimezone(NEW_YORK).date()
    assert at - before >= DAY


def test_the_cool_down_of_all_the_customers_cases_holds_for_the_last_notice(serve: Serve) -> None:
    """And after it for theirs: another case waits until it is over."""
    failed = payment(decline=LOST)
    street = serve(Scripted([failed]), policy=Policy(ending="cancel"))
    number = opened(street.engine, failed)
    other = opened(street.engine, payment(2, customer_id="cus_1"))
    said = START + 28 * DAY - 2 * HOUR
    add_notice(street.engine, other, at=said, due_at=None)
    sql(street.engine, "UPDATE cases SET due_at = 'infinity' WHERE id = :id", id=other)
    street.run(number)
    assert last(street).at >= said + 2 * DAY
    [cooled] = [
        each for each in examine(street.engine, street.policy, START + 40 * DAY) if "cool-down" in each.statement
    ]
    assert cooled.ok


def test_a_notice_that_somebody_is_writing_at_this_moment_counts_too(serve: Serve) -> None:
    """Its row is not committed yet, but who writes it holds the customer's lock; nobody waits for that."""
    failed = payment(decline=LOST)
    street = serve(Scripted([failed]), policy=Policy(ending="cancel"))
    opened(street.engine, failed)
    while the_case(street.engine).due_at < START + 28 * DAY:
        street.go_on()
    with street.engine.begin() as somebody:
        somebody.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('cus_1', 0))"))
        street.run()
    assert last(street).at >= the_case(street.engine).closed_at + 2 * DAY


@pytest.mark.parametrize(("month", "said"), [(1, ["expiring"]), (2, ["thanks"])])
def test_whose_card_expires_before_the_next_renewal_is_asked_for_a_new_one(
    serve: Serve, tmp_path: Path, month: int, said: list[str]
) -> None:
    """Instead of thanks; with the card, and without a link that leads to a paid invoice."""
    failed = payment(decline=LOST, card=replace(CARD, exp_month=month, exp_year=2026))
    policy = Policy(notice_thanks=True, notice_expiring=True)
    street = serve(Scripted([failed], acts=[("paid", START + DAY)]), policy=policy)
    opened(street.engine, failed)
    street.work(START)
    assert deliver(street, tmp_path, START, "first")
    street.hear(START + DAY)
    [row] = rows = sql(street.engine, LAST)
    assert [each.name for each in rows] == said
    assert deliver(street, tmp_path, row.due_at, row.name)
    text = text_of(mail_in(next(tmp_path.glob(f"*-{row.name}.eml"))))
    assert ("expires soon" in text, "Mastercard ending in 4444" in text) == (month == 1, month == 1)
    assert "http" not in text


def test_who_has_switched_renewal_off_is_not_asked_for_a_new_card(serve: Serve) -> None:
    """There is no next payment for it, and whoever leaves is left alone."""
    failed = payment(decline=LOST, card=replace(CARD, exp_month=1, exp_year=2026))
    street = serve(Scripted([failed], acts=[("paid", START + DAY)]), policy=Policy(notice_expiring=True))
    opened(street.engine, failed)
    sql(
        street.engine,
        """INSERT INTO subscriptions (id, customer_id, status, started_at, cancel_at, currency, card)
           VALUES ('sub_1', 'cus_1', 'active', :at, :at + interval '20 days', 'usd', '[]')""",
        at=START,
    )
    street.work(START)
    street.hear(START + DAY)
    assert the_case(street.engine).state == "recovered"
    assert sql(street.engine, LAST) == []


@pytest.mark.parametrize("wanted", [True, False])
def test_a_thank_you_is_sent_where_the_merchant_wants_it(serve: Serve, tmp_path: Path, *, wanted: bool) -> None:
    """The customer pays a day after the notice; once the cool-down is over there is a word for it."""
    failed = payment(decline=LOST)
    street = serve(Scripted([failed], acts=[("paid", START + DAY)]), policy=Policy(notice_thanks=wanted))
    opened(street.engine, failed)
    street.work(START)
    assert deliver(street, tmp_path, START, "first")
    street.hear(START + DAY)
    assert the_case(street.engine).recovered_by == "after_contact"
    rows = sql(street.engine, LAST)
    assert [row.name for row in rows] == (["thanks"] if wanted else [])
    if wanted:
        assert rows[0].at >= START + 2 * DAY
        assert deliver(street, tmp_path, rows[0].due_at, "thanks")
        assert "We have received your payment of $19.99." in text_of(mail_in(next(tmp_path.glob("*-thanks.eml"))))
