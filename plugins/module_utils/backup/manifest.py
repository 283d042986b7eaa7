"""How many rows each table had at a named point of the log, and whether a restored copy has as many. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Counts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Manifest:
    """Rows by database and table (schema.table) at restore point `name`, made at `at` (seconds since 1970).

    `exact` says that no transaction was under way when it was made, so that a copy restored to the point has these very
    numbers; otherwise `moving` has how many rows each table may differ by.
    """

    name: str
    at: float
    exact: bool
    counts: Counts
    moving: Counts

    def rows(self) -> int:
        return sum(number for tables in self.counts.values() for number in tables.values())


def parse(raw: Mapping[str, Any]) -> Manifest:
    return Manifest(
        str(raw["name"]), float(raw["at"]), bool(raw["exact"]), dict(raw["counts"]), dict(raw.get("moving") or {})
    )


def differences(wanted: Manifest, found: Counts) -> list[str]:
    """A line for each table that is not as it should be."""
    lines = []
    for database, tables in wanted.counts.items():
        if database not in found:
            lines.append(f"database {database} is not there")
            continue
        for table, number in tables.items():
            have = found[database].get(table)
            spare = 0 if wanted.exact else wanted.moving.get(database, {}).get(table, 0)
            if have is None:
                lines.append(f"{database}: table {table} is not there, which had {number} rows")
            elif abs(have - number) > spare:
                lines.append(f"{database}: {table} has {have} rows and had {number}")
    return lines


def still(earlier: int, snapshot: str, later: int) -> bool:
    """Whether nothing was under way at a point in the log: EARLIER is a transaction that was over before the SNAPSHOT,
    as pg_current_snapshot() writes it (xmin:xmax:list), LATER one that began after the point.

    Only then is what the snapshot sees exactly what the log has at the point. It alone does not tell, for it leaves out
    what began after the last transaction that is over: that may be in the log before the point, and not yet be seen.
    """
    xmin, xmax, running = snapshot.split(":")
    return int(xmin) == int(xmax) == earlier + 1 == later and not running


def summary(wanted: Manifest, lines: Sequence[str]) -> str:
    tables = sum(len(tables) for tables in wanted.counts.values())
    if lines:
        return f"{len(lines)} of {tables} tables differ: {lines[0]}"
    about = "" if wanted.exact else ", give or take what was being written"
    return f"{wanted.rows()} rows in {tables} tables as they were{about}"
