"""restic on the backup host: one repository for the fleet, kept open for this program alone.

Debian 12 has restic 0.14 and Debian 13 has 0.18; what differs between them is read here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ansible_collections.agentfleet.vm.plugins.module_utils import disk
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import HOME, Settings

KEY = HOME / "key"
S3_ENVIRONMENT = HOME / "s3.env"
CACHE = Path("/var/cache/agentfleet/restic")
LOCK_SECONDS = 900.0
PAUSE_SECONDS = 2.0
LOCKED, ABSENT, WRONG_KEY, FULL, DAMAGED, OTHER = "locked", "absent", "wrong key", "full", "damaged", "other"
# From 0.17 on restic says some of it by its exit status.
STATUSES = {10: ABSENT, 11: LOCKED, 12: WRONG_KEY}
SAID = (
    (LOCKED, re.compile(r"repository is already locked|unable to create lock")),
    (WRONG_KEY, re.compile(r"wrong password or no key found")),
    (ABSENT, re.compile(r"Is there a repository at the following location|repository does not exist")),
    (FULL, re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)),
    (
        DAMAGED,
        re.compile(
            r"repository contains errors|LoadIndex returned errors|verification failed|does not match|not found"
        ),
    ),
)
NOISE = re.compile(
    r"^(create exclusive lock|load indexes|check (all packs|snapshots)|read (all )?data|\[|using temporary cache"
    r"|repo already|repository [0-9a-f]+ opened|created new cache|the `unlock`|storage ID|lock was created|Load\()"
)


class ResticError(BackupError):
    """What restic said, and of which kind it is."""

    def __init__(self, kind: str, said: str, found: tuple[str, ...] = ()) -> None:
        super().__init__(said)
        self.kind = kind
        self.found = found


def kind_of(status: int, said: str) -> str:
    """What kept restic from its work, by what either version says."""
    for kind, pattern in SAID:
        # A full disk keeps it from making its lock, too.
        if pattern.search(said) and not (kind == LOCKED and "space left" in said):
            return kind
    return STATUSES.get(status, OTHER)


def lines_of(said: str) -> list[str]:
    """What restic said that tells something; with --json each line may be a document of its own."""
    lines = []
    for line in said.splitlines():
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                line = str(json.loads(line).get("message", ""))
        lines += [part.strip() for part in line.splitlines() if part.strip() and not NOISE.match(part.strip())]
    return lines


def in_one_line(said: str, limit: int = 300) -> str:
    lines = lines_of(said)
    fatal = [line for line in lines if line.startswith("Fatal: ")]
    chosen = (fatal or lines[-1:] or ["it said nothing"])[0].removeprefix("Fatal: ")
    return "".join(letter if letter.isprintable() else "?" for letter in chosen)[:limit]


def findings(said: str, most: int = 5) -> tuple[str, ...]:
    """What `restic check` found wrong, without its advice and its last word."""
    lines = lines_of(said)
    advice = next((number for number, line in enumerate(lines) if "contains damaged pack" in line), len(lines))
    found = [line[:300] for line in lines[:advice] if not line.startswith("Fatal: ")]
    more = [f"and {len(found) - most} more"] if len(found) > most else []
    return (*found[:most], *more)


def address(settings: Settings) -> str:
    """Where the repository is, as restic writes it."""
    if not settings.s3:
        return str(settings.repository / "files")
    endpoint = str(settings.s3["endpoint"])
    if "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    parts = [endpoint.rstrip("/"), settings.s3["bucket"], str(settings.s3.get("prefix") or "").strip("/"), "files"]
    return "s3:" + "/".join(part for part in parts if part)


def variables(text: str) -> dict[str, str]:
    """NAME=VALUE, a line each, as systemd's EnvironmentFile."""
    pairs = (line.strip().partition("=") for line in text.splitlines() if line.strip() and line.strip()[0] != "#")
    return {name: value.strip("\"'") for name, equals, value in pairs if equals}


def environment(settings: Settings, s3: Path = S3_ENVIRONMENT) -> dict[str, str]:
    found = {"TZ": "UTC", "RESTIC_PROGRESS_FPS": "0.1"}
    if settings.s3:
        found["AWS_DEFAULT_REGION"] = str(settings.s3.get("region") or "us-east-1")
        try:
            found.update(variables(s3.read_text()))
        except OSError as error:
            raise BackupError(
                f"{s3} cannot be read ({error.strerror}); run: ansible-playbook playbooks/site.yml"
            ) from error
    return found


