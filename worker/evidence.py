"""What does a reading of the provider say about a case? The card to charge now, and why the last charge was refused."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from schedules import Card
from schedules.facts import by_name
from schedules.steps import utc_text
from worker.cards import Stored, choose, refreshed
from worker.cases import Case
from worker.facts import declined, uses_of
from worker.models import MACHINE_NOW, attempts
from worker.readings import FailedCharge

if TYPE_CHECKING:
    from worker.readings import Reading


def store_reading(db: Connection, case: Case, reading: Reading, news: int, now: datetime) -> None:
    """Change a case to what the provider showed, with the fuller evidence of the latest refusal. The caller saves it.

    ``news`` is the case's count of events when the provider was asked: what came later asks for another reading.
    """
    chosen = _chosen(db, case, reading, now)
    by_hand = _by_hand(case, reading, chosen)
    outcome = refreshed(Card(**case.card), chosen.card, case.method_id, reading.method_id)
    found = {
        "card": by_name(chosen.card),
        "method_id": reading.method_id,
        "pay_with": chosen.method_id if chosen.method_id != (reading.method_id or "") else None,
        "methods_seen": sorted({*case.methods_seen, case.method_id, *_ids(reading)} - {None, reading.method_id}),
        "retried_elsewhere": case.retried_elsewhere if reading.ended else reading.retried_by_provider,
        "intent_id": reading.intent_id or case.intent_id,
        "card_entered_at": now if by_hand else case.card_entered_at,
        "refreshed_at": now,
        "news_read": news,
        "ended": reading.ended or case.ended,
        "amount_minor": case.amount_minor if reading.ended else reading.amount_minor,
        "time_zone": reading.time_zone or case.time_zone,
        "locale": reading.locale or case.locale,
    }
    unseen = reading.charge_id not in (None, case.charge_id, case.failed_charge_id)
    if reading.decline is not None and (unseen or case.refreshed_at is None):
        found |= _evidence(db, case, reading, now)
    asked = case.step is not None and case.step["step"] == "refresh"
    if asked or outcome != "unchanged":
        case.note(now, "refreshed", {"outcome": outcome, "by_hand": by_hand})
    case.change(**found)


def _chosen(db: Connection, case: Case, reading: Reading, now: datetime) -> Stored:
    """Return the method to charge: the first that no bank has refused in this case, nor lately in any other."""
    own = Stored(reading.method_id or "", reading.card)
    if not reading.others:
        return own
    refused = [Card(**case.failed_card), *(each.card for each in declined(db, case.id))]
    if case.refreshed_at is None:  # the event may not have shown the card
        refused.append(reading.charged)
    known = [card for card in refused if card != Card()]
    unused = (other for other in reading.others if not uses_of(db, other.card.fingerprint, now))
    return choose([own, *unused], known, now)


def _by_hand(case: Case, reading: Reading, chosen: Stored) -> bool:
    """Whether the customer stored the card since the last reading: another default, or one never seen before."""
    if case.refreshed_at is None or not chosen.card.differs(Card(**case.card)) or chosen.backup:
        return False
    return reading.method_id != case.method_id or chosen.method_id not in (reading.method_id, *case.methods_seen)


def _ids(reading: Reading) -> list[str]:
    return [name for name in (reading.method_id, *(other.method_id for other in reading.others)) if name]


def _evidence(db: Connection, case: Case, reading: Reading, now: datetime) -> dict[str, Any]:
    """A refusal not seen before: of an attempt of ours, of the renewal itself, or of a charge that others made."""
    seen: dict[str, Any] = {"charge_id": reading.charge_id}
    if _of_an_attempt(db, case, reading):
        return seen
    charge = _elsewhere(case, reading)
    if charge is None:
        told = by_name(reading.decline) if reading.decline else {}
        failed = {"failed_charge_id": reading.charge_id, "decline": told, "failed_card": by_name(reading.charged)}
        return seen | failed
    keep_foreign(db, charge, case.id)
    case.note(now, "charged_elsewhere", {"charge": charge.id, "charged_at": utc_text(charge.at)})
    return seen if case.failed_card.get("fingerprint") else {**seen, "failed_card": by_name(charge.card)}


def _of_an_attempt(db: Connection, case: Case, reading: Reading) -> bool:
    """Give the attempt that made this charge its fuller evidence; a refusal without a charge yet is the latest's."""
    mine, answered = attempts.c.case_id == case.id, attempts.c.state.in_(("declined", "foreign"))
    latest = select(func.max(attempts.c.number)).where(mine, answered).scalar_subquery()
    unnamed = and_(attempts.c.number == latest, attempts.c.state == "declined", attempts.c.charge_id.is_(None))
    made_it = update(attempts).where(mine, or_(attempts.c.charge_id == reading.charge_id, unnamed))
    told = {"decline": by_name(reading.decline) if reading.decline else {}, "charge_id": reading.charge_id}
    return db.execute(made_it.values(told)).rowcount > 0


def _elsewhere(case: Case, reading: Reading) -> FailedCharge | None:
    """Return the charge when it cannot be the renewal's: another one is, or it was made after the renewal failed."""
    decline, charge_id, at = reading.decline, reading.charge_id, reading.charged_at
    if decline is None or charge_id is None or at is None or (case.failed_charge_id is None and at <= case.failed_at):
        return None
    return FailedCharge(charge_id, at, case.payment_id, case.amount_minor, case.currency, reading.charged, decline)


def keep_foreign(db: Connection, charge: FailedCharge, case_id: int | None = None) -> None:
    """Write down, once, a refused charge that we did not make: without a case until a reading shows whose it is.

    It stands among the attempts, numbered on, because the card's budget and the waits of its case are the same.
    """
    values = {
        "case_id": case_id,
        "payment_id": charge.payment_id,
        "number": next_number(case_id),
        "idempotency_key": charge.id,  # unique: one row for each charge
        "state": "foreign",
        "at": charge.at,
        "settled_at": MACHINE_NOW,
        "card": by_name(charge.card),
        "fingerprint": charge.card.fingerprint,
        "amount_minor": charge.amount_minor,
        "currency": charge.currency,
        "decline": by_name(charge.decline),
        "charge_id": charge.id,
    }
    told = upsert(attempts).values(values)
    better = {name: told.excluded[name] for name in ("case_id", "payment_id", "number", "decline")}
    adopted = attempts.c.case_id.is_(None) & told.excluded.case_id.is_not(None)
    db.execute(told.on_conflict_do_update(index_elements=["idempotency_key"], set_=better, where=adopted))


def next_number(case_id: int | None) -> Any:
    """Return the number of a case's next attempt, as SQL; of a charge of which no case knows it is 1."""
    if case_id is None:
        return 1
    counted = attempts.c.case_id == case_id, attempts.c.state != "not_executed"
    return select(func.coalesce(func.max(attempts.c.number), 0) + 1).where(*counted).scalar_subquery()
