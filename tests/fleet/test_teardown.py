"""teardown.yml: on a host of its own, which is taken away, comes back, and is taken away with its data."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
import yaml
from support.deploys import kill, started, until
from support.fleet import TOP, Fleet, Result, copy_inventory

pytestmark = pytest.mark.soak

HOST = "edge1"
FOREIGN = "server { listen 8088; location / { return 200 'not ours'; } }\n"
# What there is of the collection besides what is somebody's: packages' own files, accounts, backups. The lab mounts the
# cache of uv, and what is mounted stays.
LEFT = (
    "find / -xdev \\( -path /proc -o -path /var/lib/dpkg -o -path /usr/share -o -path /var/log -o -path /root"
    " -o -path /tmp -o -path /var/tmp -o -path /etc/sudoers.d -o -path /var/cache/agentfleet"
    " -o -path /var/backups \\) -prune -o -name '*agentfleet*' -print;"
    " ls -d /opt/agent /etc/systemd/system/agent* 2>/dev/null; getent passwd agent;"
    " grep -rl 'Managed by Agentfleet' /etc --exclude-dir=sudoers.d"
)


@pytest.fixture(scope="module")
def alone(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One host that is everything, in a lab and network beside the others'."""
    directory = tmp_path_factory.mktemp("alone")
    inventory = copy_inventory(TOP / "inventories/lab", directory / "alone")
    groups = {group: {"hosts": {HOST: None}} for group in ("agents", "postgres", "redis", "monitoring")}
    groups["edge"] = {"hosts": {HOST: {"lab_suite": "trixie", "ansible_host": "{{ lab_prefix }}.11"}}}
    (inventory / "hosts.yml").write_text(
        yaml.safe_dump({"all": {"children": {"machines": {"children": groups}}}}, sort_keys=False)
    )
    # The second number is the lab's own, and has two digits.
    network = f"10.{(int(lab.network.split('.')[1]) + 50) % 100}.0.0/24"
    variables = directory / "variables.yml"
    # No key: the offline model answers, and no server is needed for it.
    given = {"agent_model_key": "", "lab_name": f"{lab.name}-alone", "lab_network": network}
    variables.write_text(yaml.safe_dump(given))
    fleet = Fleet(name=f"{lab.name}-alone", network=network, variables=variables, inventory=inventory)
    reuse = bool(os.environ.get("REUSE"))
    fleet.playbook("lab", "-e", "lab_state=up", *([] if reuse else ["-e", "lab_fresh=true"])).ok()
    yield fleet
    if not os.environ.get("KEEP") and not reuse:
        fleet.playbook("lab", "-e", "lab_state=down").ok()


def bring_up(fleet: Fleet) -> None:
    fleet.playbook("site").ok()
    fleet.playbook("deploy").ok()


@pytest.fixture(scope="module")
def served(alone: Fleet) -> Fleet:
    """A fleet with a past: a conversation, a backup, somebody else's site and rule."""
    alone.on(HOST, "mkdir -p /var/backups/agentfleet && echo kept > /var/backups/agentfleet/full").ok()
    bring_up(alone)
    alone.on(HOST, f"cat > /etc/nginx/conf.d/others.conf <<'EOF'\n{FOREIGN}EOF").ok()
    alone.on(HOST, "ufw allow 8088/tcp").ok()
    say(alone, "remember")
    return alone


def say(fleet: Fleet, session: str) -> None:
    with fleet.client() as client:
        client.post("/api/chat", json={"message": "hello", "session_id": session}).raise_for_status()


def asked(fleet: Fleet, database: str, query: str) -> Result:
    return fleet.on(HOST, f'runuser -u postgres -- psql -XAt -d {database} -c "{query}"')


def torn(fleet: Fleet, *options: str) -> Result:
    return fleet.playbook("teardown", "-e", f"confirm={fleet.name}", *options)


