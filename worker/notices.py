"""What is said to the customer, and how does it leave? Outbox rows, delivered later and once.

The address is read from the provider at the moment of sending and is never stored or logged. One notice may name
several invoices of a customer; those whose case has ended meanwhile are left out, and without any it is dropped. A
mail that may or may not have been delivered is shown, not repeated; a webhook is repeated under the id that it had.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, func, or_, select, update

from schedules.decide import may_speak
from schedules.places import place_of
from schedules.steps import utc_text
from worker.bounces import came_back
from worker.cases import LeaseLost, record
from worker.facts import facts_of
from worker.failpoints import failpoint
from worker.hooks import DUE, HookError, HookGone, notice_due
from worker.leases import lease_end
from worker.logs import about
from worker.mail import Mailbox, write
from worker.models import OPEN_STATES, UNCERTAIN, attempts, cases, install, outbox
from worker.smtp import MailError, NoMailServer, NotTaken, PerhapsTaken
from worker.stripe_gateway import GatewayError, NoAccess, Unavailable
from worker.suppressions import BOUNCED, REASONS, Customer, digest, refusal
from worker.wording import Bill, compose
from worker.words import NotWritten

if TYPE_CHECKING:
    from datetime import datetime

    from worker.charging import Desk
    from worker.readings import Reading

MOST_TRIES = 12  # over a day and a half
MOST_HOOK_TRIES = 15  # over three days
LONGEST_PAUSE = 720  # minutes
ASK_AGAIN = timedelta(minutes=15)
OURS = (NoAccess, Unavailable, NoMailServer)  # faults of the installation: no message is tried less for them
GIVEN_UP = "given up: again and again it was taken, and nobody was heard of it"
OVER = "the case has ended"
PAUSED = "the case is paused"
OBSERVED = "observe mode sends nothing"
MEANT = (OVER, PAUSED, OBSERVED, *REASONS.values())  # so begin the reasons that are no fault
# Notices about a case that is over: its state, and what the provider has to show for them to be true.
LAST_WORDS: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "ended": ("lost", ("canceled", "lapsed")),
    "paused": ("lost", (None,)),
    "thanks": ("recovered", ("paid",)),
    "expiring": ("recovered", ("paid",)),
}


@dataclass(frozen=True, slots=True)
class Item:
    """One invoice that a message is about: its row of the outbox, and its case as it was when the message was taken.

    ``other_card``: a card was tried that the customer had not chosen for it.
    """

    row: Row[Any]
    case: Row[Any]
    other_card: bool = False

    @property
    def is_open(self) -> bool:
        """Whether there is still something to say, as far as we know."""
        if self.row.name in LAST_WORDS:
            return bool(self.case.state == LAST_WORDS[self.row.name][0])
        return self.case.state in OPEN_STATES and self.case.ended is None and not self.case.paused

    @property
    def closed(self) -> str:
        """Why there is nothing to say."""
        return PAUSED if self.case.state in OPEN_STATES and self.case.paused else OVER

    def is_true(self, reading: Reading) -> bool:
        """Whether the provider shows what the notice says; raise ``NotWritten`` when that is still to come."""
        if self.row.name == "ended" and reading.ended is None:
            msg = "the subscription has not ended yet"
            raise NotWritten(msg)
        shows: tuple[str | None, ...] = LAST_WORDS[self.row.name][1] if self.row.name in LAST_WORDS else (None,)
        return reading.ended in shows


def deliver(desk: Desk, mailbox: Mailbox, message_id: int, hint: UUID) -> bool:
    """Deliver one message of the outbox; False when the hint was used before or nothing was to be delivered."""
    items = _take(desk, message_id, hint)
    if not items:
        return False
    with about(case_id=items[0].case.id):
        return _deliver(replace(desk, policy=desk.policy.of(items[0].case.arm)), mailbox, items)


def _deliver(desk: Desk, mailbox: Mailbox, items: list[Item]) -> bool:
    try:
        errors = _carry_out(desk, mailbox, items)
    except LeaseLost:
        return False
    except Exception as error:
        if isinstance(error, NotTaken) and error.bounced:
            with desk.engine.begin() as db:
                came_back(db, items[0].row.id, desk.now)
        later = _later(desk, items[0].row.tries, error)
        _settle(desk, items, [_why(error)] * len(items), later, ours=isinstance(error, OURS))
        raise
    _settle(desk, items, errors)
    return None in errors


def _take(desk: Desk, message_id: int, hint: UUID) -> list[Item]:
    """Use up the hint, and return the message with all that was merged into it, the message itself first.

    A second delivery of the same hint finds another token, and nothing.
    """
    until = lease_end(desk.lease_seconds)
    own = {"lease_token": func.gen_random_uuid(), "lease_until": until, "tries": outbox.c.tries + 1}
    mine = outbox.c.id == message_id, outbox.c.lease_token == hint, outbox.c.due_at.is_not(None)
    with desk.engine.begin() as db:
        if db.execute(update(outbox).where(*mine).values(**own)).rowcount != 1:
            return []
        together = or_(outbox.c.id == message_id, outbox.c.merged_into == message_id)
        rows = db.execute(select(outbox).where(together).order_by(outbox.c.id)).all()
        about = select(cases).where(cases.c.id.in_([row.case_id for row in rows]))
        found = {row.id: row for row in db.execute(about)}
        if _put_off(db, desk, next(row for row in rows if row.id == message_id), found):
            return []
        others = set(db.execute(_with_another_card(list(found))).scalars())
        failpoint("before_mail_commit")
    cases_of = [(row, found[row.case_id]) for row in rows]
    return [Item(row, case, case.id in others and case.card_entered_at is None) for row, case in cases_of]


def _put_off(db: Connection, desk: Desk, message: Row[Any], found: dict[int, Row[Any]]) -> bool:
    """Put a notice off until the customer's hours for its channel; False when those are now, or it is no notice."""
    if message.kind != "notice":
        return False
    case = found[message.case_id]
    at = may_speak(facts_of(db, case, desk.now), desk.policy.of(case.arm), desk.now, message.channel)
    if at is None or at <= desk.now:
        return False
    free = {"lease_token": None, "lease_until": None, "tries": message.tries - 1, "due_at": at}
    db.execute(update(outbox).where(outbox.c.id == message.id).values(**free))
    told = {"name": message.name, "channel": message.channel, "until": utc_text(at)}
    record(db, message.case_id, desk.now, "put_off", told)
    return True


