"""agentfleet-restore: what a restore does on a host with data or agents; restore.yml calls it in its order."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import (
    postgres_restore,
    redis_restore,
    services,
    side,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Target
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.postgres_restore import Cluster
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_client import RedisError
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, Tell, alone
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import HOME, STATE
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError

Result = dict[str, Any]
LOCK = Path("/run/agentfleet-restore.lock")
INCOMING = STATE / "incoming"
# One that a controller left behind comes to its end.
WAIT_SECONDS = 3600
# What Redis' restore calls the data that it keeps aside.
RESTORE = "restore"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agentfleet-restore", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
        return one

    restore = command("postgres", "Restore PostgreSQL in place; what was there is kept aside.")
    restore.add_argument("--target", required=True, help="what agentfleet-backup plan --json told")
    beside = command("side", "Restore one database beside the live ones.")
    beside.add_argument("--target", required=True, help="what agentfleet-backup plan --json told")
    beside.add_argument("--database", required=True)
    beside.add_argument("--into", required=True)
    command("redis", "Restore Redis in place from what the backup host sent; what was there is kept aside.")
    command("keep", "Keep what was restored, and remove what was there before.")
    command("put-back", "Have what was there before the restore answer again.")
    stop = command("stop", "Stop the services' workers, then their instances.")
    stop.add_argument("--address", action="append", default=[], help="where the services find their data now")
    command("start", "Start what was stopped: instances, then workers.")
    migrate = command("migrate", "Bring the database to what a release knows.")
    migrate.add_argument("--service", required=True)
    migrate.add_argument("--release", required=True)
    return parser


def own(path: Path = HOME / "source.json") -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise BackupError(f"{path} cannot be read ({error}); run ansible-playbook playbooks/site.yml") from error


def cluster() -> Cluster | None:
    """The cluster of this host, if it has one."""
    known = own().get("postgres")
    return Cluster(Path(known["data"]), int(known["port"])) if known else None


def needed_cluster() -> Cluster:
    found = cluster()
    if found is None:
        raise BackupError("this host has no PostgreSQL of the fleet")
    return found


def target_of(text: str) -> tuple[Target, int]:
    raw = json.loads(text)
    names = ("label", "type", "value", "timeline", "until", "words")
    return Target(**{name: raw[name] for name in names}), int(raw["size"])


def postgres(wanted: argparse.Namespace, tell: Tell) -> Result:
    target, size = target_of(wanted.target)
    return {"changed": True, **postgres_restore.restore(needed_cluster(), target, size, tell)}


def beside(wanted: argparse.Namespace, tell: Tell) -> Result:
    target, size = target_of(wanted.target)
    return {"changed": True, **side.restore(needed_cluster(), target, size, wanted.database, wanted.into, tell)}


def redis(wanted: argparse.Namespace, tell: Tell) -> Result:
    """A restore that was begun and not kept is put back first: nobody wants what it had any more."""
    redis_restore.put_back("", tell)
    done = redis_restore.restore(INCOMING / "redis", RESTORE, tell)
    return {"changed": True, "keys": done.keys}


def of_both(of_postgres: Callable[[Cluster], bool], of_redis: Callable[[], bool]) -> Result:
    """What is to be done for whatever of the two this host has; one that fails does not keep the other from it."""
    found = cluster()
    failed, changed = [], False
    steps: list[Callable[[], bool]] = [*([lambda: of_postgres(found)] if found else ())]
    if own().get("redis"):
        steps.append(of_redis)
    for step in steps:
        try:
            changed = step() or changed
        except (BackupError, CommandError, RedisError, OSError) as error:
            failed.append(str(error))
    return {"changed": changed, "failed": failed}


def keep(wanted: argparse.Namespace, tell: Tell) -> Result:
    return of_both(postgres_restore.keep, lambda: redis_restore.keep("", tell).changed)


def put_back(wanted: argparse.Namespace, tell: Tell) -> Result:
    return of_both(postgres_restore.put_back, lambda: redis_restore.put_back("", tell).changed)


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Tell], Result]] = {
    "postgres": postgres,
    "side": beside,
    "redis": redis,
    "keep": keep,
    "put-back": put_back,
    "stop": lambda wanted, tell: {"changed": True, **services.stop(wanted.address, tell)},
    "start": lambda _wanted, tell: {"changed": True, **services.start(tell)},
    "migrate": lambda wanted, tell: {"changed": True, **services.migrate(wanted.service, wanted.release, tell)},
}


def main(words: Sequence[str]) -> int:
    wanted = arguments().parse_args(words)
    os.umask(0o077)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        with alone(LOCK, seconds=WAIT_SECONDS):
            told = COMMANDS[wanted.command](wanted, tell)
    except (BackupError, CommandError, RedisError, OSError) as error:
        told = {"changed": False, "failed": [str(error)]}
    failed = told.get("failed") or []
    if wanted.json:
        print(json.dumps({"lines": [], **told}))
    else:
        for line in failed:
            tell(f"agentfleet-restore: {line}")
    return 2 if failed else 0
