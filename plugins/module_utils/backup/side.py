"""One database as of some moment, restored beside the live ones to look into before deciding."""

from __future__ import annotations

import contextlib
import re
import subprocess
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import postgres_source, scratch
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Target
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.postgres_restore import Cluster
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, Tell, one_line, run

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


def restore(cluster: Cluster, target: Target, size: int, database: str, into: str, tell: Tell) -> dict[str, Any]:
    """Nothing of the live databases is touched; what fails leaves no half of a database."""
    if not NAME.fullmatch(into):
        raise BackupError(f"into={into}: a lower-case letter, then letters, digits, _ or -")
    if into in postgres_source.databases(cluster.port):
        raise BackupError(f"into={into}: there is a database of that name; name another, or drop it")
    # The copy and the database that is made of it lie on one disk for a while.
    with scratch.restored(target, cluster.version, 2 * size) as copy:
        if database not in postgres_source.databases(copy.port, copy.sockets):
            raise BackupError(f"{target.words} had no database {database}")
        tell(f"postgres: copying {database} into {into}")
        owner = owner_of(copy, database)
        run(["createdb", f"--port={cluster.port}", f"--owner={owner}", "--template=template0", into], user="postgres")
        try:
            transfer(cluster, copy, database, into)
        except BackupError:
            run(["dropdb", f"--port={cluster.port}", "--force", into], user="postgres")
            raise
        with contextlib.closing(postgres_source.connect(into, cluster.port)) as connection:
            rows = sum(postgres_source.counts(connection).values())
    return {"into": into, "rows": rows}


def owner_of(copy: scratch.Copy, database: str) -> str:
    with contextlib.closing(postgres_source.connect("postgres", copy.port, copy.sockets)) as connection:
        statement = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
        return str(postgres_source.ask(connection, statement, database)[0][0])


def transfer(cluster: Cluster, copy: scratch.Copy, database: str, into: str) -> None:
    dump = ["pg_dump", f"--host={copy.sockets}", f"--port={copy.port}", "--format=custom", "--compress=0", database]
    load = ["pg_restore", f"--port={cluster.port}", "--exit-on-error", f"--dbname={into}"]
    as_postgres = ["runuser", "-u", "postgres", "--"]
    with subprocess.Popen([*as_postgres, *dump], stdout=subprocess.PIPE, cwd="/") as giving:
        done = subprocess.run([*as_postgres, *load], stdin=giving.stdout, capture_output=True, cwd="/")
        assert giving.stdout is not None
        giving.stdout.close()
    if giving.returncode or done.returncode:
        raise BackupError(f"{database} cannot be copied: {one_line(done.stderr.decode(errors='replace'))}")
