"""Runs the migrations with the service's own settings; safe when two hosts try at once."""

from alembic import context
from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from agent_service.core.logs import configure_logging
from agent_service.core.settings import Settings, load_settings

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
            connection.commit()
            context.configure(connection=connection, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
    except OperationalError as error:
        raise SystemExit(f"The migration stopped: {str(error.orig).strip()}") from None


def _url(settings: Settings) -> URL:
    return URL.create(
        "postgresql+psycopg",
        username=settings.database_user,
        password=settings.database_password.get_secret_value() or None,
        host=settings.database_host,
        port=settings.database_port,
        database=settings.database_name,
        query={
            "sslmode": settings.database_sslmode,
            "application_name": f"{settings.name}/migrate",
            "connect_timeout": "5",
        },
    )


run()
