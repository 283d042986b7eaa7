import subprocess
import time

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.host_check import (
    DISK_PATHS,
    Access,
    Held,
    claims,
    judge_connection,
    judge_encryption,
    judge_host,
    judge_services,
    judge_silence,
    parse,
    script,
)

NOW = 1795231447
REPORT = """\
Welcome to agent1, uid 12
preflight: uid 0
preflight: time 1795231450
preflight: machine x86_64
preflight: booted systemd
preflight: systemd systemd 257 (257.8-1~deb13u2)
preflight: os PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
preflight: os VERSION_ID="13"
preflight: os ID=debian
preflight: python 3.13.5
preflight: apt yes
preflight: disk / /dev/vda1  30000000 10000000  20480000      34% /
preflight: disk /opt /dev/vda1  30000000 10000000  20480000      34% /
preflight: disk /var /dev/mapper/vg-var 30000000 10000000  10240000      50% /var
preflight: socket LISTEN 0      128          0.0.0.0:22        0.0.0.0:*    users:(("sshd",pid=66,fd=6))
preflight: socket LISTEN 0      511     [::]:80           [::]:*    users:(("nginx",pid=70,fd=6),("nginx",pid=7))
preflight: socket LISTEN 0      128       10.0.0.21:8100       0.0.0.0:*    users:(("python",pid=90,fd=6))
preflight: unit 66 sshd ssh.service
preflight: unit 70 nginx nginx.service
preflight: unit 90 python agent@blue-1.service
preflight: end .
"""
ACCESS = Access("10.0.0.21", 22, "root", "ssh root@10.0.0.21", "ansible -i inventories/fleet agent1")


def judge(text=REPORT, groups=("agents",), values=(), minimum=1024, check_mode=False):
    report = parse(text)
    assert report
    wanted = claims(groups, dict(values))
    found = judge_host("agent1", report, wanted, minimum, NOW, check_mode, "inventories/fleet", ACCESS)
    assert all(finding.host == "agent1" for finding in found)
    return [(finding.text, finding.mend) for finding in found]


def without(start):
    return "".join(line for line in REPORT.splitlines(keepends=True) if not line.startswith(f"preflight: {start}"))


def test_a_report_is_read_as_the_host_gave_it():
    report = parse(REPORT)
    assert report
    assert (report.uid, report.systemd, report.python, report.apt, report.booted) == (0, 257, "3.13.5", True, True)
    assert report.os == {"ID": "debian", "VERSION_ID": "13", "PRETTY_NAME": "Debian GNU/Linux 13 (trixie)"}
    assert [(disk.path, disk.mount, disk.free_mb) for disk in report.disks] == [
        ("/", "/", 20000),
        ("/opt", "/", 20000),
        ("/var", "/var", 10000),
    ]
    assert [(one.port, one.process, one.unit) for one in report.listeners] == [
        (22, "sshd", "ssh.service"),
        (80, "nginx", "nginx.service"),
        (8100, "python", "agent@blue-1.service"),
    ]


def test_a_report_without_its_end_is_none():
    assert parse(without("end")) is None
    assert parse("sudo: a password is required\n") is None


def test_a_host_that_runs_what_we_gave_it_is_fine():
    assert judge(groups=("edge", "agents")) == []


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("tool", ["ss", "no-such-tool"])
def test_the_script_runs_to_its_end_in_a_plain_shell(shell, tool):
    text = script("/usr/bin/python3", DISK_PATHS).replace("-v ss", f"-v {tool}")
    done = subprocess.run([shell, "-c", text], capture_output=True, text=True, check=True)
    report = parse(done.stdout)
    assert report
    assert done.stderr == ""
    assert abs(report.time - time.time()) < 10
    assert len(report.disks) == 3


def test_the_script_has_no_single_quote():
    # sudo and the shell quote it twice: each would become five characters each time.
    assert "'" not in script("/usr/bin/python3", DISK_PATHS)


