"""What both versions of restic say, which backups count, and that half a stream never becomes one."""

import io
import json
import os
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import files, restic
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import restic_snapshots as snapshots
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.restic import Repository, ResticError, kind_of
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.restic_snapshots import Kept
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import Settings, Source

HERE = Source("data1", "10.0.0.31", 22, True, ("redis", "config"))
AWAY = Source("edge1", "10.0.0.11", 22, False, ("config",))
LOCKED = (
    "unable to create lock in backend: repository is already locked by PID 420 on data1 by root (UID 0, GID 0)\n"
    "lock was created at 2026-11-29 22:46:04 (3.045573559s ago)\nstorage ID e93877a1\n"
    "the `unlock` command can be used to remove stale locks\n"
)
FULL = "unable to create lock in backend: write /mnt/full/files/locks/x: no space left on device\n"


def settings(repository, **different):
    return replace(Settings("lab", "data1", Path(repository), (HERE, AWAY)), **different)


# What restic says: 0.14 of Debian 12, and 0.18 of Debian 13


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (1, "Fatal: wrong password or no key found\n", restic.WRONG_KEY),
        (
            12,
            '{"message_type":"exit_error","code":12,"message":"Fatal: wrong password or no key found"}',
            restic.WRONG_KEY,
        ),
        (
            1,
            "Fatal: unable to open config file: stat x\nIs there a repository at the following location?\nx",
            restic.ABSENT,
        ),
        (10, "Fatal: repository does not exist: unable to open config file", restic.ABSENT),
        (1, LOCKED, restic.LOCKED),
        (11, f"repo already locked, waiting up to 0s for the lock\n{LOCKED}", restic.LOCKED),
        (1, FULL, restic.FULL),
        (1, "Fatal: unable to save snapshot: write x: no space left on device", restic.FULL),
        (1, "Pack ID does not match, want 1, got 2\nFatal: repository contains errors", restic.DAMAGED),
        (2, "cannot dump file: decrypting blob 4 failed: ciphertext verification failed", restic.DAMAGED),
        (130, "signal interrupt received", restic.OTHER),
    ],
)
def test_what_is_wrong_is_known_by_what_either_version_says(status, said, kind):
    assert kind_of(status, said) == kind


def test_findings_are_without_advice_and_last_word():
    old = "load indexes\nread all data\n[0:00] 100.00%  2 / 2 packs\n\nPack ID does not match, want 11, got b6\n"
    new = "pack fc contains 2 errors\n\nThe repository contains damaged pack files. These\n\nrestic repair packs fc\n"
    last = "Fatal: repository contains errors\n"
    assert restic.findings(old + last) == ("Pack ID does not match, want 11, got b6",)
    assert restic.findings(new + last) == ("pack fc contains 2 errors",)
    assert restic.findings("".join(f"pack {number}\n" for number in range(9)))[-1] == "and 4 more"


def test_what_it_says_becomes_one_line():
    assert restic.in_one_line("load indexes\nmore\nFatal: it broke\x1b\nafter\n") == "it broke?"
    assert restic.in_one_line('{"message_type":"exit_error","message":"Fatal: no"}') == "no"
    assert restic.in_one_line("") == "it said nothing"


@pytest.mark.parametrize(
    ("s3", "address"),
    [
        (None, "/backups/files"),
        ({"bucket": "b", "endpoint": "s3.eu.io"}, "s3:https://s3.eu.io/b/files"),
        (
            {"bucket": "b", "endpoint": "http://10.0.0.9:9000/", "prefix": "/fleets/one/"},
            "s3:http://10.0.0.9:9000/b/fleets/one/files",
        ),
    ],
)
def test_the_repository_is_where_the_settings_say(s3, address):
    assert restic.address(settings("/backups", s3=s3)) == address


