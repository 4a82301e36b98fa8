"""Does every code get the class its table gives it, and do several codes merge as the facts say?"""

from __future__ import annotations

from datetime import timedelta

import pytest

from schedules.declines import RETRY_CLASSES, TABLE, DeclineClass, Row, classify, read_table
from schedules.facts import Decline

HEADER = "source,code,class,retry_limit,wait_hours,cause,meaning"
BRAND = {
    "mastercard_mac": "mastercard",
    "mastercard_de39": "mastercard",
    "visa": "visa",
    "amex": "amex",
    "ach": "us_bank_account",
    "sepa": "sepa_debit",
    "stripe_ach": "us_bank_account",
    "stripe_sepa": "sepa_debit",
    "stripe_bacs": "bacs_debit",
}


def decline_of(row: Row) -> Decline:
    """The decline that carries nothing but this row's code, in its own field."""
    match row.source:
        case "mastercard_mac":
            return Decline(network_advice_code=row.code)
        case "mastercard_de39" | "visa" | "amex" | "ach" | "sepa":
            return Decline(network_decline_code=row.code)
        case "stripe_advice_code":
            return Decline(advice_code=row.code)
        case "stripe_outcome_reason":
            return Decline(outcome_type="blocked", outcome_reason=row.code)
        case "stripe_outcome_type":
            return Decline(outcome_type=row.code)
        case _:
            return Decline(code=row.code)


@pytest.mark.parametrize("row", TABLE.values(), ids=lambda row: f"{row.source}-{row.code}")
def test_every_row_is_judged_as_it_says_in_its_own_rail(row: Row) -> None:
    """Alone, a code gives its own class, limit, wait and cause, and is the only evidence."""
    verdict = classify(decline_of(row), BRAND.get(row.source, "discover"))
    retry = row.decline_class in RETRY_CLASSES
    assert verdict.decline_class is row.decline_class
    assert verdict.retry_limit == (row.retry_limit if retry else 0)
    assert verdict.wait == (row.wait if retry else timedelta(0))
    assert verdict.cause == row.cause
    assert verdict.evidence == (f"{row.source}:{row.code}",)
    assert verdict.unknown == ()


def test_the_table_keeps_what_other_rules_rely_on() -> None:
    """Consent and death are final, retry classes have a limit and a cause with a window, Visa rows their category."""
    assert {row.decline_class for row in TABLE.values() if row.cause in {"consent", "deceased"}} == {DeclineClass.NEVER}
    for row in TABLE.values():
        if row.decline_class is DeclineClass.RETRY_LATER:
            assert row.retry_limit > 0
            assert row.cause in {"funds", "limit", "unexplained"}
        if row.decline_class is DeclineClass.RETRY_SOON:
            assert row.cause == "technical"
    category_2 = [code for (source, code), row in TABLE.items() if row.meaning.startswith("category 2:")]
    assert " ".join(sorted(category_2)) == "03 19 39 51 52 53 59 5C 61 62 65 75 78 83 86 91 93 96 9G N3 N4 Z5"


def test_a_block_outranks_a_harmless_decline_code() -> None:
    """Stripe shows its own block as a plain generic decline."""
    blocked = Decline("generic_decline", outcome_type="blocked", outcome_reason="previously_declined_do_not_retry")
    verdict = classify(blocked, "visa")
    assert verdict.decline_class is DeclineClass.NEVER
    assert verdict.evidence == ("stripe_outcome_reason:previously_declined_do_not_retry", "stripe_card:generic_decline")


def test_a_block_by_the_merchants_own_rule_is_the_merchants_to_fix() -> None:
    """A Radar rule would block the next charge as well."""
    blocked = Decline("generic_decline", outcome_type="blocked", outcome_reason="rule")
    assert classify(blocked, "visa").decline_class is DeclineClass.MERCHANT_FIX


@pytest.mark.parametrize("reason", [None, "elevated_risk_level"])
def test_a_block_without_a_known_reason_is_tried_twice_at_most(reason: str | None) -> None:
    """No bank has refused it, so it is not final; an unreadable reason is reported."""
    blocked = Decline("generic_decline", outcome_type="blocked", outcome_reason=reason)
    verdict = classify(blocked, "visa")
    assert (verdict.decline_class, verdict.retry_limit) == (DeclineClass.RETRY_LATER, 2)
    assert verdict.wait == timedelta(hours=72)
    assert verdict.unknown == ((f"outcome_reason:{reason}",) if reason else ())


