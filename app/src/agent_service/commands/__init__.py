"""What `agentctl` can do, a module each: configure(parser) and run(options), which returns the exit status."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from agent_service.core.settings import Settings
from agent_service.memory.database import connection_arguments


@contextlib.contextmanager
def database(settings: Settings) -> Iterator[psycopg.Connection[TupleRow]]:
    """A connection for one command; a database that cannot be used is one line."""
    try:
        with psycopg.connect(**connection_arguments(settings), autocommit=True) as connection:
            yield connection
    except psycopg.OperationalError as error:
        raise SystemExit(f"The database cannot be used: {str(error).strip()}") from None
    except psycopg.errors.UndefinedTable:
        raise SystemExit("The database has no queue yet: migrate it (alembic upgrade head)") from None


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[str(cell) if cell is not None else "-" for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