def test_credentials_for_s3_are_the_environments(tmp_path):
    file = tmp_path / "s3.env"
    file.write_text("# comment\nAWS_ACCESS_KEY_ID=one\n\nAWS_SECRET_ACCESS_KEY='a=b'\n")
    s3 = {"bucket": "b", "endpoint": "e", "region": "eu-1"}
    found = restic.environment(settings("/backups", s3=s3), file)
    assert found["AWS_DEFAULT_REGION"] == "eu-1"
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]) == ("one", "a=b")
    assert "AWS_ACCESS_KEY_ID" not in restic.environment(settings("/backups"), file)
    with pytest.raises(BackupError, match=r"site\.yml"):
        restic.environment(settings("/backups", s3=s3), tmp_path / "none")


@pytest.mark.parametrize(
    ("host", "program", "lives"),
    [("", "restic", True), ("", "python3", False), ("", None, False), ("elsewhere", None, True)],
)
def test_a_lock_is_its_process(tmp_path, host, program, lives):
    """After a loss of power another program may have the number."""
    if program:
        (tmp_path / "420").mkdir()
        (tmp_path / "420" / "comm").write_text(f"{program}\n")
    lock = {"hostname": host or socket.gethostname(), "pid": 420}
    assert restic.lives(lock, tmp_path) == lives


# Which backups count


def raw(short, at, tags, host="data1", **more):
    return {"id": short * 8, "short_id": short, "time": at, "tags": tags, "hostname": host, **more}


def whole(what, size=112, sha256="aa"):
    return [what, "whole", f"size={size}", f"sha256={sha256}"]


REDIS = Kept("bbbb", "redis", "data1", 1769860800.25, 112, "aa")
CONFIG = Kept("cccc", "config", "data1", 1769864400.0, 9, "cc")
LATER = Kept("eeee", "redis", "data2", 1769868000.0, 7, "dd")


def test_only_what_was_read_back_counts_and_times_are_utc():
    text = json.dumps(
        [
            raw("cccc", "2026-01-31T13:00:00Z", whole("config", 9, "cc")),
            raw("aaaa", "2026-01-31T11:00:00Z", ["redis", "unfinished"]),
            raw("bbbb", "2026-01-31T12:00:00.250000189Z", whole("redis")),
            raw("dddd", "2026-01-31T14:00:00Z", ["manual"]),
            raw("gggg", "2026-01-31T14:00:00Z", ["redis", "size=112", "sha256=aa"]),
            raw("ffff", "2026-01-31T14:00:00Z", None),
        ]
    )
    assert snapshots.parse_snapshots(text) == ([REDIS, CONFIG], ["aaaa" * 8])
    assert snapshots.parse_snapshots("null") == ([], [])


def test_a_backup_is_chosen_by_label_or_as_the_newest():
    kept = [REDIS, CONFIG, LATER]
    assert snapshots.choose(kept, "latest", "redis") == LATER
    assert snapshots.choose(kept, "latest", "redis", "data1") == REDIS
    assert snapshots.choose(kept, "bbbb", "redis") == REDIS


@pytest.mark.parametrize(
    ("label", "what", "host", "said"),
    [
        ("zzzz", "redis", "", "no backup zzzz of redis; the newest are bbbb, eeee"),
        ("cccc", "redis", "data1", "no backup cccc of redis of data1; the newest are bbbb"),
        ("latest", "config", "edge1", "no backup of config of edge1 yet; run: agentfleet-backup run --what config"),
    ],
)
def test_one_that_does_not_exist_is_named_with_those_that_do(label, what, host, said):
    with pytest.raises(BackupError, match=said):
        snapshots.choose([REDIS, CONFIG, LATER], label, what, host)


def test_the_newest_of_each_host_and_kind():
    assert snapshots.newest([REDIS, CONFIG, replace(REDIS, label="bb2"), LATER]) == {"bb2", "cccc", "eeee"}


def test_what_goes_is_read_from_a_dry_run():
    text = 'said before\n[{"remove":[{"short_id":"a"},{"short_id":"b"}]},{"remove":null},{"keep":[]}]\n'
    assert snapshots.parse_expired(text) == ["a", "b"]


