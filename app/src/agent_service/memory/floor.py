"""The oldest migration that code must know to work with this database: one row, which contract migrations raise."""

from collections.abc import Container, Sequence

from alembic import op
from sqlalchemy import Connection, text


class FloorError(Exception):
    """This release is too old for the database, in one line."""


def raise_floor(revision: str) -> None:
    """For a contract migration: from here on code must know REVISION.

    Name the migration by which the last use of what goes away was gone, written out: the build reads it from here.
    """
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS schema_floor (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            revision text NOT NULL,
            raised_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    op.get_bind().execute(
        text(
            "INSERT INTO schema_floor (revision) VALUES (:revision)"
            " ON CONFLICT (one) DO UPDATE SET revision = excluded.revision, raised_at = now()"
        ),
        {"revision": revision},
    )


def read_floor(connection: Connection) -> str | None:
    if connection.execute(text("SELECT to_regclass('schema_floor')")).scalar() is None:
        return None
    revision = connection.execute(text("SELECT revision FROM schema_floor")).scalar()
    return None if revision is None else str(revision)


def is_ahead(heads: Sequence[str], known: Container[str], floor: str | None) -> bool:
    """Whether the database is newer than this release, which may work with it all the same; FloorError where not."""
    if floor is not None and floor not in known:
        raise FloorError(
            f"the database needs code that knows migration {floor}, which this release does not: deploy a newer one,"
            " or restore the database from before it needed that"
        )
    return any(head not in known for head in heads)
