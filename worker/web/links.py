"""How does a customer pay or change the card without a login? By our own signed link, on a small page.

Opening the page changes nothing and asks nobody but the database, since mail scanners open links; only its button
asks the provider, for a fresh page of its own. Whoever comes with no good link costs one signature and learns nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Row, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from structlog.contextvars import bind_contextvars

from schedules import Card
from worker import app
from worker.endings import NEXT_RENEWAL
from worker.links import TO_METHOD, BadLink, Links, OldLink
from worker.logs import log
from worker.models import OPEN_STATES, cases, outbox
from worker.renewals import OF_MESSAGE
from worker.settings import Settings
from worker.stripe_gateway import GatewayError, Refused, StripeGateway
from worker.subscriptions import GONE
from worker.web.pages import Pages, asked_for
from worker.wording import Letterhead

if TYPE_CHECKING:
    from starlette.requests import Request

# What a new card does not mend: the bank wants to see the customer at this very payment.
PROOF = "authentication_required"


@dataclass(frozen=True, slots=True)
class PaymentPages:
    """Where customers come with their links. Its methods wait for database and provider: each runs in a thread."""

    links: Links
    engine: Engine
    gateway: Callable[[], StripeGateway]
    live: bool
    pages: Pages

    def pay(self, request: Request) -> Response:
        """Show what is due, or what will be charged soon; on POST, lead to where it can be paid or changed."""
        try:
            return self._page(request, request.path_params["token"], app.now())
        except OldLink:
            return self.pages.page("old", asked_for(request))
        except BadLink:
            return self.pages.page("unknown", asked_for(request))
        except SQLAlchemyError as error:
            log.warning("link", error=type(error).__name__)
            return self.pages.page("later", asked_for(request))

    def _page(self, request: Request, token: str, now: datetime) -> Response:
        """Return the page of a token, of a case or of a message about a subscription; raise ``BadLink``."""
        try:
            case_id = self.links.case_of(token, now)
        except OldLink:
            raise
        except BadLink:
            return self._renewal(request, self.links.case_of(token, now, TO_METHOD))
        return self._due(request, self._case(case_id))

    def _renewal(self, request: Request, message_id: int) -> Response:
        """Offer to change what the next charge takes; nothing when there will be none."""
        with self.engine.connect() as db:
            row = db.execute(OF_MESSAGE.where(outbox.c.id == message_id)).one_or_none()
        if row is None:
            raise BadLink
        if row.ended_at is not None or row.status == GONE:
            return self.pages.page("over", asked_for(request))
        return self._changed(row, "method", request.method, asked_for(request))

    def _due(self, request: Request, case: Row[Any]) -> Response:
        """Show what is due of a case."""
        if case.state not in OPEN_STATES or case.ended is not None:
            return self._after(case, request.method)
        if request.method == "POST":
            return self._lead(case)
        return self.pages.page("due", case.locale, (case.amount_minor, case.currency))

    def thanks(self, request: Request) -> Response:
        """Welcome a customer back from the provider's page."""
        return self.pages.page("thanks", asked_for(request))

    def _case(self, case_id: int) -> Row[Any]:
        with self.engine.connect() as db:
            case = db.execute(select(cases).where(cases.c.id == case_id)).one_or_none()
        if case is None:
            raise BadLink
        bind_contextvars(case_id=case.id)  # a request has a context of its own, which ends with it
        return case

    def _lead(self, case: Row[Any]) -> Response:
        """Read the invoice once more, then redirect to the portal or, without one, to the invoice's own page."""
        try:
            reading = self.gateway().read(case.payment_id, case.account)
        except GatewayError as error:
            log.warning("link", error=str(error))
            return self.pages.page("by_answer" if isinstance(error, Refused) else "later", case.locale)
        if reading.ended is not None:
            return self.pages.page("over", case.locale)
        proves = reading.waits_for_customer or (reading.decline is not None and reading.decline.code == PROOF)
        where = (reading.link if proves else None) or self._portal(case) or reading.link
        log.info("link", found=where is not None)
        return RedirectResponse(where, 303, self.pages.headers) if where else self.pages.page("by_answer", case.locale)

    def _after(self, case: Row[Any], method: str) -> Response:
        """Say that nothing is due; of a paid case whose card expires soon, offer to change it in the portal."""
        if case.state != "recovered" or not Card(**case.card).expires_by(app.now() + NEXT_RENEWAL):
            return self.pages.page("over", case.locale)
        return self._changed(case, "card", method, case.locale)

    def _changed(self, row: Row[Any], page: str, method: str, locale: str | None) -> Response:
        """Offer to change in the portal what is charged; on POST, lead there."""
        if method != "POST":
            return self.pages.page(page, locale)
        where = self._portal(row)
        return RedirectResponse(where, 303, self.pages.headers) if where else self.pages.page("by_answer", locale)

    def _portal(self, case: Row[Any]) -> str | None:
        """Return the address of a fresh portal session; none in observe mode, or when the provider makes none."""
        if not self.live:
            return None
        try:
            return self.gateway().portal(case.customer_id, f"{self.links.base}/pay/thanks", case.account)
        except GatewayError as error:
            log.warning("link without portal", error=str(error))
            return None


def routes(settings: Settings, engine: Engine, gateway: Callable[[], StripeGateway]) -> list[Route]:
    """Return the routes of the customers' links; none unless both the public address and a secret are set."""
    links = Links.from_settings(settings)
    if links is None:
        return []
    pages = PaymentPages(links, engine, gateway, settings.mode == "live", Pages(Letterhead.from_settings(settings)))
    return [
        Route("/pay/thanks", pages.thanks),
        Route("/pay/{token:path}", pages.pay, methods=["GET", "POST"]),
    ]
