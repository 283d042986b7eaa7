"""A snapshot of Redis that holds whatever it had acknowledged when it was asked for one."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_client import Login, Redis, RedisError
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError

WAIT_SECONDS = 3600.0
PAUSE_SECONDS = 0.1
CHUNK = 1 << 20
COUNTED = re.compile(r"\[info\] (\d+) (keys read|expires|already expired)")


@dataclass(frozen=True)
class Checked:
    """What redis-check-rdb counted: of `keys` some expire at some time, and some of these have already."""

    keys: int
    expires: int
    expired: int

    @property
    def lasting(self) -> int:
        """Keys that nothing but a command takes away."""
        return self.keys - self.expires


def counted(text: str) -> Checked:
    found = {name: int(number) for number, name in COUNTED.findall(text)}
    if "keys read" not in found:
        raise BackupError("redis-check-rdb did not say how many keys it read")
    return Checked(found["keys read"], found.get("expires", 0), found.get("already expired", 0))


def check(path: Path, descriptor: int | None = None) -> Checked:
    """Read a snapshot to its end, checksum and all; one that is open already by its DESCRIPTOR."""
    opened = () if descriptor is None else (descriptor,)
    done = subprocess.run(
        ["redis-check-rdb", f"/proc/self/fd/{descriptor}" if opened else str(path)],
        capture_output=True,
        pass_fds=opened,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        why = complaint(said)
        is_newer = "RDB format version" in why
        raise BackupError(f"{path} is {'of a newer Redis' if is_newer else 'no whole snapshot of Redis'}: {why}")
    return counted(said)


def complaint(text: str) -> str:
    """What redis-check-rdb found wrong, without where in the file it was."""
    _before, marked, after = text.partition("--- RDB ERROR DETECTED ---")
    lines = [line for line in (after if marked else text).splitlines() if line.strip()]
    return re.sub(r"^\[offset \d+\] ", "", lines[0]) if lines else "redis-check-rdb does not say why"


def accepted(reply: object) -> bool:
    """Whether BGSAVE will make a snapshot of what is there now; while another is being made it does not."""
    if isinstance(reply, RedisError):
        if "in progress" in str(reply):
            return False
        raise BackupError(f"Redis makes no snapshot: {reply}")
    return True


def over(info: Mapping[str, str], before: int) -> bool:
    """Whether the snapshot that was asked for, after BEFORE others, is there whole."""
    # rdb_saves counts the snapshots that were begun.
    if int(info["rdb_saves"]) <= before or info["rdb_bgsave_in_progress"] != "0":
        return False
    if info["rdb_last_bgsave_status"] != "ok":
        raise BackupError(
            "Redis could not write its snapshot: see journalctl -u redis-server and /var/log/redis/redis-server.log"
        )
    return True


def ask(redis: Redis, pause: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic) -> None:
    """Have a snapshot made that begins after this call, and wait until it is there."""
    end = clock() + WAIT_SECONDS
    while True:
        # With nothing between both, so that the number is of before the snapshot; SCHEDULE waits for the append-only
        # file's rewriting, with which Redis would refuse.
        info, reply = redis.calls(("INFO", "persistence"), ("BGSAVE", "SCHEDULE"))
        if isinstance(info, RedisError):
            raise BackupError(f"Redis does not tell of its snapshots: {info}")
        if accepted(reply):
            break
        wait(end, pause, clock)
    fields = dict(line.split(":", 1) for line in str(info).splitlines() if ":" in line)
    if "rdb_saves" not in fields:
        raise BackupError("Redis does not count its snapshots: version 7 or newer is needed")
    while not over(redis.info("persistence"), int(fields["rdb_saves"])):
        wait(end, pause, clock)


def wait(end: float, pause: Callable[[float], None], clock: Callable[[], float]) -> None:
    if clock() > end:
        raise BackupError(f"Redis is not done with its snapshot after {WAIT_SECONDS:.0f} seconds")
    pause(PAUSE_SECONDS)


def place(redis: Redis) -> Path:
    """Where Redis writes its snapshot."""
    said = redis.call("CONFIG", "GET", "dir", "dbfilename")
    if not isinstance(said, list):
        raise BackupError("Redis does not say where its snapshot is")
    named = dict(zip(map(str, said[::2]), map(str, said[1::2]), strict=True))
    return Path(named["dir"]) / named["dbfilename"]


def write(login: Login, to: IO[bytes]) -> None:
    """A new snapshot, whole or not at all."""
    with Redis(login) as redis:
        path = place(redis)
        ask(redis)
    # Redis replaces the file at once: what is open stays as it is, whatever is written later.
    with path.open("rb") as file:
        check(path, file.fileno())
        size, sent = os.fstat(file.fileno()).st_size, 0
        while data := file.read(CHUNK):
            to.write(data)
            sent += len(data)
    if sent != size:
        raise BackupError(f"{path} had {size} bytes, and {sent} were read")