@pytest.mark.parametrize(
    ("release", "told"),
    [
        ('os PRETTY_NAME="Ubuntu 24.04"\npreflight: os VERSION_ID="24.04"\npreflight: os ID=ubuntu', "Ubuntu 24.04"),
        ('os PRETTY_NAME="Debian 11"\npreflight: os VERSION_ID="11"\npreflight: os ID=debian', "Debian 11"),
        ("machine x86_64", "an unknown system"),
    ],
)
def test_another_system_is_refused_by_its_name(release, told):
    [(text, mend)] = judge(without("os").replace("preflight: end", f"preflight: {release}\npreflight: end"))
    assert text == f"runs {told}; the fleet needs Debian 12 or 13"
    assert mend == "Reinstall it, or take it out of inventories/fleet"


def test_a_host_without_systemd_is_refused():
    [(text, _)] = judge(without("booted"))
    assert text == "Debian GNU/Linux 13 (trixie) is not booted by systemd (a container?)"


def test_a_host_without_python_is_told_with_the_command_that_installs_it():
    assert judge(without("python")) == [
        (
            "has no Python",
            "Install it: ansible -i inventories/fleet agent1 -b -m ansible.builtin.raw "
            "-a 'apt-get update && apt-get install -y python3'",
        )
    ]


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("3.9.2", "has Python 3.9.2; 3.11 or later is needed"),
        ("Segmentation fault", "its Python does not run: Segmentation fault"),
    ],
)
def test_a_python_that_cannot_serve_is_refused(version, told):
    [(text, _)] = judge(REPORT.replace("python 3.13.5", f"python {version}"))
    assert text == told


def test_a_check_needs_the_apt_bindings_that_a_run_installs_itself():
    assert judge(without("apt")) == []
    [(text, mend)] = judge(without("apt"), check_mode=True)
    assert text == "has no python3-apt, which --check needs"
    assert "apt-get install -y python3-apt" in mend


@pytest.mark.parametrize(("drift", "told"), [(400, "400 s ahead of"), (-400, "400 s behind")])
def test_a_wrong_clock_is_told(drift, told):
    [(text, _)] = judge(REPORT.replace("time 1795231450", f"time {NOW + drift}"))
    assert text == f"its clock is {told} this machine's"


def test_a_full_disk_is_told_once_a_file_system():
    [(root, mend), (var, _)] = judge(minimum=25000)
    assert root == "20000 MB free on /; fleet_minimum_free_mb wants 25000"
    assert var == "10000 MB free on /var; fleet_minimum_free_mb wants 25000"
    assert "du -xhd2 / | sort -h | tail" in mend
    assert len(judge(minimum=15000)) == 1


def listening(port, process, unit):
    line = f'socket LISTEN 0 5 0.0.0.0:{port} 0.0.0.0:* users:(("{process}",pid=99,fd=3))'
    return REPORT.replace("preflight: end", f"preflight: {line}\npreflight: unit 99 {process} {unit}\npreflight: end")


@pytest.mark.parametrize(
    ("groups", "port", "process", "unit"),
    [
        (("edge",), 443, "apache2", "apache2.service"),
        (("edge",), 8080, "java", "tomcat.service"),
        (("agents",), 8150, "python3", "session-4.scope"),
        (("agents",), 8150, "python", "other@blue-1.service"),
        (("agents",), 8150, "python", "container:agent-blue-1"),
        (("agents",), 8150, "python", "container:somebody-else"),
        (("postgres",), 5432, "docker-proxy", "docker.service"),
        (("redis",), 6379, "redis-server", "gitlab-redis.service"),
        (("edge",), 443, "", ""),
    ],
)
def test_a_port_that_somebody_else_holds_is_told_with_the_holder(groups, port, process, unit):
    [(text, mend)] = judge(listening(port, process, unit), groups)
    assert f"port {port} is held by " in text
    assert (process or "an unknown process") in text
    if unit.endswith(".service"):
        assert f"'systemctl disable --now {unit}'" in mend
    else:
        assert f"ss -ltnp sport = :{port}" in mend


