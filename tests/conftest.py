"""What the tests share: one pair of embedded servers for the whole run, and a clean database for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, text

from worker import database
from worker.app import make_engine
from worker.embedded import Servers, servers
from worker.models import install, metadata
from worker.settings import PREFIX, load_settings


@pytest.fixture(scope="session")
def running() -> Iterator[Servers]:
    """Give PostgreSQL and Valkey, in a folder which the account of the servers can reach under root too."""
    base = Path(tempfile.mkdtemp(prefix="dunning-test-"))
    base.chmod(0o755)
    with servers(base / "data") as found:
        yield found
    shutil.rmtree(base)


@pytest.fixture(scope="session")
def migrated(running: Servers) -> Iterator[Engine]:
    """Give an engine on a database in the shape of this version."""
    engine = make_engine(running.database_url)
    database.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(migrated: Engine) -> Engine:
    """Give an engine on an empty database."""
    start_afresh(migrated)
    return migrated


def start_afresh(engine: Engine) -> None:
    """Make a fresh installation. Deleting a few rows is quicker than truncating, which makes new files."""
    with engine.begin() as db:
        for table in reversed(metadata.sorted_tables):
            db.execute(table.delete())
            if "id" in table.c and table.c.id.identity is not None:
                db.execute(text(f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), 1, false)"))
        db.execute(insert(install))


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the developer's own DUNNING_ variables out of the tests, and settings read in one test out of the next."""
    import os

    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()
