"""Is whoever may be lost to the next charge helped silently first, once, and never against the customer's will?"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
import requests
from pydantic import SecretStr
from sqlalchemy import insert

from schedules import Card, Policy
from tests.gateway.wire import served
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    CARD,
    DAY,
    ENTERED,
    HOUR,
    MINUTE,
    START,
    add_case,
    add_notice,
    at_once,
    mail_in,
    one,
    payment,
    sql,
    text_of,
)
from tests.worker.conftest import Run
from tests.worker.postbox import mailbox
from worker import notices, renewals
from worker.audit import examine
from worker.bounces import Report, note
from worker.clock import set_clock
from worker.leases import claim_due
from worker.links import Links
from worker.metrics import exposition
from worker.models import outbox, risks, subscriptions
from worker.prevention import TOO_LATE, Help, prevent
from worker.settings import Settings, load_settings
from worker.subscriptions import read_subscription
from worker.suppressions import OPTED_OUT, Customer, suppress
from worker.web.webhooks import make_web

NEW_YORK = ZoneInfo("America/New_York")
CHARGE = datetime(2026, 2, 4, 15, tzinfo=UTC)  # a Wednesday
NIGHT = CHARGE - 5 * DAY
JANUARY = replace(CARD, exp_month=1, exp_year=2026)  # good on the night, and not at the charge
ASKS = Policy(prevent_notice=True)
SAID = "SELECT name, channel, due_at, delivered_at, error FROM outbox WHERE kind = 'notice'"


def seconds(at: datetime) -> int:
    """Return an instant as Stripe tells it."""
    return int(at.timestamp())


def shown(card: Card = JANUARY, **changes: Any) -> dict[str, Any]:
    """What the bank shows of the subscription: active, charged next in February, one card that is the customer's."""
    items = {
        "object": "list",
        "data": [
            {
                "id": "si_1",
                "current_period_end": seconds(CHARGE),
                "quantity": 1,
                "price": {
                    "id": "price_1",
                    "lookup_key": "gold",
                    "unit_amount": 1999,
                    "recurring": {"interval": "month", "interval_count": 1},
                },
            }
        ],
    }
    own = method("pm_own", card)
    blank = {"status": "active", "items": items, "default_payment_method": own, "trial_end": None}
    return {**blank, "customer": customer(), **changes}


def method(name: str, card: Card) -> dict[str, Any]:
    """A payment method with a card."""
    return {"id": name, "object": "payment_method", "type": "card", "card": asdict(card)}


def customer(default: dict[str, Any] | None = None) -> dict[str, Any]:
    """The customer, in New York, with a default method or none."""
    return {
        "id": "cus_1",
        "object": "customer",
        "address": {"country": "US"},
        "email": "ada.1@customer.example",
        "invoice_settings": {"default_payment_method": default},
        "preferred_locales": ["en-US"],
    }


def street(serve: Serve, policy: Policy = ASKS, chance: float = 0.9, **changes: Any) -> Bench:
    """Return a bank with one subscription as it shows it, stored and scored."""
    found = serve(Scripted([payment(failed_at=START - 30 * DAY)]), policy=policy)
    found.shown["subscription"] = shown(**changes)
    with found.engine.begin() as db:
        row = read_subscription({**BLANK, **found.shown["subscription"]})
        db.execute(insert(subscriptions).values(row))
        score = {"subscription_id": "sub_1", "month": NIGHT.date().replace(day=1), "at": NIGHT, "seen_at": NIGHT}
        told = {"chance_30": chance, "chance_90": chance, "reasons": ["the card expires"], "seen": {}}
        db.execute(insert(risks).values({**score, **told}))
    return found


BLANK = {"id": "sub_1", "object": "subscription", "currency": "usd", "start_date": seconds(START - 90 * DAY)}


def night(bench: Bench, now: datetime = NIGHT, *, dry: bool = False) -> list[Help]:
    """Do what is done at night."""
    return list(prevent(bench.desk(now), dry=dry))


def acts(bench: Bench, now: datetime = NIGHT) -> list[str]:
    """Return what was done about whom, at night."""
    return [each.act for each in night(bench, now)]


def said(bench: Bench) -> list[Any]:
    """Return the notices of the outbox."""
    return sql(bench.engine, SAID)