@pytest.mark.parametrize(
    ("groups", "port", "process", "unit"),
    [
        (("edge",), 443, "nginx", "nginx.service"),
        (("edge",), 8080, "haproxy", "haproxy.service"),
        (("postgres",), 5432, "postgres", "postgresql@17-main.service"),
        (("redis",), 6379, "redis-server", "redis-server.service"),
        (("monitoring",), 9090, "prometheus", "prometheus.service"),
        (("monitoring",), 9090, "systemd-socket-", "agentfleet-prometheus.service"),
        (("monitoring",), 9093, "prometheus-aler", "prometheus-alertmanager.service"),
        (("agents",), 8550, "python", "agent-worker@green-1.service"),
        (("monitoring",), 3000, "grafana", "grafana-server.service"),
        (("agents",), 8150, "python", "agent@green-1.service"),
        (("agents",), 8150, "python", "container:agent-green-1"),
        (("edge",), 5432, "postgres", "mine.service"),
        (("agents",), 8101, "java", "tomcat.service"),
    ],
)
def test_a_port_that_is_ours_or_not_needed_is_fine(groups, port, process, unit):
    assert judge(listening(port, process, unit), groups) == []


@pytest.mark.parametrize(("repository", "needed"), [("https://apt.grafana.com", True), ("", False)])
def test_a_fleet_without_grafana_leaves_its_port_to_others(repository, needed):
    ports = [claim.port for claim in claims(("monitoring",), {"grafana_repository": repository})]
    assert (3000 in ports) is needed


def opened(port, unit):
    """A port that systemd holds for another unit."""
    text = listening(port, "systemd", "init.scope")
    return text.replace("preflight: end", f"preflight: opened 0.0.0.0:{port} {unit}\npreflight: end")


def test_a_port_that_systemd_holds_is_told_with_its_socket():
    [(text, mend)] = judge(opened(9090, "cockpit.socket"), ("monitoring",))
    assert text == "port 9090 is held by 'systemd' (cockpit.socket), and Prometheus needs it"
    assert "'systemctl disable --now cockpit.socket'" in mend
    assert mend.endswith("(or set another prometheus_port)")
    assert judge(opened(9090, "agentfleet-prometheus.socket"), ("monitoring",)) == []


def test_a_socket_of_systemds_says_nothing_of_another_process():
    text = listening(9090, "java", "session-4.scope")
    text = text.replace(
        "preflight: end", "preflight: opened [fd77::41]:9090 agentfleet-prometheus.socket\npreflight: end"
    )
    [(told, _)] = judge(text, ("monitoring",))
    assert told == "port 9090 is held by 'java' (session-4.scope), and Prometheus needs it"


@pytest.mark.parametrize(
    ("groups", "wanted"),
    [
        ({"redis"}, {9200: "exporters_node_port", 6379: "redis_port", 9121: "exporters_redis_port"}),
        ({"postgres"}, {9200: "exporters_node_port", 5432: "postgres_port", 9187: "exporters_postgres_port"}),
        (
            {"monitoring"},
            {
                9200: "exporters_node_port",
                9115: "exporters_blackbox_port",
                9090: "prometheus_port",
                9093: "alertmanager_port",
                6514: "logs_port",
                3000: "grafana_port",
            },
        ),
    ],
)
def test_every_host_of_a_monitored_fleet_shows_its_figures(groups, wanted):
    found = {claim.port: claim.variable for claim in claims(groups, {"exporters_node_port": 9200}, monitored=True)}
    assert found == wanted


def test_ports_follow_the_variables():
    values = {"agent_name": "shop", "agent_port": "9000", "agent_instances": 2, "balancer_port": 8090}
    wanted = {claim.port: claim.purpose for claim in claims({"agents", "edge"}, values)}
    assert wanted == {
        80: "Nginx",
        443: "Nginx",
        8090: "HAProxy",
        8405: "HAProxy",
        8406: "Nginx",
        9000: "shop@blue-1.service",
        9001: "shop@blue-2.service",
        9050: "shop@green-1.service",
        9051: "shop@green-2.service",
        9400: "the worker of shop@blue-1.service",
        9401: "the worker of shop@blue-2.service",
        9450: "the worker of shop@green-1.service",
        9451: "the worker of shop@green-2.service",
    }


SERVICES = """\
preflight: service agent bind 127.0.0.1:8080
preflight: service agent server agent1-blue-1 10.0.0.21:8100 weight 0
preflight: service agent server agent1-green-1 10.0.0.21:8150 weight 0
preflight: service agent server 127.0.0.1:8080;
preflight: service agent server {
preflight: service agent server_name agent.example.com;
preflight: end"""


