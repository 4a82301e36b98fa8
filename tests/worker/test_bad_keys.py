"""Does the worker say which access it lacks, wait without losing anything, and go on by itself once that is mended?"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest

from schedules import Policy
from tests.worker.bench import Bench, Scripted, Serve
from tests.worker.builders import (
    DAY,
    FUNDS,
    HOUR,
    JSON,
    LOST,
    START,
    event,
    invoice,
    one,
    opened,
    payment,
    sql,
    the_attempts,
    the_case,
)
from worker import charging, inbox, notices
from worker.leases import claim_due
from worker.mail import Mailbox
from worker.models import outbox
from worker.notices import MOST_TRIES
from worker.stripe_gateway import NoAccess

WORDS: list[tuple[JSON, str]] = [
    ({"revoked": True}, "the key is refused (401): "),
    ({"missing": ["rak_payment_intent_read"]}, "the key lacks rak_payment_intent_read (403): "),
    ({"newest": "2024-06-20"}, "the API version 2026-10-28.endive is refused (400): "),
]
SECOND = invoice(id="in_2", customer="cus_2", parent={"subscription_details": {"subscription": "sub_2"}})


def errors(street: Bench, case_id: int = 1) -> list[str]:
    """Return what the history of a case says went wrong."""
    query = "SELECT detail->>'error' FROM history WHERE case_id = :case AND detail->>'error' IS NOT NULL ORDER BY id"
    return [row[0] for row in sql(street.engine, query, case=case_id)]


def deliver(street: Bench, folder: Path, now: datetime) -> bool:
    """Claim the one message that is due and deliver it."""
    with street.engine.begin() as db:
        [(number, token)] = claim_due(db, outbox, now, 10, 180)
    mailbox = Mailbox("billing@shop.example", folder / "notices")
    return notices.deliver(street.desk(now), mailbox, number, UUID(token))


@pytest.mark.parametrize(("wish", "words"), WORDS)
def test_cases_wait_while_access_is_refused_and_go_on_when_it_is_mended(serve: Serve, wish: JSON, words: str) -> None:
    """Three days in the middle of two cases: nothing is charged, lost or used up, and both are recovered after."""
    street = serve(Scripted([payment(), payment(2)], declines=[FUNDS]), key="rk_test_secretsecret")
    opened(street.engine)
    street.go_on()
    street.go_on()
    assert [each.state for each in the_attempts(street.engine)] == ["declined"]
    street.control("access", wish)
    refused = the_case(street.engine).due_at
    with street.engine.begin() as db:
        assert inbox.keep(db, [inbox.parse_event(event(subject=SECOND))]) == {"evt_1"}
    assert inbox.drain(street.engine, street.policy, refused) == 1
    for hour in range(0, 72, 4):
        for number, token in street.claim(refused + hour * HOUR):
            with suppress(NoAccess):  # a charge outside its hours is planned anew before anything is asked
                charging.work(street.desk(refused + hour * HOUR), number, token)
    for case_id in (1, 2):
        assert len(errors(street, case_id)) > 3
        assert all(error.startswith(words) and "secret" not in error for error in errors(street, case_id))
    assert (len(street.ledger), len(the_attempts(street.engine)), the_attempts(street.engine, 2)) == (1, 1, [])
    street.control("access", {})
    assert all(the_case(street.engine, case_id).due_at <= refused + 4 * DAY for case_id in (1, 2))
    for case_id in (1, 2):
        street.run(case_id)
        assert the_case(street.engine, case_id).state == "recovered"
    assert [each.number for each in the_attempts(street.engine)] == [1, 2]
    street.agrees()


def test_a_key_that_may_read_and_not_charge_uses_up_no_attempt(serve: Serve) -> None:
    """The right to charge is missing: each refusal is written down with its reason, and the attempt comes later."""
    street = serve(key="rk_test_1")
    opened(street.engine)
    street.go_on()
    street.control("access", {"missing": ["rak_invoice_write"]})
    for _ in range(5):
        street.go_on()
    tried = the_attempts(street.engine)
    assert {each.state for each in tried} == {"not_executed"}
    assert {each.number for each in tried} == {1}
    assert len(errors(street)) == len(tried)
    assert all(error.startswith("the key lacks rak_invoice_write (403): ") for error in errors(street))
    street.control("access", {})
    street.run()
    assert the_case(street.engine).state == "recovered"
    assert [each.number for each in the_attempts(street.engine) if each.state == "succeeded"] == [1]
    street.agrees()


@pytest.mark.parametrize(("wish", "words"), WORDS)
def test_a_notice_outlasts_any_time_without_access(serve: Serve, tmp_path: Path, wish: JSON, words: str) -> None:
    """A message that fails by itself is given up after some tries; this one is not, and is sent in the end."""
    street = serve(Scripted([payment(decline=LOST)]), key="rk_test_1")
    opened(street.engine, payment(decline=LOST))
    street.work(START)
    street.control("access", wish)
    due = "SELECT due_at FROM outbox WHERE name = 'first'"
    for _ in range(2 * MOST_TRIES):
        with suppress(NoAccess):
            assert not deliver(street, tmp_path, one(street.engine, due))
    assert one(street.engine, "SELECT error FROM outbox WHERE name = 'first'").startswith(words)
    assert len(errors(street)) == 1
    street.control("access", {})
    while not deliver(street, tmp_path, one(street.engine, due)):
        assert one(street.engine, due) is not None
    assert [file.name for file in (tmp_path / "notices").iterdir()] == ["in_1-first.eml"]


def test_an_ending_waits_for_the_right_to_it(serve: Serve, tmp_path: Path) -> None:
    """The subscription is canceled once the key may do so."""
    street = serve(Scripted([payment(decline=LOST)]), key="rk_test_1", policy=Policy(ending="cancel"))
    opened(street.engine, payment(decline=LOST))
    street.run()
    sql(street.engine, "UPDATE outbox SET due_at = NULL WHERE kind = 'notice'")
    street.control("access", {"missing": ["rak_subscription_write"]})
    for _ in range(10):
        with pytest.raises(NoAccess, match="the key lacks rak_subscription_write"):
            deliver(street, tmp_path, one(street.engine, "SELECT due_at FROM outbox WHERE kind = 'ending'"))
    street.control("access", {})
    assert deliver(street, tmp_path, one(street.engine, "SELECT due_at FROM outbox WHERE kind = 'ending'"))
