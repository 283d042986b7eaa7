"""The queue library's own schema: installed by a migration, compared with the code when a worker starts."""

from importlib import resources
from typing import TYPE_CHECKING

from agent_service.memory.database import Connection

if TYPE_CHECKING:
    from sqlalchemy import Connection as MigrationConnection

# The newest of the library's migrations that this code and its own migrations were made with.
MADE_FOR = "03.04.00_50_post_add_retry_failed_job_procedure"

_SQL = "procrastinate.sql"
_NEWEST = "SELECT migration FROM queue_schema"


class SchemaError(Exception):
    """The database's queue is not the one that this code works with, in one line."""


def packaged() -> list[str]:
    """The names of the library's migrations, in order; a schema is known by the newest that is in it."""
    folder = resources.files(_SQL) / "migrations"
    return sorted(file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql"))


def install_queue(connection: "MigrationConnection") -> None:
    """Create the library's tables as its installed version wants them, and note which version that is.

    A newer version of the library needs a migration that runs the library's files after the noted one, then MADE_FOR.
    """
    if (found := packaged()[-1]) != MADE_FOR:
        raise SchemaError(f"procrastinate's tables are of {found}, this release's migrations are made for {MADE_FOR}")
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.execute((resources.files(_SQL) / "schema.sql").read_text(encoding="utf-8"))
    driver.execute(
        "CREATE TABLE queue_schema (one boolean PRIMARY KEY DEFAULT true CHECK (one), migration text NOT NULL)"
    )
    driver.execute("INSERT INTO queue_schema (migration) VALUES (%s)", [found])


async def check_queue(connection: Connection) -> None:
    """SchemaError where the database lacks what this code's library needs; a newer database serves older code."""
    row = await (await connection.execute(_NEWEST)).fetchone()
    found, wanted = row[0] if row else "", packaged()[-1]
    if found < wanted:
        raise SchemaError(f"the database's queue is of {found or 'nothing'}, this release needs {wanted}: migrate it")
