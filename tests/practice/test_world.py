"""Does the built-in world answer the same whoever asks in whatever order, and near the published figures?"""

from __future__ import annotations

import tomllib
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from schedules.facts import Decline, FailedPayment
from worker.practice import beliefs
from worker.practice.paydays import payday_instants
from worker.practice.people import HARD
from worker.practice.world import BuiltInWorld

MANY = 3000
DAY = timedelta(days=1)


@lru_cache(maxsize=1)
def failures() -> tuple[FailedPayment, ...]:
    """Return many failed renewals, for counting."""
    return tuple(BuiltInWorld(11, MANY).failures())


def share(kept: int, of: int = MANY) -> float:
    """Return a percentage."""
    return 100 * kept / of


def play(world: BuiltInWorld, payment: FailedPayment) -> list[object]:
    """Play one payment through a fixed story and return everything the world said."""
    said: list[object] = []
    for day in (1, 3, 5, 9):
        at = payment.failed_at + day * DAY
        said.append(world.charge(payment.payment_id, at))
        world.contact(payment.payment_id, at, "first")
        said += [world.card(payment.payment_id, at), world.next_act(payment.payment_id, at)]
    return said


def recovered(hour: int, days: tuple[int, ...], seed: int = 11) -> float:
    """Return the percentage that charges at these days and this local hour recover, without any contact."""
    world, paid = BuiltInWorld(seed, MANY), 0
    for payment in world.failures():
        zone = ZoneInfo(world.zone(payment.payment_id))
        for day in days:
            at = (payment.failed_at.astimezone(zone) + day * DAY).replace(hour=hour).astimezone(UTC)
            if world.charge(payment.payment_id, at) is None:
                paid += 1
                break
    return share(paid)


def test_the_same_seed_gives_the_same_world() -> None:
    """Two worlds of one seed fail the same payments and answer alike; another seed does not."""
    one, two, other = BuiltInWorld(3, 40), BuiltInWorld(3, 40), BuiltInWorld(4, 40)
    assert list(one.failures()) == list(two.failures())
    assert [play(one, p) for p in one.failures()] == [play(two, p) for p in two.failures()]
    assert [p.failed_at for p in one.failures()] != [p.failed_at for p in other.failures()]


def test_the_order_in_which_payments_are_played_changes_nothing() -> None:
    """Playing the payments backwards, or in a shuffled order, gives each of them the same story."""
    payments = list(BuiltInWorld(5, 60).failures())
    shuffled = sorted(payments, key=lambda payment: payment.card.fingerprint or "")
    stories = []
    for order in (payments, payments[::-1], shuffled):
        world = BuiltInWorld(5, 60)
        stories.append({payment.payment_id: play(world, payment) for payment in order})
    assert stories[0] == stories[1] == stories[2]


def test_a_bigger_world_begins_with_the_smaller_one() -> None:
    """A payment does not depend on how many others there are."""
    small = {p.payment_id: p for p in BuiltInWorld(3, 20).failures()}
    big = {p.payment_id: p for p in BuiltInWorld(3, 50).failures()}
    assert small == {name: big[name] for name in small}


def test_renewals_fail_in_time_order_at_any_hour_before_the_last_four_weeks() -> None:
    """Failures come sorted, in the first days - 28 days, and in each hour of the day."""
    instants = [payment.failed_at for payment in failures()]
    assert instants == sorted(instants)
    assert datetime(2026, 1, 5, tzinfo=UTC) <= instants[0]
    assert instants[-1] < datetime(2026, 1, 5, tzinfo=UTC) + 17 * DAY
    assert {at.hour for at in instants} == set(range(24))


def test_the_mix_of_decline_codes_is_near_the_published_one() -> None:
    """Funds 18 to 44 %, no reason given 30 to 62 %, expired, lost and closed within their own bounds."""
    codes = Counter(payment.decline.code for payment in failures())
    assert 30 <= share(codes["insufficient_funds"]) <= 44
    assert 30 <= share(codes["do_not_honor"] + codes["generic_decline"]) <= 42
    assert 5 <= share(codes["expired_card"]) <= 15
    assert 4 <= share(codes["lost_card"] + codes["stolen_card"] + codes["pickup_card"]) <= 6
    assert 2 <= share(codes["invalid_account"] + codes["incorrect_number"]) <= 8


def test_hard_codes_and_debit_cards_have_their_published_shares() -> None:
    """Hard codes before the updater are 10 to 25 % of failures, debit and prepaid cards 40 to 65 %."""
    hard = {
        code for cause in HARD - {"authentication", "other"} for code in beliefs.load_beliefs().tables["codes"][cause]
    }
    assert 10 <= share(sum(payment.decline.code in hard for payment in failures())) <= 25
    assert 40 <= share(sum(payment.card.funding != "credit" for payment in failures())) <= 65


def test_strong_authentication_is_mostly_a_european_refusal() -> None:
    """The share of authentication_required is several times higher in Europe than in the United States."""

    def rate(countries: set[str]) -> float:
        there = [p for p in failures() if p.card.country in countries]
        return share(sum(p.decline.code == "authentication_required" for p in there), len(there))

    assert rate({"GB", "DE", "FR", "NL", "ES", "IT"}) > 3 * rate({"US"})


