"""Rows written at a rate, each noted here once it is acknowledged: what a restore has to bring back.

with rows_on(fleet, tmp_path / "rows") as rows:
    rows.wait_for(500)
    ...
assert missing(rows.commits, restored(fleet)) == []

They come from an agent host's address, as the service's own do: by a tunnel through its SSH, as the service's user,
over TLS.
"""

from __future__ import annotations

import itertools
import math
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .ports import answers

if TYPE_CHECKING:
    from .fleet import Fleet

TABLE = "proof"
# What no file of a repository may show.
WORDS = "a row that nobody but the service may read"
CREATE = f"DROP TABLE IF EXISTS {TABLE}; CREATE TABLE {TABLE} (number bigint PRIMARY KEY, words text NOT NULL)"
INSERT = f"INSERT INTO {TABLE} VALUES (%s, %s)"
PORT = 5432
Insert = Callable[[int], object]
"""Writes one row, and comes back once its commit is acknowledged."""


@dataclass(frozen=True)
class Commit:
    """A row that was acknowledged; times are this machine's, whose clock the lab's hosts share."""

    number: int
    sent: float
    acknowledged: float


def line_of(commit: Commit) -> str:
    return f"{commit.number} {commit.sent:.6f} {commit.acknowledged:.6f}\n"


def read(text: str) -> list[Commit]:
    """The commits of a file, in the order they were acknowledged; its last line may not be whole."""
    whole = text[: text.rfind("\n") + 1]
    words = [line.split() for line in whole.splitlines()]
    return [Commit(int(number), float(sent), float(acknowledged)) for number, sent, acknowledged in words]


def missing(commits: Iterable[Commit], there: Collection[int]) -> list[Commit]:
    """What was acknowledged and is not there, the oldest first."""
    there = set(there)
    return sorted((commit for commit in commits if commit.number not in there), key=lambda commit: commit.acknowledged)


def age_of_loss(commits: Collection[Commit], there: Collection[int]) -> float:
    """How long before the last acknowledgement the oldest missing row was acknowledged, in seconds; 0 without any."""
    lost = missing(commits, there)
    return max(commit.acknowledged for commit in commits) - lost[0].acknowledged if lost else 0.0


def strangers(commits: Iterable[Commit], under_way: Collection[int], there: Iterable[int]) -> list[int]:
    """Rows that are there though nobody sent them. One that was UNDER_WAY at the end may be there or not."""
    return sorted(set(there) - {commit.number for commit in commits} - set(under_way))


def committed_by(commits: Iterable[Commit], moment: float) -> set[int]:
    """The rows that were there at MOMENT, at which none may have been under way."""
    rows = set()
    for commit in commits:
        assert not commit.sent <= moment <= commit.acknowledged, f"row {commit.number} was under way at {moment}"
        if commit.acknowledged < moment:
            rows.add(commit.number)
    return rows


def quiet(commits: Iterable[Commit], after: float) -> float:
    """The first whole millisecond past AFTER at which nothing was under way, with rows before it and behind it."""
    ordered = sorted(commits, key=lambda commit: commit.sent)
    busy_until = -math.inf
    for commit in ordered:
        moment = math.floor(max(busy_until, after) * 1000 + 1) / 1000 if busy_until > -math.inf else math.inf
        if busy_until < moment < commit.sent:
            return moment
        busy_until = max(busy_until, commit.acknowledged)
    raise AssertionError(f"there is no moment after {after} at which no row was under way")


def written(moment: float) -> str:
    """A moment as restore.yml takes it."""
    seconds, milliseconds = divmod(round(moment * 1000), 1000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}+00"


