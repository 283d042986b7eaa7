"""A host's configuration as one tar: the same files give the same bytes; what cannot be read is left out and named."""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import json
import os
import re
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError
from ansible_collections.agentfleet.vm.plugins.module_utils.director.store import kept

STORES = Path("/var/lib/agentfleet")
PACKAGES = ("postgresql", "postgresql-[0-9]*", "redis-server", "nginx", "haproxy", "pgbackrest", "restic")
# Configuration is small; a file that grew beyond this is none, and would be held in memory.
LARGEST = 64 << 20
# What a release brings is made anew from its artifact, and an artifact from its source.
LEFT_OUT = re.compile(
    r"/opt/[^/]+/(releases|venvs|docker|tools)(/.*)?|/var/lib/agentfleet/[^/]+/artifacts/[^/]*\.tar\.gz"
)


def below(paths: Iterable[str]) -> list[str]:
    """Every path at and below PATHS, which may have stars, once and in order; links to directories are not followed."""
    found: set[str] = set()
    for path in (one for pattern in paths for one in glob.glob(pattern)):
        top = os.path.abspath(path)
        if not os.path.lexists(top) or LEFT_OUT.fullmatch(top):
            continue
        found.add(top)
        for directory, names, files in os.walk(top):
            names[:] = [name for name in names if not LEFT_OUT.fullmatch(os.path.join(directory, name))]
            inside = (os.path.join(directory, name) for name in (*names, *files))
            found.update(path for path in inside if not LEFT_OUT.fullmatch(path))
    return sorted(found)


def member(path: str) -> tuple[tarfile.TarInfo, bytes] | None:
    """A path as the tar has it; None for what only a running program needs, a socket or a pipe."""
    # Not what is behind a link, and no waiting for a pipe's other end.
    seen = os.lstat(path)
    info = tarfile.TarInfo(path.lstrip("/"))
    info.mode, info.uid, info.gid = stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid
    info.mtime = int(seen.st_mtime)
    data = b""
    if stat.S_ISDIR(seen.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(seen.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISREG(seen.st_mode):
        data = read(path)
        info.size = len(data)
    else:
        return None
    return info, data


def read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise OSError(errno.EFBIG, f"it is larger than {LARGEST >> 20} MB")
    return data


def members(
    paths: Sequence[str], left_out: list[str], tell: Callable[[str], None]
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Whatever can be read; the rest is named, and noted in LEFT_OUT."""
    for path in paths:
        try:
            made = member(path)
        except OSError as error:
            left_out.append(path)
            tell(f"{path}: left out, {error.strerror or error}")
            continue
        if made:
            yield made


def write(paths: Sequence[str], host: str, to: IO[bytes], tell: Callable[[str], None]) -> None:
    """The tar of PATHS, with a description of the host at its end."""
    left_out: list[str] = []
    count = 0
    with tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members(below(paths), left_out, tell):
            tar.addfile(info, io.BytesIO(data))
            count += 1
        # An error ends the program before the tar has its end, so half of one is never taken for a whole one.
        if paths and not count:
            raise BackupError(f"nothing of {', '.join(paths)} could be read")
        for name, value in (
            ("agentfleet/about.json", {**about(host), "left_out": left_out}),
            ("agentfleet/releases.json", releases()),
        ):
            info = tarfile.TarInfo(name)
            data = as_json(value)
            info.mode, info.size, info.mtime = 0o600, len(data), int(time.time())
            tar.addfile(info, io.BytesIO(data))


def as_json(value: object) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def releases(stores: Path = STORES) -> dict[str, list[dict[str, Any]]]:
    """The artifacts that the edge keeps, by service and oldest first; their sums are what the store noted of them."""
    found = {}
    for store in sorted(stores.glob("*/artifacts")):
        entries = []
        for name, description in kept(store.parent).items():
            # A deploy that goes on meanwhile may take an old one away.
            with contextlib.suppress(FileNotFoundError):
                size = (store / f"{name}.tar.gz").stat().st_size
                entries.append({"id": name, "size": size, "sha256": description.get("sha256", "")})
        found[store.parent.name] = entries
    return found


def about(host: str) -> dict[str, Any]:
    """What a restore wants to know of the host that this was."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"host": host, "time": now, "os": os_release(), "packages": packages()}


def os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    pairs = (line.partition("=") for line in path.read_text().splitlines()) if path.exists() else ()
    return {name: value.strip('"') for name, _equals, value in pairs if name in ("ID", "VERSION_ID", "PRETTY_NAME")}


def packages() -> dict[str, str]:
    """Versions of what is installed; a name that is unknown is no failure."""
    form = "${db:Status-Abbrev} ${Package} ${Version}\n"
    asked = ["dpkg-query", "--show", f"--showformat={form}", *PACKAGES]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    rows = (line.split() for line in said.splitlines())
    return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "ii"}