def test_only_mastercard_sends_merchant_advice_and_only_visa_its_own_numbers() -> None:
    """Network codes are brand-relative: MAC 24 to 30 with lack of funds, R1 on Visa, three digits on Amex."""
    advised = [p for p in failures() if p.decline.network_advice_code]
    assert {p.card.brand for p in advised} == {"mastercard"}
    waits = [p for p in advised if (p.decline.network_advice_code or "") in {"24", "25", "26", "27", "28", "29", "30"}]
    assert waits
    assert {p.decline.code for p in waits} == {"insufficient_funds"}
    amex = {p.decline.network_decline_code for p in failures() if p.card.brand == "amex"} - {None}
    assert all(len(str(code)) == 3 for code in amex)


def test_a_few_codes_are_in_no_table() -> None:
    """Between 0.3 and 3 % of declines carry a code that a worker has to meet without a row for it."""
    unknown = set(beliefs.load_beliefs().tables["codes"]["unknown"])
    assert 0.3 <= share(sum(payment.decline.code in unknown for payment in failures())) <= 3


def test_every_payment_shows_what_a_provider_would_show() -> None:
    """Issuer-declined, a sixteen-character fingerprint, a currency that fits the country, small yen amounts."""
    for payment in failures():
        assert payment.decline.outcome_type == "issuer_declined"
        assert len(payment.card.fingerprint or "") == 16
        assert (payment.currency == "jpy") == (payment.card.country == "JP")
        assert payment.currency != "jpy" or payment.amount_minor < 10_000


def test_a_known_time_zone_is_the_true_one() -> None:
    """Where the merchant knows a zone it is right, and it never knows one in a country with a single zone."""
    world = BuiltInWorld(11, 300)
    known = [p for p in world.failures() if p.time_zone]
    assert known
    assert all(p.time_zone == world.zone(p.payment_id) for p in known)
    assert {p.card.country for p in known} <= {"US", "ES", "BR", "AU", "CA"}


def test_three_fixed_retries_recover_what_the_reference_fit_says() -> None:
    """Days 3, 5 and 7 without mail: published 33 to 38 % at night, a few points more by day."""
    night, day = recovered(2, (3, 5, 7)), recovered(10, (3, 5, 7))
    assert 33 <= night <= 40
    assert 1.5 <= day - night <= 6


def test_the_first_retry_is_near_the_published_success() -> None:
    """Published first-retry success is 25 to 35 %; the reference fit reaches 21 to 23 by day."""
    assert 19 <= recovered(10, (3,)) <= 30


def test_waiting_for_payday_beats_any_other_day() -> None:
    """For a debit card without money, the morning of a payday is better than ten days of chance."""
    world = BuiltInWorld(11, MANY)
    waiting = [person for person in world._people.values() if person.paydays and not person.never_funded]  # noqa: SLF001
    paid = Counter[str]()
    for person in waiting:
        payday = next(at for at in person.paydays if at > person.payment.failed_at)
        paid["payday"] += world.charge(person.payment.payment_id, payday + timedelta(hours=9)) is None
    for person in waiting:
        payday = next(at for at in person.paydays if at > person.payment.failed_at)
        fresh = BuiltInWorld(11, 0)
        fresh._people, fresh._stories = world._people, world._stories  # noqa: SLF001
        paid["before"] += fresh.charge(person.payment.payment_id, payday - timedelta(hours=3)) is None
    assert share(paid["payday"], len(waiting)) > 60
    assert share(paid["before"], len(waiting)) < 45


def test_the_updater_mends_the_published_share_of_cards() -> None:
    """Between 5 and 14 % of all failures get a renewed card within four days, and nearly all of those pass."""
    world = BuiltInWorld(11, MANY)
    later = [(p, p.failed_at + 5 * DAY) for p in world.failures()]
    mended = [
        (p, at)
        for p, at in later
        if world.next_update(p.payment_id, p.failed_at) and world.card(p.payment_id, at) != p.card
    ]
    assert 5 <= share(len(mended)) <= 14
    passed = sum(world.charge(p.payment_id, at) is None for p, at in mended)
    assert share(passed, len(mended)) > 80


def test_an_expired_card_keeps_its_number_and_a_lost_one_gets_another() -> None:
    """The updater changes the expiry alone for an expired card, the fingerprint too for a lost or closed one."""
    world = BuiltInWorld(11, MANY)
    same_number = {True: Counter[bool](), False: Counter[bool]()}
    for payment in world.failures():
        update = world.next_update(payment.payment_id, payment.failed_at)
        if update and update < payment.failed_at + 4 * DAY:
            before, after = world.card(payment.payment_id, update - DAY / 86400), world.card(payment.payment_id, update)
            if after != before == payment.card:
                expired = payment.decline.code == "expired_card"
                same_number[expired][after.fingerprint == before.fingerprint] += 1
    assert set(same_number[True]) == {True}
    assert set(same_number[False]) == {False}