@dataclass(frozen=True)
class Repository:
    """The repository, and how it is reached."""

    address: str
    local: bool
    key: Path = KEY
    environment: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[str], None] = print

    def command(self, *words: str) -> list[str]:
        # A cache holds what is far away; it is as encrypted as the repository.
        cache = ["--no-cache"] if self.local else [f"--cache-dir={CACHE}"]
        return ["restic", f"--repo={self.address}", f"--password-file={self.key}", *cache, *words]

    def process(self, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "LC_ALL": "C.UTF-8", **self.environment}
        try:
            return subprocess.Popen(self.command(*words), env=environment, cwd="/", **streams)
        except FileNotFoundError:
            raise BackupError("restic is not installed; run: ansible-playbook playbooks/site.yml") from None

    def once(self, *words: str, stdout: IO[bytes] | int = subprocess.PIPE) -> str:
        """Its output; ResticError when it failed."""
        with self.process(*words, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE) as process:
            out, err = process.communicate()
        said = (out or b"").decode(errors="replace")
        if process.returncode:
            raise self.failed(process.returncode, err.decode(errors="replace") + said)
        return said

    def failed(self, status: int, said: str) -> ResticError:
        kind = kind_of(status, said)
        if kind == WRONG_KEY:
            line = f"the key in {self.key} does not open {self.address}: put the one there that it was made with"
        elif kind == ABSENT:
            line = f"there is no repository at {self.address}"
        elif kind == FULL:
            line = f"{self.address} has no space left"
        else:
            line = f"restic ended with {status}: {in_one_line(said)}"
        return ResticError(kind, line, findings(said) if kind in (DAMAGED, OTHER) else ())

    def read(self, *words: str) -> str:
        """As run(), for what changes nothing: where there is no space for a lock it goes without."""
        try:
            return self.run(*words)
        except ResticError as error:
            if error.kind != FULL:
                raise
            return self.once("--no-lock", *words)

    def run(self, *words: str, seconds: float = LOCK_SECONDS) -> str:
        """As once(); another's lock is waited for, and a dead one's is removed."""
        end, told = time.monotonic() + seconds, False
        while True:
            try:
                return self.once(*words)
            except ResticError as error:
                if error.kind != LOCKED:
                    raise
                if not self.unlocked():
                    if time.monotonic() > end:
                        raise BackupError(f"{self.address} is still in use ({error}); try again later") from error
                    if not told:
                        self.tell(f"waiting for {self.address}: {error}")
                        told = True
                    time.sleep(PAUSE_SECONDS)

    def free(self) -> None:
        """Wait until nobody has the repository: before a stream that cannot be sent twice."""
        if self.local and not any(Path(self.address, "locks").glob("*")):
            return
        end = time.monotonic() + LOCK_SECONDS
        while not self.unlocked() and time.monotonic() < end:
            time.sleep(PAUSE_SECONDS)

    def unlocked(self) -> bool:
        """Remove locks whose owners are dead; whether there are none left."""
        self.once("unlock")
        locks = self.once("--no-lock", "list", "locks").split()
        if not locks:
            return True
        seen = []
        for lock in locks:
            # It may go while it is looked at.
            with contextlib.suppress(ResticError, ValueError):
                seen.append(json.loads(self.once("--no-lock", "cat", "lock", lock)))
        if any(lives(lock) for lock in seen) or len(seen) != len(locks):
            return False
        # After a loss of power another program may have the number of the one that held it, and restic keeps the lock.
        self.once("unlock", "--remove-all")
        return True

    def make(self) -> None:
        """The repository, if there is none; never over what is there."""
        if self.local:
            make_local(self)
            return
        try:
            self.once("--no-lock", "cat", "config")
        except ResticError as error:
            if error.kind != ABSENT:
                raise
            self.tell(f"making the repository {self.address}")
            self.once("init")


def open_repository(settings: Settings, tell: Callable[[str], None] = print) -> Repository:
    return Repository(address(settings), not settings.s3, KEY, environment(settings), tell)


def lives(lock: Mapping[str, Any], processes: Path = Path("/proc")) -> bool:
    """Whether the process that made a lock may still run; of another host nothing is known."""
    if lock.get("hostname") != socket.gethostname():
        return True
    try:
        return (processes / str(lock.get("pid")) / "comm").read_text().strip() == "restic"
    except OSError:
        return False


def make_local(repository: Repository) -> None:
    """Made beside and renamed: a repository that is half made cannot be told from a damaged one."""
    final = Path(repository.address)
    if (final / "config").exists():
        return
    if final.exists() and any(final.iterdir()):
        raise BackupError(
            f"{final} has files, but no config: it is no whole repository; restore its config, or move it away"
        )
    if not final.parent.is_dir():
        raise BackupError(f"{final.parent} is not there: is its disk mounted?")
    new = final.with_name(f".{final.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    repository.tell(f"making the repository {final}")
    Repository(str(new), True, repository.key, repository.environment, repository.tell).once("init")
    new.chmod(0o700)
    disk.sync(new)
    new.replace(final)
    disk.sync(final.parent)