def deliver(bench: Bench, folder: Path, now: datetime | None = None) -> list[bool]:
    """Deliver what is due at an instant; without one, when the first is due."""
    now = now or one(bench.engine, "SELECT min(due_at) FROM outbox")
    with bench.engine.begin() as db:
        due = claim_due(db, outbox, now, 100, 180)
    desk = bench.desk(now)
    return [notices.deliver(desk, mailbox(folder), number, UUID(token)) for number, token in due]


def preferred(bench: Bench) -> str | None:
    """Return the method that the bank charges for the subscription by itself now."""
    own: str | None = bench.books.by_subscription["sub_1"].own_method
    return own


def test_whoever_is_at_risk_is_read_again_once_for_each_charge(serve: Serve) -> None:
    """The policy asks for nothing else: nothing is moved and nothing said."""
    bench = street(serve, Policy())
    asked = bench.summary["requests"].get("GET", 0)
    assert [(each.act, each.why) for each in night(bench)] == [("nothing", "the policy asks for no notice")]
    assert acts(bench, NIGHT + DAY) == ["nothing"]
    assert bench.summary["requests"].get("GET", 0) == asked + 1
    assert [row.name for row in sql(bench.engine, "SELECT name FROM outbox")] == ["refresh-2026-02-04"]
    assert bench.summary["requests"].get("POST", 0) == 0


@pytest.mark.parametrize(
    "update",
    [replace(JANUARY, exp_year=2029), ENTERED],
    ids=["another expiry", "another number"],
)
def test_whom_the_updater_has_mended_gets_nothing(serve: Serve, update: Card) -> None:
    """The reading at night shows it, and so it stays until the charge."""
    bench = street(serve, Policy(prevent_notice=True, prevent_prefer=True))
    bench.shown["subscription"] = shown(update)
    assert acts(bench) == ["mended"]
    assert acts(bench, NIGHT + DAY) == ["mended"]
    assert said(bench) == []
    assert one(bench.engine, "SELECT count(*) FROM outbox WHERE due_at IS NOT NULL") == 0


def test_whose_card_was_mended_before_the_night_gets_nothing(serve: Serve) -> None:
    """The score of the month had seen it expire; since then a listing has brought the new one."""
    bench = street(serve, card=replace(JANUARY, exp_year=2029))
    sql(bench.engine, """UPDATE risks SET seen = '{"valid_until": "2026-02-01"}'""")
    assert acts(bench) == ["mended"]
    assert said(bench) == []


def test_the_notice_leaves_before_the_charge_in_the_customers_hours_and_once(serve: Serve, tmp_path: Path) -> None:
    """It names card and day of the next charge, and no sum, which nobody knows before it."""
    bench = street(serve)
    assert acts(bench) == ["renewal_card"]
    assert acts(bench, NIGHT + DAY) == ["nothing"]
    [row] = said(bench)
    assert (row.name, row.channel) == ("renewal_card-2026-02-04", "mail")
    assert NIGHT < row.due_at < CHARGE
    assert 9 <= row.due_at.astimezone(NEW_YORK).hour < 20
    assert deliver(bench, tmp_path) == [True]
    assert deliver(bench, tmp_path, CHARGE + DAY) == []
    [file] = (tmp_path / "notices").glob("*.eml")
    mail = mail_in(file)
    assert (file.name, mail["X-Dunning-Notice"]) == ("sub_1-renewal_card-2026-02-04.eml", "renewal_card")
    assert "Payment method: Mastercard ending in 4444" in text_of(mail)
    assert "Next payment: February 4, 2026" in text_of(mail)
    assert "19.99" not in text_of(mail)


def test_the_card_is_compared_with_the_charge_and_not_with_the_calendar(serve: Serve) -> None:
    """A card that is good through February expires this month for nobody who is charged in it."""
    bench = street(serve, card=replace(CARD, exp_month=2, exp_year=2026))
    assert acts(bench) == ["renewal"]
    assert [row.name for row in said(bench)] == ["renewal-2026-02-04"]


