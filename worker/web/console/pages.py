"""How does a page of the console look, and what may a browser do with it? Templates, headers, and what can go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import Engine
from starlette.responses import HTMLResponse

from schedules import Policy
from schedules.steps import utc_text
from worker import app
from worker.locales import money
from worker.settings import Settings

if TYPE_CHECKING:
    from starlette.requests import Request

OURS = "style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; frame-src 'self'; form-action 'self'"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"default-src 'none'; {OURS}; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
# What the tables call things.
WORDS = {
    "card_update": "card updater",
    "silent_retry": "silent retry",
    "after_contact": "after contact",
    "provider": "the provider's own retry",
    "customer": "the customer",
    "never": "never again",
}


class Wrong(ValueError):
    """The request cannot be understood: the message says what was expected."""


class Missing(LookupError):
    """There is no such thing: the message says what."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of an operator: who it is, when, the fields of the form, and what the page is made from."""

    request: Request
    who: str
    form: Mapping[str, str]
    engine: Engine
    settings: Settings
    now: datetime

    @property
    def policy(self) -> Policy:
        """Return the merchant's policy."""
        return app.policy()

    def chosen(self, name: str, of: Any, default: str) -> str:
        """Return a parameter of the address; raise ``Wrong`` unless it is one of these."""
        value = self.request.query_params.get(name) or default
        if value not in of:
            msg = f"{name}: expected one of {', '.join(of)}"
            raise Wrong(msg)
        return value


def shown(visit: Visit, name: str, told: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """Return a page filled in; ``told`` is what its template may use beside what every page tells."""
    every = {
        "who": visit.who,
        "path": visit.request.url.path,
        "mode": visit.settings.mode,
        "practice": visit.settings.clock_file is not None,
        "now": visit.now,
        "session": visit.settings.console_token is not None,
    }
    return HTMLResponse(templates().get_template(f"{name}.html.j2").render({**every, **told}), status)


@lru_cache(maxsize=1)
def templates() -> Environment:
    """Return the templates of the console."""
    made = Environment(
        loader=PackageLoader("worker", "templates/console"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"money": _money, "at": _at, "words": _words, "iso": _iso}
    return made


def _money(amount_minor: int, currency: str) -> str:
    return money(amount_minor, currency)


def _iso(at: datetime | str) -> str:
    return at if isinstance(at, str) else utc_text(at)


def _at(at: datetime | str) -> str:
    """Write an instant for people: to the minute, in UTC as everywhere."""
    return f"{_iso(at)[:16].replace('T', ' ')} UTC"


def _words(name: str | None) -> str:
    return WORDS.get(name, name.replace("_", " ")) if name else ""
