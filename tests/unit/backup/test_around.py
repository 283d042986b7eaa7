"""Access between hosts, figures, units and errors: what is said around a backup."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.agentfleet.vm.plugins.filter import restore
from ansible_collections.agentfleet.vm.plugins.module_utils import backup_access as access
from ansible_collections.agentfleet.vm.plugins.module_utils import backup_view
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import (
    command,
    metrics,
    postgres,
    releases,
    running,
    scratch,
    services,
    settings,
    state,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Target
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError
from shapes import backup, catalogue, log

TOP = Path(__file__).resolve().parents[3]
KEY = "ssh-ed25519 AAAAC3Nza comment of somebody"


def test_a_key_is_let_in_for_one_command_from_one_address() -> None:
    line = access.authorized(access.PEER, "10.0.0.41", KEY)
    assert line.startswith('restrict,from="10.0.0.41",command="')
    assert line.endswith("ssh-ed25519 AAAAC3Nza agentfleet-backup")


def test_peoples_own_keys_stay() -> None:
    before = "ssh-ed25519 AAAAown somebody\nrestrict ssh-ed25519 AAAAold agentfleet-backup\n"
    after = access.with_line(before, access.authorized(access.PEER, "10.0.0.41", KEY))
    assert "AAAAown" in after
    assert "AAAAold" not in after
    assert access.with_line(after, access.authorized(access.PEER, "10.0.0.41", KEY)) == after


def test_a_host_that_was_not_asked_keeps_the_key_that_is_known() -> None:
    wanted = [{"address": "10.0.0.31", "port": 22, "key": KEY}, {"address": "10.0.0.21", "port": 2222, "key": ""}]
    text = access.known_hosts("[10.0.0.21]:2222 ssh-ed25519 AAAAkept\n10.0.0.99 ssh-ed25519 AAAAgone\n", wanted)
    assert text == "10.0.0.31 ssh-ed25519 AAAAC3Nza\n[10.0.0.21]:2222 ssh-ed25519 AAAAkept\n"


def other_end(asked: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """What the other end's key has run here: a program that tells its words and how nice it is."""
    fake = directory / "pgbackrest"
    fake.write_text('#!/bin/sh\necho ran "$@"\nnice\n')
    fake.chmod(0o755)
    return subprocess.run(
        [TOP / "roles/backup/files/only-pgbackrest"],
        env={"PATH": f"{directory}:/usr/bin:/bin", "SSH_ORIGINAL_COMMAND": asked},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("asked", "runs"),
    [
        ("pgbackrest --stanza=agentfleet --pg1-path=/var/lib/postgresql/17/main backup:remote", True),
        ("pgbackrest --stanza=agentfleet backup:local", True),
        ("pgbackrest --stanza=agentfleet backup", False),
        ("pgbackrest; id; x:remote", False),
        ("pgbackrest $(id) x:remote", False),
        ("sh -c id:remote", False),
        ("", False),
    ],
)
def test_the_other_ends_key_runs_pgbackrest_alone(asked: str, runs: bool, tmp_path: Path) -> None:
    done = other_end(asked, tmp_path)
    assert (done.returncode == 0, done.stdout.startswith("ran ")) == (runs, runs)


@pytest.mark.parametrize(
    ("asked", "niceness"), [("backup:local", 10), ("backup:remote", 10), ("archive-get:remote", 0)]
)
def test_a_backup_gives_way_to_the_service_and_recovery_does_not(asked: str, niceness: int, tmp_path: Path) -> None:
    done = other_end(f"pgbackrest --stanza=agentfleet {asked}", tmp_path)
    # 19 is the most that there is.
    assert int(done.stdout.split()[-1]) == min(os.nice(0) + niceness, 19)


def test_figures_are_what_prometheus_reads() -> None:
    known = {
        "postgres": {"at": 10, "verified_at": 11, "size": 5, "seconds": 2.5},
        "drill": {"at": 12, "ok": True},
        "archive": {"waiting_seconds": 0.5, "waiting": 1, "failures": 2, "seen": True},
    }
    text = list(metrics.lines(known, 1000))
    assert 'agentfleet_backup_last_success_timestamp_seconds{what="postgres"} 10.0' in text
    assert "agentfleet_backup_drill_ok 1.0" in text
    assert "# TYPE agentfleet_backup_archive_failures_total counter" in text
    assert "agentfleet_backup_repository_free_bytes 1000.0" in text
    # What is not known is no zero.
    assert not any("redis" in line for line in text)
    assert list(metrics.lines({}, None)) == []


