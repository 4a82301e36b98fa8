"""How is the practice bank driven? Its control plane under ``/_practice``, which no Stripe has.

GET  next      {"next": instant or null}: when anything happens next in the world
POST advance   makes happen what is due by the clock's now: {"now", "happened": {kind: count}, "more", "next"}
GET  ledger    {"attempts": […], "approvals": {invoice: count}, "summary": {…}}
GET  pending   {"pending", "given_up"}: webhooks not yet delivered, and no longer tried
POST notice    {"invoice", "notice"}: the customer received a notice
POST faults    {"kind", "times" or "probability" and "seed", "seconds", "clear"}: faults of pay requests
POST access    {"revoked", "missing": [right], "newest": version}: what is refused; {} refuses nothing again
POST webhook   {"url", "secret"}: where events go from now on
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from worker.practice.answers import Refusal
from worker.practice.events import Courier

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from starlette.requests import Request

    from worker.practice.books import Books
    from worker.practice.door import Door
    from worker.practice.records import JSON

MOST_AT_ONCE = 500


class Control:
    """What a driver may ask of the bank."""

    def __init__(self, books: Books, door: Door) -> None:
        self._books, self._door = books, door

    def routes(self) -> list[Route]:
        """Return the routes of the control plane."""
        table: list[tuple[str, str, Callable[[JSON], JSON]]] = [
            ("GET", "next", self._next),
            ("POST", "advance", self._advance),
            ("GET", "ledger", self._ledger),
            ("GET", "pending", self._pending),
            ("POST", "notice", self._notice),
            ("POST", "faults", self._faults),
            ("POST", "access", self._books.access.change),
            ("POST", "webhook", self._webhook),
        ]
        return [Route(f"/_practice/{name}", partial(_control, act), methods=[method]) for method, name, act in table]

    def _next(self, _asked: JSON) -> JSON:
        return {"next": _iso(self._books.next_at())}

    def _advance(self, _asked: JSON) -> JSON:
        now = self._books.clock()
        happened = self._books.advance(now, MOST_AT_ONCE)
        coming = self._books.next_at()
        more = coming is not None and coming <= now
        return {"now": _iso(now), "happened": dict(happened), "more": more, "next": _iso(coming)}

    def _ledger(self, _asked: JSON) -> JSON:
        return self._books.ledger.body(len(self._books.bills))

    def _pending(self, _asked: JSON) -> JSON:
        courier = self._books.log.courier
        return {"pending": courier.pending if courier else 0, "given_up": courier.given_up if courier else 0}

    def _notice(self, asked: JSON) -> JSON:
        now = self._books.clock()
        self._books.advance(now)
        self._books.notice(self._books.bill(str(asked["invoice"])), now, str(asked["notice"]))
        return {"next": _iso(self._books.next_at())}

    def _faults(self, asked: JSON) -> JSON:
        return {"planned": self._door.plan(asked)}

    def _webhook(self, asked: JSON) -> JSON:
        url, secret = str(asked["url"]), str(asked["secret"])
        if self._books.log.courier is not None:
            self._books.log.courier.redirect(url, secret)
        else:
            self._books.log.courier = Courier(url, secret)
        return {"url": asked["url"]}


async def _control(act: Callable[[JSON], JSON], request: Request) -> Response:
    try:
        return JSONResponse(act(await request.json() if request.method == "POST" and await request.body() else {}))
    except Refusal as refusal:
        return JSONResponse(refusal.body, refusal.status)
    except KeyError as missing:
        return JSONResponse({"error": {"message": f"missing: {missing}"}}, 400)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
