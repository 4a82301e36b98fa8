"""Is the database there and in the shape that this version needs? Migrations, from the command line or a start."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, select, text


class MigrationMissing(RuntimeError):
    """The database is not in the shape that this version needs."""


def _config(db: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("worker").joinpath("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = db
    return config


def upgrade(engine: Engine) -> None:
    """Bring the database to the shape of this version; two callers at once wait for each other."""
    with engine.begin() as db:
        db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("dunning migrations", 0))))
        command.upgrade(_config(db), "head")


def require_current(engine: Engine) -> None:
    """Raise ``MigrationMissing`` unless the database is in the shape of this version."""
    with engine.connect() as db:
        found = MigrationContext.configure(db).get_current_revision()
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    if found != wanted:
        msg = f"the database is at {found or 'no'} migration and this version needs {wanted}: run `dunning db upgrade`"
        raise MigrationMissing(msg)


def start_afresh(engine: Engine) -> None:
    """Throw away everything in a practice database and build it anew."""
    with engine.begin() as db:
        db.execute(text("DROP SCHEMA public CASCADE"))
        db.execute(text("CREATE SCHEMA public"))
    upgrade(engine)