def _with_another_card(found: list[int]) -> Select[tuple[int]]:
    """Return the query for the cases of which an attempt named another method than the one charged by itself."""
    tried = select(attempts.c.case_id).join(cases, cases.c.id == attempts.c.case_id)
    other = attempts.c.pay_with.is_not(None), attempts.c.pay_with.is_distinct_from(cases.c.method_id)
    return tried.where(cases.c.id.in_(found), *other)


def _carry_out(desk: Desk, mailbox: Mailbox, items: list[Item]) -> list[str | None]:
    """Do what the message is for; return for each item why it was not to be done, or None."""
    message, case = items[0].row, items[0].case
    if (why := _held_back(desk, mailbox, message)) is not None:
        return [why] * len(items)
    key = f"{case.payment_id}-{message.name}"
    if message.kind == "card":
        desk.gateway.prefer(message.name, case.subscription_id, case.account)
        return [None]
    if message.kind == "ending":
        desk.gateway.end(message.name, case.payment_id, case.subscription_id, f"dunning-end-{key}", case.account)
        return [None]
    if message.kind == "hook":
        _tell(desk, message, message.name, message.payload)
        return [None]
    if message.channel == "mail" and any(item.is_open for item in items):
        mailbox.reach()
    return _hand_over(desk, mailbox, items, key)


def _held_back(desk: Desk, mailbox: Mailbox, message: Row[Any]) -> str | None:
    """Say why nothing at all is done about a message, or return None."""
    if message.error == UNCERTAIN and mailbox.smtp_url is not None:
        return UNCERTAIN
    if not desk.live:
        return OBSERVED
    return GIVEN_UP if message.tries > MOST_HOOK_TRIES else None


def _hand_over(desk: Desk, mailbox: Mailbox, items: list[Item], key: str) -> list[str | None]:
    """Send the notice for the items of which the provider says that something is left to say, if there are any."""
    read = ((item, desk.gateway.read(item.case.payment_id, item.case.account)) for item in items if item.is_open)
    true = [(item, reading) for item, reading in read if item.is_true(reading)]
    errors = {item.row.id: item.closed for item in items} | _refused(desk, true)
    left = [(item, reading) for item, reading in true if errors[item.row.id] is None]
    if left:
        told = [bill_of(desk, item.case, reading, other_card=item.other_card) for item, reading in left]
        first = left[0][0].row
        if first.channel == "mail":
            mail = write(mailbox, first.name, told, desk.policy, key)
            mailbox.send(mail, key, lambda: _begin(desk, items[0].row))
        else:
            letter = compose(first.name, told, desk.policy, mailbox.letterhead)
            bills = [(item.case, bill) for (item, _), bill in zip(left, told, strict=True)]
            _tell(desk, items[0].row, DUE, notice_due(first, letter, bills))
        failpoint("after_mail")
    return [errors[item.row.id] for item in items]


def _begin(desk: Desk, message: Row[Any]) -> None:
    """Write down that a message leaves now: until it is told what became of it, it is uncertain.

    Raises ``LeaseLost`` when somebody else has taken it meanwhile.
    """
    mine = outbox.c.id == message.id, outbox.c.lease_token == message.lease_token
    leaves = {"error": UNCERTAIN, "lease_until": lease_end(desk.lease_seconds)}
    with desk.engine.begin() as db:
        if db.execute(update(outbox).where(*mine).values(**leaves)).rowcount != 1:
            raise LeaseLost
    failpoint("before_mail")