@pytest.mark.parametrize(
    ("now", "chance", "changes"),
    [
        (CHARGE - 8 * DAY, 0.9, {}),
        (CHARGE + MINUTE, 0.9, {}),
        (NIGHT, 0.74, {}),
        (NIGHT, 0.9, {"cancel_at": seconds(CHARGE + 90 * DAY)}),
        (NIGHT, 0.9, {"cancel_at_period_end": True}),
        (NIGHT, 0.9, {"pause_collection": {"behavior": "void"}}),
        (NIGHT, 0.9, {"status": "past_due"}),
    ],
    ids=["too early", "too late", "not likely", "leaves later", "leaves", "paused", "unpaid"],
)
def test_others_are_left_alone(serve: Serve, now: datetime, chance: float, changes: dict[str, Any]) -> None:
    """Not even read: above all nobody who has chosen to leave."""
    bench = street(serve, Policy(prevent_notice=True, prevent_prefer=True), chance, **changes)
    assert acts(bench, now) == []
    assert sql(bench.engine, "SELECT id FROM outbox") == []


def test_whose_case_is_open_is_left_to_it(serve: Serve) -> None:
    """The case reads, charges and speaks by rules of its own."""
    bench = street(serve)
    add_case(bench.engine, subscription_id="sub_9")
    assert acts(bench) == []


LEFT: list[tuple[str, dict[str, Any], str]] = [
    ("mended", {"card": ENTERED}, renewals.MENDED),
    ("leaves", {"cancel_at_period_end": True}, renewals.LEAVES),
    ("ended", {"ended_at": seconds(NIGHT), "status": "canceled"}, renewals.LEAVES),
    ("paused", {"pause_collection": {"behavior": "void"}}, renewals.MOVED),
    ("unpaid", {"status": "unpaid"}, renewals.MOVED),
]