class Writer:
    """RATE rows a second over several connections, each of which notes its row before it sends the next.

    What is noted are commits alone. A connection that is lost ends, and says why; none is made anew.
    """

    def __init__(self, path: Path, rate: float, inserts: Collection[Insert]) -> None:
        self._file = path.open("w")
        self._path, self._rate = path, rate
        self._numbers = itertools.count(1)
        self._noted = threading.Condition()
        self._stop = threading.Event()
        self._acknowledged = 0
        self.under_way: set[int] = set()
        """Sent and not acknowledged."""
        self.lost: list[str] = []
        """Why connections ended."""
        self._threads = [
            threading.Thread(target=self._write, args=(insert, place, len(inserts)), daemon=True)
            for place, insert in enumerate(inserts)
        ]
        self._left = len(self._threads)
        for thread in self._threads:
            thread.start()

    @property
    def commits(self) -> list[Commit]:
        return read(self._path.read_text())

    def wait_for(self, number: int, seconds: float = 120) -> None:
        """Go on when so many more were acknowledged."""
        with self._noted:
            enough = self._acknowledged + number
            self._noted.wait_for(lambda: self._acknowledged >= enough or not self._left, seconds)
            assert self._acknowledged >= enough, f"{self._acknowledged} rows were acknowledged; {self.lost}"

    def stop(self) -> None:
        """Send no more; what is under way may end."""
        self._stop.set()

    def join(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def close(self) -> None:
        with self._noted:
            self._file.close()

    def _write(self, insert: Insert, place: int, places: int) -> None:
        period = places / self._rate
        due = time.monotonic() + period * place / places
        try:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                with self._noted:
                    number = next(self._numbers)
                    self.under_way.add(number)
                sent = time.time()
                insert(number)
                self._note(Commit(number, sent, time.time()))
                # What was slow is made up for, but not with a flood.
                due = max(due + period, time.monotonic() - 1)
        except Exception as error:
            with self._noted:
                self.lost.append(" ".join(str(error).split()) or type(error).__name__)
        finally:
            with self._noted:
                self._left -= 1
                self._noted.notify_all()

    def _note(self, commit: Commit) -> None:
        with self._noted:
            self._file.write(line_of(commit))
            self._file.flush()
            self.under_way.discard(commit.number)
            self._acknowledged += 1
            self._noted.notify_all()


@contextmanager
def rows_on(
    fleet: Fleet, path: Path, rate: float = 200, connections: int = 4, data: str = "data1", agent: str = "agent1"
) -> Iterator[Writer]:
    """Rows in a table of their own in the service's database, which is made anew, for as long as the context lasts."""
    import psycopg

    with tunnel(fleet, agent, f"{fleet.address(data)}:{PORT}") as port:
        made = [
            psycopg.connect(
                host="127.0.0.1",
                port=port,
                user=fleet.service,
                password=fleet.secret("database_password"),
                dbname=fleet.service,
                sslmode="require",
                connect_timeout=10,
                autocommit=True,
            )
            for _ in range(connections)
        ]
        made[0].execute(CREATE)
        writer = Writer(path, rate, [inserting(connection.execute) for connection in made])
        try:
            yield writer
        finally:
            writer.stop()
            writer.join(5)
    # A host without power does not answer: without the tunnel its connections end.
    writer.join(5)
    writer.close()


def inserting(execute: Callable[..., object]) -> Insert:
    return lambda number: execute(INSERT, (number, f"{WORDS}, number {number}"))


@contextmanager
def tunnel(fleet: Fleet, through: str, to: str) -> Iterator[int]:
    """A port of this machine that leads to another host's, from the address of the host THROUGH which it goes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    *options, target = fleet.ssh(through)
    words = ["-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:{to}"]
    with subprocess.Popen([*options, *words, target], stdin=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 20
            while not answers("127.0.0.1", port):
                assert process.poll() is None, f"no tunnel through {through}: exit status {process.returncode}"
                assert time.monotonic() < end, f"no tunnel through {through} in 20 s"
                time.sleep(0.1)
            yield port
        finally:
            process.terminate()


def restored(fleet: Fleet, data: str = "data1", database: str = "") -> set[int]:
    """The rows that are there."""
    ask = f"runuser -u postgres -- psql -XAt -v ON_ERROR_STOP=1 -d {database or fleet.service}"
    return {int(line) for line in fleet.on(data, ask, stdin=f"SELECT number FROM {TABLE};").ok().stdout.split()}
