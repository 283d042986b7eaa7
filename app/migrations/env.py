"""Runs the migrations with the service's own settings; safe when two hosts try at once."""

import logging

from alembic import context
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from agent_service.core.logs import configure_logging
from agent_service.core.settings import Settings, load_settings
from agent_service.memory.database import root_certificates
from agent_service.memory.floor import FloorError, is_ahead, read_floor
from agent_service.work.schema import SchemaError

# Any number of the application's own: whoever holds it migrates, the next finds nothing left to do.
ADVISORY_LOCK = 7_310_204_116


def run() -> None:
    settings = load_settings()
    configure_logging(settings.log_level, release=settings.release, slot=settings.slot)
    engine = create_engine(_url(settings), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            connection.execute(text("SET lock_timeout = '60s'"))
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ADVISORY_LOCK})
            # A migration that cannot get its lock gives up before the requests queue up behind it.
            connection.execute(text("SET lock_timeout = '5s'"))
            ahead = _ahead(connection)
            connection.commit()
            if ahead:
                # After a rollback: this release's migrations are all there, and Alembic does not know the newer ones.
                logging.getLogger("alembic").info("The database is newer than this release, which may use it")
                return
            context.configure(connection=connection, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
    except OperationalError as error:
        raise SystemExit(f"The migration stopped: {str(error.orig).strip()}") from None
    except (FloorError, SchemaError) as error:
        raise SystemExit(f"The migration stopped: {error}") from None


def _ahead(connection: Connection) -> bool:
    known = {script.revision for script in ScriptDirectory.from_config(context.config).walk_revisions()}
    heads = MigrationContext.configure(connection).get_current_heads()
    return is_ahead(heads, known, read_floor(connection))


def _url(settings: Settings) -> URL:
    roots = root_certificates(settings)
    return URL.create(
        "postgresql+psycopg",
        username=settings.database_user,
        password=settings.database_password.get_secret_value() or None,
        host=settings.database_host,
        port=settings.database_port,
        database=settings.database_name,
        query={
            "sslmode": settings.database_sslmode,
            **({"sslrootcert": roots} if roots else {}),
            "application_name": f"{settings.name}/migrate",
            "connect_timeout": "5",
        },
    )


run()