def test_an_outcome_reason_of_a_charge_that_was_sent_is_no_block() -> None:
    """Only a blocked charge, or a record too old to say, is judged by the reason."""
    sent = Decline("do_not_honor", outcome_type="issuer_declined", outcome_reason="highest_risk_level")
    old = Decline("do_not_honor", outcome_reason="highest_risk_level")
    assert classify(sent, "visa").evidence == ("stripe_card:do_not_honor",)
    assert classify(old, "visa").decline_class is DeclineClass.NEVER


@pytest.mark.parametrize("code", ["02", "03", "21"])
def test_merchant_advice_codes_are_read_on_mastercard_only(code: str) -> None:
    """Visa uses the same digits for stop orders: there they are reported, not read."""
    advised = Decline("insufficient_funds", network_advice_code=code)
    assert f"mastercard_mac:{code}" in classify(advised, "Mastercard").evidence
    for brand in ("visa", "amex", None):
        verdict = classify(advised, brand)
        assert verdict.decline_class is DeclineClass.RETRY_LATER
        assert verdict.evidence == ("stripe_card:insufficient_funds",)
        assert verdict.unknown == (f"network_advice_code:{code}",)


def test_82_means_three_things() -> None:
    """A failed verification value at Visa, the policy bucket at Mastercard, nothing elsewhere."""
    refused = Decline(network_decline_code="82")
    assert classify(refused, "visa").decline_class is DeclineClass.CUSTOMER_ACTION
    assert classify(refused, "mastercard").decline_class is DeclineClass.RETRY_LATER
    assert classify(refused, None).unknown == ("network_decline_code:82",)


@pytest.mark.parametrize(
    ("decline", "brand", "expected"),
    [
        (Decline("insufficient_funds", network_advice_code="03"), "mastercard", "never"),
        (Decline("lost_card", network_advice_code="02"), "mastercard", "never"),
        (Decline("do_not_honor", network_advice_code="01"), "mastercard", "stale_credential"),
        (Decline("do_not_honor", advice_code="do_not_try_again"), "visa", "never"),
        (Decline("expired_card", advice_code="try_again_later"), "visa", "stale_credential"),
        (Decline("generic_decline", network_decline_code="14"), "visa", "never"),
        (Decline("authentication_required", advice_code="confirm_card_data"), "visa", "customer_action"),
        (Decline("processing_error", advice_code="try_again_later"), "visa", "retry_later"),
        (Decline("authentication_required", network_advice_code="04"), "mastercard", "merchant_fix"),
        (Decline("insufficient_funds", network_decline_code="R10"), "us_bank_account", "never"),
    ],
)
def test_the_stricter_class_wins(decline: Decline, brand: str, expected: str) -> None:
    """Whichever field it stands in."""
    assert classify(decline, brand).decline_class == expected


def test_the_longer_wait_and_the_smaller_limit_win() -> None:
    """Advice to wait eight days holds against 72 hours; 72 hours hold against advice to wait one."""
    late = classify(Decline("insufficient_funds", network_advice_code="29"), "mastercard")
    early = classify(Decline("insufficient_funds", network_advice_code="24"), "mastercard")
    weak = classify(Decline("restricted_card", "try_again_later", "61"), "visa")
    assert late.wait == timedelta(hours=192)
    assert early.wait == timedelta(hours=72)
    assert (weak.retry_limit, weak.wait) == (2, timedelta(hours=72))


def test_a_stricter_class_allows_nothing_and_waits_for_nothing() -> None:
    """The waits of milder codes bind the old credential, which is not charged again."""
    verdict = classify(Decline("expired_card", network_advice_code="30"), "mastercard")
    assert (verdict.retry_limit, verdict.wait) == (0, timedelta(0))


