"""What one who has a password may do, what nobody may, and what a killed server still knows."""

import pytest

PASSWORD = "molecule-redis-0123456789abcdef"


@pytest.fixture
def redis(host, address):
    def call(*words, user="agent", password=PASSWORD, stdin=""):
        login = f"REDISCLI_AUTH={password} redis-cli --user {user}" if user else "redis-cli"
        feed = f"printf '%b' '{stdin}' | " if stdin else ""
        done = host.run(f"{feed}{login} --no-auth-warning -h {address} " + " ".join(f"'{word}'" for word in words))
        return (done.stdout + done.stderr).strip()

    return call


def test_nobody_comes_in_without_a_password(redis):
    assert "NOAUTH" in redis("PING", user="")


@pytest.mark.parametrize(("user", "password"), [("default", PASSWORD), ("agent", "wrong"), ("nobody", PASSWORD)])
def test_nobody_else_comes_in_with_one(redis, user, password):
    assert "WRONGPASS" in redis("PING", user=user, password=password)


def test_the_service_does_its_work(redis):
    assert redis("SET", "session:1", "hello", "EX", "60") == "OK"
    assert redis("EVAL", 'return redis.call("GET", KEYS[1])', "1", "session:1") == "hello"


@pytest.mark.parametrize(
    "command",
    ["KEYS *", "FLUSHALL", "CONFIG GET *", "SHUTDOWN NOSAVE", "MIGRATE a 1 k 0 9", "ACL LIST", "MONITOR", "SAVE"],
)
def test_what_harms_others_is_refused(redis, command):
    assert "NOPERM" in redis(*command.split())


@pytest.fixture
def backup(host, redis):
    password = host.check_output("cat /etc/redis/agentfleet/backup-password")
    return lambda *words: redis(*words, user="agentfleet-backup", password=password)


def test_backups_may_ask_for_a_snapshot(backup):
    assert "rdb_saves:" in backup("INFO", "persistence")
    assert backup("CONFIG", "GET", "dbfilename").split() == ["dbfilename", "dump.rdb"]
    assert "Background saving" in backup("BGSAVE", "SCHEDULE")


@pytest.mark.parametrize(
    "command", ["GET session:1", "DBSIZE", "CONFIG SET dir /tmp", "SHUTDOWN", "SCAN 0", "ACL LIST"]
)
def test_backups_may_do_no_more(backup, command):
    assert "NOPERM" in backup(*command.split())


def test_what_shows_figures_may_ask_for_them_and_do_no_more(host, redis):
    password = host.check_output("cat /etc/redis/agentfleet/metrics-password")

    def metrics(*words):
        return redis(*words, user="agentfleet-metrics", password=password)

    assert "used_memory:" in metrics("INFO")
    for command in ("GET session:1", "SCAN 0", "CONFIG SET dir /tmp", "SLOWLOG GET", "ACL LIST", "SHUTDOWN"):
        assert "NOPERM" in metrics(*command.split())


def test_root_alone_knows_with_which_password(host):
    assert host.file("/etc/redis/agentfleet/backup-password").mode == 0o600
    assert host.run("runuser -u redis -- cat /etc/redis/agentfleet/backup-password").rc != 0


def test_it_listens_inside_the_fleet_alone(host, address):
    listening = {line.split()[3] for line in host.check_output("ss -Hltn 'sport = 6379'").splitlines()}
    assert listening == {"127.0.0.1:6379", "[::1]:6379", f"{address}:6379"}


def test_the_host_keeps_no_password(host):
    assert host.run(f"grep -r {PASSWORD} /etc /var/lib/redis /var/log/redis").rc == 1
    assert host.run("runuser -u nobody -- cat /etc/redis/agentfleet.acl").rc != 0


def test_a_killed_server_comes_back_with_its_data(host, redis):
    assert redis("SET", "kept", "value") == "OK"
    show = "systemctl show -P MainPID redis-server"
    before = host.check_output(show)
    host.check_output("systemctl kill --signal=KILL redis-server")
    again = f"[ $({show}) != {before} ] && systemctl --quiet is-active redis-server"
    host.check_output(f"timeout 20 sh -c 'until {again}; do sleep 0.1; done'")
    assert redis("GET", "kept") == "value"


def test_a_full_memory_costs_only_what_expires_anyway(redis):
    assert redis("SET", "for-ever", "value") == "OK"
    fill = 'EVAL "redis.call(\\"SET\\", KEYS[1], string.rep(\\"x\\", 4194304), \\"EX\\", 60)" 1 volatile:%d\\n'
    answers = redis(stdin="".join(fill % number for number in range(24)))
    assert "OOM" not in answers
    assert redis("GET", "for-ever") == "value"
    assert redis("EXISTS", "volatile:23") == "1"
    # Which of the others had to go is Redis' choice, by samples.
    assert int(redis("EXISTS", *(f"volatile:{number}" for number in range(24)))) < 24


def test_the_shipped_sandbox_is_still_there(host):
    assert host.check_output("systemctl show -P ProtectSystem redis-server") == "strict"
    assert host.check_output("dpkg --verify redis-server") == ""
