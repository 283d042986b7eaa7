"""Redis' files change places whole, and wherever a run is ended, the next one has what was there before."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import redis_host, redis_restore, redis_swap
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_client import Login
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_restore import Outcome, Record
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_snapshot import Checked
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_swap import Places
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError

OLD, NEW = {"dump.rdb": "old", "appendonlydir/log": "old"}, {"dump.rdb": "new", "appendonlydir/log": "new"}


class Ended(BaseException):
    """As by SIGKILL: nothing is cleaned up."""


def write(directory, tree):
    for name, text in tree.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


def read(directory):
    found = (path for path in sorted(directory.rglob("*")) if path.is_file() and path.name != redis_swap.MARK)
    return {str(path.relative_to(directory)): path.read_text() for path in found}


def live(places):
    """What Redis would read at a start."""
    return {name: text for name, text in read(places.directory).items() if not name.startswith("agentfleet-")}


def ready(tmp_path, had=OLD, log="appendonlydir"):
    """Everything as it is when the snapshot was read, and before anything changes places."""
    places = Places(tmp_path, "one", log=log)
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    write(tmp_path, had)
    write(places.new, {name: text for name, text in NEW.items() if log or "/" not in name})
    if log:
        redis_swap.mark(places.new / log)
    return places


@contextlib.contextmanager
def ended_at(number):
    """Ends the program before its change of that NUMBER to the file system."""
    count = 0
    with pytest.MonkeyPatch.context() as patch:

        def counting(module, name):
            real = getattr(module, name)

            def wrapped(*words, **more):
                nonlocal count
                count += 1
                if count > number:
                    raise Ended(name)
                return real(*words, **more)

            patch.setattr(module, name, wrapped)

        for module, name in (
            (os, "link"),
            (os, "rename"),
            (os, "replace"),
            (os, "unlink"),
            (os, "rmdir"),
            (os, "mkdir"),
        ):
            counting(module, name)
        for name in ("rename", "replace", "unlink", "mkdir", "touch"):
            counting(Path, name)
        counting(redis_swap, "exchange")
        with contextlib.suppress(Ended):
            yield


@pytest.fixture(params=[True, False], ids=["at once", "by three names"])
def exchanging(request, monkeypatch):
    """A file system that exchanges two names at once, and one that cannot."""
    if not request.param:

        class Library:
            def renameat2(self, *_words):
                redis_swap.ctypes.set_errno(errno.EINVAL)
                return -1

        monkeypatch.setattr(redis_swap.ctypes, "CDLL", lambda *_words, **_more: Library())
        monkeypatch.setattr(redis_swap.disk, "sync", lambda _path: None)
    return request.param


HAD = pytest.mark.parametrize(
    "had", [OLD, {"appendonlydir/log": "old"}, {"dump.rdb": "old"}, {}], ids=["both", "log", "dump", "nothing"]
)


@HAD
def test_restored_files_are_live_and_what_was_there_is_aside(tmp_path, had, exchanging):
    places = ready(tmp_path, had)
    redis_swap.put_in(places)
    assert live(places) == NEW
    assert read(places.aside) == had
    assert not places.new.exists()


@HAD
def test_kept_is_what_was_restored_and_nothing_else(tmp_path, had):
    places = ready(tmp_path, had)
    redis_swap.put_in(places)
    redis_swap.discard(places)
    assert read(tmp_path) == NEW
    assert not redis_swap.is_restored(tmp_path / "appendonlydir")


@HAD
def test_wherever_it_is_ended_what_was_there_comes_back(tmp_path, had, exchanging):
    number, done = 0, False
    while not done:
        places = ready(tmp_path / "redis", had)
        with ended_at(number):
            redis_swap.put_in(places)
            done = True
        if exchanging and had == OLD:
            # As at a boot in that moment: the log is there whole, and it is what Redis reads.
            assert live(places)["appendonlydir/log"] in ("old", "new")
        redis_swap.put_back(places, "dump.rdb" in had)
        assert live(places) == had, number
        redis_swap.discard(places)
        assert read(tmp_path / "redis") == had, number
        number += 1
    assert number > 5


@HAD
def test_putting_back_may_be_ended_as_well(tmp_path, had, exchanging):
    number, done = 0, False
    while not done:
        places = ready(tmp_path / "redis", had)
        redis_swap.put_in(places)
        with ended_at(number):
            redis_swap.put_back(places, "dump.rdb" in had)
            redis_swap.discard(places)
            done = True
        if not done:
            redis_swap.put_back(places, "dump.rdb" in had)
            redis_swap.discard(places)
        assert read(tmp_path / "redis") == had, number
        number += 1
    assert number > 3


def test_what_redis_made_itself_is_not_taken_for_what_was_there(tmp_path):
    """Started with neither, as after a boot in between, it makes an empty log of its own."""
    places = ready(tmp_path)
    places.aside.mkdir()
    os.link(tmp_path / "dump.rdb", places.aside / "dump.rdb")
    (tmp_path / "appendonlydir").rename(places.aside / "appendonlydir")
    write(tmp_path, {"appendonlydir/log": "empty"})
    redis_swap.put_back(places, True)
    # Once more, as by a run after one that was ended here: what went aside is not taken for it either.
    redis_swap.put_back(places, True)
    redis_swap.discard(places)
    assert read(tmp_path) == OLD


def test_a_redis_without_a_log_has_its_snapshot_exchanged_alone(tmp_path):
    places = ready(tmp_path, {"dump.rdb": "old"}, log="")
    redis_swap.put_in(places)
    assert live(places) == {"dump.rdb": "new"}
    redis_swap.put_back(places, True)
    redis_swap.discard(places)
    assert read(tmp_path) == {"dump.rdb": "old"}


# What Redis is told and tells

CONFIGS = {
    Path(
        "/etc/redis/agentfleet.conf"
    ): "# ours\ninclude /etc/redis/redis.conf\nappendonly yes\nport 0\ntls-port 6390\n",
    Path("/etc/redis/redis.conf"): 'port 6379\nappendonly no\nappenddirname "logs"\nmaxmemory 1gb\ndir /srv/redis\n',
}


def test_settings_are_read_as_redis_reads_them():
    found = redis_host.configured(Path("/etc/redis/agentfleet.conf"), CONFIGS.__getitem__)
    assert found == {"port": "0", "tls-port": "6390", "appendonly": "yes", "appenddirname": "logs", "dir": "/srv/redis"}
    config = {**redis_host.DEFAULTS, **found}
    assert redis_host.places_of(config, "one") == Places(Path("/srv/redis"), "one", "dump.rdb", "logs")
    assert redis_host.places_of({**config, "appendonly": "no"}, "one").log == ""


@pytest.mark.parametrize(("ports", "login"), [(("0", "6390"), Login(6390, tls=True)), (("6379", "0"), Login(6379))])
def test_it_is_asked_where_it_listens(monkeypatch, tmp_path, ports, login):
    monkeypatch.setattr(
        "ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_client.PASSWORD_FILE", tmp_path / "none"
    )
    assert redis_host.login({"port": ports[0], "tls-port": ports[1]}) == login


def test_keys_of_all_databases_count():
    info = {"db0": "keys=5,expires=1,avg_ttl=0", "db11": "keys=2,expires=2,avg_ttl=9,subexpiry=0", "dbsize": "x"}
    assert redis_host.keyspace(info) == Checked(7, 3, 0)
    assert redis_host.keyspace({}) == Checked(0, 0, 0)


@pytest.mark.parametrize(
    ("wanted", "there", "lost"),
    [
        (Checked(303, 2, 0), Checked(303, 2, 0), False),
        (Checked(303, 2, 0), Checked(301, 0, 0), False),
        (Checked(303, 2, 0), Checked(300, 0, 0), True),
        (Checked(303, 2, 0), Checked(302, 2, 0), True),
        (Checked(303, 2, 0), Checked(0, 0, 0), True),
        (Checked(2, 2, 2), Checked(0, 0, 0), False),
    ],
)
def test_only_keys_that_expire_may_be_missing(wanted, there, lost):
    assert bool(redis_host.loss(wanted, there)) == lost


def aof(**different):
    fields = {"enabled": "1", "rewrite_in_progress": "0", "rewrite_scheduled": "0", "last_bgrewrite_status": "ok"}
    return {f"aof_{name}": value for name, value in {**fields, **different}.items()}


def test_the_log_is_there_when_it_is_written_to_its_end():
    assert redis_host.rewritten(aof())
    for different in ({"enabled": "0"}, {"rewrite_in_progress": "1"}, {"rewrite_scheduled": "1"}):
        assert not redis_host.rewritten(aof(**different, last_bgrewrite_status="err"))
    with pytest.raises(BackupError):
        redis_host.rewritten(aof(last_bgrewrite_status="err"))


# The restore as a whole, on files alone


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose Redis is its files: who starts it has what these say."""
    directory = tmp_path / "redis"
    write(directory, OLD)
    rdb = tmp_path / "new.rdb"
    rdb.write_text("new")
    config = {**redis_host.DEFAULTS, "dir": str(directory), "appendonly": "yes"}
    running = {"now": True, "there": Checked(3, 0, 0)}

    def make_ready(rdb, places, config, wanted):
        assert not running["now"]
        write(places.new, NEW)
        redis_swap.mark(places.new / places.log)

    def start(config):
        running["now"] = True
        return running["there"]

    monkeypatch.setattr(redis_restore, "RECORD", tmp_path / "state" / "record.json")
    monkeypatch.setattr(redis_restore, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(redis_restore, "settings", lambda: config)
    monkeypatch.setattr(redis_restore, "check", lambda path: Checked(3, 0, 0))
    monkeypatch.setattr(redis_restore, "stop", lambda: running.update(now=False))
    monkeypatch.setattr(redis_restore, "start", start)
    monkeypatch.setattr(redis_restore, "make_ready", make_ready)
    monkeypatch.setattr(redis_restore, "SPARE_MB", 0)
    return directory, rdb, running


def told(_line):
    pass


def test_a_restore_is_done_once_and_can_be_taken_back(host):
    directory, rdb, running = host
    assert redis_restore.restore(rdb, "one", told) == Outcome(True, 3, "one")
    assert redis_restore.restore(rdb, "one", told) == Outcome(False, 3, "one")
    assert redis_restore.seen() == Outcome(False, 3, "one")
    assert redis_restore.put_back("one", told).changed
    assert (read(directory), running["now"]) == (OLD, True)
    assert redis_restore.seen() == Outcome(False)
    assert not redis_restore.put_back("one", told).changed


def test_what_is_restored_stays_once_that_is_said(host):
    directory, rdb, _running = host
    redis_restore.restore(rdb, "one", told)
    assert redis_restore.keep("one", told).changed
    assert read(directory) == NEW
    assert not redis_restore.keep("one", told).changed
    assert not redis_restore.put_back("one", told).changed
    assert read(directory) == NEW


def test_another_restore_never_loses_what_lies_aside(host):
    directory, rdb, _running = host
    redis_restore.restore(rdb, "one", told)
    before = read(directory)
    for call in (lambda: redis_restore.restore(rdb, "two", told), lambda: redis_restore.put_back("two", told)):
        with pytest.raises(BackupError, match="one"):
            call()
    rdb.write_text("another")
    with pytest.raises(BackupError, match="still lies aside"):
        redis_restore.restore(rdb, "one", told)
    assert read(directory) == before


def test_keys_that_are_missing_after_the_start_bring_back_what_was_there(host):
    directory, rdb, running = host
    running["there"] = Checked(2, 0, 0)
    with pytest.raises(BackupError, match="2 of the 3 keys"):
        redis_restore.restore(rdb, "one", told)
    assert (read(directory), running["now"]) == (OLD, True)
    assert redis_restore.seen() == Outcome(False)


def test_a_snapshot_that_is_none_stops_nothing(host, monkeypatch):
    directory, rdb, _running = host

    def check(path):
        raise BackupError("no whole snapshot")

    monkeypatch.setattr(redis_restore, "check", check)
    monkeypatch.setattr(redis_restore, "stop", lambda: pytest.fail("Redis was stopped"))
    with pytest.raises(BackupError, match="no whole"):
        redis_restore.restore(rdb, "one", told)
    with pytest.raises(BackupError, match="is not there"):
        redis_restore.restore(rdb.with_name("none"), "one", told)
    for name in ("", "../one", "-x", "a" * 41):
        with pytest.raises(BackupError, match="no name"):
            redis_restore.restore(rdb, name, told)
    assert read(directory) == OLD


def test_too_little_space_stops_nothing(host, monkeypatch):
    _directory, rdb, _running = host
    monkeypatch.setattr(redis_restore, "SPARE_MB", 1 << 40)
    monkeypatch.setattr(redis_restore, "stop", lambda: pytest.fail("Redis was stopped"))
    with pytest.raises(BackupError, match="MB free"):
        redis_restore.restore(rdb, "one", told)


@pytest.mark.parametrize("stage", ["preparing", "swapping", "putting back", "starting"])
def test_an_ended_run_is_undone_first_and_the_next_one_works(host, stage):
    directory, rdb, running = host
    places = Places(directory, "gone")
    if stage != "starting":
        write(places.new, NEW)
    if stage in ("swapping", "putting back"):
        redis_swap.mark(places.new / places.log)
        redis_swap.put_in(places)
    running["now"] = False
    redis_restore.remember(Record("gone", stage, "aa", str(directory), "dump.rdb", "appendonlydir", True, 3))
    with pytest.raises(BackupError, match="had not ended"):
        redis_restore.keep("", told)
    assert (read(directory), running["now"]) == (OLD, True)
    assert redis_restore.restore(rdb, "one", told).changed
    redis_restore.put_back("", told)
    assert read(directory) == OLD


def test_what_was_to_stay_stays_even_if_removing_the_rest_was_ended(host):
    directory, rdb, _running = host
    redis_restore.restore(rdb, "one", told)
    redis_restore.remember(redis_restore.replace(redis_restore.remembered(), stage="keeping"))
    assert redis_restore.put_back("", told).changed
    assert read(directory) == NEW


def test_a_record_that_cannot_be_read_is_no_leave_to_go_on(host):
    _directory, rdb, _running = host
    redis_restore.RECORD.parent.mkdir()
    redis_restore.RECORD.write_text("{")
    with pytest.raises(BackupError, match="cannot be read"):
        redis_restore.restore(rdb, "one", told)


def test_one_at_a_time(host):
    _directory, rdb, _running = host
    with redis_restore.alone(), pytest.raises(BackupError, match="another run"):
        redis_restore.restore(rdb, "one", told)
