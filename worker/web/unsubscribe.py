"""How does a customer choose to get the necessary notices only? By our signed link, with one click (RFC 8058).

A mail program posts to the address by itself; in a browser it is a page with one button. Opening the page changes
nothing, since mail scanners open links.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Row, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.routing import Route
from structlog.contextvars import bind_contextvars

from worker import app
from worker.cases import record
from worker.links import TO_LEAVE_ALONE, TO_OPT_OUT, BadLink, Links, OldLink
from worker.logs import log
from worker.models import cases, outbox
from worker.renewals import OF_MESSAGE
from worker.settings import Settings
from worker.suppressions import OPTED_OUT, Customer, suppress
from worker.web.pages import Pages, asked_for
from worker.wording import Letterhead

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


@dataclass(frozen=True, slots=True)
class OptOut:
    """Where customers come who want fewer messages. Its method waits for the database: it runs in a thread."""

    links: Links
    engine: Engine
    pages: Pages

    def answer(self, request: Request) -> Response:
        """Show the page with its button; on POST, note the choice."""
        now, chosen = app.now(), request.method == "POST"
        try:
            locale = self._chosen(request.path_params["token"], now, chosen=chosen)
        except OldLink:
            return self.pages.page("old", asked_for(request))
        except BadLink:
            return self.pages.page("unknown", asked_for(request))
        except SQLAlchemyError as error:
            log.warning("unsubscribe", error=type(error).__name__)
            return self.pages.page("later", asked_for(request))
        return self.pages.page("unsubscribed" if chosen else "unsubscribe", locale or asked_for(request))

    def _chosen(self, token: str, now: datetime, *, chosen: bool) -> str | None:
        """Return the language of whom a link is for, of a case or of a message about a subscription."""
        try:
            locale: str | None = self._case(self.links.case_of(token, now, TO_OPT_OUT), now, chosen=chosen).locale
        except OldLink:
            raise
        except BadLink:
            self._subscription(self.links.case_of(token, now, TO_LEAVE_ALONE), now, chosen=chosen)
            return None
        return locale

    def _subscription(self, message_id: int, now: datetime, *, chosen: bool) -> None:
        """Note, once, what the customer of a subscription has chosen."""
        with self.engine.begin() as db:
            row = db.execute(OF_MESSAGE.where(outbox.c.id == message_id)).one_or_none()
            if row is None:
                raise BadLink
            if chosen and suppress(db, Customer.of(row), OPTED_OUT, now):
                log.info("unsubscribe", message_id=message_id)

    def _case(self, case_id: int, now: datetime, *, chosen: bool) -> Row[Any]:
        """Return the case of a link; note, once, what its customer has chosen."""
        with self.engine.begin() as db:
            case = db.execute(select(cases).where(cases.c.id == case_id)).one_or_none()
            if case is None:
                raise BadLink
            bind_contextvars(case_id=case_id)
            if chosen and suppress(db, Customer.of(case), OPTED_OUT, now):
                record(db, case_id, now, "opted_out", {})
                log.info("unsubscribe")
        return case


def routes(settings: Settings, engine: Engine) -> list[Route]:
    """Return the route of these links; none unless both the public address and a secret are set."""
    links = Links.from_settings(settings)
    if links is None:
        return []
    opt_out = OptOut(links, engine, Pages(Letterhead.from_settings(settings)))
    return [Route("/unsubscribe/{token:path}", opt_out.answer, methods=["GET", "POST"])]