@pytest.mark.parametrize("code", ["service_not_allowed", "not_permitted"])
def test_a_visa_category_2_code_softens_a_refused_service(code: str) -> None:
    """Hard by itself and on other brands; a Visa code that may be retried says otherwise."""
    assert classify(Decline(code), "visa").decline_class is DeclineClass.NEVER
    assert classify(Decline(code, network_decline_code="57"), "visa").decline_class is DeclineClass.NEVER
    assert classify(Decline(code, network_decline_code="51"), "mastercard").decline_class is DeclineClass.NEVER
    softened = classify(Decline(code, network_decline_code="62"), "visa")
    assert softened.decline_class is DeclineClass.RETRY_LATER
    assert softened.evidence == ("visa:62", f"stripe_card:{code}")
    assert classify(Decline("lost_card", network_decline_code="62"), "visa").decline_class is DeclineClass.NEVER


def test_withdrawn_consent_and_death_show_through_an_unexplained_stop() -> None:
    """They bind every card of the customer, so no earlier code of the same class may hide them."""
    stop = Decline("revocation_of_authorization", network_advice_code="03")
    assert classify(stop, "mastercard").cause == "consent"
    assert classify(Decline("recipient_deceased", network_decline_code="R05"), "us_bank_account").cause == "deceased"


def test_a_named_cause_beats_an_unexplained_one_of_the_same_class() -> None:
    """Advice to try later does not hide that money was missing; then the most trusted code decides."""
    assert classify(Decline("insufficient_funds", "try_again_later"), "visa").cause == "funds"
    assert classify(Decline("card_velocity_exceeded", network_decline_code="51"), "visa").cause == "funds"


def test_one_code_differs_by_rail() -> None:
    """Missing funds have fewer retries on a bank debit, and its schemes have their own rows."""
    funds = Decline("insufficient_funds")
    limits = {"visa": 8, "us_bank_account": 2, "sepa_debit": 2, "bacs_debit": 2}
    assert {brand: classify(funds, brand).retry_limit for brand in limits} == limits
    assert classify(funds, "bacs_debit").wait == timedelta(hours=120)
    assert classify(Decline("bank_account_closed"), "us_bank_account").decline_class is DeclineClass.CUSTOMER_ACTION


@pytest.mark.parametrize("brand", ["au_becs_debit", "acss_debit", "new_debit", None])
def test_a_rail_without_a_table_falls_back_on_the_general_ones(brand: str | None) -> None:
    """A withdrawn mandate is final even where no table of that rail exists."""
    assert classify(Decline("debit_not_authorized"), brand).decline_class is DeclineClass.NEVER
    assert classify(Decline("generic_decline"), brand).evidence == ("stripe_card:generic_decline",)


@pytest.mark.parametrize(
    ("decline", "unknown"),
    [
        (Decline(), ()),
        (Decline(code=""), ()),
        (Decline(code="brand_new"), ("code:brand_new",)),
        (
            Decline("brand_new", "new_advice", "ZZ", "99"),
            ("network_advice_code:99", "advice_code:new_advice", "network_decline_code:ZZ", "code:brand_new"),
        ),
    ],
)
def test_nothing_known_is_asked_again_later_and_reported(decline: Decline, unknown: tuple[str, ...]) -> None:
    """Four tries a day apart, and every unreadable code is listed."""
    verdict = classify(decline, "visa")
    assert (verdict.decline_class, verdict.retry_limit) == (DeclineClass.RETRY_LATER, 4)
    assert (verdict.wait, verdict.cause) == (timedelta(hours=24), "unexplained")
    assert (verdict.evidence, verdict.unknown) == ((), unknown)


def test_an_unknown_code_beside_a_known_one_is_reported_and_changes_nothing() -> None:
    """The known one decides."""
    verdict = classify(Decline("expired_card", network_decline_code="ZZ"), "visa")
    assert verdict.decline_class is DeclineClass.STALE_CREDENTIAL
    assert verdict.unknown == ("network_decline_code:ZZ",)


@pytest.mark.parametrize(
    "lines",
    [
        [HEADER, "x,y,maybe,1,1,funds,m"],
        [HEADER, "x,y,never,1,1,weather,m"],
        [HEADER, "x,y,never,many,1,other,m"],
        [HEADER, "x,y,never,0,0,other,m", "x,y,never,0,0,other,m"],
    ],
)
def test_a_broken_table_stops_the_start(lines: list[str]) -> None:
    """An unknown class or cause, a bad number or a repeated code is an error, not a guess."""
    with pytest.raises(ValueError, match=r"maybe|weather|many|repeated"):
        read_table(lines)
