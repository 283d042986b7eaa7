"""A rehearsed restore: the newest backup and a moment since, each restored beside everything and looked into."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import (
    catalogue,
    manifest,
    postgres,
    postgres_source,
    scratch,
    wal,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Backup, Target, stamp
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, Tell, fetch, run
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import Settings

Checks = Sequence[Mapping[str, str]]


def rehearse(settings: Settings, tell: Tell, chance: random.Random | None = None) -> dict[str, Any]:
    """Restore both; what came of it, with `ok` and a line for each look.

    Raises BackupError where a restore failed: then nothing of it holds.
    """
    if settings.postgres is None:
        raise BackupError("this fleet has no PostgreSQL of its own to rehearse with")
    began = time.time()
    known, have = postgres.observe()
    whole = catalogue.usable(known, have)
    if not whole:
        raise BackupError("there is no whole backup to rehearse with: run ansible-playbook playbooks/backup.yml")
    newest = whole[-1]
    own, silent = of_releases(settings)
    checks = [*settings.read_checks, *own]
    lines, good = with_backup(settings, newest, checks, tell)
    moment = moment_in(newest, have, chance or random.SystemRandom())
    if moment is None:
        lines.append("no moment since: the log ends with the backup")
    else:
        told, fine = with_moment(settings, newest, moment, have, checks, tell)
        lines += told
        good = good and fine
    return {
        "at": time.time(),
        "ok": good,
        "label": newest.label,
        "moment": moment,
        "seconds": time.time() - began,
        "lines": [*lines, *silent],
    }


def with_backup(settings: Settings, newest: Backup, checks: Checks, tell: Tell) -> tuple[list[str], bool]:
    """The newest backup, as of the point at which its rows were counted."""
    assert settings.postgres is not None
    noted = postgres.noted_rows(newest.label)
    target = Target(newest.label, "immediate", "", "current", newest.stop, f"the end of backup {newest.label}")
    if noted is not None:
        target = Target(newest.label, "name", noted.name, "latest", noted.at, f"its point {noted.name}")
    tell(f"drill: restoring {newest.label}, as of {target.words}")
    with scratch.restored(target, settings.postgres.version, newest.size) as copy:
        lines, good = look_into(settings.postgres.version, checks, copy)
        if noted is None:
            lines.append("rows were not counted when it was made, so they are not compared")
        else:
            wrong = manifest.differences(noted, count(copy))
            lines.append(manifest.summary(noted, wrong))
            good = good and not wrong
    return [f"{newest.label}: {line}" for line in lines], good


def with_moment(
    settings: Settings, newest: Backup, moment: float, have: wal.Archive, checks: Checks, tell: Tell
) -> tuple[list[str], bool]:
    assert settings.postgres is not None
    tell(f"drill: restoring the moment {stamp(moment)}")
    target = catalogue.to_moment(moment, [newest], have)
    with scratch.restored(target, settings.postgres.version, newest.size) as copy:
        lines, good = look_into(settings.postgres.version, checks, copy)
    return [f"{stamp(moment)}: {line}" for line in lines], good


def moment_in(newest: Backup, have: wal.Archive, chance: random.Random) -> float | None:
    """Some moment between the end of the newest backup and the end of what is archived.

    Before the last segment but one: what came after the last commit in it is no moment that can be reached.
    """
    last, _lacking = wal.follow(newest.wal_start, have)
    if last is None:
        return None
    begin, end = newest.stop + 1, have.arrived[last] - 1
    return round(chance.uniform(begin, end), 3) if end > begin else None


def count(copy: scratch.Copy) -> dict[str, dict[str, int]]:
    found = {}
    for database in postgres_source.databases(copy.port, copy.sockets):
        connection = postgres_source.connect(database, copy.port, copy.sockets)
        try:
            found[database] = postgres_source.counts(connection)
        finally:
            connection.close()
    return found


def look_into(version: str, checks: Checks, copy: scratch.Copy) -> tuple[list[str], bool]:
    """Every page and index by pg_amcheck, and what the service's release itself wants to read."""
    amcheck = [
        scratch.binary(version, "pg_amcheck"),
        "--all",
        "--install-missing",
        "--heapallindexed",
    ]
    lines, good = [], True
    try:
        run([*amcheck, f"--host={copy.sockets}", f"--port={copy.port}"], user="postgres")
        lines.append("pg_amcheck found nothing")
    except BackupError as error:
        lines.append(f"damaged: {error}")
        good = False
    told, fine = read_checks(checks, copy)
    return [*lines, *told], good and fine


def of_releases(settings: Settings) -> tuple[list[Mapping[str, str]], list[str]]:
    """The queries of the services' newest releases, from an agent host that can be asked; and why there are none."""
    silent: list[str] = []
    for source in settings.sources:
        if "agents" in source.what:
            try:
                return list(json.loads(fetch(source, ["read-checks"]))), []
            except BackupError as error:
                silent = [f"what the release would read was not tried: {error}"]
    return [], silent


def read_checks(checks: Checks, copy: scratch.Copy) -> tuple[list[str], bool]:
    lines, good = [], True
    for check in checks:
        connection = postgres_source.connect(check["database"], copy.port, copy.sockets)
        try:
            if not postgres_source.tables(connection):
                # Provisioned, and nothing deployed yet.
                continue
            rows = postgres_source.ask(connection, check["query"])
            lines.append(f"{check['name']} reads {len(rows)} rows")
        except Exception as error:
            # Whatever the driver raises is what the release would meet.
            lines.append(f"{check['name']} cannot read it: {str(error).strip().splitlines()[0]}")
            good = False
        finally:
            connection.close()
    return lines, good
