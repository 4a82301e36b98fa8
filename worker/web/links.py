"""How does a customer pay or change the card without a login? By our own signed link, on a small page.

Opening the page changes nothing and asks nobody but the database, since mail scanners open links; only its button
asks the provider, for a fresh page of its own. Whoever comes with no good link costs one signature and learns nothing.
"""

from __future__ import annotations

import string
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, Row, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from worker import app
from worker.links import BadLink, Links, OldLink
from worker.logs import log
from worker.models import OPEN_STATES, cases
from worker.settings import Settings
from worker.stripe_gateway import GatewayError, Refused, StripeGateway
from worker.wording import Letterhead, page
from worker.words import NotWritten

if TYPE_CHECKING:
    from starlette.requests import Request

STYLE = string.Template("""
:root { color-scheme: light dark; font: 1.125rem/1.5 system-ui, sans-serif }
body { margin: 0; padding: 1.5rem }
main { max-width: 32rem; margin: 0 auto }
h1 { font-size: 1.5rem; line-height: 1.25 }
button { font: inherit; font-weight: 600; width: 100%; min-height: 3rem; padding: .75rem 1rem; margin-top: .5rem;
  border: 0; border-radius: .5rem; background: $colour; color: $ink; cursor: pointer }
button:focus-visible { outline: .2rem solid; outline-offset: .2rem }
""")
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}
LATER = {"Retry-After": "60"}
# What a new card does not mend: the bank wants to see the customer at this very payment.
PROOF = "authentication_required"
STATUS = {"due": 200, "over": 200, "thanks": 200, "by_answer": 200, "unknown": 404, "old": 410, "later": 503}


@dataclass(frozen=True, slots=True)
class PaymentPages:
    """Where customers come with their links. Its methods wait for database and provider: each runs in a thread."""

    links: Links
    engine: Engine
    gateway: Callable[[], StripeGateway]
    live: bool
    letterhead: Letterhead

    def pay(self, request: Request) -> Response:
        """Show what is due; on POST, lead to where it can be paid."""
        try:
            case = self._case(self.links.case_of(request.path_params["token"], app.now()))
        except OldLink:
            return self._page("old", _asked_for(request))
        except BadLink:
            return self._page("unknown", _asked_for(request))
        except SQLAlchemyError as error:
            log.warning("link", error=type(error).__name__)
            return self._page("later", _asked_for(request))
        if case.state not in OPEN_STATES or case.ended is not None:
            return self._page("over", case.locale)
        return self._lead(case) if request.method == "POST" else self._page("due", case.locale, case)

    def thanks(self, request: Request) -> Response:
        """Welcome a customer back from the provider's page."""
        return self._page("thanks", _asked_for(request))

    def _case(self, case_id: int) -> Row[Any]:
        with self.engine.connect() as db:
            case = db.execute(select(cases).where(cases.c.id == case_id)).one_or_none()
        if case is None:
            raise BadLink
        return case

    def _lead(self, case: Row[Any]) -> Response:
        """Read the invoice once more, then redirect to the portal or, without one, to the invoice's own page."""
        try:
            reading = self.gateway().read(case.payment_id, case.account)
        except GatewayError as error:
            log.warning("link", case_id=case.id, error=str(error))
            return self._page("by_answer" if isinstance(error, Refused) else "later", case.locale)
        if reading.ended is not None:
            return self._page("over", case.locale)
        proves = reading.waits_for_customer or (reading.decline is not None and reading.decline.code == PROOF)
        where = (reading.link if proves else None) or self._portal(case) or reading.link
        log.info("link", case_id=case.id, found=where is not None)
        return RedirectResponse(where, 303, self._headers) if where else self._page("by_answer", case.locale)

    def _portal(self, case: Row[Any]) -> str | None:
        """Return the address of a fresh portal session; none in observe mode, or when the provider makes none."""
        if not self.live:
            return None
        try:
            return self.gateway().portal(case.customer_id, f"{self.links.base}/pay/thanks", case.account)
        except GatewayError as error:
            log.warning("link without portal", case_id=case.id, error=str(error))
            return None

    def _page(self, name: str, wanted: str | None, due: Row[Any] | None = None) -> Response:
        """Return a page in the language that is wanted; with a button where a case is ``due``."""
        amount = (due.amount_minor, due.currency) if due else None
        headers = self._headers | (LATER if name == "later" else {})
        try:
            html = page(name, amount, self.letterhead, self._style, wanted)
        except NotWritten as error:  # the merchant's own page or words are broken: ours will do
            log.error("link", error=str(error))
            html = page(name, amount, replace(self.letterhead, templates=None), self._style, wanted)
        return HTMLResponse(html, STATUS[name], headers)

    @property
    def _style(self) -> str:
        return STYLE.substitute(colour=self.letterhead.colour, ink=self.letterhead.ink)

    @property
    def _headers(self) -> dict[str, str]:
        """Return the headers of every answer.

        Browsers hold form-action against the redirect too, and the provider's pages may stand under the merchant's
        domain.
        """
        style = f"style-src 'sha256-{b64encode(sha256(self._style.encode()).digest()).decode()}'"
        allowed = f"default-src 'none'; {style}; form-action 'self' https:; base-uri 'none'; frame-ancestors 'none'"
        return {**HEADERS, "Content-Security-Policy": allowed}


def _asked_for(request: Request) -> str:
    """Return the language that a browser asks for first."""
    return request.headers.get("accept-language", "").partition(",")[0].partition(";")[0]


def routes(settings: Settings, engine: Engine, gateway: Callable[[], StripeGateway]) -> list[Route]:
    """Return the routes of the customers' links; none unless both the public address and a secret are set."""
    links = Links.from_settings(settings)
    if links is None:
        return []
    pages = PaymentPages(links, engine, gateway, settings.mode == "live", Letterhead.from_settings(settings))
    return [
        Route("/pay/thanks", pages.thanks),
        Route("/pay/{token:path}", pages.pay, methods=["GET", "POST"]),
    ]