@pytest.mark.parametrize(("changes", "why"), [each[1:] for each in LEFT], ids=[each[0] for each in LEFT])
def test_what_is_not_true_any_more_is_not_said(serve: Serve, tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    """The provider is asked at the door; the row tells why, and it is no fault."""
    bench = street(serve)
    assert acts(bench) == ["renewal_card"]
    bench.shown["subscription"] = shown(**changes)
    assert deliver(bench, tmp_path) == [False]
    [row] = said(bench)
    assert (row.error, row.due_at, row.delivered_at) == (why, None, None)
    assert row.error in notices.MEANT
    assert not (tmp_path / "notices").exists()


def test_nothing_is_said_after_the_charge_or_before_another(serve: Serve, tmp_path: Path) -> None:
    """Neither when the worker was down until then, nor when the charge was moved."""
    bench = street(serve)
    acts(bench)
    assert deliver(bench, tmp_path, CHARGE + 6 * HOUR) == [False]
    assert said(bench)[0].error == renewals.CHARGED
    sql(bench.engine, "UPDATE outbox SET due_at = :at, error = NULL WHERE kind = 'notice'", at=CHARGE - 2 * DAY)
    later = shown()
    later["items"]["data"][0]["current_period_end"] = seconds(CHARGE + 7 * DAY)
    bench.shown["subscription"] = later
    assert deliver(bench, tmp_path, CHARGE - 2 * DAY + 6 * HOUR) == [False]
    assert said(bench)[0].error == renewals.MOVED


def test_nobody_who_leaves_hears_anything_though_the_table_is_old(serve: Serve) -> None:
    """The reading of the night shows the choice."""
    bench = street(serve)
    bench.shown["subscription"] = shown(cancel_at=seconds(CHARGE + 60 * DAY), canceled_at=seconds(NIGHT))
    assert [(each.act, each.why) for each in night(bench)] == [("nothing", renewals.LEAVES)]
    assert said(bench) == []


# The other method


def with_other(serve: Serve, policy: Policy, good: Card = ENTERED) -> Bench:
    """Return a bank whose subscription has a card that expires, above a default of the customer, by default a good one.

    Its id is that of the method which the bank has of this customer.
    """
    bench = street(serve, policy)
    bench.control("advance", {})
    [stored] = bench.books.customers["cus_1"].methods
    bench.shown["subscription"] = shown(customer=customer(method(stored, good)))
    return bench


def posts(bench: Bench) -> int:
    """Return how often the bank was asked to change something."""
    return int(bench.summary["requests"].get("POST", 0))


def test_without_consent_nothing_is_moved(serve: Serve, tmp_path: Path) -> None:
    """There is another method, and the customer is written to instead."""
    bench = with_other(serve, ASKS)
    assert acts(bench) == ["renewal_card"]
    assert deliver(bench, tmp_path) == [True]
    assert (posts(bench), preferred(bench)) == (0, None)


def test_with_consent_the_customers_own_default_is_charged_and_nobody_is_written_to(
    serve: Serve, tmp_path: Path
) -> None:
    """Once, on this subscription; the next nights find it done."""
    bench = with_other(serve, Policy(prevent_notice=True, prevent_prefer=True))
    assert acts(bench) == ["prefer"]
    assert deliver(bench, tmp_path, NIGHT) == [True]
    assert (posts(bench), preferred(bench)) == (1, bench.books.customers["cus_1"].default)
    assert acts(bench, NIGHT + DAY) == ["nothing"]
    assert deliver(bench, tmp_path, NIGHT + DAY) == []
    assert (posts(bench), said(bench)) == (1, [])


def test_a_worker_that_died_after_the_change_leaves_nothing_to_do(serve: Serve, tmp_path: Path) -> None:
    """The provider shows the method by now: it counts as done, and is not asked for again."""
    bench = with_other(serve, Policy(prevent_prefer=True))
    acts(bench)
    stored = bench.books.customers["cus_1"].methods[0]
    bench.shown["subscription"] = shown(default_payment_method=method(stored, ENTERED))
    assert deliver(bench, tmp_path, NIGHT) == [True]
    assert (posts(bench), one(bench.engine, "SELECT error FROM outbox WHERE name LIKE 'prefer-%'")) == (0, None)


@pytest.mark.parametrize("good", [False, True], ids=["also expired", "nothing expires"])
def test_only_what_fails_gives_way_and_only_to_what_does_not(serve: Serve, *, good: bool) -> None:
    """A good card stays, whatever the customer's default is."""
    bench = with_other(serve, Policy(prevent_prefer=True), ENTERED if good else JANUARY)
    if good:
        other = bench.shown["subscription"]["customer"]
        later = replace(CARD, exp_year=2028)
        bench.shown["subscription"] = shown(later, customer=other)
        sql(bench.engine, "UPDATE subscriptions SET card = :card", card=f'["{CARD.fingerprint}"]')
    assert acts(bench) == ["nothing"]


def test_a_refused_change_is_told_and_the_customer_asked_the_next_night(serve: Serve, tmp_path: Path) -> None:
    """Another default has come meanwhile: it is not ours to choose."""
    bench = with_other(serve, Policy(prevent_notice=True, prevent_prefer=True))
    assert acts(bench) == ["prefer"]
    bench.shown["subscription"] = shown()
    assert deliver(bench, tmp_path, NIGHT) == [False]
    assert one(bench.engine, "SELECT error FROM outbox WHERE name LIKE 'prefer-%'") == renewals.NOT_OURS
    sql(bench.engine, "UPDATE subscriptions SET other_method_id = NULL, other_card = NULL")
    assert acts(bench, NIGHT + DAY) == ["renewal_card"]


# Once, and with regard


def test_two_runs_at_once_are_one(serve: Serve) -> None:
    """One note and one message, whoever comes first."""
    bench = street(serve)
    desk = bench.desk(NIGHT)
    done = at_once([lambda: [each.act for each in prevent(desk)]] * 4)
    assert sorted(act for each in done for act in each) == ["nothing", "nothing", "nothing", "renewal_card"]
    names = one(bench.engine, "SELECT array_agg(name ORDER BY name) FROM outbox")
    assert names == ["refresh-2026-02-04", "renewal_card-2026-02-04"]


def test_a_dry_run_reads_and_writes_nothing(serve: Serve) -> None:
    """It says what would be done by what is known."""
    bench = street(serve)
    before = bench.summary["requests"].get("GET", 0)
    assert [each.act for each in night(bench, dry=True)] == ["renewal_card"]
    assert bench.summary["requests"].get("GET", 0) == before
    assert sql(bench.engine, "SELECT id FROM outbox") == []


def test_the_week_of_the_customer_is_not_fuller_for_it(serve: Serve) -> None:
    """Notices of cases count: two within days leave no room before the charge."""
    bench = street(serve)
    case = add_case(bench.engine, state="recovered", closed_at=NIGHT, due_at=None)
    for number, days in enumerate((0, 1)):
        add_notice(bench.engine, case, name=f"rung_{number}", at=NIGHT - days * DAY, due_at=None)
    assert [(each.act, each.why) for each in night(bench)] == [("nothing", TOO_LATE)]
    assert all(row.name.startswith("rung_") for row in said(bench))


def test_who_opted_out_gets_none(serve: Serve, tmp_path: Path) -> None:
    """It is no necessary notice."""
    bench = street(serve)
    acts(bench)
    with bench.engine.begin() as db:
        suppress(db, Customer("cus_1", None), OPTED_OUT, NIGHT)
    assert deliver(bench, tmp_path) == [False]
    assert said(bench)[0].error == "the customer wants no reminders"


def test_a_mail_that_comes_back_is_noted_without_a_case(serve: Serve, tmp_path: Path) -> None:
    """It is found by its Message-ID as those of cases are."""
    bench = street(serve)
    acts(bench)
    assert deliver(bench, tmp_path) == [True]
    with bench.engine.begin() as db:
        assert note(db, Report("<sub_1-renewal_card-2026-02-04@shop.example>", "bounced"), CHARGE)
    assert one(bench.engine, "SELECT customer_id || why FROM suppressions") == "cus_1bounced"
    assert "came back" in said(bench)[0].error


def test_in_observe_mode_nothing_leaves(serve: Serve, tmp_path: Path) -> None:
    """Neither words nor a change."""
    bench = with_other(serve, Policy(prevent_prefer=True))
    bench.live = False
    assert acts(bench) == ["prefer"]
    assert deliver(bench, tmp_path, NIGHT) == [False]
    assert posts(bench) == 0


# What else has to do with messages that are about no case


def test_its_links_lead_to_the_portal_and_out_and_are_good_for_nothing_else(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening one changes nothing; the button of the one asks for a portal, that of the other is an opt-out."""
    bench = street(serve)
    acts(bench)
    number = one(bench.engine, "SELECT id FROM outbox WHERE kind = 'notice'")
    links = Links("https://pay.shop.example", (b"canary" * 6,))
    chosen: dict[str, Any] = {"public_url": links.base, "link_secret": (SecretStr("canary" * 6),), "mode": "live"}
    set_clock(tmp_path / "clock", NIGHT)
    monkeypatch.setenv("DUNNING_CLOCK_FILE", str(tmp_path / "clock"))
    load_settings.cache_clear()
    told = links.to_method(number, CHARGE), links.to_leave_alone(number, NIGHT)
    pay, out = (each.removeprefix(links.base) for each in told)
    web = make_web(Settings(**chosen), bench.engine, lambda: bench.desk(NIGHT).gateway)
    with served(web) as url:
        ask = partial(requests.request, allow_redirects=False, timeout=20)
        assert "See payment details" in ask("GET", url + pay).text
        assert "/p/session/" in ask("POST", url + pay).headers["location"]
        swapped = "/pay/" + out.rpartition("/")[2], "/unsubscribe/" + pay.rpartition("/")[2]
        assert [ask("POST", url + each).status_code for each in swapped] == [404, 404]
        assert ask("GET", url + out).status_code == 200
        assert one(bench.engine, "SELECT count(*) FROM suppressions") == 0
        assert ask("POST", url + out).status_code == 200
    assert one(bench.engine, "SELECT customer_id || ' ' || why FROM suppressions") == "cus_1 opted_out"


def test_one_that_was_given_up_is_found_listed_and_tried_again(serve: Serve, operate: Run) -> None:
    """Though it has no case and so no history; figures name it without its day."""
    bench = street(serve)
    acts(bench)
    dead = "UPDATE outbox SET due_at = NULL, error = 'the customer has no e-mail address' WHERE kind = 'notice'"
    sql(bench.engine, dead)
    [broken] = [each for each in examine(bench.engine, ASKS, NIGHT + DAY) if "given up" in each.statement and each.rows]
    assert broken.rows[0]["subscription_id"] == "sub_1"
    [listed] = json.loads(operate("outbox", "list", "--dead", "--json").stdout)
    assert (listed["case_id"], listed["subscription_id"], listed["name"]) == (None, "sub_1", "renewal_card-2026-02-04")
    assert operate("outbox", "retry", "--dead").returncode == 0
    assert one(bench.engine, "SELECT due_at IS NOT NULL AND error IS NULL FROM outbox WHERE kind = 'notice'")
    sql(bench.engine, "UPDATE outbox SET delivered_at = now(), due_at = NULL WHERE kind = 'notice'")
    assert b'dunning_notices_total{channel="mail",notice="renewal_card"} 1.0' in exposition(bench.engine, NIGHT)
