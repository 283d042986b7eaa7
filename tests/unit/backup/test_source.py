"""What a host hands over: its verbs, a tar that is the same each time, a snapshot that begins after the call."""

import io
import json
import os
import socket
import tarfile
import threading

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import (
    config_tar,
    redis_client,
    redis_snapshot,
    source,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_client import Login, Redis, RedisError
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_snapshot import Checked
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError

# The verbs


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        ("config", ("config", [])),
        ("redis", ("redis", [])),
        ("manifest 20260131-020000F", ("manifest", ["20260131-020000F"])),
        ("restore-point 'deploy-7'", ("restore-point", ["deploy-7"])),
    ],
)
def test_it_knows_these_verbs(said, understood):
    assert source.understood([said]) == understood


@pytest.mark.parametrize(
    "said",
    ["", "config; id", "config x", "rm -rf /", "manifest", "manifest a b", "manifest ../x", "manifest -x", "redis 'a"],
)
def test_anything_else_is_refused_in_one_line(said, capsys):
    assert source.main([said]) == 2
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert told.out == ""


def test_only_one_argument_is_what_ssh_hands_over():
    with pytest.raises(source.Refused):
        source.understood(["config", "redis"])
    with pytest.raises(source.Refused):
        source.understood([])


def test_a_host_without_settings_says_what_mends_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(source, "read_settings", lambda: source_settings(tmp_path / "none.json"))
    assert source.main(["config"]) == 1
    assert "playbooks/site.yml" in capsys.readouterr().err


source_settings = source.read_settings


def test_a_host_without_redis_says_so(monkeypatch, capsys):
    monkeypatch.setattr(source, "read_settings", lambda: {"host": "edge1", "redis": None})
    assert source.main(["redis"]) == 1
    assert "edge1 has no Redis" in capsys.readouterr().err


# The tar


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "etc"
    (top / "slots" / "blue").mkdir(parents=True)
    (top / "slots" / "blue" / "environment").write_text("A=1\n")
    (top / "slots" / "current").symlink_to("blue")
    (top / "b").write_bytes(b"\x00" * 700)
    (top / "a").write_text("first")
    os.mkfifo(top / "pipe")
    return top


def made(paths, told=None):
    out = io.BytesIO()
    config_tar.write([str(path) for path in paths], "data1", out, (told if told is not None else []).append)
    return out.getvalue()


