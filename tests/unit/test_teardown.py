"""What of a host goes with a service, what with the last one, and what stays, wherever an earlier run was cut off."""

from dataclasses import replace

import pytest
from ansible_collections.agentfleet.vm.plugins.filter.teardown_lines import teardown_lines
from ansible_collections.agentfleet.vm.plugins.module_utils import teardown
from ansible_collections.agentfleet.vm.plugins.module_utils.firewall import Firewall, Rule
from ansible_collections.agentfleet.vm.plugins.module_utils.teardown import Found, Step, Wish, decide, services_of
from ansible_collections.agentfleet.vm.plugins.modules import teardown as module

SSH = Rule("allow 22/tcp", "agentfleet: ssh")
WEB = Rule("allow 80/tcp", "agentfleet: web")
INSTANCES = Rule("allow from 10.0.0.11 to any port 8100 proto tcp", "agentfleet shop: instances")
ANOTHERS = Rule("allow from 10.0.0.11 to any port 8300 proto tcp", "agentfleet agent: instances")
THEIRS = Rule("allow 51820/udp")
NEW = {"active": False, "incoming": "allow"}
WALL = Firewall(active=True, ipv6=True, incoming="deny", rules=(THEIRS, SSH, WEB, ANOTHERS, INSTANCES))

AGENT = Found(
    paths=frozenset(
        {
            *("/opt/shop", "/opt/shop/slots", "/opt/shop/releases", "/opt/shop/venvs", "/opt/shop/tools"),
            *("/etc/systemd/system/shop@.service", "/etc/systemd/system/shop-migrate@.service"),
            "/etc/systemd/system/multi-user.target.wants/shop@blue-1.service",
            *("/usr/local/lib/agentfleet", "/var/cache/agentfleet", "/var/lib/agentfleet"),
            "/etc/ssh/sshd_config.d/10-agentfleet.conf",
        }
    ),
    active=frozenset({"shop@blue-1.service", "shop-stop-green.timer", "agent@blue-1.service", "ssh.service"}),
    enabled=frozenset({"ssh.service"}),
    user=True,
    firewall=WALL,
    before=NEW,
)
EDGE = Found(
    paths=frozenset(
        {
            *("/etc/nginx/agentfleet", "/etc/nginx/agentfleet/shop.conf", "/var/www/maintenance/shop"),
            *("/etc/haproxy/agentfleet", "/etc/haproxy/agentfleet/2-shop.cfg"),
            *("/etc/systemd/system/haproxy.service.d", "/etc/systemd/system/haproxy.service.d/agentfleet.conf"),
            *("/etc/systemd/system/agentfleet-director.service", "/usr/local/bin/agentfleet-director"),
            *("/etc/agentfleet", "/etc/agentfleet/tls/shop.crt", "/etc/agentfleet/tls/shop.key"),
            *("/var/lib/agentfleet", "/var/lib/agentfleet/shop"),
        }
    ),
    active=frozenset({"nginx.service", "haproxy.service", "agentfleet-director.service"}),
    enabled=frozenset({"nginx.service", "haproxy.service", "agentfleet-director.service"}),
    ours=frozenset({teardown.NGINX, teardown.HAPROXY}),
    firewall=WALL,
    before=NEW,
)
DATA = Found(
    paths=frozenset(
        {
            *("/etc/postgresql/17/main/agentfleet", "/etc/postgresql/17/main/agentfleet/2-shop.conf"),
            *("/etc/postgresql/17/main/conf.d/10-agentfleet.conf", "/etc/systemd/system/postgres-analyze.timer"),
            *("/etc/redis/agentfleet", "/etc/redis/agentfleet/2-shop.acl", "/etc/redis/agentfleet.conf"),
            *("/etc/postgresql/17/main/conf.d/20-agentfleet-backup.conf", "/var/lib/postgresql/.ssh/authorized_keys"),
            *("/etc/systemd/system/agentfleet-backup.timer", "/usr/local/bin/agentfleet-backup"),
            *("/var/backups/agentfleet", "/var/lib/agentfleet-backup"),
        }
    ),
    active=frozenset(
        {"postgresql@17-main.service", "redis-server.service", "postgres-analyze.timer", "agentfleet-backup.timer"}
    ),
    enabled=frozenset({"postgresql.service", "redis-server.service", "agentfleet-backup.timer"}),
    ours=frozenset({"/etc/postgresql/17/main/pg_hba.conf", "/var/lib/postgresql/.ssh/authorized_keys"}),
    backup_user=True,
    databases=("shop",),
    roles=("shop",),
    firewall=WALL,
    before=NEW,
    data=("/var/lib/postgresql/17/main", "/var/lib/redis"),
)
LAST = Wish("shop", last=True)
ONE_OF_TWO = Wish("shop", last=False)
HOSTS = pytest.mark.parametrize("found", [AGENT, EDGE, DATA], ids=["agent", "edge", "data"])


