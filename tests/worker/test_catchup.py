"""Is what we missed found again, once, the oldest first, by any number of readers, and from the right account?"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from schedules import Decline
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    CARD,
    DAY,
    FUNDS,
    HOUR,
    MINUTE,
    START,
    add_case,
    at_once,
    event,
    one,
    opened,
    payment,
    sql,
    the_attempts,
    the_case,
    told,
)
from worker import catchup, inbox
from worker.clock import set_clock
from worker.embedded import Servers
from worker.inbox import OURS
from worker.ingest import Counts
from worker.stripe_gateway import Gone, NoAccess

REPO = Path(__file__).parents[2]
LATER = START + 10 * DAY


def failures(number: int, **more: Any) -> Scripted:
    """Return a world in which renewals fail six hours apart, each on a card of its own."""
    cards = [replace(CARD, fingerprint=f"CARD{each}") for each in range(number)]
    return Scripted([payment(n + 1, failed_at=START + n * 6 * HOUR, card=cards[n]) for n in range(number)], **more)


def catch_up(bench: Bench, now: datetime, **how: Any) -> Counts:
    """Read what was missed to the end, and handle it."""
    counts = Counts()
    for _ in catchup.missed_events(bench.desk(now), counts, **how):
        pass
    inbox.drain(bench.engine, bench.policy, now)
    return counts


def listed(bench: Bench, account: str | None = None) -> set[str]:
    """Return the ids of all our events that the bank lists."""
    found = bench.desk(bench.instant[0]).gateway.events(OURS, START - DAY, bench.instant[0] + DAY, account)
    return {each["id"] for each in found}


def kept(engine: Engine) -> list[str]:
    """Return the ids of the events that we have, in the order in which they were kept."""
    return [row.id for row in sql(engine, "SELECT id FROM events ORDER BY received_at, id")]


def position(engine: Engine, name: str = "events") -> datetime:
    """Return where a cursor stands."""
    found: datetime = one(engine, "SELECT position FROM cursors WHERE name = :name", name=name)
    return found


# Events


def test_missed_events_are_kept_the_oldest_first_and_open_their_cases(serve: Serve) -> None:
    """Nothing was delivered for ten days; a second reading brings nothing new."""
    bench = serve(failures(5))
    bench.instant[0] = LATER
    counts = catch_up(bench, LATER, since=START)
    assert (counts.new, counts.duplicate, counts.rejected) == (10, 0, [])
    assert kept(bench.engine) == sorted(listed(bench))
    assert [row.payment_id for row in sql(bench.engine, "SELECT payment_id FROM cases ORDER BY id")] == [
        f"in_{number}" for number in range(1, 6)
    ]
    assert the_case(bench.engine).failed_at == START
    again = catch_up(bench, LATER)
    assert (again.new, len(kept(bench.engine))) == (0, 10)


def test_a_first_reading_goes_back_as_far_as_it_is_told(serve: Serve) -> None:
    """Without a cursor it begins a day back, and by hand with all that the provider lists."""
    bench = serve(failures(5))
    bench.instant[0] = START + 25 * HOUR
    assert catch_up(bench, START + 25 * HOUR).new == 8
    sql(bench.engine, "DELETE FROM cursors")
    assert catch_up(bench, START + 25 * HOUR, first=catchup.LISTED).new == 2


def test_a_reading_that_was_broken_off_goes_on_where_it_ended(serve: Serve) -> None:
    """After two slices the process is gone; the next one begins behind them and finds the rest."""
    bench = serve(failures(5))
    bench.instant[0] = LATER
    counts = Counts()
    broken = catchup.missed_events(bench.desk(LATER), counts, since=START)
    assert [next(broken), next(broken)] == [2, 0]
    broken.close()  # type: ignore[attr-defined]  # it is a generator
    assert (counts.new, position(bench.engine)) == (2, START + 3 * HOUR)
    counts = catch_up(bench, LATER)
    assert (counts.new, counts.duplicate) == (8, 0)
    assert position(bench.engine) == LATER - catchup.LATE


def test_events_made_while_the_list_is_read_are_not_lost(serve: Serve) -> None:
    """Somebody charges in the middle of the reading: it lies in a later slice, or is found next time."""
    bench = serve(failures(3, declines=[FUNDS, FUNDS]))
    bench.instant[0] = LATER
    counts = Counts()
    for number, _ in enumerate(catchup.missed_events(bench.desk(LATER), counts, since=START)):
        if number == 1:
            bench.charge_elsewhere(LATER)
    bench.charge_elsewhere(LATER + MINUTE, "in_2")
    catch_up(bench, LATER + MINUTE)
    assert set(kept(bench.engine)) == listed(bench)
    assert len(kept(bench.engine)) == 10


def test_an_event_that_is_listed_late_is_found_by_the_next_reading(serve: Serve) -> None:
    """It was made five minutes before the last reading and not shown to it: the cursor stands ten minutes back."""
    bench = serve(Scripted(declines=[FUNDS]))
    catch_up(bench, START + HOUR, since=START)
    bench.charge_elsewhere(START + 55 * MINUTE)
    assert catch_up(bench, START + 61 * MINUTE).new == 2


def test_two_readers_at_once_keep_every_event_once(serve: Serve) -> None:
    """Both come to the end, whoever moved the cursor."""
    bench = serve(failures(8))
    bench.instant[0] = LATER
    counts = at_once([lambda: catch_up(bench, LATER, since=START)] * 3)
    assert sum(each.new for each in counts) == 16
    assert (set(kept(bench.engine)), position(bench.engine)) == (listed(bench), LATER - catchup.LATE)


def test_of_many_beats_one_is_heard(serve: Serve) -> None:
    """The second job of the same minutes asks nothing; the next one goes on."""
    bench = serve(failures(2))
    bench.instant[0] = LATER
    pause = timedelta(minutes=4)
    assert catch_up(bench, LATER, since=START, pause=pause).new == 4
    before = bench.summary["requests"]
    assert catch_up(bench, LATER, pause=pause) == Counts()
    assert bench.summary["requests"] == before
    sql(bench.engine, "UPDATE cursors SET begun_at = begun_at - interval '5 min'")
    catch_up(bench, LATER, pause=pause)
    assert bench.summary["requests"] != before


def test_a_cursor_older_than_the_list_begins_with_the_list(serve: Serve) -> None:
    """After two months of standstill there is no use in asking for what is not listed any more."""
    bench = serve(failures(1))
    catch_up(bench, START + HOUR, since=START)
    now = START + 60 * DAY
    bench.instant[0] = now
    before = bench.summary["requests"]["GET"]
    catch_up(bench, now)
    assert bench.summary["requests"]["GET"] - before < 100  # a slice is a day at most, and few requests
    assert position(bench.engine) == now - catchup.LATE


def test_a_revoked_key_leaves_the_cursor_and_with_a_new_one_it_goes_on(serve: Serve) -> None:
    """What is wrong is named; nothing of the gap is lost."""
    bench = serve(failures(2))
    bench.instant[0] = LATER
    bench.control("access", {"revoked": True})
    with pytest.raises(NoAccess, match="the key is refused"):
        catch_up(bench, LATER, since=START)
    assert (position(bench.engine), kept(bench.engine)) == (START, [])
    bench.control("access", {})
    assert catch_up(bench, LATER).new == 4


def test_an_event_that_cannot_be_read_is_told_and_holds_up_no_other(serve: Serve) -> None:
    """An invoice in a currency that nobody knows; the charge beside it is kept."""
    bench = serve()
    bench.shown["invoice"] = {"currency": "xxq"}
    counts = catch_up(bench, START + HOUR, since=START)
    [rejected] = counts.rejected
    assert (counts.new, rejected["reason"]) == (1, "invoice with an unknown 'currency': 'xxq'")
    assert rejected["event"].startswith("evt_")


# Connected accounts


def connected() -> Scripted:
    """Return a world of three merchants: one's own, and two that are connected."""
    return failures(3, declines=[], accounts={"in_2": "acct_2", "in_3": "acct_3"})


