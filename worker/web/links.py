"""How does a customer pay or change the card without a login? By our own signed link, on a small page.

Opening the page changes nothing and asks nobody but the database, since mail scanners open links; only its button
asks the provider, for a fresh page of its own. Whoever comes with no good link costs one signature and learns nothing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parseaddr
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Engine, Row, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from worker import app
from worker.links import BadLink, Links, OldLink
from worker.logs import log
from worker.models import OPEN_STATES, cases
from worker.notices import money
from worker.settings import Settings
from worker.stripe_gateway import GatewayError, Refused, StripeGateway

if TYPE_CHECKING:
    from jinja2 import Template
    from starlette.requests import Request

STYLE = """
:root { color-scheme: light dark; font: 1.125rem/1.5 system-ui, sans-serif }
body { margin: 0; padding: 1.5rem }
main { max-width: 32rem; margin: 0 auto }
h1 { font-size: 1.5rem; line-height: 1.25 }
button { font: inherit; font-weight: 600; width: 100%; min-height: 3rem; padding: .75rem 1rem; margin-top: .5rem;
  border: 0; border-radius: .5rem; background: #1d4ed8; color: #fff; cursor: pointer }
button:focus-visible { outline: .2rem solid; outline-offset: .2rem }
"""
OWN_STYLE = f"style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'"
# Browsers hold form-action against the redirect too, and the provider's pages may stand under the merchant's domain.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; {OWN_STYLE}; form-action 'self' https:; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}
LATER = {"Retry-After": "60"}
# What a new card does not mend: the bank wants to see the customer at this very payment.
PROOF = "authentication_required"
PAGES = {
    "due": (
        200,
        "Your payment of {amount}",
        "We could not collect this payment yet. On a secure page of our payment provider you can put it right.",
    ),
    "over": (200, "Nothing is due here any more", "There is nothing left for you to do."),
    "thanks": (200, "Thank you", "If you have stored a new card, we will use it. There is nothing left for you to do."),
    "by_answer": (200, "Please answer our message", "This payment cannot be made here. Answer us, and we will help."),
    "unknown": (404, "This link cannot be used", "Please open it again from our message, or copy the whole of it."),
    "old": (410, "This link is no longer valid", "Please use the link in the newest of our messages."),
    "later": (503, "Please try again in a minute", "We cannot show you this page just now."),
}


@dataclass(frozen=True, slots=True)
class PaymentPages:
    """Where customers come with their links. Its methods wait for database and provider: each runs in a thread."""

    links: Links
    engine: Engine
    gateway: Callable[[], StripeGateway]
    live: bool
    shop: str

    def pay(self, request: Request) -> Response:
        """Show what is due; on POST, lead to where it can be paid."""
        try:
            case = self._case(self.links.case_of(request.path_params["token"], app.now()))
        except OldLink:
            return self._page("old")
        except BadLink:
            return self._page("unknown")
        except SQLAlchemyError as error:
            log.warning("link", error=type(error).__name__)
            return self._page("later")
        if case.state not in OPEN_STATES or case.ended is not None:
            return self._page("over")
        return self._lead(case) if request.method == "POST" else self._due(case)

    def thanks(self, _request: Request) -> Response:
        """Welcome a customer back from the provider's page."""
        return self._page("thanks")

    def _case(self, case_id: int) -> Row[Any]:
        with self.engine.connect() as db:
            case = db.execute(select(cases).where(cases.c.id == case_id)).one_or_none()
        if case is None:
            raise BadLink
        return case

    def _due(self, case: Row[Any]) -> Response:
        return self._page("due", amount=money(case.amount_minor, case.currency), button="Change card or pay")

    def _lead(self, case: Row[Any]) -> Response:
        """Read the invoice once more, then redirect to the portal or, without one, to the invoice's own page."""
        try:
            reading = self.gateway().read(case.payment_id, case.account)
        except GatewayError as error:
            log.warning("link", case_id=case.id, error=str(error))
            return self._page("by_answer") if isinstance(error, Refused) else self._page("later")
        if reading.ended is not None:
            return self._page("over")
        proves = reading.waits_for_customer or (reading.decline is not None and reading.decline.code == PROOF)
        where = (reading.link if proves else None) or self._portal(case) or reading.link
        log.info("link", case_id=case.id, found=where is not None)
        return RedirectResponse(where, 303, HEADERS) if where else self._page("by_answer")

    def _portal(self, case: Row[Any]) -> str | None:
        """Return the address of a fresh portal session; none in observe mode, or when the provider makes none."""
        if not self.live:
            return None
        try:
            return self.gateway().portal(case.customer_id, f"{self.links.base}/pay/thanks", case.account)
        except GatewayError as error:
            log.warning("link without portal", case_id=case.id, error=str(error))
            return None

    def _page(self, name: str, amount: str = "", button: str | None = None) -> Response:
        status, title, line = PAGES[name]
        words = {"title": title.format(amount=amount), "line": line, "button": button, "shop": self.shop}
        headers = HEADERS | (LATER if name == "later" else {})
        return HTMLResponse(_template().render(words, style=STYLE), status, headers)


def routes(settings: Settings, engine: Engine, gateway: Callable[[], StripeGateway]) -> list[Route]:
    """Return the routes of the customers' links; none unless both the public address and a secret are set."""
    links = Links.from_settings(settings)
    if links is None:
        return []
    pages = PaymentPages(links, engine, gateway, settings.mode == "live", parseaddr(settings.mail_from)[0])
    return [
        Route("/pay/thanks", pages.thanks),
        Route("/pay/{token:path}", pages.pay, methods=["GET", "POST"]),
    ]


@lru_cache(maxsize=1)
def _template() -> Template:
    pages = Environment(loader=PackageLoader("worker", "templates"), undefined=StrictUndefined, autoescape=True)
    return pages.get_template("page.html.j2")
