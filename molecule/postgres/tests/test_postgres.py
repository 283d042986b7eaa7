"""Who comes in and how, what a service's role may do, and how the cluster was made."""

import pytest

PASSWORD = "molecule-database-0123456789abcdef"


@pytest.fixture
def connect(machine, address):
    def call(query="SELECT 1", client="debian13", user="agent", database="agent", password=PASSWORD, mode="require"):
        to = f"host={address} user={user} dbname={database} sslmode={mode} connect_timeout=5"
        return machine(client).run(f"PGPASSWORD={password} psql -XAt '{to}' -c \"{query}\"")

    return call


def ask(host, query, database="postgres"):
    return host.check_output(f'runuser -u postgres -- psql -XAt -d {database} -c "{query}"')


def test_an_agent_comes_in_over_tls(connect):
    came = connect("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert came.stdout.strip() == "t|TLSv1.3"


@pytest.mark.parametrize(
    ("different", "says"),
    [
        ({"password": "wrong"}, "password authentication failed"),
        ({"mode": "disable"}, "no encryption"),
        ({"client": "debian12"}, "no pg_hba.conf entry"),
        ({"database": "postgres"}, "no pg_hba.conf entry"),
        ({"database": "other"}, "no pg_hba.conf entry"),
        ({"user": "postgres"}, "no pg_hba.conf entry"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_nobody_else_does(connect, different, says):
    refused = connect(**different)
    assert refused.rc != 0
    assert says in refused.stderr


def test_on_the_host_itself_only_postgres_does(host):
    assert host.run("psql -XAt -U agent agent -c 'SELECT 1'").rc != 0
    assert ask(host, "SELECT current_user") == "postgres"


def test_the_service_may_use_its_own_database(connect):
    done = connect("CREATE TABLE t (x text); INSERT INTO t VALUES ('olá 你好 🙂'); SELECT x FROM t; DROP TABLE t")
    assert "olá 你好 🙂" in done.stdout


@pytest.mark.parametrize(
    "statement", ["CREATE ROLE more", "CREATE DATABASE more", "SELECT pg_read_file('/etc/passwd')", "SET ROLE postgres"]
)
def test_and_nothing_more(connect, statement):
    assert "permission denied" in connect(statement).stderr


@pytest.mark.parametrize("database", ["other", "postgres", "template1"])
def test_even_past_pg_hba_no_other_database_is_open(host, database):
    assert ask(host, f"SELECT has_database_privilege('agent', '{database}', 'CONNECT')") == "f"


def test_vectors_are_there_where_debian_has_them(host):
    version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    trixie = host.system_info.release.startswith("13")
    assert [bool(ask(host, version, database)) for database in ("agent", "other")] == [trixie, trixie]


def test_the_cluster_is_made_well(host):
    wanted = {
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "password_encryption": "scram-sha-256",
        "shared_buffers": "256MB",
        "effective_cache_size": "768MB",
        "work_mem": "4MB",
        "checkpoint_completion_target": "0.9",
    }
    shown = ask(host, "SELECT " + ", ".join(f"current_setting('{name}')" for name in wanted))
    assert dict(zip(wanted, shown.split("|"), strict=True)) == wanted
    assert ask(host, "SELECT name FROM pg_settings WHERE pending_restart") == ""


def test_passwords_are_kept_as_what_cannot_be_read_back(host):
    assert ask(host, "SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'agent'") == "SCRAM-SHA-256"


def test_it_listens_inside_the_fleet_alone(host, address):
    listening = {line.split()[3] for line in host.check_output("ss -Hltn 'sport = 5432'").splitlines()}
    assert listening == {"127.0.0.1:5432", "[::1]:5432", f"{address}:5432"}


def test_slow_statements_are_logged_and_no_secrets(host):
    ask(host, "SELECT 'marked', pg_sleep(0.2)")
    assert "marked" in host.check_output("cat /var/log/postgresql/*.log")
    assert host.run(f"grep -rF {PASSWORD} /var/log /etc/postgresql /var/lib/postgresql").rc == 1
    assert host.run(f"journalctl --no-pager | grep -F {PASSWORD}").rc == 1


def test_statistics_are_renewed_on_schedule(host):
    ask(host, "CREATE TABLE IF NOT EXISTS measured AS SELECT 1 AS x", "other")
    assert host.service("postgres-analyze.timer").is_running
    assert host.service("postgres-analyze.timer").is_enabled
    host.check_output("systemctl start postgres-analyze.service")
    assert (
        ask(host, "SELECT last_analyze IS NOT NULL FROM pg_stat_user_tables WHERE relname = 'measured'", "other") == "t"
    )
