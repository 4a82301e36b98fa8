"""How does a page of ours look that a customer opens, and what may a browser do with it?"""

from __future__ import annotations

import string
from base64 import b64encode
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse

from worker.logs import log
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
STATUS = {"unknown": 404, "old": 410, "later": 503}  # every other page is 200


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages in the merchant's colour."""

    letterhead: Letterhead

    def page(self, name: str, wanted: str | None, due: tuple[int, str] | None = None) -> HTMLResponse:
        """Return a page in the language that is wanted; with a button to pay where an amount is ``due``."""
        headers = self.headers | (LATER if name == "later" else {})
        try:
            html = page(name, due, self.letterhead, self._style, wanted)
        except NotWritten as error:  # the merchant's own page or words are broken: ours will do
            log.error("link", error=str(error))
            html = page(name, due, replace(self.letterhead, templates=None), self._style, wanted)
        return HTMLResponse(html, STATUS.get(name, 200), headers)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of every answer.

        Browsers hold form-action against the redirect too, and the provider's pages may stand under the merchant's
        domain.
        """
        style = f"style-src 'sha256-{b64encode(sha256(self._style.encode()).digest()).decode()}'"
        allowed = f"default-src 'none'; {style}; form-action 'self' https:; base-uri 'none'; frame-ancestors 'none'"
        return {**HEADERS, "Content-Security-Policy": allowed}

    @property
    def _style(self) -> str:
        return STYLE.substitute(colour=self.letterhead.colour, ink=self.letterhead.ink)


def asked_for(request: Request) -> str:
    """Return the language that a browser asks for first."""
    return request.headers.get("accept-language", "").partition(",")[0].partition(";")[0]