def after(found: Found, step: Step) -> Found:
    """What a host has when a step is done."""
    what = step.what
    rest = tuple(rule for rule in found.firewall.rules if rule.command != what)
    match step.do:
        case "remove" | "remove if empty":
            gone = {path for path in found.paths if path == what or path.startswith(f"{what}/")}
            return replace(found, paths=found.paths - gone)
        case "stop":
            return replace(found, active=found.active - {what}, enabled=found.enabled - {what})
        case "restore":
            return replace(found, ours=found.ours - {what})
        case "remove user":
            return replace(found, backup_user=False) if what == teardown.BACKUP_USER else replace(found, user=False)
        case "forget key":
            return replace(found, ours=found.ours - {what})
        case "delete rule":
            return replace(found, firewall=replace(found.firewall, rules=rest))
        case "disable":
            return replace(found, firewall=replace(found.firewall, active=False))
        case "drop database":
            return replace(found, databases=())
        case "drop role":
            return replace(found, roles=())
    return found


def done(found, steps):
    for step in steps:
        found = after(found, step)
    return found


def lines(found, wish):
    return [step.line() for step in decide(found, wish).steps]


@HOSTS
@pytest.mark.parametrize("wish", [LAST, ONE_OF_TWO, replace(LAST, delete_data=True)], ids=["last", "one", "data"])
def test_wherever_a_run_is_cut_off_the_next_finishes_and_the_one_after_has_nothing_to_do(found, wish):
    steps = decide(found, wish).steps
    assert steps
    whole = done(found, steps)
    for number in range(len(steps) + 1):
        half = done(found, steps[:number])
        finished = done(half, decide(half, wish).steps)
        assert decide(finished, wish).steps == ()
        assert finished.paths == whole.paths
        assert finished.active == whole.active


@HOSTS
def test_every_step_can_be_carried_out(found):
    known = module.actions("shop")
    for wish in (LAST, ONE_OF_TWO, replace(LAST, delete_data=True)):
        assert {step.do for step in decide(found, wish).steps} <= set(known)


def test_nobody_is_locked_out_at_any_step():
    """While UFW keeps out what is not let in, SSH is let in."""
    found = AGENT
    for step in decide(AGENT, LAST).steps:
        found = after(found, step)
        assert not found.firewall.active or SSH in found.firewall.rules
    assert found.firewall.rules == (THEIRS, ANOTHERS)


def test_a_firewall_of_which_nothing_is_noted_stays_on_and_lets_ssh_in():
    plan = decide(replace(AGENT, before=None), LAST)
    assert done(AGENT, plan.steps).firewall == replace(WALL, rules=(THEIRS, SSH, ANOTHERS))
    assert any("UFW stays on and lets SSH in" in line for line in plan.stays)


def test_a_firewall_that_was_on_before_has_its_policy_back():
    plan = decide(replace(AGENT, before={"active": True, "incoming": "allow"}), LAST)
    assert plan.steps[0] == Step("default incoming", "allow")
    assert Step("disable", "ufw") not in plan.steps


def test_with_one_of_two_services_goes_what_is_its_own_alone():
    gone = done(AGENT, decide(AGENT, ONE_OF_TWO).steps)
    assert gone.firewall.rules == (THEIRS, SSH, WEB, ANOTHERS)
    assert gone.firewall.active
    assert "/usr/local/lib/agentfleet" in gone.paths
    assert not [path for path in gone.paths if "shop" in path]
    assert gone.active == {"agent@blue-1.service", "ssh.service"}
    edge = lines(EDGE, ONE_OF_TWO)
    assert edge.index("assemble haproxy") < edge.index("remove /etc/haproxy/agentfleet/2-shop.cfg")
    assert "reload nginx.service" in edge
    assert not [line for line in edge if line.startswith(("stop", "restore"))]
    data = lines(DATA, ONE_OF_TWO)
    assert {"assemble postgres", "assemble redis"} <= set(data)
    assert not [line for line in data if line.startswith(("stop", "restore", "drop"))]


def test_sites_of_others_go_on_with_debians_configuration():
    plan = decide(replace(EDGE, other_sites=("/etc/nginx/sites-enabled/shop-window",)), LAST)
    steps = [step.line() for step in plan.steps]
    assert "stop nginx.service" not in steps
    assert steps.index("restore /etc/nginx/nginx.conf") < steps.index("reload nginx.service")
    assert any("sites-enabled/shop-window" in line for line in plan.stays)
    assert "stop nginx.service" in lines(EDGE, LAST)


def test_a_configuration_that_is_not_ours_stays():
    steps = lines(replace(EDGE, ours=frozenset()), LAST)
    assert not [line for line in steps if line.startswith("restore")]


