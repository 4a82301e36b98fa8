"""Does a platform recover for its connected accounts too? Every call about a case goes to the account it is of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import select

from schedules import Decline, Policy
from tests.stories.month import Month
from tests.stories.scripted import Scripted, a_payment
from worker.models import cases

Play = Callable[..., Month]
LOST = Decline("lost_card", "do_not_try_again", "41", None, "issuer_declined", "lost_card")
OTHER = a_payment(payment_id="in_2", customer_id="cus_2", subscription_id="sub_2")


def test_everything_about_a_connected_accounts_case_is_asked_of_that_account(play: Play) -> None:
    """Readings, charges, the addresses of notices and the ending; the bank finds nothing under another account."""
    policy = replace(Policy.default(), ending="cancel")
    month = play(Scripted((a_payment(),), accounts={"in_1": "acct_9"}), policy=policy)
    asked = month.record.of_api()
    assert {each.headers.get("stripe-account") for each in asked} == {"acct_9"}
    assert all(each.status in (200, 402) for each in asked)
    assert len(month.charges) == 6
    assert len(month.mailed) == len(policy.ladder) + 1, "and the last word"
    assert month.diary()[28] == ["notice ended", "lost", "DELETE /v1/subscriptions/sub_1 200"]


def test_cases_of_several_accounts_go_their_own_ways_side_by_side(play: Play) -> None:
    """One's own is paid by the third charge, the connected one is told of its lost card."""
    world = Scripted((a_payment(), replace(OTHER, decline=LOST)), {"in_1": [None]}, accounts={"in_2": "acct_9"})
    month = play(world)
    accounts = {(each.headers.get("stripe-account"), each.path) for each in month.record.of_api()}
    assert {path for account, path in accounts if account is None and "in_" in path} == {
        "/v1/invoices/in_1",
        "/v1/invoices/in_1/pay",
    }
    assert {path for account, path in accounts if account == "acct_9" and "in_" in path} == {"/v1/invoices/in_2"}
    with month.engine.connect() as db:
        found = db.execute(select(cases.c.payment_id, cases.c.account, cases.c.state).order_by(cases.c.payment_id))
        assert [tuple(row) for row in found] == [("in_1", None, "recovered"), ("in_2", "acct_9", "lost")]
