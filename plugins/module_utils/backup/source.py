"""The program of a host that has something to keep: it writes to standard output what the backup host asks for.

It runs as root, for whoever holds the backup host's key, so it knows a few verbs and nothing else.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import config_tar, redis_snapshot, releases
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_client import RedisError, login_of
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError

INCOMING = Path("/var/lib/agentfleet/backup/incoming")
SOURCE = Path("/etc/agentfleet/backup/source.json")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,62}")
# How many words come after each verb.
VERBS = {
    "about": 0,
    "read-checks": 0,
    "config": 0,
    "redis": 0,
    "receive": 2,
    "manifest": 1,
    "archiver": 0,
    "restore-point": 1,
}
OF_POSTGRES = frozenset({"manifest", "archiver", "restore-point"})
USAGE = (
    "agentfleet-backup-source knows: about, read-checks, config, redis, receive WHAT SIZE, manifest NAME, archiver, "
    "restore-point NAME"
)


class Refused(Exception):
    """What is not asked of this program."""


def understood(given: Sequence[str]) -> tuple[str, list[str]]:
    """The verb and its words, of the one argument that SSH hands over as it was sent."""
    try:
        words = shlex.split(given[0]) if len(given) == 1 else []
    except ValueError:
        words = []
    verb, rest = (words[0], words[1:]) if words else ("", [])
    if VERBS.get(verb) != len(rest):
        raise Refused(USAGE)
    for word in rest:
        if not NAME.fullmatch(word):
            raise Refused(f"{verb}: a name has letters, digits and . _ : + - and begins with none of these")
    return verb, rest


def read_settings(path: Path = SOURCE) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BackupError(f"{path} cannot be read ({error}); run: ansible-playbook playbooks/site.yml") from error
    if not isinstance(settings, dict):
        raise BackupError(f"{path} holds no settings; run: ansible-playbook playbooks/site.yml")
    return settings


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def about(settings: Mapping[str, Any], to: IO[bytes]) -> None:
    to.write(config_tar.as_json(config_tar.about(str(settings["host"]))))


def read_checks(settings: Mapping[str, Any], to: IO[bytes]) -> None:
    to.write(config_tar.as_json(releases.read_checks()))


def config(settings: Mapping[str, Any], to: IO[bytes]) -> None:
    config_tar.write(settings["config"], str(settings["host"]), to, tell)


def redis(settings: Mapping[str, Any], to: IO[bytes]) -> None:
    if not settings.get("redis"):
        raise BackupError(f"{settings['host']} has no Redis of the fleet")
    redis_snapshot.write(login_of(settings["redis"]), to)


def receive(what: str, size: str, stream: IO[bytes], directory: Path = INCOMING) -> None:
    """Take what a restore needs: whole, where root alone reads it, or not at all."""
    if what not in ("redis", "config") or not size.isdecimal():
        raise Refused("receive: redis or config, and a size in bytes")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = directory / f".{what}.new"
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
            file.flush()
            os.fsync(descriptor)
            # A sender that was ended looks like one that is done.
            if file.tell() != int(size):
                raise BackupError(f"{file.tell()} of {size} bytes came")
        new.replace(directory / what)
    finally:
        new.unlink(missing_ok=True)


def of_postgres(verb: str, words: Sequence[str], settings: Mapping[str, Any], to: IO[bytes]) -> None:
    # Other sources have neither PostgreSQL nor what this needs.
    module = importlib.import_module(f"{__package__}.postgres_source")
    module.carry_out(verb, words, settings, to)


DO: Mapping[str, Callable[[Mapping[str, Any], IO[bytes]], None]] = {
    "about": about,
    "config": config,
    "read-checks": read_checks,
    "redis": redis,
}


def main(given: Sequence[str], to: IO[bytes] | None = None) -> int:
    """0 only when all of what was asked for was written."""
    to = to or sys.stdout.buffer
    # sudo and SSH may give no /usr/sbin.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin:/sbin"
    try:
        verb, words = understood(given)
        settings = read_settings()
        if verb in OF_POSTGRES:
            of_postgres(verb, words, settings, to)
        elif verb == "receive":
            receive(words[0], words[1], sys.stdin.buffer)
        else:
            DO[verb](settings, to)
        to.flush()
    except Refused as error:
        tell(str(error))
        return 2
    except (BackupError, RedisError, OSError, KeyError, subprocess.SubprocessError) as error:
        tell(f"agentfleet-backup-source: {error}" if not isinstance(error, KeyError) else f"{SOURCE} has no {error}")
        return 1
    return 0