def test_a_hard_decline_never_passes_on_the_same_card() -> None:
    """Twenty charges on lost, stolen and closed cards bring no approval until the card changes."""
    world = BuiltInWorld(11, 600)
    for payment in world.failures():
        if payment.decline.code in {"lost_card", "stolen_card", "invalid_account"}:
            at = payment.failed_at + timedelta(hours=1)
            assert isinstance(world.charge(payment.payment_id, at), Decline)


def test_a_mail_brings_some_customers_back_and_drives_a_few_away() -> None:
    """One mail: near 10 % of the unpaid act within a week beyond those who act anyway, under 4 % leave."""
    quiet, told = BuiltInWorld(11, MANY), BuiltInWorld(11, MANY)
    acts: dict[str, Counter[str]] = {"quiet": Counter(), "told": Counter()}
    for payment in quiet.failures():
        told.contact(payment.payment_id, payment.failed_at, "first")
        for name, world in (("quiet", quiet), ("told", told)):
            act = world.next_act(payment.payment_id, payment.failed_at)
            if act and act[1] < payment.failed_at + 7 * DAY:
                acts[name][act[0]] += 1
    came = {name: count["card"] + count["paid"] for name, count in acts.items()}
    assert 5 <= share(came["told"] - came["quiet"]) <= 15
    assert 0.5 <= share(acts["told"]["cancel"] - acts["quiet"]["cancel"]) <= 4


def test_writing_twice_a_day_helps_no_more_than_once() -> None:
    """The second message within a day brings nobody back."""
    once, twice = BuiltInWorld(11, MANY), BuiltInWorld(11, MANY)
    came = Counter[str]()
    for payment in once.failures():
        for name, world, hours in (("once", once, (0,)), ("twice", twice, (0, 1))):
            for hour in hours:
                world.contact(payment.payment_id, payment.failed_at + timedelta(hours=hour), "first")
            act = world.next_act(payment.payment_id, payment.failed_at)
            came[name] += act is not None and act[0] != "cancel" and act[1] < payment.failed_at + 10 * DAY
    assert came["twice"] <= came["once"]


def test_a_stored_card_is_new_from_its_instant_on_and_mostly_passes() -> None:
    """Before the act the old card shows, from the act on another number, and most charges pass."""
    world, passed, seen = BuiltInWorld(12, MANY), 0, 0
    for payment in world.failures():
        act = world.next_act(payment.payment_id, payment.failed_at)
        if act is None or act[0] != "card" or act[1] > payment.failed_at + 60 * DAY:
            continue
        before = world.card(payment.payment_id, act[1] - timedelta(seconds=1))
        assert world.card(payment.payment_id, act[1]).fingerprint != before.fingerprint
        seen += 1
        passed += world.charge(payment.payment_id, act[1] + timedelta(hours=1)) is None
    assert seen > 20
    assert share(passed, seen) > 75


def test_nobody_acts_after_paying_or_leaving() -> None:
    """After an approval, or after the customer's own last act, the world expects nothing more."""
    world = BuiltInWorld(11, 500)
    for payment in world.failures():
        name, at = payment.payment_id, payment.failed_at + DAY
        last = world.next_act(name, payment.failed_at)
        if world.charge(name, at) is None:
            assert world.next_act(name, at) is None
        elif last and last[0] in {"paid", "cancel"}:
            assert world.next_act(name, last[1]) is None


@pytest.mark.parametrize(
    ("cycle", "country", "zone", "expected"),
    [
        ("month_end", "GB", "Europe/London", ["2026-01-30", "2026-02-27"]),
        ("semi_monthly", "US", "America/New_York", ["2026-01-15", "2026-01-30", "2026-02-13", "2026-02-27"]),
        ("fifth_business_day", "BR", "America/Sao_Paulo", ["2026-01-08", "2026-02-06"]),
        ("day_25", "JP", "Asia/Tokyo", ["2026-01-23", "2026-02-25"]),
    ],
)
def test_paydays_fall_on_business_days(cycle: str, country: str, zone: str, expected: list[str]) -> None:
    """Pay due on a weekend comes the Friday before, and New Year is no business day."""
    span = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 28, tzinfo=UTC))
    found = payday_instants(cycle, 0, country, zone, span)
    assert [at.astimezone(ZoneInfo(zone)).date().isoformat() for at in found] == expected


def test_every_number_lies_between_its_bounds_and_says_why() -> None:
    """Each row of the parameter file has low <= mid <= high and a basis."""
    tables = tomllib.loads(Path(beliefs.__file__).with_name("world.toml").read_text(encoding="utf-8"))
    for section in beliefs.NUMBERS:
        for name, row in tables[section].items():
            assert row["low"] <= row["mid"] <= row["high"], name
            assert row["basis"], name


def test_a_level_changes_one_number_and_a_wrong_name_is_refused() -> None:
    """A sensitivity run replaces one middle value by its bound; a misspelt name does not pass silently."""
    assert beliefs.load_beliefs({"funds.never": "high"})["funds.never"] == 0.40
    assert beliefs.load_beliefs()["funds.never"] == 0.34
    with pytest.raises(KeyError, match=r"funds\.newer"):
        beliefs.load_beliefs({"funds.newer": "high"})
