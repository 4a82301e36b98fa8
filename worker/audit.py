"""What must always be true? Statements about the tables, each with a query for the rows that contradict it.

It only reads, on one snapshot. Nothing here repairs: a broken statement needs a person, and says what to do first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Engine, text

from schedules import Policy
from schedules.budgets import free_from
from schedules.steps import utc_text
from worker.inbox import MOST_TRIES
from worker.models import UNCERTAIN, card_fact
from worker.notices import MEANT

MOST_ROWS = 20
MONTH = timedelta(days=30)
SHOW = "look at it with `dunning case show`"
REPORT = "stop charging with `dunning stop-charging` and report it as a fault of dunning"

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Statement:
    """What must be true, the query for what contradicts it, and what to do about that."""

    sentence: str
    query: str
    advice: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one statement; ``rows`` are the first that contradict it."""

    statement: str
    rows: Rows
    advice: str

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts it."""
        return not self.rows

    def as_json(self) -> dict[str, Any]:
        """Return it for machines."""
        return {"statement": self.statement, "ok": self.ok, "rows": self.rows, "advice": self.advice}


STATEMENTS = (
    Statement(
        "No payment was charged successfully twice.",
        "SELECT payment_id, count(*) AS number FROM attempts WHERE state = 'succeeded' GROUP BY 1 HAVING count(*) > 1",
        f"refund one of them; {REPORT}",
    ),
    Statement(
        "Of each payment at most one attempt waits for its outcome.",
        "SELECT payment_id, count(*) AS number FROM attempts WHERE settled_at IS NULL GROUP BY 1 HAVING count(*) > 1",
        REPORT,
    ),
    Statement(
        "Every open case has an instant at which it is looked at.",
        "SELECT id AS case_id, payment_id FROM cases WHERE closed_at IS NULL AND due_at IS NULL",
        REPORT,
    ),
    Statement(
        "No outcome stays unknown for longer than a key lives and two readings take; a bank debit may take 30 days.",
        """SELECT case_id, payment_id, number, state, sent_at FROM attempts WHERE settled_at IS NULL AND sent_at <
            clock_timestamp() - CASE state WHEN 'processing' THEN interval '30 days' ELSE interval '26 hours' END""",
        f"{SHOW}: its history names what keeps the provider from being read",
    ),
    Statement(
        "No case that is due is left lying for an hour, leased or not.",
        """SELECT id AS case_id, payment_id, due_at, lease_until FROM cases
           WHERE due_at < CAST(:now AS timestamptz) - interval '1 hour' AND quarantined_at IS NULL
           AND (lease_until IS NULL OR lease_until < clock_timestamp() - interval '1 hour') ORDER BY due_at""",
        "see /healthz: is a worker running, are there too few of them",
    ),
    Statement(
        "No case is set aside because it ended its workers.",
        """SELECT id AS case_id, payment_id, quarantined_at FROM cases
           WHERE quarantined_at IS NOT NULL AND closed_at IS NULL""",
        f"{SHOW}, and report what ended the workers",
    ),
    Statement(
        "No charge was begun after its case had ended.",
        """SELECT a.case_id, a.payment_id, a.number, a.at, c.closed_at FROM attempts a JOIN cases c ON c.id = a.case_id
           WHERE a.state <> 'foreign' AND a.at > c.closed_at + interval '10 minutes'""",  # workers begin at different
        f"refund it if it succeeded; {REPORT}",
    ),
    Statement(
        "A case with a successful attempt has recovered, and an ended one waits for no outcome.",
        """SELECT c.id AS case_id, c.payment_id, c.state AS case_state, a.number, a.state FROM attempts a
            JOIN cases c ON c.id = a.case_id WHERE (a.state = 'succeeded' AND c.state <> 'recovered')
            OR (c.closed_at IS NOT NULL AND a.settled_at IS NULL)""",
        f"{SHOW} and at the provider's dashboard; {REPORT}",
    ),
    Statement(
        "The attempts of a case are numbered from 1 on without a gap.",
        """SELECT case_id, count(*) AS number, max(number) AS last FROM attempts WHERE case_id IS NOT NULL
           AND state <> 'not_executed' GROUP BY 1 HAVING max(number) <> count(*)""",
        "rows are lost: was the database restored from a backup? Then run `dunning restored`",
    ),
    Statement(
        "Every charge of ours that an event names has its attempt.",
        """SELECT DISTINCT payload -> 'request' ->> 'idempotency_key' AS key FROM events, install
           WHERE (payload -> 'request') ->> 'idempotency_key' LIKE 'dunning-%' AND starts_with(
             payload -> 'request' ->> 'idempotency_key', 'dunning-' || install.id || '-') AND NOT EXISTS
           (SELECT FROM attempts WHERE idempotency_key = payload -> 'request' ->> 'idempotency_key')""",
        "rows are lost: was the database restored from a backup? Then run `dunning restored`",
    ),
    Statement(
        "No event waits for more than a day.",
        """SELECT id, type, received_at, error FROM events WHERE handled_at IS NULL AND tries < :most_tries
            AND received_at < clock_timestamp() - interval '1 day'""",
        "see /healthz: is a worker running, are there too few of them",
    ),
    Statement(
        "No event was given up.",
        "SELECT id, type, received_at, error FROM events WHERE handled_at IS NULL AND tries >= :most_tries",
        "report its error as a fault of dunning",
    ),
    Statement(
        "No message is overdue by a day.",
        """SELECT id, case_id, kind, name, due_at, error FROM outbox
           WHERE due_at < CAST(:now AS timestamptz) - interval '1 day'""",
        "see /healthz, and the mail server's log",
    ),
    Statement(
        "No message of the last 30 days was given up.",
        """SELECT o.id, o.case_id, c.payment_id, o.subscription_id, o.kind, o.name, o.channel, o.error FROM outbox o
           LEFT JOIN cases c ON c.id = o.case_id
           WHERE o.due_at IS NULL AND o.delivered_at IS NULL AND o.merged_into IS NULL AND o.at >
           CAST(:now AS timestamptz) - interval '30 days' AND o.error NOT LIKE ALL(CAST(:meant AS text[]))""",
        "mend what its error names, then `dunning outbox retry`",
    ),
    Statement(
        "No customer was told anything twice within the cool-down.",
        """SELECT id, case_id, name, at, before FROM
             (SELECT *, lag(at) OVER (PARTITION BY customer_id, channel ORDER BY at) AS before
              FROM outbox WHERE kind = 'notice' AND merged_into IS NULL) said
           WHERE at < before + CAST(:cooldown AS interval) AND at > CAST(:now AS timestamptz) - interval '30 days'""",
        f"unless the policy's cool-down was made longer since: {REPORT}",
    ),
    Statement(
        "Every step planned in the last 30 days tells why then: by a rule, and not by the refusal alone.",
        """SELECT case_id, at, what, detail ->> 'step' AS step FROM history
           WHERE what IN ('planned', 'closed') AND at > CAST(:now AS timestamptz) - interval '30 days' AND NOT EXISTS
             (SELECT FROM jsonb_array_elements_text(detail -> 'reasons') AS why
              WHERE why !~ '^(class|evidence|unknown): ')""",
        REPORT,
    ),
)


def examine(engine: Engine, policy: Policy, now: datetime) -> list[Finding]:
    """Return what became of every statement, in their order; nothing can be written on the way."""
    least = timedelta(hours=min(each.cooldown_hours for each in policy.every))
    given = {"now": now, "cooldown": least, "most_tries": MOST_TRIES}
    given["meant"] = [f"{each}%" for each in (*MEANT, UNCERTAIN)]  # what is uncertain has perhaps left
    reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with reading.connect() as db:
        found = [Finding(each.sentence, _rows(db, each.query, given), each.advice) for each in STATEMENTS]
        beyond = list(_beyond_budget(db, policy, now))[:MOST_ROWS]
    advice = f"unless the policy's budgets were made smaller since: {REPORT}"
    return [*found, Finding("No card was charged beyond its network's budget in the last 30 days.", beyond, advice)]


def _rows(db: Connection, query: str, given: dict[str, Any]) -> Rows:
    limited = text(f"SELECT to_jsonb(found) FROM ({query} LIMIT {MOST_ROWS}) found")  # noqa: S608 - our own constants
    return list(db.execute(limited, {name: value for name, value in given.items() if f":{name}" in query}).scalars())


FAILED = card_fact("failed_card", "fingerprint")
CHARGES = text(f"""
    SELECT fingerprint, at, case_id, payment_id, number, lower({card_fact("card", "brand")}) AS brand FROM attempts
    WHERE fingerprint IS NOT NULL AND state IN ('sent', 'unknown', 'processing', 'succeeded', 'declined')
      AND at > CAST(:since AS timestamptz)
    UNION ALL
    SELECT {FAILED}, failed_at, id, payment_id, 0, NULL FROM cases
    WHERE failed_at > CAST(:since AS timestamptz) AND {FAILED} IN
      (SELECT fingerprint FROM attempts WHERE case_id = cases.id)
    ORDER BY 1, 2
""")  # noqa: S608 - our own names of columns


def _beyond_budget(db: Connection, policy: Policy, now: datetime) -> Iterator[dict[str, Any]]:
    """Yield each charge of ours that came too early after what we ourselves had charged, as the decision counts it.

    The renewals of other cases and the charges of others may have become known only later, so they are left out.
    """
    charges = db.execute(CHARGES, {"since": now - 2 * MONTH}).all()
    for _, of_card in groupby(charges, key=lambda charge: charge.fingerprint):
        ours: list[datetime] = []
        own: dict[int | None, list[datetime]] = defaultdict(list)
        for charge in of_card:
            uses = sorted({*ours, *own[charge.case_id]})
            free = free_from(charge.at, uses, policy.budgets.get(charge.brand or "", ()), own[charge.case_id])
            if charge.number and charge.at > now - MONTH and free > charge.at:
                seen = {"case_id": charge.case_id, "payment_id": charge.payment_id, "number": charge.number}
                yield {**seen, "at": utc_text(charge.at), "free_from": utc_text(free)}
            own[charge.case_id].append(charge.at)
            if charge.number:
                ours.append(charge.at)