def _refused(desk: Desk, true: list[tuple[Item, Reading]]) -> dict[int, str | None]:
    """Return for each item why the customer is not to get it, or None; then its row tells to which address it goes."""
    errors: dict[int, str | None] = {}
    with desk.engine.begin() as db:
        for item, reading in true:
            address = digest(db, reading.email) if item.row.channel == "mail" and reading.email else None
            errors[item.row.id] = refusal(db, Customer.of(item.case), item.row.name, address, desk.policy)
            if errors[item.row.id] is None:
                db.execute(update(outbox).where(outbox.c.id == item.row.id).values(sent_to=address))
    return errors


def _tell(desk: Desk, message: Row[Any], kind: str, data: dict[str, Any]) -> None:
    """Tell the merchant's own systems. After a restore a number may be given again, but not at the same instant."""
    if desk.hooks is None:
        msg = "DUNNING_HOOK_URL or DUNNING_HOOK_SECRET is not set"
        raise HookError(msg)
    with desk.engine.connect() as db:
        installation = db.execute(select(install.c.id)).scalar_one()
    message_id = f"{installation}-{message.id}-{int(message.at.timestamp())}"
    desk.hooks.send(message_id, kind, message.at, data)


def bill_of(desk: Desk, case: Row[Any], reading: Reading, *, other_card: bool = False) -> Bill:
    """Return what a notice tells of a case. It leads to our own link, where there is one, else to the provider's page.

    The last day to pay is the last whole one before the deadline; days are those of the customer's own calendar. Of an
    invoice that is over nothing remains, so the case tells the amount.
    """
    deadline = case.failed_at + timedelta(days=desk.policy.deadline_days)
    [zone, *_] = place_of(case.card.get("country"), case.time_zone or reading.time_zone).zones
    charged = case.due_at if case.step is not None and case.step["step"] == "charge" else None
    page = reading.link if reading.ended is None else None  # of a paid invoice there is nothing to do on its page
    link = desk.links.to_pay(case.id, deadline) if desk.links else page
    amount = reading.amount_minor if reading.ended is None else case.amount_minor
    return Bill(
        reading=replace(reading, link=link, amount_minor=amount),
        locale=reading.locale or case.locale,
        next_charge=charged.astimezone(zone).date() if charged else None,
        pay_by=max(deadline - timedelta(days=1), desk.now).astimezone(zone).date(),
        other_card=other_card,
        opt_out=desk.links.to_opt_out(case.id, desk.now) if desk.links else None,
    )


def _why(error: Exception) -> str:
    """Return what the history tells of an error: its words only where they are our own."""
    if isinstance(error, PerhapsTaken):
        return UNCERTAIN
    if isinstance(error, NotTaken) and error.bounced:
        return f"{REASONS[BOUNCED]}: {error}"
    ours = isinstance(error, GatewayError | NotWritten | HookError | MailError)
    return str(error) if ours else type(error).__name__


def _later(desk: Desk, tries: int, error: Exception) -> datetime | None:
    """Return when a message is tried again, with growing waits, in the end never."""
    if isinstance(error, OURS):
        return desk.now + ASK_AGAIN
    most = MOST_HOOK_TRIES if isinstance(error, HookError) else MOST_TRIES
    over = isinstance(error, HookGone | PerhapsTaken) or (isinstance(error, NotTaken) and error.for_good)
    if over or tries >= most:
        return None
    return desk.now + timedelta(minutes=min(2**tries, LONGEST_PAUSE))


def _kind(error: str | None) -> str:
    """Return which fault an error tells of, without the request that met it."""
    return (error or "").partition(":")[0]


def _settle(
    desk: Desk, items: list[Item], errors: list[str | None], later: datetime | None = None, *, ours: bool = False
) -> None:
    """Write down that the message left, will be tried again, or will not leave; for each item in its own history.

    A fault of ours costs no try, and is told when it begins.
    """
    message = items[0].row
    mine = outbox.c.id == message.id, outbox.c.lease_token == message.lease_token
    free = {"lease_token": None, "lease_until": None, "due_at": later, "tries": message.tries - ours}
    with desk.engine.begin() as db:
        if db.execute(update(outbox).where(*mine).values(**free)).rowcount != 1:
            return
        # In the order in which everybody locks cases: a line of history waits for who has locked its case.
        for item, error in sorted(zip(items, errors, strict=True), key=lambda pair: int(pair[0].case.id)):
            done = {"error": error, "delivered_at": desk.now if error is None else None}
            db.execute(update(outbox).where(outbox.c.id == item.row.id).values(**done))
            if ours and _kind(error) == _kind(item.row.error):
                continue
            told = {"kind": item.row.kind, "name": item.row.name, "channel": item.row.channel, "error": error}
            record(db, item.case.id, desk.now, "delivered" if error is None else "not_delivered", told)
