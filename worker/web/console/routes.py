"""Which addresses does the console have? Nothing at all, unless a token or a proxy's login opens it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote

from kombu.exceptions import OperationalError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Route

from schedules import PolicyError
from worker import app
from worker.logs import log
from worker.report import page as report_page
from worker.settings import Settings
from worker.web.console import case_list, case_page, churn, customer, failed, notices, overview, policy, report
from worker.web.console.guard import PATH, Guard, same_origin
from worker.web.console.pages import HEADERS, Missing, Visit, Wrong, shown
from worker.words import NotWritten

if TYPE_CHECKING:
    from starlette.requests import Request

View = Callable[[Visit], Response]
STATIC = Path(__file__).parents[1] / "static"
FILES = ("console.css", "htmx.min.js")
LOGIN = f"{PATH}/login"
LARGEST_FORM, MOST_FIELDS = 16 * 1024, 20
SAFE = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Door:
    """What every page has in common: who may see it, and what is said when something is wrong."""

    guard: Guard
    settings: Settings
    engine: Engine

    def behind(self, view: View) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a page for operators only; strangers are asked for the token."""

        async def answer(request: Request) -> Response:
            who = self.guard.who(request)
            return await self._answer(request, who or "", view if who else self._ask)

        return answer

    def before(self, view: View) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of a page for everybody."""

        async def answer(request: Request) -> Response:
            return await self._answer(request, "", view)

        return answer

    async def _answer(self, request: Request, who: str, view: View) -> Response:
        form: dict[str, str] = {}
        if request.method not in SAFE:
            if not same_origin(request):
                view = _elsewhere
            form = await _form(request)
        visit = Visit(request, who, form, self.engine, self.settings, app.now())
        response = await run_in_threadpool(_careful, view, visit)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    def _ask(self, visit: Visit) -> Response:
        """Send a stranger to the login; behind a proxy that names nobody there is none."""
        if self.guard.token is None:
            return _error(visit, 403, "Nobody is logged in", f"The proxy names nobody in {self.guard.header}.")
        if "hx-request" in visit.request.headers:  # a part of a page would show the login within it
            return Response(status_code=401, headers={"HX-Redirect": LOGIN})
        if visit.request.method not in SAFE:
            return RedirectResponse(LOGIN, 303)
        query = f"?{visit.request.url.query}" if visit.request.url.query else ""
        return RedirectResponse(f"{LOGIN}?next={quote(visit.request.url.path + query)}", 303)

    def login(self, visit: Visit) -> Response:
        """Ask for the token; whoever has it gets a session."""
        wanted = visit.request.query_params.get("next", "")
        after = wanted if wanted.startswith(f"{PATH}/") else PATH
        if self.guard.token is None:
            raise Missing(visit.request.url.path)
        if visit.request.method in SAFE:
            return shown(visit, "login", {"wrong": False})
        if self.guard.admits(visit.form.get("token", "").strip()):
            return self.guard.let_in(visit.request, RedirectResponse(after, 303))
        log.warning("console refused", reason="a wrong token")
        return shown(visit, "login", {"wrong": True}, 403)

    def logout(self, _visit: Visit) -> Response:
        """End the session."""
        return self.guard.let_out(RedirectResponse(LOGIN, 303))


def routes(settings: Settings, engine: Engine) -> list[Route]:
    """Return the routes of the console; none unless a token or a proxy's login is configured."""
    guard = Guard.from_settings(settings)
    if guard is None:
        return []
    door, post = Door(guard, settings, engine), ["POST"]
    return [
        Route(LOGIN, door.before(door.login), methods=["GET", "POST"]),
        Route(f"{PATH}/logout", door.before(door.logout), methods=post),
        Route(f"{PATH}/static/{{name}}", door.before(_static)),
        Route(PATH, door.behind(overview.view)),
        Route(f"{PATH}/cases", door.behind(case_list.view)),
        Route(f"{PATH}/cases/{{asked}}", door.behind(case_page.view)),
        Route(f"{PATH}/cases/{{asked}}", door.behind(case_page.act), methods=post),
        Route(f"{PATH}/customers/{{customer}}", door.behind(customer.view)),
        Route(f"{PATH}/failed", door.behind(failed.view)),
        Route(f"{PATH}/failed", door.behind(failed.act), methods=post),
        Route(f"{PATH}/policy", door.behind(policy.view)),
        Route(f"{PATH}/notices", door.behind(notices.view)),
        Route(f"{PATH}/notices/letter", door.behind(notices.letter)),
        Route(f"{PATH}/report", door.behind(report.view)),
        Route(f"{PATH}/churn", door.behind(churn.page)),
        Route(f"{PATH}/churn.csv", door.behind(churn.table)),
        Route(f"{PATH}/{{rest:path}}", door.behind(_nothing)),
    ]


def _static(visit: Visit) -> Response:
    name, kept = visit.request.path_params["name"], {"Cache-Control": "max-age=3600"}
    if name == "report.css":
        return Response(report_page.style(), media_type="text/css", headers=kept)
    if name not in FILES:
        raise Missing(name)
    return FileResponse(STATIC / name, headers=kept)


def _nothing(visit: Visit) -> Response:
    raise Missing(visit.request.url.path)


def _elsewhere(visit: Visit) -> Response:
    log.warning("console refused", reason="sent from another site")
    return _error(visit, 403, "Refused", "This was not sent from a page of this console. Nothing was changed.")


def _careful(view: View, visit: Visit) -> Response:
    """Return what a view answers, or say in words what is wrong."""
    try:
        return view(visit)
    except Missing as error:
        return _error(visit, 404, "Not found", f"There is no {error}.")
    except Wrong as error:
        return _error(visit, 400, "Not understood", f"{error}.")
    except (PolicyError, NotWritten) as error:
        return _error(visit, 500, "A file of yours cannot be used", str(error))
    except (SQLAlchemyError, OperationalError) as error:
        log.warning("console", error=type(error).__name__)
        what = "database" if isinstance(error, SQLAlchemyError) else "queue"
        return _error(visit, 503, "Try again in a minute", f"The {what} does not answer. Nothing was changed.")


def _error(visit: Visit, status: int, title: str, text: str) -> Response:
    return shown(visit, "error", {"title": title, "text": text}, status)


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form; of what is too large or none, nothing."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FORM:
            return {}
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        return {}
