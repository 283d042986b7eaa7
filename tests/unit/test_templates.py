"""Every template of every role, rendered without a host: a baseline, and what differs from it."""

import configparser
import functools
import hashlib
import re
from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

TOP = Path(__file__).resolve().parents[2]
TEMPLATES = sorted(path.relative_to(TOP / "roles") for path in (TOP / "roles").glob("*/templates/**/*.j2"))
SECRETS = {
    "agent_api_key": "0-secret-api-key",
    "agent_database_password": "0-secret-database",
    "agent_redis_password": "0-secret-redis",
    "backup_key": "0-secret-backup",
    "grafana_admin_password": "0-secret-grafana",
    "agent_model_key": "0-secret-model",
}
# pgBackRest takes its passphrase from its configuration alone; who writes it shows neither the file nor a difference.
KEEPS = {"backup/templates/pgbackrest.conf.j2": "backup_key"}
SECTIONS = {"Unit", "Service", "Install", "Socket", "Timer", "Journal", "Time"}

# Redis knows no comments in a file of users; an HTTP answer is sent as it is; a part is included by a file with a head.
WITHOUT_HEAD = {
    "redis/templates/backup.acl.j2",
    "redis/templates/default.acl.j2",
    "redis/templates/metrics.acl.j2",
    "redis/templates/users.acl.j2",
    "balancer/templates/problem.http.j2",
    "agent/templates/process.j2",
    "agent/templates/restart.j2",
    "agent/templates/container.j2",
    "logs/templates/sandbox.j2",
    # What users see has no head of ours.
    "edge/templates/page.html.j2",
    "edge/templates/page.json.j2",
}

BASELINE = {
    "edge_maintenance_message": "Back at ten",
    **SECRETS,
    "ansible_check_mode": False,
    "ansible_facts": {
        "distribution": "Debian",
        "distribution_major_version": "13",
        "memtotal_mb": 3921,
        "virtualization_tech_guest": [],
        "all_ipv4_addresses": ["10.0.0.31"],
        "all_ipv6_addresses": ["fd00::31"],
        "user_id": "root",
        "env": {},
    },
    "groups": {
        "all": ["edge1", "agent1", "agent2", "data1"],
        "edge": ["edge1"],
        "agents": ["agent1", "agent2"],
        "postgres": ["data1"],
        "redis": ["data1"],
        "monitoring": ["data1"],
    },
    "hostvars": {
        "edge1": {"ansible_host": "10.0.0.11"},
        "agent1": {"ansible_host": "10.0.0.21"},
        "agent2": {"ansible_host": "10.0.0.22"},
        "data1": {"ansible_host": "10.0.0.31"},
    },
    "group_names": ["postgres", "redis"],
    "inventory_hostname": "data1",
    "inventory_dir": "/inventory",
    "edge_server_name": "agent.example.org",
    "__base_programs": {"files": []},
    "__redis_sums": {
        "results": [
            {"stat": {"exists": True, "checksum": hashlib.sha256(secret).hexdigest()}}
            for secret in (b"made-for-backups", b"made-for-figures")
        ]
    },
    "__edge_neighbours": {"default_ports": []},
}
VARIANTS = {
    "baseline": {},
    "debian 12": {"ansible_facts": {**BASELINE["ansible_facts"], "distribution_major_version": "12"}},
    "one host": {
        "groups": {group: ["data1"] for group in BASELINE["groups"]},
        "hostvars": {"data1": {"ansible_host": "10.0.0.31"}},
    },
    "ipv6": {
        "hostvars": {name: {"ansible_host": f"fd00::{number}"} for number, name in enumerate(BASELINE["hostvars"], 1)}
    },
    "no agents yet": {"groups": {**BASELINE["groups"], "agents": []}},
    "a container without ipv6": {
        "ansible_facts": {
            **BASELINE["ansible_facts"],
            "virtualization_tech_guest": ["container"],
            "all_ipv6_addresses": [],
        }
    },
}
# Hosts that share no private network.
PUBLIC = {
    "hostvars": {name: {"ansible_host": f"203.0.113.{number}"} for number, name in enumerate(BASELINE["hostvars"], 1)}
}
VARIANTS["no private network"] = PUBLIC
OPERATORS = {"edge_operators": {"alice": "0-secret-operator"}}
VARIANTS["operators"] = OPERATORS
# What a task gives its template besides.
ITEMS = {
    "exporters/templates/exporter.conf.j2": {
        "item": {
            "name": "prometheus-redis-exporter",
            "options": ["--a=50%"],
            "password": "/p",
            "variable": "REDIS_PASSWORD",
        }
    },
    "balancer/templates/problem.http.j2": {"item": {"key": 503, "value": {"title": "Away", "detail": "Come back."}}},
    "agent/templates/container.j2": {"container_options": "agent:blue"},
}


