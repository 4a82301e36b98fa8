"""One of our workers as a benchmark wants it: in another pool than threads, or with a provider that is no network.

    python -m benchmarks.settler --pool prefork --concurrency 2

The product itself runs in threads (celeryconfig.py tells why). A fork needs a connection pool of its own in each child,
and gevent has to be there before anything else is imported: both are seen to here, and nowhere else.
"""

from __future__ import annotations

import click

from worker.roles import stop_with_parent


@click.command()
@click.option("--pool", type=click.Choice(["threads", "prefork", "gevent"]), default="threads")
@click.option("--concurrency", default=8)
@click.option("--instant", is_flag=True, help="Every charge succeeds at once, within the process.")
def main(pool: str, concurrency: int, instant: bool) -> None:
    """Run one worker until it is stopped."""
    stop_with_parent()  # in a real thread: a greenlet that reads would hold up all others
    if pool == "gevent":
        from gevent import monkey

        monkey.patch_all()
    from celery.signals import worker_process_init

    from worker.celery_app import celery_app
    from worker.role_cli import worker

    celery_app.conf.worker_pool = pool
    worker_process_init.connect(_forget)
    if instant:
        _skip_network()
    worker.main([f"--concurrency={concurrency}"], standalone_mode=False)


def _forget(**_given: object) -> None:
    """In a child of a fork: make connections of its own, and leave those of the parent alone."""
    from worker import app

    app.engine().dispose(close=False)
    app.gateway.cache_clear()


def _skip_network() -> None:
    from benchmarks.instant import Instant
    from worker import app

    app.gateway.cache_clear()
    setattr(app, "gateway", Instant)  # noqa: B010 - the one place where our code gets another provider


if __name__ == "__main__":
    main()
