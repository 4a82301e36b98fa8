"""Is the database there and in the shape that this version needs? Migrations, from the command line or a start."""

from __future__ import annotations

from importlib.resources import files

from sqlalchemy import Engine, func, select, text

MIGRATIONS = files("worker").joinpath("migrations")


class MigrationMissing(RuntimeError):
    """The database is not in the shape that this version needs."""


def upgrade(engine: Engine) -> None:
    """Bring the database to the shape of this version; two callers at once wait for each other."""
    from alembic import command  # an eighth of a second, of which other commands have no use
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    with engine.begin() as db:
        db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended("dunning migrations", 0))))
        config.attributes["connection"] = db
        command.upgrade(config, "head")


def require_current(engine: Engine) -> None:
    """Raise ``MigrationMissing`` unless the database is in the shape of this version."""
    with engine.connect() as db:
        migrated = db.execute(select(func.to_regclass("alembic_version"))).scalar() is not None
        found = db.execute(text("SELECT version_num FROM alembic_version")).scalar() if migrated else None
    wanted = max(file.name.partition("_")[0] for file in MIGRATIONS.joinpath("versions").iterdir() if file.is_file())
    if found != wanted:
        msg = f"the database is at {found or 'no'} migration and this version needs {wanted}: run `dunning db upgrade`"
        raise MigrationMissing(msg)


def start_afresh(engine: Engine) -> None:
    """Throw away everything in a practice database and build it anew."""
    with engine.begin() as db:
        db.execute(text("DROP SCHEMA public CASCADE"))
        db.execute(text("CREATE SCHEMA public"))
    upgrade(engine)