def trusted(value):
    if isinstance(value, dict):
        return {key: trusted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [trusted(inner) for inner in value]
    return trust_as_template(value) if isinstance(value, str) else value


@functools.cache
def load(file):
    return yaml.safe_load(file.read_text())


@functools.cache
def variables_of(role):
    """Defaults of all roles, as each may name another's, and the computed ones of this role."""
    files = [*sorted((TOP / "roles").glob("*/defaults/main.yml")), TOP / f"roles/{role}/vars/main.yml"]
    return trusted({name: value for file in files if file.exists() for name, value in load(file).items()})


def render(template, **different):
    role = template.split("/")[0]
    path = TOP / "roles" / template
    given = {"role_path": str(TOP / "roles" / role), **ITEMS.get(template, {}), **different}
    templar = Templar(loader=DataLoader()).copy_with_new_env(
        searchpath=[str(TOP / "roles" / role / "templates")],
        available_variables={**variables_of(role), **trusted({**BASELINE, **given})},
    )
    overrides = {"trim_blocks": True}
    text = templar.template(trust_as_template(path.read_text()), escape_backslashes=False, overrides=overrides)
    # A template without a line gives an empty file.
    return "" if text is None else str(text)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("template", [str(path) for path in TEMPLATES])
def test_it_renders_whole(template, variant):
    text = render(template, **VARIANTS[variant])
    assert text.endswith("\n")
    # Alertmanager fills in its messages itself.
    ours = re.sub(r'\{\{ template "[a-z.]+" \. \}\}', "", text)
    for left_over in ("{{", "{%", "{#", "None", "Undefined", "hostvars", "[]", "{}"):
        assert left_over not in ours, text
    for name, secret in SECRETS.items():
        assert (secret in text) is (name == KEEPS.get(template)), name


@pytest.mark.parametrize("template", [str(path) for path in TEMPLATES if str(path) not in WITHOUT_HEAD])
def test_it_says_who_manages_it(template):
    head = render(template).splitlines()[0]
    assert re.fullmatch(rf"(#|//) Managed by Agentfleet \(role {template.split('/')[0]}\)", head)


def units():
    return [
        str(path) for path in TEMPLATES if re.search(r"^\[(Unit|Service)\]$", (TOP / "roles" / path).read_text(), re.M)
    ]


@pytest.mark.parametrize("template", units())
def test_a_unit_has_nothing_but_sections_and_settings(template):
    for line in render(template).splitlines():
        section = re.fullmatch(r"\[(\w+)\]", line)
        assert (
            not line or line.startswith("#") or re.match(r"[A-Z]\w+=", line) or (section and section[1] in SECTIONS)
        ), line


def settings(text):
    """The lines of a postgresql.conf."""
    return dict(
        re.fullmatch(r"(\w+) = '(.*)'", line).groups() for line in text.splitlines() if not line.startswith("#")
    )


@pytest.mark.parametrize(
    ("memory", "connections", "wanted"),
    [
        (1000, 200, {"shared_buffers": "240MB", "effective_cache_size": "720MB", "work_mem": "4MB"}),
        (1010, 200, {"shared_buffers": "240MB"}),
        (3921, 200, {"shared_buffers": "976MB", "effective_cache_size": "2928MB", "work_mem": "4MB"}),
        (65536, 100, {"shared_buffers": "8192MB", "work_mem": "64MB", "maintenance_work_mem": "2048MB"}),
        (100, 20, {"shared_buffers": "128MB", "maintenance_work_mem": "64MB"}),
    ],
)
def test_postgresql_is_tuned_from_the_hosts_memory(memory, connections, wanted):
    facts = {**BASELINE["ansible_facts"], "memtotal_mb": memory}
    shown = settings(
        render("postgres/templates/postgresql.conf.j2", ansible_facts=facts, postgres_max_connections=connections)
    )
    assert {name: shown[name] for name in wanted} == wanted
    assert shown["checkpoint_completion_target"] == "0.9"


def test_a_users_settings_win_and_are_quoted():
    shown = settings(
        render("postgres/templates/postgresql.conf.j2", postgres_settings={"jit": True, "work_mem": "1GB", "a": "b'c"})
    )
    assert (shown["jit"], shown["work_mem"], shown["a"]) == ("on", "1GB", "b''c")


def access(**different):
    parts = (render(f"postgres/templates/{part}.conf.j2", **different) for part in ("first", "service", "last"))
    lines = "".join(parts).splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_only_agents_reach_the_database_and_only_over_tls():
    assert access() == [
        "local all postgres peer",
        "local postgres prometheus peer",
        'hostssl "agent" "agent" 10.0.0.21/32 scram-sha-256',
        'hostssl "agent" "agent" 10.0.0.22/32 scram-sha-256',
    ]
    assert access(**VARIANTS["ipv6"])[2] == 'hostssl "agent" "agent" fd00::2/128 scram-sha-256'
    own = ["local all postgres peer", "local postgres prometheus peer"]
    assert access(**VARIANTS["no agents yet"]) == access(agent_database_host="") == own
    assert access(agent_database_host="", groups={**BASELINE["groups"], "monitoring": []}) == own[:1]


def test_redis_keeps_hashes_and_turns_off_who_needs_no_password():
    digest = hashlib.sha256(SECRETS["agent_redis_password"].encode()).hexdigest()
    assert render("redis/templates/default.acl.j2") == "user default off resetpass resetkeys resetchannels -@all\n"
    assert render("redis/templates/users.acl.j2") == f"user agent on #{digest} ~* &* +@all -@admin -@dangerous\n"
    assert render("redis/templates/users.acl.j2", agent_redis_host="") == ""


@pytest.mark.parametrize(
    ("who", "made", "may"),
    [
        ("backup", b"made-for-backups", "+ping +info +bgsave +config|get"),
        (
            "metrics",
            b"made-for-figures",
            "+ping +info +config|get +client|setname +latency|latest +latency|histogram +slowlog|len",
        ),
    ],
)
def test_what_is_run_on_the_host_of_redis_reads_no_key(who, made, may):
    digest = hashlib.sha256(made).hexdigest()
    rules = f"resetkeys resetchannels -@all {may}"
    assert render(f"redis/templates/{who}.acl.j2") == f"user agentfleet-{who} on #{digest} {rules}\n"
    # A dry run on a host that has no password yet.
    nothing = {"results": [{"stat": {"exists": False}}] * 2}
    assert render(f"redis/templates/{who}.acl.j2", __redis_sums=nothing) == ""


@pytest.mark.parametrize(("memory", "most"), [(3921, "976mb"), (3925, "976mb"), (100, "64mb")])
def test_redis_takes_a_quarter_of_the_memory(memory, most):
    text = render("redis/templates/redis.conf.j2", ansible_facts={**BASELINE["ansible_facts"], "memtotal_mb": memory})
    assert f"maxmemory {most}\n" in text
    assert "\nmaxmemory-policy volatile-lru\n" in text


SUDO = {"user_id": "root", "env": {"SUDO_USER": "debian"}}


@pytest.mark.parametrize(
    ("different", "root_login"),
    [
        ({}, "prohibit-password"),
        ({"ansible_user": "root"}, "prohibit-password"),
        ({"ansible_facts": {**BASELINE["ansible_facts"], **SUDO}}, "no"),
        ({"ansible_user": "root", "ansible_facts": {**BASELINE["ansible_facts"], **SUDO}}, "prohibit-password"),
        ({"base_ssh_settings": {"PermitRootLogin": False}}, "no"),
    ],
)
def test_ssh_stays_open_for_who_comes_in_as_root(different, root_login):
    text = render("base/templates/sshd.conf.j2", **different)
    assert f"\nPermitRootLogin {root_login}\n" in text
    assert "\nPasswordAuthentication no\n" in text


def test_unattended_upgrades_are_turned_off_as_a_whole():
    text = render("base/templates/unattended-upgrades.j2", base_unattended_upgrades=False)
    assert 'APT::Periodic::Unattended-Upgrade "0";' in text
    assert "Origins-Pattern" not in text
    held = render("base/templates/unattended-upgrades.j2", base_unattended_upgrades_hold=["nginx", "postgresql-"])
    assert 'Package-Blacklist { "nginx"; "postgresql-"; };' in held


def test_only_some_become_root():
    users = [{"name": "a", "keys": ["k"], "sudo": True}, {"name": "b", "keys": ["k"]}]
    lines = render("base/templates/sudoers.j2", base_users=users).splitlines()
    assert lines[1:] == ["a ALL=(ALL:ALL) NOPASSWD: ALL"]


def test_redis_is_reached_over_tls_alone_where_no_network_is_the_fleets():
    lines = render("redis/templates/redis.conf.j2", **PUBLIC).splitlines()
    assert {"port 0", "tls-port 6379", "tls-auth-clients no", "tls-cert-file /etc/redis/agentfleet.pem"} <= set(lines)
    assert "tls" not in render("redis/templates/redis.conf.j2")


def test_postgresql_shows_the_fleets_certificate_where_no_network_is_the_fleets():
    assert settings(render("postgres/templates/postgresql.conf.j2"))["ssl_cert_file"].endswith("snakeoil.pem")
    shown = settings(render("postgres/templates/postgresql.conf.j2", **PUBLIC))
    assert shown["ssl_cert_file"] == shown["ssl_key_file"] == "/etc/postgresql/17/main/agentfleet.pem"
    own = settings(render("postgres/templates/postgresql.conf.j2", **PUBLIC, postgres_tls_certificate="/own.pem"))
    assert own["ssl_cert_file"] == "/own.pem"


def test_the_balancer_verifies_each_instance_by_its_hosts_name():
    servers = [line.split() for line in render("balancer/templates/service.cfg.j2", **PUBLIC).splitlines()]
    found = {words[1]: words[3:] for words in servers if words[:1] == ["server"]}
    verified = "weight 0 ssl verify required ca-file /etc/ssl/certs/agentfleet-fleet.pem verifyhost"
    assert found["agent2-green-1"] == [*verified.split(), "agent2"]
    assert len(found) == 4
    assert "ssl" not in render("balancer/templates/service.cfg.j2")


@pytest.mark.parametrize("template", ["agent/templates/service.j2", "agent/templates/container-service.j2"])
def test_instances_serve_tls_with_a_key_that_is_theirs_alone(template):
    [command] = [line for line in render(template, **PUBLIC).splitlines() if "-m uvicorn" in line]
    file = "${CREDENTIALS_DIRECTORY}/fleet.pem"
    assert command.endswith(f" --ssl-certfile {file} --ssl-keyfile {file}")
    assert "ssl-keyfile" not in render(template)


def test_only_the_service_is_given_the_hosts_key():
    given = "LoadCredential=fleet.pem:/etc/agentfleet/fleet/host.pem"
    assert given in render("agent/templates/service.j2", **PUBLIC).splitlines()
    assert given not in render("agent/templates/migrate.j2", **PUBLIC)
    assert given not in render("agent/templates/service.j2")


def test_only_where_there_are_operators_there_is_a_place_for_them():
    site = render("edge/templates/site.conf.j2", **OPERATORS)
    places = re.findall(r"location (?:=|\^~) /operations/(\w+)/ \{\n\s+proxy_pass (\S+);", site)
    assert dict(places) == {
        "prometheus": "http://10.0.0.31:9090/",
        "alertmanager": "http://10.0.0.31:9093/",
        "grafana": "http://10.0.0.31:3000/",
    }
    assert "0-secret-operator" not in site
    assert "/operations" not in render("edge/templates/site.conf.j2")
    alone = render("edge/templates/site.conf.j2", **OPERATORS, groups={**BASELINE["groups"], "monitoring": []})
    assert "location ^~ /operations/ {" in alone
    assert "/operations/prometheus/" not in alone


def test_an_app_with_a_status_page_of_its_own_keeps_it():
    assert "location = /status {" in render("edge/templates/site.conf.j2")
    assert "location = /status {" not in render("edge/templates/site.conf.j2", edge_status_page=False)


def test_prometheus_verifies_the_instances():
    jobs = yaml.safe_load(render("prometheus/templates/prometheus.yml.j2", **PUBLIC))["scrape_configs"]
    [agent] = [job for job in jobs if job["job_name"] == "agent"]
    assert (agent["scheme"], agent["tls_config"]) == ("https", {"ca_file": "/etc/ssl/certs/agentfleet-fleet.pem"})


def computed(name, **different):
    """A variable that role agent computes."""
    given = {**variables_of("agent"), **trusted({**BASELINE, **different})}
    return Templar(loader=DataLoader(), variables=given).template(trust_as_template(f"{{{{ {name} }}}}"))


ELSEWHERE = {
    "agent_database_url": "postgresql://app:p%40ss-9Zq@db.shop.io:5433/shop?sslmode=verify-full",
    "agent_redis_url": "rediss://:c%40che-9Zq@cache.shop.io:6380/2",
    "agent_redis_ca_file": "files/cache.pem",
}


def test_servers_elsewhere_are_what_their_urls_say():
    for hosts in ({}, PUBLIC):
        environment = computed("_agent_settings", **ELSEWHERE, **hosts)["environment"]
        said = {name: value for name, value in environment.items() if re.match("AGENT_(DATABASE|REDIS)", name)}
        assert said == {
            "AGENT_DATABASE_HOST": "db.shop.io",
            "AGENT_DATABASE_PORT": "5433",
            "AGENT_DATABASE_NAME": "shop",
            "AGENT_DATABASE_USER": "app",
            "AGENT_DATABASE_SSLMODE": "verify-full",
            "AGENT_REDIS_HOST": "cache.shop.io",
            "AGENT_REDIS_PORT": "6380",
            "AGENT_REDIS_USER": "",
            "AGENT_REDIS_TLS": "true",
            "AGENT_REDIS_CA": "/etc/ssl/certs/agentfleet-agent-redis.pem",
            "AGENT_REDIS_DATABASE": "2",
        }
        assert "9Zq" not in str(environment)
    secrets = computed("_agent_settings", **ELSEWHERE)["secrets"]
    assert (secrets["database_password"], secrets["redis_password"]) == ("p@ss-9Zq", "c@che-9Zq")
    assert computed("_agent_authorities", **ELSEWHERE) == [
        {"file": "files/cache.pem", "path": "/etc/ssl/certs/agentfleet-agent-redis.pem"}
    ]


def test_our_own_servers_have_nothing_of_a_service_whose_are_elsewhere():
    assert access(**ELSEWHERE) == ["local all postgres peer", "local postgres prometheus peer"]
    assert render("redis/templates/users.acl.j2", **ELSEWHERE) == ""


def test_the_service_verifies_our_own_servers_and_knows_nothing_of_others():
    def environment(**different):
        found = computed("_agent_settings", **different)["environment"]
        return {name.removeprefix("AGENT_"): value for name, value in found.items() if "SSL" in name or "_CA" in name}

    authority = "/etc/ssl/certs/agentfleet-fleet.pem"
    assert environment() == {"DATABASE_SSLMODE": "require"}
    assert environment(**PUBLIC) == {
        "DATABASE_SSLMODE": "verify-full",
        "DATABASE_CA": authority,
        "REDIS_CA": authority,
    }
    elsewhere = {"agent_database_host": "db.example.com", "agent_redis_host": ""}
    assert environment(**PUBLIC, **elsewhere) == {"DATABASE_SSLMODE": "require"}


def targets(**different):
    """Jobs of prometheus.yml: addresses with their labels."""
    jobs = yaml.safe_load(render("prometheus/templates/prometheus.yml.j2", **different))["scrape_configs"]
    return {job["job_name"]: labelled(job.get("static_configs", [])) for job in jobs}


def labelled(groups):
    return {address: group["labels"] for group in groups for address in group["targets"]}


def instances(job=None, **different):
    """What one service has to be asked at, for one JOB of those that its file names: addresses with their labels."""
    groups = yaml.safe_load(render("prometheus/templates/service.yml.j2", **different))
    return labelled([group for group in groups if group["labels"].get("job") == job])


def test_prometheus_reads_both_slots_by_the_balancers_names():
    hostvars = {**BASELINE["hostvars"], "agent2": {"ansible_host": "fd00::22", "agent_port": 9000}}
    agents = instances(hostvars=hostvars)
    assert list(agents) == ["10.0.0.21:8100", "10.0.0.21:8150", "[fd00::22]:9000", "[fd00::22]:9050"]
    assert agents["[fd00::22]:9050"] == {
        "__metrics_path__": "/metrics",
        "instance": "agent2-green-1",
        "host": "agent2",
        "slot": "green",
        "number": "1",
        "service": "agent",
    }


def test_prometheus_reads_each_instances_worker():
    workers = instances("worker", **PUBLIC)
    assert list(workers) == ["203.0.113.2:8500", "203.0.113.2:8550", "203.0.113.3:8500", "203.0.113.3:8550"]
    labels = workers["203.0.113.2:8550"]
    assert (labels["instance"], labels["__scheme__"]) == ("agent1-green-1", "http")
    # Nobody knows what another app's worker shows.
    assert instances("worker", agent_app="shop.main:app") == {}
    # Jobs are kept in a database.
    assert instances("worker", agent_database_host="") == {}


def test_prometheus_has_the_site_asked_at_each_edge_by_its_name():
    groups = {**BASELINE["groups"], "edge": ["edge1", "data1"]}
    asked = yaml.safe_load(render("prometheus/templates/service.yml.j2", groups=groups, agent_metrics_path=""))
    found = {group["labels"]["host"]: (group["targets"], group["labels"]) for group in asked}
    assert set(found) == {"edge1", "data1"}
    addresses, labels = found["data1"]
    assert addresses == ["127.0.0.1:9115"]
    assert labels["__param_target"] == "https://10.0.0.31:443/health"
    assert labels["__param_hostname"] == labels["site"] == "agent.example.org"


def test_an_exporters_password_is_in_no_command_line():
    text = render("exporters/templates/exporter.conf.j2")
    [start] = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    assert start == (
        '/bin/sh -c \'REDIS_PASSWORD="$$(cat "$${CREDENTIALS_DIRECTORY}/password")";'
        ' [ "$$REDIS_PASSWORD" != none ] || exit 1; export REDIS_PASSWORD;'
        " exec /usr/bin/prometheus-redis-exporter --a=50%%'"
    )
    assert "\nLoadCredential=password:/p\n" in text


def exporters(*groups, **different):
    """The exporters of a host in GROUPS, by name: their options."""
    given = {**variables_of("exporters"), **trusted({**BASELINE, "group_names": list(groups), **different})}
    found = Templar(loader=DataLoader(), variables=given).template(trust_as_template("{{ _exporters_here }}"))
    return {exporter["name"].split("-")[1]: exporter["options"] for exporter in found}


def test_a_host_has_the_exporters_of_its_groups_on_its_own_address():
    assert list(exporters("agents")) == ["node"]
    found = exporters("edge", "redis", "postgres", "monitoring")
    assert list(found) == ["node", "nginx", "redis", "postgres", "blackbox"]
    listening = {name: options[0] for name, options in found.items()}
    assert listening == {
        **{
            name: f"--web.listen-address=10.0.0.31:{port}"
            for name, port in (("node", 9100), ("nginx", 9113), ("redis", 9121), ("postgres", 9187))
        },
        "blackbox": "--web.listen-address=127.0.0.1:9115",
    }


def test_redis_is_asked_over_tls_where_no_network_is_the_fleets():
    assert "--redis.addr=redis://10.0.0.31:6379" in exporters("redis")["redis"]
    asked = exporters("redis", **PUBLIC)["redis"]
    assert {"--redis.addr=rediss://203.0.113.4:6379", "--tls-ca-cert-file=/etc/ssl/certs/agentfleet-fleet.pem"} <= set(
        asked
    )


TOLD = {
    "alertmanager_mail_to": ["ana@example.org"],
    "alertmanager_smarthost": "smtp.example.org:587",
    "alertmanager_smarthost_user": "fleet",
    "alertmanager_smarthost_password": "p:a#s's",
    "alertmanager_webhook_url": "https://chat.example.org/hook",
}


def test_alerts_go_to_whom_is_named_and_otherwise_to_nobody():
    told = yaml.safe_load(render("alertmanager/templates/alertmanager.yml.j2", **TOLD))
    [people] = told["receivers"]
    assert [mail["to"] for mail in people["email_configs"]] == ["ana@example.org"]
    assert people["webhook_configs"] == [{"url": "https://chat.example.org/hook", "send_resolved": True}]
    assert told["global"]["smtp_auth_password"] == "p:a#s's"
    assert told["global"]["smtp_from"] == "alertmanager@agent.example.org"
    silent = yaml.safe_load(render("alertmanager/templates/alertmanager.yml.j2"))
    assert silent["receivers"] == [{"name": "people"}]
    assert "global" not in silent


def test_a_message_says_what_to_do_and_where_to_read_on():
    text = (TOP / "roles/alertmanager/files/message.tmpl").read_text()
    for part in ("summary", "description", "runbook"):
        assert f"{{{{ .Annotations.{part} }}}}" in text


def test_prometheus_reads_the_service_as_its_own_hosts_say():
    """A service's variables may be set for the group agents alone."""
    hostvars = {name: {**values} for name, values in BASELINE["hostvars"].items()}
    hostvars["agent1"] |= {"agent_name": "shop", "agent_metrics_path": "/internal/metrics"}
    told = instances(hostvars=hostvars).values()
    assert {(labels["service"], labels["__metrics_path__"]) for labels in told} == {("shop", "/internal/metrics")}


def test_prometheus_reads_every_host_and_every_balancer():
    found = targets(balancer_metrics_port=9405)
    assert {address: labels["instance"] for address, labels in found["haproxy"].items()} == {"10.0.0.11:9405": "edge1"}
    nodes = {address: labels["instance"] for address, labels in found["node"].items()}
    assert nodes == {f"{host['ansible_host']}:9100": name for name, host in BASELINE["hostvars"].items()}
    assert list(found["prometheus"]) == ["127.0.0.1:9090"]


def grafana(**different):
    """Grafana's configuration on data1, which monitors."""
    config = configparser.ConfigParser(interpolation=None)
    given = {"edge_operators": {"ops": "long-enough-1"}, **different}
    config.read_string(render("grafana/templates/agentfleet.ini.j2", **given))
    return config


def test_grafana_takes_the_edges_word_for_who_logged_in():
    config = grafana()
    assert config["server"]["http_addr"] == "10.0.0.31"
    assert config["server"]["root_url"].endswith("/operations/grafana/")
    assert (config["auth.proxy"]["enabled"], config["auth.proxy"]["whitelist"]) == ("true", "10.0.0.11")
    assert config["auth.anonymous"]["enabled"] == "false"


@pytest.mark.parametrize(
    ("different", "shown"),
    [
        (VARIANTS["one host"], True),
        ({"edge_operators": {}}, False),
        ({"groups": {**BASELINE["groups"], "edge": []}}, False),
    ],
    ids=["one host", "no operators", "no edge"],
)
def test_grafana_takes_nobodys_word_where_no_other_host_asks_for_a_login(different, shown):
    config = grafana(**different)
    assert dict(config["auth.proxy"]) == {"enabled": "false"}
    assert ("root_url" in config["server"]) is shown


def test_the_log_host_takes_lines_of_the_inventory_alone_and_names_hosts_by_their_addresses():
    text = render("logs/templates/store.conf.j2")
    assert 'tls.permittedPeer=["edge1", "agent1", "agent2", "data1"]' in text
    assert 'type="imrelp" address="10.0.0.31" port="6514"' in text
    for name, values in BASELINE["hostvars"].items():
        assert re.search(rf'if \$fromhost-ip == "{values["ansible_host"]}" then {{\s+set \$.host = "{name}";', text)


def test_hosts_send_the_files_of_their_groups_to_the_log_host_alone():
    text = render("logs/templates/sender.conf.j2", group_names=["edge", "agents"])
    assert 'target="10.0.0.31" port="6514"' in text
    assert 'tls.permittedPeer=["data1"]' in text
    assert re.findall(r'file="(\S+)"', text) == ["/var/log/nginx/access.log", "/var/log/nginx/error.log"]
    assert 'imfile" statefile' not in render("logs/templates/sender.conf.j2", group_names=["agents"])


@pytest.mark.parametrize(
    ("unit", "sent"),
    [
        ("shop@green-12.service", True),
        ("shop-migrate@blue.service", True),
        ("agentfleet-director.service", True),
        ("postgresql@17-main.service", True),
        ("nginx.service", True),
        ("my-own.service", True),
        ("ssh.service", False),
        ("not-nginx.service", False),
    ],
)
def test_the_fleets_own_units_and_those_one_names_are_sent_whole(unit, sent):
    text = render("logs/templates/sender.conf.j2", logs_units=["^my-own[.]service$"])
    form = re.search(r"re_match\(\$\.unit, '(.*)'\)", text)[1]
    assert bool(re.search(form, unit)) is sent
