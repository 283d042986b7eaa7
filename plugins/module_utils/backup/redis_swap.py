"""Redis' data exchanged for restored ones, and back, so that at every moment the one or the other are there whole.

Three places in Redis' directory: the live files themselves; `aside`, where those go that were there; `new`, where
restored ones are made ready. A directory of restored ones bears a mark, by which both are told apart wherever a run was
ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils import disk

MARK = "agentfleet-restored"
AT_CWD, EXCHANGE = -100, 2


@dataclass(frozen=True)
class Places:
    """Where one Redis has its data; `log` is the directory of the append-only file, "" where Redis uses none."""

    directory: Path
    name: str
    dump: str = "dump.rdb"
    log: str = "appendonlydir"

    @property
    def aside(self) -> Path:
        return self.directory / f"agentfleet-before-{self.name}"

    @property
    def new(self) -> Path:
        return self.directory / f"agentfleet-new-{self.name}"


def exchange(one: Path, other: Path) -> None:
    """Both change their names at once: nobody ever finds neither."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.renameat2(AT_CWD, os.fsencode(one), AT_CWD, os.fsencode(other), EXCHANGE):
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), str(one), None, str(other))
        # A file system that cannot: where a run is ended between, the mark tells which is which.
        between = other.with_name(f"{other.name}.between")
        one.rename(between)
        other.rename(one)
        between.rename(other)


def is_restored(log: Path) -> bool:
    return (log / MARK).exists()


def mark(log: Path) -> None:
    (log / MARK).touch()
    disk.sync(log)


def put_in(places: Places) -> None:
    """Restored files, which are ready in `new`, become the live ones, and those that were go aside."""
    live, ready = places.directory / places.dump, places.new / places.dump
    places.aside.mkdir(mode=0o700, exist_ok=True)
    if live.exists():
        # By a second name, so that there is one at each moment.
        os.link(live, places.aside / places.dump)
    disk.sync(places.directory)
    ready.replace(live)
    disk.sync(places.directory)
    if places.log:
        put_log_in(places)
    with contextlib.suppress(OSError):
        places.new.rmdir()
    disk.sync(places.directory)


def put_log_in(places: Places) -> None:
    live, ready = places.directory / places.log, places.new / places.log
    if live.exists():
        exchange(live, ready)
        disk.sync(places.directory)
        ready.rename(places.aside / places.log)
    else:
        ready.rename(live)


def put_back(places: Places, had_dump: bool) -> None:
    """The files that were there are the live ones again, whatever an ended run had done of put_in() or of this.

    Redis must not run. Done once more, it changes nothing.
    """
    live, aside = places.directory / places.dump, places.aside / places.dump
    if aside.exists():
        # Where it is the live one still, nothing happens, and the second name goes with what lies aside.
        again = places.aside / f"{places.dump}.again"
        again.unlink(missing_ok=True)
        os.link(aside, again)
        again.replace(live)
    elif not had_dump:
        live.unlink(missing_ok=True)
    if places.log:
        put_log_back(places)
    disk.sync(places.directory)


def put_log_back(places: Places) -> None:
    live = places.directory / places.log
    homes = [home / name for home in (places.aside, places.new) for name in (places.log, f"{places.log}.between")]
    before = next((home for home in homes if home.exists() and not is_restored(home)), None)
    if before is None:
        if is_restored(live):
            # There was none before.
            places.new.mkdir(mode=0o700, exist_ok=True)
            live.rename(places.new / f"{places.log}.gone")
    elif live.exists():
        # It goes, whoever made it; another run is to know that as well.
        mark(live)
        exchange(live, before)
    else:
        before.rename(live)


def discard(places: Places) -> None:
    """What is not live goes, and the mark: from now on these are Redis' data like any."""
    gone = places.directory / f"agentfleet-gone-{places.name}"
    for home in (gone, places.new, places.aside):
        # Half of it removed, nobody could tell any more what it was: so it first gets a name that says it.
        if home.exists():
            home.rename(gone)
            shutil.rmtree(gone)
    if places.log:
        (places.directory / places.log / MARK).unlink(missing_ok=True)
    disk.sync(places.directory)
