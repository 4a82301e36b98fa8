"""What is said to the customer, and how does it leave? Outbox rows, delivered later and once.

A message is about a case, or about a subscription whose payments pass: ``worker.renewals`` tells the latter.

The address is read from the provider at the moment of sending and is never stored or logged. One notice may name
several invoices of a customer; those whose case has ended meanwhile are left out, and without any it is dropped. A
mail that may or may not have been delivered is shown, not repeated; a webhook is repeated under the id that it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, func, or_, select, update

from schedules import Facts, Policy
from schedules.decide import may_speak
from schedules.places import place_of
from schedules.steps import utc_text
from worker import renewals
from worker.bounces import came_back
from worker.cases import LeaseLost, record
from worker.facts import facts_of
from worker.failpoints import failpoint
from worker.hooks import DUE, HookError, HookGone, notice_due, payment_told
from worker.leases import lease_end
from worker.logs import about
from worker.mail import Mailbox, write
from worker.models import OPEN_STATES, UNCERTAIN, attempts, cases, install, outbox, subscriptions
from worker.renewals import Renewal
from worker.smtp import MailError, NoMailServer, NotTaken, PerhapsTaken
from worker.stripe_gateway import GatewayError, NoAccess, Unavailable
from worker.suppressions import BOUNCED, REASONS, Customer, digest, refusal
from worker.wording import AFTER, Bill, compose
from worker.words import NotWritten

if TYPE_CHECKING:
    from datetime import datetime

    from worker.desk import Desk
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
MEANT = (OVER, PAUSED, OBSERVED, *REASONS.values(), *renewals.REASONS)  # so begin the reasons that are no fault
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
    def notice(self) -> str:
        """What it is."""
        return str(self.row.name)

    @property
    def about(self) -> dict[str, Any]:
        """What each line of the log names."""
        return {"case_id": self.case.id}

    @property
    def customer(self) -> Customer:
        """To whom it is said."""
        return Customer.of(self.case)

    @property
    def key(self) -> str:
        """What names the message for ever."""
        return f"{self.case.payment_id}-{self.row.name}"

    @property
    def place(self) -> int:
        """Where it stands among those that are locked together: a line of history waits for who has its case."""
        return int(self.case.id)

    @property
    def is_open(self) -> bool:
        """Whether there is still something to say, as far as we know."""
        if self.row.name in LAST_WORDS:
            return bool(self.case.state == LAST_WORDS[self.row.name][0])
        return self.case.state in OPEN_STATES and self.case.ended is None and not self.case.paused

    @property
    def _closed(self) -> str:
        """Why there is nothing to say."""
        return PAUSED if self.case.state in OPEN_STATES and self.case.paused else OVER

    def _is_true(self, reading: Reading) -> bool:
        """Whether the provider shows what the notice says; raise ``NotWritten`` when that is still to come."""
        if self.row.name == "ended" and reading.ended is None:
            msg = "the subscription has not ended yet"
            raise NotWritten(msg)
        shows: tuple[str | None, ...] = LAST_WORDS[self.row.name][1] if self.row.name in LAST_WORDS else (None,)
        return reading.ended in shows

    def policy(self, policy: Policy, _now: datetime) -> Policy:
        """Return what the customer gets."""
        return policy.of(self.case.arm, self.case.segment)

    def facts(self, db: Connection, now: datetime) -> Facts:
        """Return what tells the customer's hours."""
        return facts_of(db, self.case, now)

    def act(self, desk: Desk) -> str | None:
        """Have the card that paid charged from now on."""
        desk.gateway.prefer(self.row.name, self.case.subscription_id, self.case.account)
        return None

    def look(self, desk: Desk) -> Bill | str:
        """Read the invoice anew; return what a notice tells of it, or why nothing is to be said."""
        if not self.is_open:
            return self._closed
        reading = desk.gateway.read(self.case.payment_id, self.case.account)
        if not self._is_true(reading):
            return self._closed
        return bill_of(desk, self.case, reading, other_card=self.other_card)

    def payment(self, bill: Bill) -> dict[str, Any]:
        """Return what a webhook tells of the payment."""
        return payment_told(self.case, bill, is_open=self.row.name not in AFTER)

    def record(self, db: Connection, now: datetime, what: str, detail: dict[str, Any]) -> None:
        """Append one line to the history of the case."""
        record(db, self.case.id, now, what, detail)


Told = Item | Renewal


def deliver(desk: Desk, mailbox: Mailbox, message_id: int, hint: UUID) -> bool:
    """Deliver one message of the outbox; False when the hint was used before or nothing was to be delivered."""
    items = _take(desk, message_id, hint)
    if not items:
        return False
    with about(**items[0].about):
        return _deliver(replace(desk, policy=items[0].policy(desk.policy, desk.now)), mailbox, items)


def _deliver(desk: Desk, mailbox: Mailbox, items: Sequence[Told]) -> bool:
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


def _take(desk: Desk, message_id: int, hint: UUID) -> Sequence[Told]:
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
        items = _renewal(db, rows[0]) if rows[0].case_id is None else _of_cases(db, rows)
        if _put_off(db, desk, next(item for item in items if item.row.id == message_id)):
            return []
        failpoint("before_mail_commit")
    return items