def test_status_tells_how_old_backups_are_and_what_is_wrong_with_them() -> None:
    seen: dict[str, Any] = {"now": 100 * 3600.0, "postgres": {"at": 99.5 * 3600}, "redis": {"at": 97 * 3600.0}}
    assert list(backup_view.lines(seen)) == ["backups  postgres 30 min ago, redis 3 h ago"]
    assert backup_view.oldest_hours(seen) == 3.0
    assert list(backup_view.problems(seen)) == []
    assert list(backup_view.lines({"now": 1.0})) == ["backups  none yet"]
    assert list(backup_view.problems({"now": 1.0})) == []
    seen["postgres"] = {"at": 3600.0, "problem": "no room"}
    seen["drill"] = {"at": 4 * 3600.0, "ok": False, "lines": ["a table differs"]}
    seen["archive"] = {"waiting_seconds": 700.0, "waiting": 3}
    told = "\n".join(backup_view.problems(seen))
    assert "postgres is 4 days old" in told
    assert "no room" in told
    assert "a table differs" in told
    assert "waited 700 s" in told
    assert "drill  FAILED 4 days ago" in list(backup_view.lines(seen))


def test_a_slot_that_looks_elsewhere_for_its_data_is_seen(tmp_path: Path) -> None:
    slot = tmp_path / "agent/slots/blue"
    slot.mkdir(parents=True)
    (slot / "environment").write_text('AGENT_DATABASE_HOST="10.0.0.31"\nAGENT_REDIS_HOST="10.0.0.31"\n')
    units = ["agent-worker@blue-1.service", "agent@blue-1.service"]
    assert not services.moved(units, {"10.0.0.31"}, tmp_path)
    assert services.moved(units, {"10.0.0.32"}, tmp_path)
    assert services.moved(units, {"10.0.0.32", "10.0.0.31"}, tmp_path) is False
    assert not services.moved([], {"10.0.0.32"}, tmp_path)


