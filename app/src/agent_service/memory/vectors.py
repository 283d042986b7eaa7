"""The column for vector search: there where the database has pgvector, or may have it."""

from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agent_service.core.logs import get_logger

if TYPE_CHECKING:
    from sqlalchemy import Connection

logger = get_logger(__name__)


def install_vectors(connection: "Connection") -> bool:
    """Add the column where the extension is there or can be made; whether it is there then."""
    if not connection.execute(text("SELECT FROM pg_available_extensions WHERE name = 'vector'")).first():
        return False
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
            # Of any length: models differ, and only vectors of one model are ever compared.
            connection.execute(
                text(
                    "ALTER TABLE memories ADD COLUMN IF NOT EXISTS embedding vector,"
                    " ADD COLUMN IF NOT EXISTS embedding_model text"
                )
            )
    except DBAPIError as error:
        # The role may not: text search serves until somebody who may has made it.
        logger.warning("vectors_not_installed", reason=type(error.orig).__name__)
        return False
    return True