def _renewal(db: Connection, row: Row[Any]) -> list[Renewal]:
    """Return a message about a subscription: it is never merged with another."""
    return [Renewal(row, db.execute(select(subscriptions).where(subscriptions.c.id == row.subscription_id)).one())]


def _of_cases(db: Connection, rows: Sequence[Row[Any]]) -> list[Item]:
    """Return messages with their cases."""
    found = {row.id: row for row in db.execute(select(cases).where(cases.c.id.in_([row.case_id for row in rows])))}
    others = set(db.execute(_with_another_card(list(found))).scalars())
    cases_of = [(row, found[row.case_id]) for row in rows]
    return [Item(row, case, case.id in others and case.card_entered_at is None) for row, case in cases_of]


def _put_off(db: Connection, desk: Desk, item: Told) -> bool:
    """Put a notice off until the customer's hours for its channel; False when those are now, or it is no notice."""
    message = item.row
    if message.kind != "notice":
        return False
    at = may_speak(item.facts(db, desk.now), item.policy(desk.policy, desk.now), desk.now, message.channel)
    if at is None or at <= desk.now:
        return False
    free = {"lease_token": None, "lease_until": None, "tries": message.tries - 1, "due_at": at}
    db.execute(update(outbox).where(outbox.c.id == message.id).values(**free))
    item.record(db, desk.now, "put_off", {"name": message.name, "channel": message.channel, "until": utc_text(at)})
    return True


def _with_another_card(found: list[int]) -> Select[tuple[int]]:
    """Return the query for the cases of which an attempt named another method than the one charged by itself."""
    tried = select(attempts.c.case_id).join(cases, cases.c.id == attempts.c.case_id)
    other = attempts.c.pay_with.is_not(None), attempts.c.pay_with.is_distinct_from(cases.c.method_id)
    return tried.where(cases.c.id.in_(found), *other)


def _carry_out(desk: Desk, mailbox: Mailbox, items: Sequence[Told]) -> list[str | None]:
    """Do what the message is for; return for each item why it was not to be done, or None."""
    first = items[0]
    message = first.row
    if (why := _held_back(desk, mailbox, message)) is not None:
        return [why] * len(items)
    if message.kind == "card":
        return [first.act(desk)]
    if message.kind == "ending" and isinstance(first, Item):
        case, key = first.case, f"dunning-end-{first.key}"
        desk.gateway.end(message.name, case.payment_id, case.subscription_id, key, case.account)
        return [None]
    if message.kind == "hook":
        _tell(desk, message, first.notice, message.payload)
        return [None]
    if message.channel == "mail" and any(item.is_open for item in items):
        mailbox.reach()
    return _hand_over(desk, mailbox, items)


def _held_back(desk: Desk, mailbox: Mailbox, message: Row[Any]) -> str | None:
    """Say why nothing at all is done about a message, or return None."""
    if message.error == UNCERTAIN and mailbox.smtp_url is not None:
        return UNCERTAIN
    if not desk.live:
        return OBSERVED
    return GIVEN_UP if message.tries > MOST_HOOK_TRIES else None


def _hand_over(desk: Desk, mailbox: Mailbox, items: Sequence[Told]) -> list[str | None]:
    """Send the notice for the items of which the provider says that something is left to say, if there are any."""
    looked = [(item, item.look(desk)) for item in items]
    errors: dict[int, str | None] = {item.row.id: bill for item, bill in looked if isinstance(bill, str)}
    true = [(item, bill) for item, bill in looked if not isinstance(bill, str)]
    errors |= _refused(desk, true)
    left = [(item, bill) for item, bill in true if errors[item.row.id] is None]
    if left:
        first, told, key = left[0][0], [bill for _, bill in left], items[0].key
        if first.row.channel == "mail":
            mail = write(mailbox, first.notice, told, desk.policy, key)
            mailbox.send(mail, key, lambda: _begin(desk, items[0].row))
        else:
            letter = compose(first.notice, told, desk.policy, mailbox.letterhead)
            payments = [item.payment(bill) for item, bill in left]
            due = notice_due(first.row.channel, first.notice, letter, first.customer, payments)
            _tell(desk, items[0].row, DUE, due)
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


def _refused(desk: Desk, true: Sequence[tuple[Told, Bill]]) -> dict[int, str | None]:
    """Return for each item why the customer is not to get it, or None; then its row tells to which address it goes."""
    errors: dict[int, str | None] = {}
    with desk.engine.begin() as db:
        for item, bill in true:
            email = bill.reading.email
            address = digest(db, email) if item.row.channel == "mail" and email else None
            errors[item.row.id] = refusal(db, item.customer, item.notice, address, desk.policy)
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
    desk: Desk, items: Sequence[Told], errors: list[str | None], later: datetime | None = None, *, ours: bool = False
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
        # In the order in which everybody locks cases.
        for item, error in sorted(zip(items, errors, strict=True), key=lambda pair: pair[0].place):
            done = {"error": error, "delivered_at": desk.now if error is None else None}
            db.execute(update(outbox).where(outbox.c.id == item.row.id).values(**done))
            if ours and _kind(error) == _kind(item.row.error):
                continue
            told = {"kind": item.row.kind, "name": item.row.name, "channel": item.row.channel, "error": error}
            item.record(db, desk.now, "delivered" if error is None else "not_delivered", told)