def test_the_snapshot_is_read_from_its_summary():
    old = '{"message_type":"status"}\n{"message_type":"summary","data_added":9,"snapshot_id":"eb8a0bc4"}\n'
    new = '{"message_type":"summary","data_added":9,"data_added_packed":5,"snapshot_id":"ab54"}\n'
    assert snapshots.parse_summary(old) == ("eb8a0bc4", 9)
    assert snapshots.parse_summary(new) == ("ab54", 5)
    with pytest.raises(BackupError):
        snapshots.parse_summary('{"message_type":"status"}\n')


RDB = b"REDIS0012" + bytes(40) + b"\xff" + b"checksum"


@pytest.mark.parametrize(
    ("what", "data", "good"),
    [
        ("redis", RDB, True),
        ("redis", RDB[:-1], False),
        ("redis", b"", False),
        ("redis", b"x" + RDB, False),
        ("config", b"name" + bytes(2044), True),
        ("config", b"name" + bytes(2043), False),
        ("config", b"", False),
        ("config", bytes(1024) + b"x" * 512, False),
    ],
)
def test_a_stream_without_its_end_is_known(what, data, good):
    assert (snapshots.shape_problem(what, data[:8], data[-1024:], len(data)) == "") == good


def test_too_little_space_is_named_with_what_mends_it():
    assert snapshots.lacking(1024, 1024, Path("/b")) == ""
    assert "/b has 1023 MB free, and 1024 are wanted" in snapshots.lacking(1023, 1024, Path("/b"))


# A restic that keeps what it reads to the end, and nothing of what it does not


STORES = """cat >"$0/data" && mv "$0/data" "$0/snapshot" \\
  && echo '{"message_type":"summary","snapshot_id":"ab","data_added":3}'"""


@dataclass(frozen=True)
class Fake(Repository):
    place: Path = Path("/")
    script: str = STORES

    def command(self, *words):
        return ["sh", "-c", self.script if words[0] == "backup" else "true", str(self.place)]


@pytest.fixture
def fake(tmp_path):
    return Fake(str(tmp_path), True, place=tmp_path)


def sending(monkeypatch, data, problem=None):
    def fetch(source, words, to):
        to.write(data)
        to.flush()
        if problem:
            raise problem

    monkeypatch.setattr(files, "fetch", fetch)


def test_a_whole_stream_is_stored_with_its_sum(fake, monkeypatch):
    sending(monkeypatch, RDB)
    stream, summary = files.send(fake, HERE, "redis")
    assert (fake.place / "snapshot").read_bytes() == RDB
    assert (stream.size, snapshots.parse_summary(summary)) == (len(RDB), ("ab", 3))


@pytest.mark.parametrize("problem", [BackupError("data1 did not give its redis"), KeyboardInterrupt()])
def test_a_source_that_fails_leaves_nothing_even_if_all_of_it_was_sent(fake, monkeypatch, problem):
    sending(monkeypatch, RDB, problem)
    with pytest.raises(type(problem)):
        files.send(fake, HERE, "redis")
    assert not (fake.place / "snapshot").exists()


def test_a_source_that_says_it_is_all_and_is_not_leaves_nothing(fake, monkeypatch):
    sending(monkeypatch, RDB[:-5])
    with pytest.raises(BackupError, match="no whole snapshot of Redis"):
        files.send(fake, HERE, "redis")
    assert not (fake.place / "snapshot").exists()


def test_why_restic_ended_is_told_and_not_that_the_source_was_cut_off(fake, monkeypatch):
    ended = replace(fake, script="head -c 10 >/dev/null; echo 'write x: no space left on device' >&2; exit 1")

    def fetch(source, words, to):
        try:
            for _ in range(200):
                to.write(bytes(1 << 16))
                to.flush()
        except BrokenPipeError:
            raise BackupError("data1 did not give its redis: broken pipe") from None

    monkeypatch.setattr(files, "fetch", fetch)
    with pytest.raises(ResticError, match="no space left"):
        files.send(ended, HERE, "redis")


