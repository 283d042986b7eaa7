"""The Redis of a host: how it is configured, how it is started and stopped, and one beside it that reads a snapshot."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils import disk
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import redis_swap
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_client import (
    Login,
    Redis,
    RedisError,
    login_of,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_snapshot import Checked
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_swap import Places
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, run

CONFIGS = (Path("/etc/redis/agentfleet.conf"), Path("/etc/redis/redis.conf"))
UNIT, LOADER = "redis-server.service", "agentfleet-redis-load.service"
WAIT_SECONDS = 3600.0
DEFAULTS = {
    "dir": "/var/lib/redis",
    "dbfilename": "dump.rdb",
    "appendonly": "no",
    "appenddirname": "appendonlydir",
    "appendfilename": "appendonly.aof",
    "port": "6379",
    "tls-port": "0",
}


def configured(path: Path, read: Callable[[Path], str] = Path.read_text) -> dict[str, str]:
    """The settings that matter here; of several the last one counts, as Redis has it."""
    found: dict[str, str] = {}
    for line in read(path).splitlines():
        name, _space, value = line.strip().partition(" ")
        value = value.strip().strip("\"'")
        if name.lower() == "include":
            found.update(configured(Path(value), read))
        elif name.lower() in DEFAULTS:
            found[name.lower()] = value
    return found


def settings() -> dict[str, str]:
    path = next((path for path in CONFIGS if path.exists()), None)
    if path is None:
        raise BackupError("Redis is not installed on this host; run: ansible-playbook playbooks/site.yml")
    return {**DEFAULTS, **configured(path)}


def places_of(config: Mapping[str, str], name: str) -> Places:
    log = config["appenddirname"] if config["appendonly"] == "yes" else ""
    return Places(Path(config["dir"]), name, config["dbfilename"], log)


def login(config: Mapping[str, str]) -> Login:
    tls = config["port"] == "0"
    return login_of({"port": config["tls-port"] if tls else config["port"], "tls": tls})


def keyspace(info: Mapping[str, str]) -> Checked:
    """How many keys all databases have, by INFO."""
    fields = [dict(part.split("=") for part in value.split(",")) for name, value in info.items() if is_database(name)]
    return Checked(sum(int(one["keys"]) for one in fields), sum(int(one["expires"]) for one in fields), 0)


def is_database(name: str) -> bool:
    return re.fullmatch(r"db\d+", name) is not None


def loss(wanted: Checked, there: Checked) -> str:
    """What a Redis lacks of a snapshot; keys that expire may have done so meanwhile."""
    if there.lasting < wanted.lasting:
        return f"Redis holds {there.lasting} of the {wanted.lasting} keys that do not expire"
    return ""


def rewritten(info: Mapping[str, str]) -> bool:
    """Whether the append-only file is there whole."""
    if info["aof_enabled"] != "1" or info["aof_rewrite_in_progress"] != "0" or info["aof_rewrite_scheduled"] != "0":
        return False
    if info["aof_last_bgrewrite_status"] != "ok":
        raise BackupError("Redis could not write the append-only file")
    return True


def systemctl(*words: str) -> str:
    return run(["systemctl", "--no-ask-password", *words]).strip()


def waited(ready: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not ready():
        if time.monotonic() > end:
            raise BackupError(f"{what} after {WAIT_SECONDS:.0f} seconds")
        time.sleep(0.1)


def start(config: Mapping[str, str]) -> Checked:
    """Have Redis run; how many keys it has."""
    # It may have been started too often before.
    with contextlib.suppress(BackupError):
        systemctl("reset-failed", UNIT)
    systemctl("start", UNIT)
    return counted(login(config), UNIT)


def counted(login: Login, unit: str) -> Checked:
    def loaded() -> bool:
        if systemctl("show", "--property=ActiveState", "--value", unit) in ("failed", "inactive"):
            raise BackupError(f"{unit} ended while it read its data; see journalctl -u {unit}")
        try:
            with Redis(login) as redis:
                return redis.info("persistence").get("loading") == "0"
        except RedisError as error:
            if "does not answer" in str(error) or "ended" in str(error):
                return False
            raise

    waited(loaded, f"{unit} has not read its data")
    with Redis(login) as redis:
        return keyspace(redis.info("keyspace"))


def make_ready(rdb: Path, places: Places, config: Mapping[str, str], wanted: Checked) -> None:
    """The snapshot in `new`, and beside it, where Redis uses one, the append-only file that says the same."""
    user = pwd.getpwnam("redis")
    places.new.mkdir(mode=0o700)
    copy = places.new / places.dump
    shutil.copyfile(rdb, copy)
    copy.chmod(0o660)
    for path in (copy, places.new):
        os.chown(path, user.pw_uid, user.pw_gid)
    if places.log:
        try:
            write_log(places, config, wanted)
        finally:
            with contextlib.suppress(BackupError):
                systemctl("stop", LOADER)
        redis_swap.mark(places.new / places.log)
    disk.sync(places.new)


def write_log(places: Places, config: Mapping[str, str], wanted: Checked) -> None:
    path = places.new / "load.sock"
    options = {
        **{"port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": str(places.new), "save": ""},
        **{"dbfilename": places.dump, "appendonly": "no", "daemonize": "no", "logfile": ""},
        **{"appenddirname": places.log, "appendfilename": config["appendfilename"]},
    }
    # In a unit of its own, so that nothing of it is left when this is ended and another run stops it.
    properties = ("--property=KillSignal=SIGKILL", "--property=UMask=0027")
    unit = ("--collect", f"--unit={LOADER}", "--uid=redis", "--gid=redis", *properties)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    run(["systemd-run", "--quiet", *unit, "/usr/bin/redis-server", *words])
    there = counted(Login(path=str(path)), LOADER)
    if loss(wanted, there):
        raise BackupError(f"reading the snapshot: {loss(wanted, there)}")
    with Redis(Login(path=str(path)), WAIT_SECONDS) as redis:
        redis.call("CONFIG", "SET", "appendonly", "yes")
        waited(lambda: rewritten(redis.info("persistence")), "the append-only file is not written")
        with contextlib.suppress(RedisError):
            # It answers by ending the connection.
            redis.call("SHUTDOWN", "NOSAVE")
    waited(lambda: not path.exists(), f"{LOADER} has not ended")
    if not list((places.new / places.log).glob("*.manifest")):
        raise BackupError("Redis wrote no append-only file")


def stop() -> None:
    systemctl("stop", UNIT)
    with contextlib.suppress(BackupError):
        systemctl("stop", LOADER)
