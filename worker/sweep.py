"""What is due? One tick finds waiting events, due cases and due messages, and sends their ids to the workers.

Any number of ticks at once is safe: every row is taken by one of them (SKIP LOCKED), the claim is committed before
a hint is sent, and a lost hint only lets its lease run out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Table

from worker.charging import Desk
from worker.inbox import drain
from worker.leases import claim_due
from worker.models import cases, outbox

BATCH = 200

Send = Callable[[str, int, str], None]


@dataclass(frozen=True, slots=True)
class Swept:
    """What one tick found."""

    events: int
    cases: int
    messages: int


def tick(desk: Desk, send: Send) -> Swept:
    """Handle waiting events, then claim what is due and ``send(task, id, token)`` one hint for each."""
    handled = drain(desk.engine, desk.policy, desk.now)
    due, messages = _claim(desk, cases), _claim(desk, outbox)
    for case_id, token in due:
        send("dunning.work", case_id, token)
    for message_id, token in messages:
        send("dunning.deliver", message_id, token)
    return Swept(handled, len(due), len(messages))


def _claim(desk: Desk, table: Table) -> list[tuple[int, str]]:
    with desk.engine.begin() as db:
        return claim_due(db, table, desk.now, BATCH, desk.lease_seconds)