def test_without_the_fleets_name_nothing_is_changed(served: Fleet) -> None:
    for words in ((), ("-e", "confirm=lab")):
        refused = served.playbook("teardown", *words)
        assert refused.returncode
        assert f"nothing was changed: say which fleet it is with -e confirm={served.name}" in refused.stdout
    say(served, "still-there")


def test_a_dry_run_tells_what_would_go(served: Fleet) -> None:
    run = served.playbook("teardown", "--check").ok()
    assert f"{HOST}: would remove /opt/agent/releases" in run.stdout
    assert f"{HOST}: would stop agentfleet-director.service" in run.stdout
    assert f"{HOST}: PostgreSQL keeps agent" in run.stdout
    say(served, "still-there")


def test_a_deploy_under_way_refuses_it(served: Fleet) -> None:
    deploy = started(served, "-e", "label=under-way", "-e", "bake_seconds=60")
    try:
        status = "agentfleet-director status"
        until(lambda: "deploy" in served.on(HOST, status).stdout, "the deploy's lease")
        refused = torn(served)
    finally:
        kill(deploy)
    assert refused.returncode
    assert "has the lease for deploy" in refused.stdout
    say(served, "still-there")


@pytest.fixture(scope="module")
def gone(served: Fleet) -> Result:
    served.on(HOST, "agentfleet-director abort")
    return torn(served).ok()


def test_nothing_of_it_is_left_but_what_it_says(served: Fleet, gone: Result) -> None:
    left = served.on(HOST, LEFT).stdout
    assert left.strip() == ""
    units = served.on(
        HOST, "systemctl list-units --plain --no-legend --all 'agent*' haproxy.service prometheus*"
    ).stdout
    assert [line for line in units.splitlines() if " active " in line or " failed " in line] == []
    assert "database" in gone.stdout or "PostgreSQL keeps agent" in gone.stdout
    assert "Redis' data stay in /var/lib/redis" in gone.stdout
    assert served.on(HOST, "cat /var/backups/agentfleet/full").stdout == "kept\n"
    assert served.on(HOST, "systemctl is-system-running").stdout.strip() == "running"


def test_others_sites_and_rules_go_on(served: Fleet, gone: Result) -> None:
    assert served.on(HOST, "curl -s http://127.0.0.1:8088/").stdout == "not ours"
    assert "8088" in served.on(HOST, "ufw show added").stdout
    # UFW was off before the fleet.
    assert "inactive" in served.on(HOST, "ufw status").stdout
    assert served.on(HOST, "dpkg --verify nginx-common haproxy | grep /etc/").stdout.strip() == ""


def test_a_second_run_changes_nothing(served: Fleet, gone: Result) -> None:
    again = torn(served).ok()
    assert set(again.changed().values()) <= {0}
    assert f"{HOST}: nothing to take away" in again.stdout


def test_the_fleet_comes_back_with_its_data(served: Fleet, gone: Result) -> None:
    bring_up(served)
    assert int(asked(served, "agent", "select count(*) from conversations").ok().stdout) > 0
    say(served, uuid.uuid4().hex)
    assert served.on(HOST, "systemctl is-enabled postgresql nginx haproxy redis-server").ok()


def test_a_host_that_was_left_half_way_is_finished_and_its_data_go_when_told(served: Fleet, gone: Result) -> None:
    # As a run leaves it that was killed in the middle.
    served.on(HOST, "systemctl stop agentfleet-director haproxy; rm -r /etc/nginx/agentfleet /opt/agent/slots").ok()
    run = torn(served, "-e", "data=delete").ok()
    assert "drop" not in run.stdout
    assert served.on(HOST, LEFT).stdout.strip() == ""
    served.on(HOST, "systemctl start postgresql").ok()
    until(lambda: asked(served, "postgres", "select 1").returncode == 0, "PostgreSQL")
    there = asked(served, "postgres", "select datname from pg_database").ok().stdout.split()
    assert sorted(there) == ["postgres", "template0", "template1"]
    assert served.on(HOST, "cat /var/backups/agentfleet/full").stdout == "kept\n"
