"""What the backup host asks of the PostgreSQL host: points to restore to, rows counted there, how its log gets away.

Runs there as root; PostgreSQL's superuser is reached over the local socket alone, as its own system user.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.manifest import still
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError

SOCKETS = "/var/run/postgresql"
POINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,62}")
# How often a moment is looked for in which nothing is being written.
TRIES = 50
ARCHIVE_SECONDS = 120
TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
AND n.nspname NOT LIKE 'pg\\_%' ORDER BY 1
"""


@contextmanager
def as_postgres() -> Iterator[None]:
    """PostgreSQL knows its superuser by who connects."""
    before = os.geteuid()
    os.seteuid(pwd.getpwnam("postgres").pw_uid)
    try:
        yield
    finally:
        os.seteuid(before)


def connect(database: str, port: int, sockets: str = SOCKETS) -> Any:
    import psycopg2

    try:
        with as_postgres():
            connection = psycopg2.connect(dbname=database, port=port, host=sockets, user="postgres", connect_timeout=10)
    except psycopg2.Error as error:
        raise BackupError(f"PostgreSQL does not answer: {str(error).strip().splitlines()[0]}") from error
    return connection


def ask(connection: Any, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    import psycopg2

    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())
    except psycopg2.Error as error:
        raise BackupError(f"PostgreSQL refused: {str(error).strip().splitlines()[0]}") from error


def databases(port: int, sockets: str = SOCKETS) -> list[str]:
    connection = connect("postgres", port, sockets)
    try:
        rows = ask(connection, "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1")
        return [str(row[0]) for row in rows]
    finally:
        connection.close()


def await_writes(port: int, sockets: str, ended: Callable[[], str], seconds: float, log: Path) -> None:
    """Wait until all of the log up to the target is in and the cluster takes writes; ENDED says why it never will."""
    ends = time.monotonic() + seconds
    while True:
        if why := ended():
            raise BackupError(why)
        try:
            connection = connect("postgres", port, sockets)
        except BackupError:
            if time.monotonic() > ends:
                raise
        else:
            with closing(connection):
                if not ask(connection, "SELECT pg_is_in_recovery()")[0][0]:
                    return
        if time.monotonic() > ends:
            raise BackupError(f"the restored data are not there after {seconds:.0f} s: see {log}")
        time.sleep(0.2)


def tables(connection: Any) -> list[str]:
    """Every table that is kept over a crash."""
    return [str(row[0]) for row in ask(connection, TABLES)]


def counts(connection: Any) -> dict[str, int]:
    """Rows of every table that is kept over a crash."""
    return {table: int(ask(connection, f"SELECT count(*) FROM {table}")[0][0]) for table in tables(connection)}


def restore_point(port: int, name: str) -> dict[str, Any]:
    """Make a named point in the log, and have the log up to it archived."""
    if not POINT.fullmatch(name):
        raise BackupError(f"{name!r} is no name of a restore point")
    connection = connect("postgres", port)
    connection.autocommit = True
    try:
        place = ask(connection, "SELECT pg_create_restore_point(%s)::text", name)[0][0]
        at = time.time()
        timeline = ask(connection, "SELECT timeline_id FROM pg_control_checkpoint()")[0][0]
        archive_now(connection)
    finally:
        connection.close()
    return {"name": name, "at": at, "lsn": place, "timeline": int(timeline)}


def transaction(connection: Any) -> int:
    """The number of a transaction that begins and ends here."""
    return int(ask(connection, "SELECT pg_current_xact_id()::text")[0][0])


def archive_now(connection: Any) -> None:
    """Have all of the log so far archived.

    A transaction is ended in it first: a moment before it can only be gone back to where one after it is there.
    """
    transaction(connection)
    segment = str(ask(connection, "SELECT pg_walfile_name(pg_switch_wal())")[0][0])
    ends = time.monotonic() + ARCHIVE_SECONDS
    while time.monotonic() < ends:
        archived = ask(connection, "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver")[0][0]
        if str(archived)[:24] >= segment:
            return
        time.sleep(0.2)
    raise BackupError(
        f"the log is not archived after {ARCHIVE_SECONDS} s: see /var/log/postgresql for what archive_command says"
    )


def manifest(port: int, name: str) -> dict[str, Any]:
    """A named point in the log, and how many rows each table had there."""
    if not POINT.fullmatch(name):
        raise BackupError(f"{name!r} is no name of a restore point")
    connections = {database: connect(database, port) for database in databases(port)}
    control = connect("postgres", port)
    control.autocommit = True
    try:
        for number in range(TRIES):
            point, exact = f"{name}.{number}", False
            for connection in connections.values():
                connection.rollback()
                connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            earlier = transaction(control)
            seen = [ask(one, "SELECT pg_current_snapshot()::text")[0][0] for one in connections.values()]
            place = ask(control, "SELECT pg_create_restore_point(%s)::text", point)[0][0]
            at = time.time()
            later = transaction(control)
            exact = all(still(earlier, str(snapshot), later) for snapshot in seen)
            if exact:
                break
        found = {database: counts(connection) for database, connection in connections.items()}
        moving = {} if exact else {database: churn(one, found[database]) for database, one in connections.items()}
        archive_now(control)
    finally:
        for connection in (*connections.values(), control):
            connection.close()
    return {"name": point, "at": at, "lsn": place, "exact": exact, "counts": found, "moving": moving}


def churn(connection: Any, known: Iterable[str]) -> dict[str, int]:
    """How many rows may have come or gone around the point: what a second would write, by the statistics' age."""
    rows = ask(
        connection,
        "SELECT format('%I.%I', schemaname, relname), (n_tup_ins + n_tup_del) / greatest(1, extract(epoch FROM now() - "
        "coalesce((SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()), "
        "pg_postmaster_start_time()))) FROM pg_stat_user_tables",
    )
    rate = {str(table): float(number) for table, number in rows}
    return {table: 100 + int(rate.get(table, 0) * 5) for table in known}


def archiver(port: int, data: Path) -> dict[str, Any]:
    """How the log gets away: what failed, what waits, and when the last of it was archived."""
    connection = connect("postgres", port)
    try:
        row = ask(
            connection,
            "SELECT extract(epoch FROM last_archived_time), failed_count, extract(epoch FROM last_failed_time), "
            "coalesce(last_failed_wal, ''), (SELECT system_identifier FROM pg_control_system()) FROM pg_stat_archiver",
        )[0]
    finally:
        connection.close()
    waiting = list((data / "pg_wal/archive_status").glob("*.ready"))
    oldest = min((path.stat().st_mtime for path in waiting), default=None)
    return {
        "archived": None if row[0] is None else float(row[0]),
        "failures": int(row[1]),
        "failed": None if row[2] is None else float(row[2]),
        "failed_file": str(row[3]),
        "system": str(row[4]),
        "waiting": len(waiting),
        "waiting_seconds": 0.0 if oldest is None else max(0.0, time.time() - oldest),
        "log_bytes": sum(path.stat().st_size for path in (data / "pg_wal").iterdir() if path.is_file()),
    }


def carry_out(verb: str, words: Sequence[str], settings: Mapping[str, Any], to: IO[bytes]) -> None:
    """For the source's program: one of manifest, restore-point and archiver; the answer is JSON."""
    known = settings.get("postgres")
    if not known:
        raise BackupError(f"{settings['host']} has no PostgreSQL of the fleet")
    port = int(known["port"])
    if verb == "manifest":
        told = manifest(port, words[0])
    elif verb == "restore-point":
        told = restore_point(port, words[0])
    else:
        told = archiver(port, Path(known["data"]))
    to.write(json.dumps(told).encode())