def test_the_role_installs_all_that_its_programs_import() -> None:
    modules = TOP / "plugins/module_utils"
    listed = set(yaml.safe_load((TOP / "roles/backup/vars/main.yml").read_text())["_backup_modules"])
    assert {f"backup/{path.name}" for path in (modules / "backup").glob("*.py")} <= listed
    package = "ansible_collections.agentfleet.vm.plugins.module_utils"
    for name in listed:
        for node in ast.walk(ast.parse((modules / name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(package):
                within = (node.module or "").removeprefix(package).removeprefix(".").replace(".", "/")
                files = [f"{within}/{alias.name}.py".removeprefix("/") for alias in node.names]
                assert f"{within}.py" in listed or set(files) <= listed, f"{name}: {node.module}"


def test_a_release_says_what_it_reads(tmp_path: Path) -> None:
    for number, slot in ((1, "blue"), (2, "green")):
        release = tmp_path / f"agent/releases/{number}"
        (release / "migrations").mkdir(parents=True)
        (release / "migrations/read_check.sql").write_text(f"SELECT {number}\n")
        os.utime(release, (number, number))
        (tmp_path / "agent/slots" / slot).mkdir(parents=True)
        (tmp_path / "agent/slots" / slot / "release").symlink_to(release)
        (tmp_path / "agent/slots" / slot / "environment").write_text('AGENT_DATABASE_NAME="agent"\n')
    assert [(check["name"], check["query"]) for check in releases.read_checks(tmp_path)] == [("agent 2", "SELECT 2")]
    (tmp_path / "agent/releases/2/migrations/read_check.sql").unlink()
    assert [check["name"] for check in releases.read_checks(tmp_path)] == ["agent 1"]
    assert releases.read_checks(tmp_path / "nothing") == []


def test_workers_stop_first_and_only_the_services_units() -> None:
    units = ["agent@blue-1.service", "ssh.service", "agent-worker@blue-1.service", "other@blue-1.service"]
    assert services.ordered(units, ["agent"]) == ["agent-worker@blue-1.service", "agent@blue-1.service"]


def test_an_error_is_one_line_that_tells() -> None:
    text = "2026 P00   INFO: begin\n2026 P00  ERROR: [075]: no backup set\n   HINT: look\nlast"
    assert running.one_line(text).endswith("ERROR: [075]: no backup set")
    assert running.one_line("a\nb\n") == "b"
    assert running.one_line("") == "it said nothing"
    assert running.one_line("FATAL: \x1b[31mred\x00") == "FATAL: ?[31mred?"


def test_whoever_is_second_is_told_who_is_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with running.alone(lock), pytest.raises(BackupError, match="under way"), running.alone(lock):
        pass
    with running.alone(lock):
        pass


@pytest.mark.parametrize(
    ("wanted", "known", "have", "kind"),
    [
        ("auto", catalogue(), log(1, 1), "full"),
        ("diff", catalogue(), log(1, 1), "full"),
        ("auto", catalogue(backup("20260101-000000F", 60, 1)), log(1, 3), "diff"),
        ("incr", catalogue(backup("20260101-000000F", 60, 1)), log(1, 3), "incr"),
        # A week later.
        ("auto", catalogue(backup("20260101-000000F", 60 - 7 * 86400.0, 1)), log(1, 3), "full"),
        # After a gap in the log moments can be restored from a new one on.
        ("auto", catalogue(backup("20260101-000000F", 60, 1)), log(1, 5, without=(3,)), "full"),
    ],
)
def test_what_auto_comes_to(wanted: str, known: Any, have: Any, kind: str) -> None:
    assert postgres.choose(wanted, known, have, 120.0) == kind


def test_a_copy_is_given_what_the_original_had() -> None:
    control = "max_connections setting:              200\nmax_locks_per_xact setting:           64\nData page:  1\n"
    assert scratch.needed(control) == {"max_connections": "200", "max_locks_per_transaction": "64"}


def test_a_copys_configuration_has_another_directory_and_no_host() -> None:
    text = "[global]\nrepo1-path=/r\n[agentfleet]\npg1-host=10.0.0.31\npg1-path=/live\n"
    assert scratch.config_for(Path("/copy"), text) == "[global]\nrepo1-path=/r\n[agentfleet]\npg1-path=/copy\n"


def test_how_far_is_said_to_pgbackrest() -> None:
    target = Target("20260101-000000F", "time", "2026-01-01 00:00:00+00", "latest", 1.0, "")
    assert scratch.words_of(target) == [
        "--set=20260101-000000F",
        "--type=time",
        "--target=2026-01-01 00:00:00+00",
        "--target-action=promote",
        "--target-timeline=latest",
    ]
    assert scratch.words_of(Target("l", "default", "", "latest", None, "")) == [
        "--set=l",
        "--type=default",
        "--target-timeline=latest",
    ]


def test_progress_is_read_from_what_pgbackrest_says() -> None:
    line = (
        "P01 DETAIL: backup file data1:/var/lib/postgresql/17/main/base/5/1249 (bundle 1/3, 456KB, 42.30%) checksum x"
    )
    match = postgres.PERCENT.search(line)
    assert match is not None
    assert match[1] == "42.30"
    assert postgres.PERCENT.search("P01 DETAIL: backup file /base/1 (16MB, 7%) checksum x") is not None


def test_settings_are_read_as_the_role_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    source = {"host": "data1", "address": "10.0.0.31", "port": 22, "local": False, "what": ["config", "postgres"]}
    raw = {
        "fleet": "lab",
        "host": "ops1",
        "repository": "/r",
        "sources": [source],
        "postgres": {"host": "data1", "version": "17", "port": "5432", "data": "/d"},
        "redis": None,
        "retention": {"daily": "7", "weekly": "4", "monthly": "12"},
        "s3": None,
    }
    path.write_text(json.dumps(raw))
    known = settings.load(path)
    assert known.kinds() == ("postgres", "config")
    assert known.retention.daily == 7
    assert known.source("data1").what == ("config", "postgres")
    with pytest.raises(BackupError, match="no host of this fleet's backups"):
        known.source("elsewhere")
    with pytest.raises(BackupError, match="is not there"):
        settings.load(tmp_path / "none.json")


def test_what_is_remembered_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state.note("postgres", {"at": 1}, path)
    state.note("postgres", {"size": 2}, path)
    state.replace("points", {"a": 1}, path)
    assert state.read(path) == {"postgres": {"at": 1, "size": 2}, "points": {"a": 1}}
    path.write_text("{")
    assert state.read(path) == {}


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2.0 GB"), (3e15, "3000.0 TB")]
)
def test_sizes_are_for_people(size: float, shown: str) -> None:
    assert command.human(int(size)) == shown


def test_a_failed_step_is_told_with_its_host() -> None:
    hostvars = {
        "a": {"__restore_step": {"skipped": True}},
        "b": {"__restore_step": {"failed": True, "msg": "no room\nx"}},
    }
    assert restore.restore_problem(["a", "b"], hostvars) == "b: no room"
    assert restore.restore_problem(["a"], hostvars) == ""
    back = {"a": {"__restore_step": {}, "__restore_back": {"failed": True, "msg": "PostgreSQL does not answer"}}}
    assert restore.restore_problem(["a"], back, "__restore_back") == "a: PostgreSQL does not answer"
    assert restore.restore_problem(["c"], {"c": {"__restore_step": {"unreachable": True}}}) == "c cannot be reached"
