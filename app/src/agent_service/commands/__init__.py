"""What `agentctl` can do, a module each: arguments(parser), and run(options), which returns the exit status."""

import argparse
import contextlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from agent_service.core.settings import Settings
from agent_service.memory.database import connection_arguments

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@contextlib.contextmanager
def database(settings: Settings) -> Iterator[psycopg.Connection[TupleRow]]:
    """A connection for one command; a database that cannot be used is one line."""
    try:
        with psycopg.connect(**connection_arguments(settings), autocommit=True) as connection:
            yield connection
    except psycopg.errors.UndefinedTable:
        raise SystemExit("The database is older than this release: migrate it (alembic upgrade head)") from None
    except psycopg.Error as error:
        raise SystemExit(f"The database cannot be used: {str(error).strip()}") from None


def moment(text: str) -> datetime:
    """A time, or how long ago; without a zone it is UTC, as the service's logs are."""
    if found := re.fullmatch(r"(\d{1,6})([mhd])", text):
        return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("use 30m, 12h, 7d, or a date and time as 2026-01-31T08:00") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[str(cell) if cell is not None else "-" for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