@pytest.mark.parametrize(
    ("name", "wants", "told"),
    [
        ("agent", Held(8080, "agent.example.com", frozenset({"10.0.0.21:8100"})), []),
        ("shop", Held(8081, "shop.example.com", frozenset({"10.0.0.21:8200", "10.0.0.21:8250"})), []),
        ("shop", Held(8080, "shop.example.com"), [("port 8080 of the balancer", "balancer_port")]),
        ("shop", Held(8081, "agent.example.com"), [("the name agent.example.com", "edge_server_name")]),
        ("shop", Held(8081, "", frozenset({"10.0.0.21:8150", "10.0.0.21:8200"})), [("10.0.0.21:8150", "agent_port")]),
    ],
)
def test_what_another_service_has_is_told_with_the_variable(name, wants, told):
    report = parse(REPORT.replace("preflight: end", SERVICES))
    assert report
    found = [(finding.text, finding.mend) for finding in judge_services("edge1", name, wants, report.services)]
    assert found == [
        (
            f"service 'agent' has {thing}, which '{name}' wants as well",
            f"Set another {variable} in the variables of '{name}'",
        )
        for thing, variable in told
    ]


ENCRYPTED = SERVICES.replace("weight 0", "weight 0 ssl verify required ca-file /ca.pem verifyhost agent1")


@pytest.mark.parametrize(
    ("name", "services", "wanted", "told"),
    [
        ("agent", SERVICES, False, None),
        ("agent", ENCRYPTED, True, None),
        ("agent", SERVICES, True, "serve without TLS, and fleet_tls wants the opposite"),
        ("agent", ENCRYPTED, False, "serve with TLS, and fleet_tls wants the opposite"),
        # None of its own yet.
        ("shop", SERVICES, True, None),
    ],
)
def test_what_serves_is_not_cut_off_by_another_word_on_encryption(name, services, wanted, told):
    report = parse(REPORT.replace("preflight: end", services))
    assert report
    found = judge_encryption("edge1", name, Held(encrypted=wanted), report.services)
    assert [told in finding.text for finding in found] == ([True] if told else [])
    for finding in found:
        assert "site.yml -e fleet_tls_change=true, then deploy.yml" in finding.mend
        assert finding.mend.endswith(f"fleet_tls: {str(not wanted).lower()}")


def test_a_listener_is_read_where_there_is_no_ss():
    text = without("socket").replace(
        "preflight: end",
        "preflight: inode 4711 00000000:1FA4\npreflight: owner 99 socket:[4711]\n"
        "preflight: unit 99 java tomcat.service\npreflight: end",
    )
    [(told, _)] = judge(text, values={"agent_port": 8100})
    assert told == "port 8100 is held by 'java' (tomcat.service), and agent@blue-1.service needs it"


def test_who_did_not_become_root_is_told_alone():
    [(text, mend)] = judge(REPORT.replace("uid 0", "uid 1000").replace("python 3.13.5", "python 2.7"))
    assert text == "user root did not become root (uid 1000)"
    assert "--ask-become-pass" in mend


def test_silence_is_told_with_what_sudo_said():
    finding = judge_silence("agent1", "Shared connection closed.\nsudo: a password is required\n", ACCESS)
    assert finding.text == "user root cannot work as root: sudo: a password is required"
    assert finding.mend.startswith("Try: ssh root@10.0.0.21 sudo -n true")


def test_an_unreachable_host_is_told_with_sshs_reason_and_the_command_to_try():
    error = (
        "Task failed: Failed to connect to the host via ssh: ssh: connect to host 10.0.0.21 port 22: No route to host"
    )
    finding = judge_connection("agent1", error, ACCESS)
    assert finding.text == "unreachable at 10.0.0.21 port 22: No route to host"
    assert finding.mend == "Try: ssh root@10.0.0.21"


def test_a_changed_host_key_is_not_waved_through():
    error = "Failed to connect to the host via ssh: @@@@\nSomeone could be eavesdropping\nHost key verification failed."
    finding = judge_connection("agent1", error, ACCESS)
    assert finding.text.endswith("Host key verification failed.")
    assert finding.mend == "Compare its key and accept it: ssh root@10.0.0.21"