def test_the_events_of_every_account_we_heard_of_are_read(serve: Serve) -> None:
    """Each account has a list and a cursor of its own, and its cases remember it."""
    bench = serve(connected())
    bench.instant[0] = LATER
    add_case(bench.engine, payment_id="in_old", account="acct_2")
    with bench.engine.begin() as db:
        inbox.keep(db, [inbox.parse_event(event("evt_3", "customer.updated", {"id": "cus_3"}, account="acct_3"))])
    assert catchup.accounts(bench.engine) == [None, "acct_2", "acct_3"]
    for account in catchup.accounts(bench.engine):
        assert catch_up(bench, LATER, account=account, since=START).new == 2
    rows = sql(bench.engine, "SELECT payment_id, account FROM cases WHERE payment_id <> 'in_old' ORDER BY payment_id")
    assert [tuple(row) for row in rows] == [("in_1", None), ("in_2", "acct_2"), ("in_3", "acct_3")]
    names = [row.name for row in sql(bench.engine, "SELECT name FROM cursors ORDER BY name")]
    assert names == ["events", "events acct_2", "events acct_3"]


def test_a_case_of_a_connected_account_is_read_and_charged_there(serve: Serve) -> None:
    """The bank shows the invoice to nobody else."""
    bench = serve(connected())
    catch_up(bench, START + 7 * HOUR, account="acct_2", since=START)
    bench.run()
    row = the_case(bench.engine)
    assert (row.payment_id, row.state, row.recovered_by) == ("in_2", "recovered", "silent_retry")
    assert [each.state for each in the_attempts(bench.engine)] == ["succeeded"]