def test_a_server_that_was_never_ours_goes_on():
    found = Found(active=frozenset({"haproxy.service", "nginx.service", "redis-server.service", "prometheus.service"}))
    assert lines(found, LAST) == []


def test_data_stay_unless_it_is_said():
    plan = decide(DATA, LAST)
    assert not [step for step in plan.steps if step.do in ("drop database", "drop role", "empty")]
    assert "PostgreSQL keeps shop in /var/lib/postgresql/17/main" in plan.stays
    assert "Redis' data stay in /var/lib/redis" in plan.stays
    dropped = [step.line() for step in decide(DATA, replace(LAST, delete_data=True)).steps]
    assert dropped.index("drop database shop") < dropped.index("drop role shop")
    assert dropped.index("drop role shop") < dropped.index("stop postgresql@17-main.service")
    assert dropped.index("stop redis-server.service") < dropped.index("empty /var/lib/redis")


def test_postgresql_with_anothers_database_goes_on():
    plan = decide(replace(DATA, other_databases=("books",)), LAST)
    steps = [step.line() for step in plan.steps]
    assert "stop postgresql@17-main.service" not in steps
    assert "assemble postgres" in steps
    assert any("books" in line for line in plan.stays)


@pytest.mark.parametrize("wish", [LAST, replace(LAST, delete_data=True)])
def test_backups_are_never_touched(wish):
    touched = [line for found in (AGENT, EDGE, DATA) for line in lines(found, wish)]
    assert not [line for line in touched if "/var/backups" in line or "pgbackrest" in line]
    assert any("backup_key" in line for line in decide(DATA, wish).stays)


def test_what_makes_backups_goes_with_the_last_service():
    steps = lines(DATA, LAST)
    assert steps.index("stop agentfleet-backup.timer") < steps.index("remove /usr/local/bin/agentfleet-backup")
    assert {"remove user agentfleet-backup", "forget key /var/lib/postgresql/.ssh/authorized_keys"} <= set(steps)
    assert not [line for line in lines(DATA, ONE_OF_TWO) if "backup" in line]


def test_a_database_that_goes_on_waits_for_nobody_to_take_its_log():
    steps = lines(replace(DATA, other_databases=("books",)), LAST)
    gone = steps.index("remove /etc/postgresql/17/main/conf.d/20-agentfleet-backup.conf")
    assert steps[gone + 1] == "reload postgresql@*.service"


def test_services_are_known_by_what_lies_where():
    assert services_of(EDGE.paths | {"/etc/haproxy/agentfleet/1-fleet.cfg"}) == {"shop"}
    assert services_of(DATA.paths | {"/etc/postgresql/17/main/agentfleet/1-first.conf"}) == {"shop"}
    assert services_of({"/opt/agent/slots", "/opt/other/lib", "/etc/nginx/sites-enabled/x.conf"}) == {"agent"}


def test_ones_own_name_does_not_take_anothers_along():
    paths = {
        "/etc/systemd/system/shop-front@.service",
        "/opt/shop-front/slots",
        "/etc/nginx/agentfleet/shop-front.conf",
    }
    assert lines(Found(paths=frozenset(paths)), ONE_OF_TWO) == []


def test_the_lines_tell_what_went_and_what_was_not_reached():
    hostvars = {
        "agent1": {"__teardown": {"steps": ["stop a", "remove b"], "stays": []}},
        "data1": {"__teardown": {"steps": [], "stays": ["Redis' data stay in /var/lib/redis"]}},
        "agent2": {"__teardown": {"unreachable": True, "msg": "no route"}},
    }
    assert teardown_lines(hostvars, hostvars, False) == [
        "agent1: 2 things taken away",
        "data1: nothing to take away",
        "data1: Redis' data stay in /var/lib/redis",
        "agent2: not taken away",
        teardown.PACKAGES_STAY,
    ]
    assert "agent1: would stop a" in teardown_lines(hostvars, hostvars, True)


@pytest.mark.parametrize(
    ("mounts", "held"),
    [
        (["/", "/proc"], False),
        (["/srv/cache"], True),
        (["/srv/cache/uv"], True),
        (["/srv/cache-of-others"], False),
    ],
)
def test_where_something_is_mounted_is_told(mounts, held):
    assert module.holds_mount("/srv/cache", mounts) == held


def test_what_is_mounted_is_never_emptied(tmp_path, monkeypatch):
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv/wheel").write_text("shared")
    monkeypatch.setattr(module, "mount_points", lambda: ["/", str(tmp_path / "uv")])
    with pytest.raises(module.TeardownError, match="something is mounted there"):
        module.remove(str(tmp_path))
    assert (tmp_path / "uv/wheel").exists()
