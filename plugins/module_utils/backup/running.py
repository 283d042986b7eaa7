"""How programs are run for a backup: each failure is one line that names the program and what it said."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import Source

# Says how far it is, to whoever waits.
Tell = Callable[[str], None]
LOCK = Path("/run/agentfleet-backup.lock")
SOURCE = "/usr/local/lib/agentfleet/backup/agentfleet-backup-source"
USER = "agentfleet-backup"
SSH_CONFIG = "/etc/agentfleet/backup/ssh_config"


class BackupError(Exception):
    """What kept a backup, a check or a restore from being done, in one line."""


def one_line(text: str, limit: int = 400) -> str:
    """The telling part of what a program wrote: the first line that says ERROR, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "ERROR" in line or "FATAL" in line.upper()]
    chosen = (telling or lines[-1:] or ["it said nothing"])[0]
    return "".join(letter if letter.isprintable() else "?" for letter in chosen)[:limit]


def run(
    words: Sequence[str],
    user: str = "",
    stdin: IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
) -> str:
    """What the program wrote to standard output."""
    done = subprocess.run(
        [*(("runuser", "-u", user, "--") if user else ()), *words],
        stdin=stdin or subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
        cwd=cwd,
    )
    said = done.stdout.decode(errors="replace")
    if done.returncode:
        why = one_line(done.stderr.decode(errors="replace") + "\n" + said)
        raise BackupError(f"{Path(words[0]).name} ended with {done.returncode}: {why}")
    return said


def source_command(source: Source, *words: str) -> list[str]:
    """The command line that has a source's program carry out WORDS."""
    said = " ".join(words)
    if source.local:
        return [SOURCE, said]
    return ["ssh", "-F", SSH_CONFIG, "-p", str(source.port), f"{USER}@{source.address}", said]


def fetch(source: Source, words: Sequence[str], to: IO[bytes] | int = subprocess.PIPE) -> bytes:
    """What a source answers to WORDS, or nothing where it is written TO a file. Fails unless the source ended well."""
    done = subprocess.run(
        source_command(source, *words), stdin=subprocess.DEVNULL, stdout=to, stderr=subprocess.PIPE, cwd="/"
    )
    if done.returncode:
        why = one_line(done.stderr.decode(errors="replace"))
        mend = "" if source.local else f"; try: ssh -F {SSH_CONFIG} -p {source.port} {USER}@{source.address} about"
        raise BackupError(f"{source.host} did not give its {words[0]}: {why}{mend}")
    return done.stdout or b""


@contextmanager
def alone(path: Path = LOCK, seconds: float = 0.0) -> Iterator[None]:
    """One at a time; whoever is second waits for SECONDS, and is told so then."""
    ends, told = time.monotonic() + seconds, False
    with path.open("a+") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                who = lock.read().strip() or "unknown"
                if time.monotonic() > ends:
                    raise BackupError(f"a backup or a drill is under way ({who}): wait for its end") from None
                if not told:
                    print(f"waiting for a backup or a drill that is under way ({who})", file=sys.stderr, flush=True)
                    told = True
                time.sleep(0.5)
        lock.truncate(0)
        lock.write(f"process {os.getpid()}\n")
        lock.flush()
        yield