def test_another_account_does_not_see_the_invoice(serve: Serve) -> None:
    """Without the account it is not found, nor under another one; a stranger's account is refused."""
    bench = serve(connected())
    gateway = bench.desk(LATER).gateway
    assert gateway.read("in_2", "acct_2").payment_id == "in_2"
    for payment_id, account in (("in_2", None), ("in_2", "acct_3"), ("in_1", "acct_2")):
        with pytest.raises(Gone):
            gateway.read(payment_id, account)
    with pytest.raises(NoAccess, match="account_invalid"):
        gateway.read("in_1", "acct_9")


# Open invoices


def test_an_invoice_of_which_no_event_told_gets_its_case_once(serve: Serve) -> None:
    """With the failed charge's date, card and reason; the next sweep finds it known."""
    bench = serve(failures(2))
    now = START + 2 * DAY
    bench.instant[0] = now
    assert catchup.sweep_invoices(bench.desk(now)) == (2, 0)
    assert catchup.sweep_invoices(bench.desk(now)) == (0, 0)
    row = the_case(bench.engine, 2)
    assert (row.payment_id, row.failed_at, row.customer_id) == ("in_1", START, "cus_1")
    assert (row.subscription_id, row.amount_minor, row.currency) == ("sub_1", 1999, "usd")
    assert (row.decline["code"], row.failed_card["fingerprint"], row.step["step"]) == (FUNDS.code, "CARD0", "refresh")


def test_an_event_that_comes_after_the_sweep_opens_no_second_case(serve: Serve) -> None:
    """Nor is the first failure's date moved."""
    bench = serve()
    catchup.sweep_invoices(bench.desk(START + HOUR))
    catch_up(bench, START + HOUR, since=START)
    assert (one(bench.engine, "SELECT count(*) FROM cases"), the_case(bench.engine).failed_at) == (1, START)
    assert told(bench.engine).count("opened") == 1


@pytest.mark.parametrize("act", ["paid", "cancel"])
def test_a_case_whose_invoice_is_no_longer_open_is_read_again(serve: Serve, act: str) -> None:
    """The event of its end was never made: the reading ends it; a case that is still open is left alone."""
    bench = serve(Scripted([payment(), payment(2)], acts=[(act, START + HOUR)]))
    bench.hear(START)
    bench.work(START)
    now = START + 2 * HOUR
    bench.instant[0] = now
    assert catchup.sweep_invoices(bench.desk(now)) == (0, 1)
    bench.work(now)
    ended = {"paid": "recovered", "cancel": "canceled"}[act]
    assert [the_case(bench.engine, number).state for number in (1, 2)] == [ended, "silent"]


@pytest.mark.parametrize(
    ("shown", "opens"),
    [
        ({"invoice": {"attempted": False, "attempt_count": 0}}, 0),
        ({"payment_intent": {"status": "processing"}}, 0),
        ({"payment_intent": {"status": "requires_action"}}, 1),
        ({"charge": {"disputed": True}}, 0),
        ({"invoice": {"currency": "xxq"}}, 0),
        ({"invoice": {"next_payment_attempt": int(LATER.timestamp())}}, 1),
        ({"payment_intent": {"last_payment_error": None}, "charge": {"failure_code": None}}, 1),
    ],
    ids=["not charged yet", "under way", "needs the customer", "disputed", "unreadable", "retried by Stripe", "silent"],
)
def test_only_an_invoice_that_was_charged_in_vain_gets_a_case(serve: Serve, shown: dict[str, Any], opens: int) -> None:
    """What may still pass, or is over, is nothing to recover."""
    bench = serve()
    bench.shown.update(shown)
    assert catchup.sweep_invoices(bench.desk(START + HOUR)) == (opens, 0)
    assert one(bench.engine, "SELECT count(*) FROM cases") == opens


def test_an_invoice_whose_time_is_up_gets_no_case(serve: Serve) -> None:
    """It would be lost at once, and the merchant's ending carried out over something never tried."""
    bench = serve()
    now = START + timedelta(days=bench.policy.deadline_days)
    assert catchup.sweep_invoices(bench.desk(now)) == (0, 0)
    assert catchup.sweep_invoices(bench.desk(now - HOUR)) == (1, 0)


