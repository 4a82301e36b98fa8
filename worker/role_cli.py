"""Commands that stay: each role of an installation, and all of them on one machine."""

from __future__ import annotations

import socket
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from celery.signals import after_task_publish

from worker import app, checks, logs, traces, watch, wording
from worker.celery_app import celery_app
from worker.installation import installation
from worker.roles import Roles
from worker.settings import load_settings
from worker.stripe_gateway import StripeGateway
from worker.wording import Letterhead

MOST_ENDS, MINUTE = 5, 60


@click.command()
@click.option("--concurrency", default=8, show_default=True, help="Requests to Stripe, and tasks, at the same time.")
def worker(concurrency: int) -> None:
    """Run one worker: Celery, doing what is due."""
    with installation():
        checks.refuse_to_start(app.engine(), load_settings())
        _check_words()
        checks.tell_of_mail(load_settings())
        app.gateway()
        _trace("worker")
        celery_app.conf.worker_concurrency = concurrency
        celery_app.worker_main(["worker", "--loglevel=INFO", "--without-gossip", "--without-mingle"])


def _trace(role: str, web: Any = None) -> None:
    traces.set_up(role, app.engine(), load_settings().stripe_api_base, web)


def _check_words() -> None:
    """Refuse to start with a policy, a template or words that cannot be used, or with nobody to tell what it names."""
    if not (told := checks.hooks(load_settings(), app.policy())).ok:
        msg = f"{told.name}: {told.detail}; {told.advice}"
        raise checks.NotReady(msg)
    wording.check(Letterhead.from_settings(load_settings()), app.policy(), app.now().date())


@click.command()
def beat() -> None:
    """Run one beat: it wakes the sweep every few seconds; as many as you like are safe."""
    with installation():
        checks.refuse_to_start(app.engine(), load_settings())
        after_task_publish.connect(_note_sent)
        _trace("beat")
        celery_app.start(["beat", "--loglevel=INFO", "--scheduler=celery.beat:Scheduler", "--pidfile="])


def _note_sent(**_given: Any) -> None:
    """Beat has sent a hint: that is its heartbeat."""
    watch.did(app.engine(), "beat", watch.SENT)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, help="0 takes any free port.")
@click.option("--port-file", type=click.Path(path_type=Path), hidden=True, help="Where to write the port taken.")
def web(host: str, port: int, port_file: Path | None) -> None:
    """Serve webhooks, the customers' links, the console, health and metrics."""
    import uvicorn

    from worker.web.webhooks import serve

    with installation(), _listen(host, port) as listener:
        if port_file is not None:
            part = port_file.with_suffix(".part")
            part.write_text(str(listener.getsockname()[1]), encoding="ascii")
            part.replace(port_file)
        logs.log.info("listening", host=host, port=listener.getsockname()[1])
        site = serve()
        _trace("web", site)
        # A peer is who it is: no header makes it another one.
        config = uvicorn.Config(site, log_config=None, access_log=False, proxy_headers=False)
        with suppress(KeyboardInterrupt):  # it has ended as it was asked to, and tells us of the signal once more
            uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. asyncio turns Nagle's delay of 40 ms off only where the protocol is named."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        msg = f"cannot listen on {host}:{port}: {error.strerror}"
        raise click.ClickException(msg) from None
    return listener


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True)
def up(host: str, port: int) -> None:
    """Run all roles of one machine: worker, beat and web, restarted when one of them ends."""
    _check_words()
    StripeGateway.from_settings(load_settings())
    with installation(migrate=True), Roles({}) as roles:
        checks.refuse_to_start(app.engine(), load_settings())
        for name, options in (("worker", ()), ("beat", ()), ("web", (f"--host={host}", f"--port={port}"))):
            roles.start(name, ["worker.cli", name, *options])
        ends: deque[float] = deque(maxlen=MOST_ENDS)
        while len(ends) < MOST_ENDS or ends[-1] - ends[0] > MINUTE:
            time.sleep(1)
            for name in roles.revive():
                logs.log.warning("role started again", role=name)
                ends.append(time.monotonic())
        msg = f"roles ended {MOST_ENDS} times within a minute; the last one was {name}"
        raise click.ClickException(msg)