def names(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [member.name for member in tar]


def test_the_tar_has_everything_once_and_in_order(tree):
    top = str(tree).lstrip("/")
    inside = ["", "/a", "/b", "/slots", "/slots/blue", "/slots/blue/environment", "/slots/current"]
    generated = ["agentfleet/about.json", "agentfleet/releases.json"]
    assert names(made([tree / "slots", tree, tree])) == [f"{top}{name}" for name in inside] + generated


def test_members_are_as_they_were(tree):
    (tree / "a").chmod(0o640)
    with tarfile.open(fileobj=io.BytesIO(made([tree]))) as tar:
        found = {member.name.rpartition("etc/")[2]: member for member in tar}
        assert tar.extractfile(found["b"]).read() == b"\x00" * 700
    assert found["slots/current"].linkname == "blue"
    assert found["a"].mode == 0o640
    assert (found["a"].uid, found["a"].uname, found["a"].gname) == (os.getuid(), "", "")


def test_the_same_files_give_the_same_bytes(tree, monkeypatch):
    monkeypatch.setattr(config_tar, "about", lambda host: {"host": host})
    monkeypatch.setattr(config_tar.time, "time", lambda: 1.0)
    assert made([tree]) == made([tree])


def test_what_is_not_there_is_left_out_and_what_cannot_be_read_is_named(tree, monkeypatch):
    read = config_tar.read

    def failing(path):
        if path.endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(config_tar, "read", failing)
    told = []
    data = made([tree, tree / "nothing"], told)
    assert told == [f"{tree}/a: left out, Permission denied"]
    assert not any(name.endswith("/a") for name in names(data))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert json.load(tar.extractfile("agentfleet/about.json"))["left_out"] == [f"{tree}/a"]


def test_a_file_that_vanishes_between_is_no_failure(tree, monkeypatch):
    monkeypatch.setattr(config_tar, "below", lambda paths: [str(tree / "gone"), str(tree / "a")])
    told = []
    assert names(made([tree], told))[0].endswith("etc/a")
    assert told == [f"{tree}/gone: left out, No such file or directory"]


def test_nothing_read_at_all_is_a_failure_and_no_tar(tmp_path):
    out = io.BytesIO()
    with pytest.raises(BackupError, match="nothing of"):
        config_tar.write([str(tmp_path / "none")], "data1", out, print)
    # A tar's end are zeros; whoever reads this knows that it has none.
    assert out.getvalue() == b""


@pytest.mark.parametrize(
    ("path", "left_out"),
    [
        ("/opt/agent/venvs", True),
        ("/opt/agent/venvs/x/bin/python", True),
        ("/opt/agent/releases", True),
        ("/opt/agent/slots/blue", False),
        ("/var/lib/agentfleet/agent/artifacts/1.0-abc.tar.gz", True),
        ("/var/lib/agentfleet/agent/artifacts/1.0-abc.json", False),
        ("/etc/agent/venvs", False),
    ],
)
def test_what_can_be_made_anew_stays_out(path, left_out):
    assert bool(config_tar.LEFT_OUT.fullmatch(path)) == left_out


def test_a_file_that_is_no_configuration_is_left_out(tree, monkeypatch):
    monkeypatch.setattr(config_tar, "LARGEST", 600)
    told = []
    made([tree], told)
    assert told == [f"{tree}/b: left out, it is larger than 0 MB"]


def test_releases_are_those_whose_artifacts_are_there(tmp_path):
    store = tmp_path / "agent" / "artifacts"
    store.mkdir(parents=True)
    (store / "1.0-abc.tar.gz").write_bytes(b"12345")
    (store / "1.0-abc.json").write_text('{"id": "1.0-abc", "sha256": "5e88"}')
    (store / "0.9-def.json").write_text('{"id": "0.9-def", "sha256": "77aa"}')
    assert config_tar.releases(tmp_path) == {"agent": [{"id": "1.0-abc", "size": 5, "sha256": "5e88"}]}


# Redis' protocol


def replies(data):
    answer = io.BytesIO(data)
    return redis_client.read_reply(answer)


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"+OK\r\n", "OK"),
        (b":7\r\n", 7),
        (b"$5\r\na\r\nbc\r\n", "a\r\nbc"),
        (b"$-1\r\n", None),
        (b"*2\r\n$3\r\ndir\r\n$1\r\n/\r\n", ["dir", "/"]),
    ],
)
def test_replies_are_read(data, reply):
    assert replies(data) == reply


@pytest.mark.parametrize("data", [b"-NOPERM no\r\n", b"", b"$5", b"HTTP/1.1 400\r\n"])
def test_what_is_no_good_reply_is_raised(data):
    with pytest.raises(RedisError):
        replies(data)


@pytest.fixture
def server():
    """A Redis that answers what it is given, and what it was asked."""
    listening = socket.create_server(("127.0.0.1", 0))
    asked = []

    def serve(answers):
        connection, _address = listening.accept()
        with connection:
            for answer in answers:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

    def begin(*answers):
        threading.Thread(target=serve, args=(answers,), daemon=True).start()
        return listening.getsockname()[1], asked

    yield begin
    listening.close()


def test_who_asks_says_so_first(server):
    port, asked = server(b"+OK\r\n", b"+PONG\r\n")
    with Redis(Login(port, "agentfleet-backup", "pass word")) as redis:
        assert redis.call("PING") == "PONG"
    assert asked[0] == b"*3\r\n$4\r\nAUTH\r\n$17\r\nagentfleet-backup\r\n$9\r\npass word\r\n"


def test_a_wrong_password_is_named(server):
    port, _asked = server(b"-WRONGPASS invalid username-password pair\r\n")
    with pytest.raises(RedisError, match="WRONGPASS"):
        Redis(Login(port, "agentfleet-backup", "wrong"))


def test_a_redis_that_is_away_is_named_by_its_port():
    with pytest.raises(RedisError, match="does not answer on port 1:"):
        Redis(Login(1))