def test_the_sweep_of_a_connected_account_opens_its_cases(serve: Serve) -> None:
    """The list of another account shows none of them."""
    bench = serve(connected())
    bench.instant[0] = LATER
    assert catchup.sweep_invoices(bench.desk(LATER), "acct_2") == (1, 0)
    row = the_case(bench.engine)
    assert (row.payment_id, row.account) == ("in_2", "acct_2")
    assert catchup.sweep_invoices(bench.desk(LATER)) == (1, 0)  # in_1; the case of acct_2 is none of this account's


def test_the_sweep_is_made_once_a_day_however_often_it_is_called(serve: Serve) -> None:
    """One that was broken off is made again by the next call after a while."""
    bench = serve(failures(9))
    how: dict[str, Any] = {"every": DAY, "pause": timedelta(minutes=50)}

    def rested() -> None:
        sql(bench.engine, "UPDATE cursors SET begun_at = begun_at - interval '1 h'")

    bench.instant[0] = START + HOUR
    bench.control("access", {"revoked": True})
    with pytest.raises(NoAccess):
        catchup.sweep_invoices(bench.desk(START + HOUR), **how)
    bench.control("access", {})
    assert catchup.sweep_invoices(bench.desk(START + HOUR), **how) == (0, 0)  # another may be at it
    rested()
    assert catchup.sweep_invoices(bench.desk(START + HOUR), **how) == (1, 0)
    rested()
    assert catchup.sweep_invoices(bench.desk(START + 13 * HOUR), **how) == (0, 0)
    rested()
    assert catchup.sweep_invoices(bench.desk(START + 25 * HOUR), **how) == (4, 0)


def test_a_case_that_waits_for_its_invoice_is_not_opened_twice_at_once(serve: Serve) -> None:
    """Three sweeps at once open one case."""
    bench = serve()
    found = at_once([lambda: catchup.sweep_invoices(bench.desk(START + HOUR))] * 3)
    assert all(again == 0 for _, again in found)
    assert one(bench.engine, "SELECT count(*) FROM cases") == 1
    assert one(bench.engine, "SELECT count(*) FROM history WHERE what = 'opened'") == 1  # whatever its number


def test_a_sweep_leaves_ended_cases_alone(serve: Serve) -> None:
    """A lost case whose invoice is still open stays lost."""
    bench = serve(Scripted(declines=[Decline("lost_card")] * 9))
    opened(bench.engine)
    sql(bench.engine, "UPDATE cases SET state = 'lost', closed_at = :at, due_at = NULL", at=START)
    assert catchup.sweep_invoices(bench.desk(START + HOUR)) == (0, 0)
    assert the_case(bench.engine).state == "lost"


# The jobs


def test_beats_jobs_bring_everything_back_and_one_bad_account_stops_no_other(
    serve: Serve, running: Servers, tmp_path: Path
) -> None:
    """A process of its own, as a worker: events of each account, then the invoices; what is refused is logged."""
    bench = serve(connected())
    now = START + 20 * HOUR
    bench.instant[0] = now
    set_clock(tmp_path / "clock", now)
    add_case(bench.engine, payment_id="in_gone", account="acct_0", due_at=LATER)
    add_case(bench.engine, payment_id="in_other", account="acct_2", due_at=LATER)
    places = {"DUNNING_DATABASE_URL": running.database_url, "DUNNING_BROKER_URL": running.broker_url}
    base = f"http://127.0.0.1:{bench.port}"
    places |= {"DUNNING_STRIPE_API_KEY": "sk_test_1", "DUNNING_STRIPE_API_BASE": base}
    done = subprocess.run(
        [sys.executable, "-c", "from worker import tasks; tasks.catch_up(); tasks.sweep_invoices(); tasks.catch_up()"],
        cwd=REPO,
        env={**os.environ, **places, "DUNNING_CLOCK_FILE": str(tmp_path / "clock"), "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout + done.stderr).count("account_invalid") == 2  # the second catch-up came within the pause
    assert [row.account for row in sql(bench.engine, "SELECT account FROM events ORDER BY received_at")] == [
        *[None] * 2,
        *["acct_2"] * 2,
    ]
    news = sql(bench.engine, "SELECT payment_id, news FROM cases WHERE account = 'acct_2' ORDER BY payment_id")
    assert [tuple(row) for row in news] == [("in_2", 0), ("in_other", 1)]
    assert one(bench.engine, "SELECT state FROM cases WHERE payment_id = 'in_1'") == "silent"
