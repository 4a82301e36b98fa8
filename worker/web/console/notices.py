"""What would a customer read? Every notice, in every language, in HTML and as plain text; of a payment of nobody."""

from __future__ import annotations

from starlette.responses import HTMLResponse, Response

from worker import locales, wording
from worker.web.console.pages import Visit, shown
from worker.wording import Letter, Letterhead
from worker.words import read_words

FORMS = ("html", "text")
# A letter stands in a frame of ours, brings its own style, and may do nothing at all.
ALLOWED = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"


def view(visit: Visit) -> Response:
    """Show one notice, and what there is to choose from."""
    names, tags = wording.names(visit.policy), list(read_words(visit.settings.templates))
    chosen = {
        "notice": visit.chosen("notice", names, names[0]),
        "locale": visit.chosen("locale", tags, locales.FALLBACK),
        "form": visit.chosen("form", FORMS, FORMS[0]),
    }
    letter = _letter(visit, chosen["notice"], chosen["locale"])
    told = {"letter": letter, "names": names, "tags": tags, "forms": FORMS, **chosen}
    return shown(visit, "notices", told)


def letter(visit: Visit) -> Response:
    """Return the HTML of one notice alone, for the frame of the page."""
    names, tags = wording.names(visit.policy), read_words(visit.settings.templates)
    notice = visit.chosen("notice", names, names[0])
    written = _letter(visit, notice, visit.chosen("locale", tags, locales.FALLBACK))
    return HTMLResponse(written.html, headers={"Content-Security-Policy": ALLOWED})


def _letter(visit: Visit, notice: str, locale: str) -> Letter:
    bills, letterhead = wording.sample(visit.now.date(), notice), Letterhead.from_settings(visit.settings)
    return wording.compose(notice, bills, visit.policy, letterhead, locale)