def test_the_password_is_the_hosts_own_unless_one_is_given(tmp_path):
    own = tmp_path / "password"
    own.write_text("made-here\n")
    assert redis_client.login_of({"port": 6379, "password_file": str(own)}).password == "made-here"
    assert redis_client.login_of({"port": 6379, "password_file": str(own), "password": "given"}).password == "given"
    # Debian's own Redis knows no users.
    assert redis_client.login_of({"port": 6379, "password_file": str(tmp_path / "none")}) == Login(6379)


# The snapshot


class Told:
    """A Redis by its counters: each answer of INFO in turn."""

    def __init__(self, *turns, bgsave="Background saving started"):
        self.turns, self.bgsave, self.asked = list(turns), bgsave, 0

    def calls(self, *commands):
        assert [words[0] for words in commands] == ["INFO", "BGSAVE"]
        self.asked += 1
        info = self.turns.pop(0)
        return [text(info), RedisError(info["refused"]) if "refused" in info else self.bgsave]

    def info(self, _section):
        return {name: str(value) for name, value in self.turns.pop(0).items()}


def text(info):
    return "# Persistence\r\n" + "".join(f"{name}:{value}\r\n" for name, value in info.items())


def saves(number, under_way=0, status="ok", **more):
    return {"rdb_saves": number, "rdb_bgsave_in_progress": under_way, "rdb_last_bgsave_status": status, **more}


def ask(redis):
    redis_snapshot.ask(redis, pause=lambda _seconds: None, clock=lambda: 0.0)


def test_the_snapshot_that_was_asked_for_is_waited_for():
    redis = Told(saves(4), saves(5, 1), saves(5, 1), saves(5))
    ask(redis)
    assert redis.turns == []


def test_one_that_was_only_scheduled_is_waited_for():
    redis = Told(saves(4), saves(4), saves(4), saves(5, 1), saves(5), bgsave="Background saving scheduled")
    ask(redis)
    assert redis.turns == []


def test_another_under_way_is_not_taken_for_it():
    """It began before the call, and may lack what was acknowledged since."""
    busy = saves(4, 1, refused="ERR Background save already in progress")
    redis = Told(busy, busy, saves(4), saves(5, 1), saves(5))
    ask(redis)
    assert redis.asked == 3
    assert redis.turns == []


def test_one_that_failed_is_no_snapshot():
    with pytest.raises(BackupError, match="could not write"):
        ask(Told(saves(4), saves(5, 1), saves(5, status="err")))


@pytest.mark.parametrize("refused", ["NOPERM this user has no permissions", "LOADING Redis is loading"])
def test_a_refusal_is_told(refused):
    with pytest.raises(BackupError, match=refused[:6]):
        ask(Told(saves(4, refused=refused)))


def test_an_older_redis_is_refused():
    with pytest.raises(BackupError, match="version 7"):
        ask(Told({"rdb_bgsave_in_progress": 0}))


def test_it_is_not_waited_for_without_end():
    times = iter([0.0, *[redis_snapshot.WAIT_SECONDS + 1] * 9])
    with pytest.raises(BackupError, match="not done"):
        redis_snapshot.ask(Told(saves(4), *[saves(5, 1)] * 9), lambda _seconds: None, lambda: next(times))


RIGHT = "[offset 112] \\o/ RDB looks OK! \\o/\n[info] 303 keys read\n[info] 2 expires\n[info] 1 already expired\n"
WRONG = "[offset 0] Checking RDB file x\n--- RDB ERROR DETECTED ---\n[offset 112] RDB CRC error\n[info] 2 keys read\n"


def test_keys_are_counted():
    assert redis_snapshot.counted(RIGHT) == Checked(303, 2, 1)
    assert redis_snapshot.counted(RIGHT).lasting == 301
    with pytest.raises(BackupError):
        redis_snapshot.counted("")


def test_what_is_wrong_with_a_snapshot_is_told_in_its_own_words():
    assert redis_snapshot.complaint(WRONG) == "RDB CRC error"
    assert redis_snapshot.complaint("") == "redis-check-rdb does not say why"
