"""What the backup host keeps, of itself and of another, and what comes out of it again."""

import json

import pytest

KEY = "molecule-backup-0123456789abcdef"


@pytest.fixture
def keeper(host):
    if host.backend.get_hostname() != "debian13":
        pytest.skip("the other host keeps nothing")
    return host


def agentfleet_backup(host, words):
    done = host.run(f"agentfleet-backup {words} --json")
    assert done.rc == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def psql(host, statement):
    return host.check_output(f"runuser -u postgres -- psql -XAtq -d agent -c '{statement}'")


def test_all_is_kept_and_read_back(keeper):
    psql(keeper, "CREATE TABLE IF NOT EXISTS plain (said text)")
    psql(keeper, "INSERT INTO plain VALUES ($$a sentence that nobody else reads$$)")
    rows = {row["what"]: row for row in agentfleet_backup(keeper, "run")["rows"]}
    assert set(rows) == {"postgres", "redis", "config"}
    assert not any(row["problem"] for row in rows.values())
    assert "2 of 2 hosts" in rows["config"]["verified"]


def test_a_second_one_needs_less(keeper):
    row = agentfleet_backup(keeper, "run --what postgres")["rows"][0]
    assert "D" in row["label"]
    assert row["stored"] < row["size"] / 10


def test_nothing_of_it_can_be_read_without_the_key(keeper):
    found = keeper.run("grep -rlaF -e 'sentence that nobody' -e molecule-database /var/backups/agentfleet")
    assert found.rc == 1, found.stdout


def test_a_restore_is_rehearsed(keeper):
    told = agentfleet_backup(keeper, "drill")
    assert told["ok"]
    assert any("as they were" in line for line in told["lines"])
    figures = keeper.file("/var/lib/agentfleet/backup/state.json").content_string
    assert json.loads(figures)["drill"]["ok"]


def test_a_flipped_byte_is_found(keeper):
    pack = keeper.check_output(
        "find /var/backups/agentfleet/postgres/backup -type f -path '*F/bundle/*' -size +100k | head -n 1"
    )
    flip = f"printf x | dd of={pack} bs=1 seek=50000 conv=notrunc status=none"
    keeper.check_output(f"cp -a {pack} /root/kept && {flip}")
    try:
        done = keeper.run("agentfleet-backup verify")
        assert done.rc == 2
        assert "its files are invalid" in done.stdout + done.stderr
    finally:
        keeper.check_output(f"cp -a /root/kept {pack}")
    assert keeper.run("agentfleet-backup verify").rc == 0


def test_another_key_is_not_written_over_the_one_that_reads_the_backups(keeper):
    assert keeper.file("/etc/agentfleet/backup/key").content_string.strip() == KEY
    assert keeper.file("/etc/agentfleet/backup/key").mode == 0o600


def test_the_timers_run(keeper):
    for timer in ("agentfleet-backup", "agentfleet-drill", "agentfleet-backup-watch"):
        assert keeper.service(f"{timer}.timer").is_enabled
        assert keeper.service(f"{timer}.timer").is_running


def test_a_source_runs_nothing_but_what_is_asked_of_it(host):
    done = host.run("/usr/local/lib/agentfleet/backup/agentfleet-backup-source 'sh -c id'")
    assert done.rc == 2
    keys = host.file("/var/lib/agentfleet-backup/.ssh/authorized_keys").content_string
    assert keys.startswith("restrict,from=")
    assert host.file("/etc/sudoers.d/agentfleet-backup").mode == 0o440
