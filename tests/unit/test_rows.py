"""The rows that prove restores: what was acknowledged is noted, and what is missing is found."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.backups import MOMENT, table
from support.rows import (
    Commit,
    Writer,
    age_of_loss,
    committed_by,
    line_of,
    missing,
    quiet,
    read,
    strangers,
    written,
)

# The third is sent before the second is acknowledged.
COMMITS = [Commit(1, 10.0, 10.002), Commit(2, 10.005, 10.008), Commit(3, 10.006, 10.012), Commit(4, 10.020, 10.021)]


def test_a_file_tells_what_was_written_to_it() -> None:
    assert read("".join(map(line_of, COMMITS))) == COMMITS


@pytest.mark.parametrize("cut", ["5", "5 10.030000", "5 10.030000 10.0310"])
def test_a_line_that_was_cut_off_was_never_acknowledged(cut: str) -> None:
    assert read("".join(map(line_of, COMMITS)) + cut) == COMMITS


def test_what_is_missing_the_oldest_first() -> None:
    assert missing(COMMITS, [1, 2, 3, 4]) == []
    assert [commit.number for commit in missing(reversed(COMMITS), {1, 3})] == [2, 4]


def test_how_long_before_the_end_the_oldest_missing_row_was_acknowledged() -> None:
    assert age_of_loss(COMMITS, {1, 2, 3, 4}) == 0
    assert age_of_loss(COMMITS, {1, 2, 3}) == 0
    assert age_of_loss(COMMITS, {1, 4}) == pytest.approx(0.013)


def test_a_row_without_an_answer_may_be_there_and_no_other() -> None:
    assert strangers(COMMITS, {5}, [1, 2, 3, 4, 5]) == []
    assert strangers(COMMITS, {5}, [1, 2, 3, 4]) == []
    assert strangers(COMMITS, {5}, [1, 6, 5, 0]) == [0, 6]


def test_the_rows_of_a_moment() -> None:
    assert committed_by(COMMITS, 10.015) == {1, 2, 3}
    assert committed_by(COMMITS, 9) == set()
    for busy in (10.001, 10.008, 10.009):
        with pytest.raises(AssertionError, match="under way"):
            committed_by(COMMITS, busy)


def test_a_moment_at_which_nothing_was_under_way() -> None:
    for after in (9.0, 10.0, 10.0015):
        assert committed_by(COMMITS, quiet(COMMITS, after)) == {1}
    for after in (10.003, 10.007, 10.0145):
        assert committed_by(COMMITS, quiet(COMMITS, after)) in ({1}, {1, 2, 3})
    assert quiet(COMMITS, 10.013) == 10.014
    with pytest.raises(AssertionError, match="no moment"):
        quiet(COMMITS, 10.0195)


def test_a_moment_is_written_as_it_is_typed() -> None:
    assert written(1769860800.25) == "2026-01-31 12:00:00.250+00"
    assert written(1769860799.9999) == "2026-01-31 12:00:00.000+00"


def test_each_row_is_noted_before_the_connection_sends_the_next(tmp_path: Path) -> None:
    path, last, unnoted = tmp_path / "rows", threading.local(), []

    def insert(number: int) -> None:
        before = getattr(last, "number", None)
        if before and before not in {commit.number for commit in read(path.read_text())}:
            unnoted.append(before)
        last.number = number

    writer = Writer(path, 500, [insert, insert, insert])
    writer.wait_for(30)
    writer.stop()
    writer.join(5)
    commits = writer.commits
    assert unnoted == []
    assert len(commits) >= 30
    assert len({commit.number for commit in commits}) == len(commits)
    assert all(commit.sent <= commit.acknowledged for commit in commits)
    assert (writer.under_way, writer.lost) == (set(), [])


def test_a_row_that_was_not_acknowledged_is_not_noted(tmp_path: Path) -> None:
    def insert(number: int) -> None:
        if number == 7:
            raise OSError("the server closed\nthe connection")

    writer = Writer(tmp_path / "rows", 1000, [insert])
    with pytest.raises(AssertionError, match="6 rows were acknowledged"):
        writer.wait_for(100)
    assert [commit.number for commit in writer.commits] == [1, 2, 3, 4, 5, 6]
    assert (writer.under_way, writer.lost) == ({7}, ["the server closed the connection"])


def test_a_server_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    end = threading.Event()
    writer = Writer(tmp_path / "rows", 1000, [lambda _number: end.wait()])
    began = time.monotonic()
    writer.stop()
    writer.join(0.1)
    assert time.monotonic() - began < 5
    assert writer.commits == []
    end.set()
    writer.join(5)


def test_rows_come_at_the_rate_that_was_asked_for(tmp_path: Path) -> None:
    began = time.time()
    writer = Writer(tmp_path / "rows", 200, [lambda _number: None] * 4)
    writer.wait_for(100)
    writer.stop()
    writer.join(5)
    # Never faster; a busy machine may be slower.
    assert writer.commits[99].acknowledged - began >= 99 / 200 - 0.01


OUTPUT = """
  what      label              size     seconds  verified           restorable until
  postgres  20261129-223927F   35.7 MB  4        964 files, 5 logs  2026-11-29 22:39:30.25+00
  config    4f8a2c6e           12 kB    1        read back

the whole of it is in a file
"""


def test_a_table_is_read_by_its_headings() -> None:
    postgres, config = table(OUTPUT)
    assert (postgres["what"], postgres["label"], postgres["size"]) == ("postgres", "20261129-223927F", "35.7 MB")
    assert MOMENT.fullmatch(postgres["restorable until"])
    assert (config["verified"], config["restorable until"]) == ("read back", "")