def test_what_reads_back_otherwise_is_not_marked(fake, monkeypatch):
    marked = []
    monkeypatch.setattr(
        files, "send", lambda *_words: (stream_of(RDB), '{"message_type":"summary","snapshot_id":"ab"}')
    )
    monkeypatch.setattr(files, "read_back", lambda repository, label, what, stream: stream.add(RDB[:-1] + b"X"))
    monkeypatch.setattr(Fake, "run", lambda self, *words: marked.append(words))
    with pytest.raises(BackupError, match="something else"):
        files.store(fake, HERE, "redis", 0.0)
    assert marked == []


def stream_of(data):
    stream = files.Stream()
    stream.hand_on(io.BytesIO(data))
    return stream


def test_a_damaged_backup_never_becomes_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "listed", lambda settings: [replace(REDIS, size=len(RDB))])

    def read_back(repository, label, what, stream, to):
        stream.hand_on(io.BytesIO(RDB), to)

    monkeypatch.setattr(files, "read_back", read_back)
    to = tmp_path / "redis.rdb"
    to.write_bytes(b"before")
    with pytest.raises(BackupError, match="damaged"):
        files.dump(settings(tmp_path), "latest", "redis", to)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"redis.rdb": b"before"}


def alone(monkeypatch, fake, store):
    """The backup's loop with nothing around it."""
    monkeypatch.setattr(files, "store", store)
    monkeypatch.setattr(files, "open_repository", lambda settings, tell: fake)
    monkeypatch.setattr(Fake, "make", lambda self: None)
    for name in ("sweep", "refuse_full"):
        monkeypatch.setattr(files, name, lambda *_words: None)


def test_one_host_that_fails_does_not_keep_others_from_their_backup(monkeypatch, tmp_path, fake):
    def store(repository, source, what, begin):
        if source is HERE:
            raise BackupError("data1 did not give its config")
        return files.Made(what, source.host, "ab")

    alone(monkeypatch, fake, store)
    made = files.backup(settings(tmp_path), "config", print)
    assert [(one.host, one.label, bool(one.problem)) for one in made] == [("data1", "", True), ("edge1", "ab", False)]


def test_what_is_wrong_with_the_repository_ends_it_for_all(monkeypatch, tmp_path, fake):
    def store(*_words):
        raise ResticError(restic.FULL, "it has no space left")

    alone(monkeypatch, fake, store)
    with pytest.raises(ResticError):
        files.backup(settings(tmp_path), "config", print)


def test_the_newest_and_what_is_to_be_kept_stay_whatever_the_retention_says(monkeypatch, tmp_path, fake):
    kept = [replace(REDIS, label=label) for label in ("a", "b", "c")]
    ran = []

    def run(self, *words):
        ran.append(words)
        return json.dumps([{"remove": [{"short_id": one.label} for one in kept]}]) if "--dry-run" in words else ""

    monkeypatch.setattr(files, "open_repository", lambda settings, tell=print: fake)
    monkeypatch.setattr(files, "listed", lambda settings: kept)
    monkeypatch.setattr(Fake, "run", run)
    assert [one.label for one in files.expire(settings(tmp_path), print, keep=["a"])] == ["b"]
    assert ran[1:] == [("forget", "b"), ("prune",)]


def test_a_repository_is_never_made_over_what_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(Repository, "once", lambda self, *words: pytest.fail("restic ran"))
    there = Repository(str(tmp_path / "files"), True)
    (tmp_path / "files" / "data").mkdir(parents=True)
    with pytest.raises(BackupError, match="no config"):
        there.make()
    (tmp_path / "files" / "config").touch()
    there.make()
    with pytest.raises(BackupError, match="mounted"):
        Repository(str(tmp_path / "away" / "files"), True).make()


def test_a_repository_half_made_is_made_anew(tmp_path, monkeypatch):
    def once(self, *words):
        assert words == ("init",)
        os.mkdir(self.address)
        Path(self.address, "config").touch()
        return ""

    monkeypatch.setattr(Repository, "once", once)
    (tmp_path / ".files.new" / "keys").mkdir(parents=True)
    Repository(str(tmp_path / "files"), True, tell=lambda _line: None).make()
    assert [path.name for path in tmp_path.iterdir()] == ["files"]
