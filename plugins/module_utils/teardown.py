"""What of a host goes when a service, or the last one of a fleet, is taken away. Pure: facts in, steps out.

What tells that something is still to be done goes last, so that another run finishes a host that was left half-way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ansible_collections.agentfleet.vm.plugins.module_utils import firewall

PACKAGES_STAY = (
    "Packages stay installed, and what nobody uses any more is stopped; backups and certificates' copies stay."
)
MARK = "Managed by Agentfleet"
HBA = "/etc/postgresql/*/main/agentfleet"
REDIS = "/etc/redis/agentfleet"
BALANCER = "/etc/haproxy/agentfleet"
SITES = "/etc/nginx/agentfleet"
FIGURES = "/etc/prometheus/agentfleet"
ORDERS = "/etc/agentfleet/certificates"
STATE = "/var/lib/agentfleet"
# Where a service is known by the name of a file: the directory, and what is around the name.
NAMED = ((BALANCER, "2-{}.cfg"), (SITES, "{}.conf"), (HBA, "2-{}.conf"), (REDIS, "2-{}.acl"), (FIGURES, "{}.yml"))

# What a service's template units are called after its name.
KINDS = ("", "-worker", "-migrate")
# Of the service alone; {} is its name. A directory takes what is in it along.
OWN_UNITS = (
    *("{}@*.service", "{}-worker@*.service", "{}-migrate@*.service"),
    *("{}-stop-*.timer", "{}-stop-*.service", "{}-console-*.service"),
    *("agentfleet-certificate-{}.timer", "agentfleet-certificate-{}.service"),
)
OWN_FILES = (
    "/etc/systemd/system/multi-user.target.wants/{}@*.service",
    *(f"{SITES}/{{}}.conf", "/var/www/maintenance/{}", f"{FIGURES}/{{}}.yml"),
    *(f"{SITES}/{{}}.operators", "/etc/agentfleet/status/{}.json", "/var/www/status/{}"),
    "/etc/agentfleet/routine/{}.json",
    f"{FIGURES}-sites/{{}}.pem",
    *("/etc/systemd/system/agentfleet-certificate-{}.timer", "/etc/systemd/system/agentfleet-certificate-{}.service"),
    *("/etc/agentfleet/tls/{}.crt", "/etc/agentfleet/tls/{}.key", f"{ORDERS}/{{}}.json"),
    *(f"{STATE}/certbot/*/{{}}", f"{STATE}/certbot/renewal/{{}}.conf", f"{STATE}/certbot/{{}}.json", f"{STATE}/{{}}"),
    *(f"/etc/systemd/system/{{}}{kind}@*.service.d/runtime.conf" for kind in KINDS),
    *("/etc/systemd/system/{}-worker@.service", "/etc/systemd/system/{}-migrate@.service"),
    "/run/lock/agentfleet-{}.lock",
    *(f"/opt/{{}}/{part}" for part in ("releases", "venvs", "slots", "docker", "tools", "uv.txt")),
    # The last: what a host says of its services it reads from here.
    "/etc/systemd/system/{}@.service",
)
OWN_EMPTY = (*(f"/etc/systemd/system/{{}}{kind}@*.service.d" for kind in KINDS), "/opt/{}")

DROP_IN = "/etc/systemd/system/{}.service.d/agentfleet.conf"
# What shows figures and what tells of them: Debian's units, each with a drop-in of ours.
WATCHING = (
    *("prometheus", "prometheus-alertmanager"),
    *(f"prometheus-{what}-exporter" for what in ("node", "nginx", "redis", "postgres", "blackbox")),
)
# Of the fleet: with the last service. A unit that is not ours alone only where our part of its configuration is.
FLEET_UNITS = {
    "agentfleet-prometheus.socket": "/etc/systemd/system/agentfleet-prometheus.socket",
    "agentfleet-prometheus.service": "/etc/systemd/system/agentfleet-prometheus.service",
    **{f"{name}.service": DROP_IN.format(name) for name in WATCHING},
    "grafana-server.service": DROP_IN.format("grafana-server"),
    "agentfleet-director.service": "/etc/systemd/system/agentfleet-director.service",
    **{
        f"agentfleet-{unit}": f"/etc/systemd/system/agentfleet-{unit}"
        for unit in ("logs.service", "logs-store.service", "logs-tidy.timer", "logs-tidy.service")
    },
    **{
        f"agentfleet-{unit}": f"/etc/systemd/system/agentfleet-{unit}"
        for name in ("backup", "drill", "backup-watch", "status", "routine")
        for unit in (f"{name}.timer", f"{name}.service")
    },
    "haproxy.service": DROP_IN.format("haproxy"),
}
FLEET_FILES = (
    *(FIGURES, "/etc/prometheus/agentfleet.yml", f"{FIGURES}-*"),
    *(DROP_IN.format(name) for name in WATCHING),
    *("/etc/systemd/system/agentfleet-prometheus.socket", "/etc/systemd/system/agentfleet-prometheus.service"),
    DROP_IN.format("haproxy"),
    *(DROP_IN.format("grafana-server"), "/etc/grafana/agentfleet", "/etc/grafana/agentfleet.*"),
    "/etc/systemd/system/agentfleet-director.service",
    *("/etc/haproxy/errors/problem-*.http", "/etc/haproxy/agentfleet-route-key", "/var/lib/haproxy/server-state*"),
    "/var/lib/haproxy/agentfleet",
    *("/usr/local/bin/agentfleet-director", BALANCER, SITES),
    *("/etc/systemd/system/agentfleet-backup*", "/etc/systemd/system/agentfleet-drill.*"),
    *("/etc/systemd/system/agentfleet-status.*", "/etc/systemd/system/agentfleet-routine.*"),
    *("/usr/local/bin/agentfleet-backup", "/etc/sudoers.d/agentfleet-backup", "/var/lib/agentfleet-backup"),
    *("/etc/systemd/system/agentfleet-logs*", "/var/lib/private/agentfleet-logs*", "/var/lib/agentfleet-logs*"),
    *(f"/var/lib/prometheus/node-exporter/agentfleet_{what}.prom" for what in ("backup", "director", "routine")),
    # When systemd's own records say that a timer went off last.
    "/var/lib/systemd/timers/stamp-agentfleet-*.timer",
    "/etc/postgresql-common/createcluster.d/agentfleet-backup.conf",
    *("/etc/systemd/journald.conf.d/10-agentfleet.conf", "/etc/systemd/timesyncd.conf.d/10-agentfleet.conf"),
    *("/etc/sysctl.d/60-agentfleet.conf", "/etc/sysctl.d/60-agentfleet-redis.conf"),
    *("/etc/apt/apt.conf.d/60agentfleet", "/etc/apt/apt.conf.d/60agentfleet-docker"),
)
# What sends PostgreSQL's log to where it is kept.
ARCHIVE = "/etc/postgresql/*/main/conf.d/20-agentfleet-backup.conf"
KEYS = "/var/lib/postgresql/.ssh/authorized_keys"
REPOSITORY = "/var/backups/agentfleet"
SSH = "/etc/ssh/sshd_config.d/10-agentfleet.conf"
DOCKER = ("/etc/docker/daemon.json", "/etc/apt/apt.conf.d/60agentfleet-docker")
PEOPLE = "/etc/sudoers.d/agentfleet"
NGINX, HAPROXY = "/etc/nginx/nginx.conf", "/etc/haproxy/haproxy.cfg"
POSTGRES_FILES = (
    ARCHIVE,
    *("/etc/postgresql/*/main/conf.d/10-agentfleet.conf", "/etc/systemd/system/postgresql@.service.d/agentfleet.conf"),
    *("/etc/postgresql-common/createcluster.d/agentfleet.conf", HBA, "/etc/postgresql/*/main/agentfleet.pem"),
    *("/etc/systemd/system/postgres-analyze.service", "/etc/systemd/system/postgres-analyze.timer"),
)
POSTGRES_UNITS = ("postgres-analyze.timer", "postgresql@*.service", "postgresql.service")
REDIS_FILES = (
    *("/etc/systemd/system/redis-server.service.d/agentfleet.conf", "/etc/redis/agentfleet.conf"),
    *("/etc/redis/agentfleet.acl", "/etc/redis/agentfleet.pem", REDIS),
)
# The last of all: with them goes what the firewall was before.
LAST_FILES = (
    *("/usr/local/lib/agentfleet", "/var/cache/agentfleet", "/etc/ssl/certs/agentfleet-fleet.pem"),
    *("/etc/agentfleet", "/run/agentfleet", STATE),
)
FLEET_EMPTY = (
    *(f"/etc/systemd/system/{unit}.service.d" for unit in ("haproxy", *WATCHING)),
    "/etc/systemd/system/grafana-server.service.d",
    *(
        "/etc/systemd/system/redis-server.service.d",
        "/etc/systemd/system/postgresql@.service.d",
        "/var/www/maintenance",
        "/var/www/status",
    ),
    *("/var/www/acme/.well-known/acme-challenge", "/var/www/acme/.well-known", "/var/www/acme"),
)

EVERYTHING = (
    *(*OWN_FILES, *OWN_EMPTY, *FLEET_FILES, *POSTGRES_FILES, *REDIS_FILES, *LAST_FILES, *FLEET_EMPTY, *DOCKER),
    *(SSH, PEOPLE, KEYS, REPOSITORY, *(f"{directory}/{form}" for directory, form in NAMED)),
)


@dataclass(frozen=True)
class Step:
    """What is done to what: `remove` a path, `stop` a unit …"""

    do: str
    what: str

    def line(self) -> str:
        return f"{self.do} {self.what}"


@dataclass(frozen=True)
class Found:
    """What a host has. `paths` are those that the catalogue above names; `active` and `enabled` are units."""

    paths: frozenset[str] = frozenset()
    active: frozenset[str] = frozenset()
    enabled: frozenset[str] = frozenset()
    # Configuration that Debian has as well, and that bears our mark.
    ours: frozenset[str] = frozenset()
    # Sites of others that Nginx would go on serving.
    other_sites: tuple[str, ...] = ()
    user: bool = False
    # Whether there is the user that the backup host comes as.
    backup_user: bool = False
    containers: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    other_containers: bool = False
    databases: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    other_databases: tuple[str, ...] = ()
    firewall: firewall.Firewall = field(default_factory=firewall.Firewall)
    # What the firewall was before the fleet; None where that is not known.
    before: Mapping[str, object] | None = None
    # Below these the data of PostgreSQL and Redis lie.
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wish:
    service: str
    last: bool
    delete_data: bool = False


@dataclass(frozen=True)
class Plan:
    """What is done, in this order, and what is left on purpose, in words."""

    steps: tuple[Step, ...] = ()
    stays: tuple[str, ...] = ()


Part = tuple[list[Step], list[str]]
BACKUP_USER = "agentfleet-backup"
SSH_RULE = f"{firewall.MARK}: ssh"


def services_of(paths: Iterable[str]) -> frozenset[str]:
    """The services that a host has anything of, by the names of files."""
    forms = [f"{directory}/{form}" for directory, form in NAMED]
    forms += ["/opt/{}/slots"]
    named = [re.compile(_pattern(form).replace(r"\{\}", "([a-z][a-z0-9-]*)")) for form in forms]
    found = {match[1] for path in paths for form in named if (match := form.fullmatch(path))}
    return frozenset(found)


def _pattern(form: str) -> str:
    """A star is for one part of a path, or of a unit's name."""
    return "[^/]*".join(map(re.escape, form.split("*")))


def _matching(found: Iterable[str], forms: Iterable[str], service: str = "") -> list[str]:
    """Of what was found what the forms name, in their order."""
    there = sorted(found)
    patterns = [re.compile(_pattern(form.replace("{}", service))) for form in forms]
    return list(dict.fromkeys(name for pattern in patterns for name in there if pattern.fullmatch(name)))


def decide(found: Found, wish: Wish) -> Plan:
    """The steps for one host. The firewall is made what it was before a rule goes that lets somebody in."""
    parts: list[Callable[[Found, Wish], Part]] = [_firewall] if wish.last else []
    parts += [_service, _database]
    parts += [_edge, _fleet, _data_host, _docker, _rest] if wish.last else []
    steps: list[Step] = []
    stays: list[str] = []
    for part in parts:
        more, left = part(found, wish)
        steps += more
        stays += left
    return Plan(tuple(dict.fromkeys(steps)), tuple(stays))


def _stop(found: Found, units: Iterable[str]) -> list[Step]:
    return [Step("stop", unit) for unit in units if unit in found.active | found.enabled]


def _remove(found: Found, forms: Iterable[str], service: str = "") -> list[Step]:
    return [Step("remove", path) for path in _matching(found.paths, forms, service)]


def _has(found: Found, forms: Iterable[str]) -> bool:
    return bool(_matching(found.paths, forms))


def _firewall(found: Found, _wish: Wish) -> Part:
    """UFW as it was: off, or on with the policy that it had."""
    if found.before is None:
        kept = any(rule.comment == SSH_RULE for rule in found.firewall.rules)
        return [], (["UFW stays on and lets SSH in: nobody noted what it was before"] if kept else [])
    if not found.before.get("active"):
        return ([Step("disable", "ufw")] if found.firewall.active else []), []
    policy = str(found.before.get("incoming", "deny"))
    return ([Step("default incoming", policy)] if policy != found.firewall.incoming else []), []


def _rules(found: Found, wish: Wish) -> list[Step]:
    """Of our rules the service's, and with the last one the fleet's; SSH's stays where UFW stays on because of us."""
    own = (f"{firewall.MARK} {wish.service}:", *([f"{firewall.MARK}:"] if wish.last else []))
    gone = [rule for rule in found.firewall.rules if rule.comment.startswith(own)]
    return [Step("delete rule", rule.command) for rule in gone if found.before is not None or rule.comment != SSH_RULE]


def _service(found: Found, wish: Wish) -> Part:
    """What is the service's alone. The way to it first, so that nobody is sent where nothing answers any more."""
    name = wish.service
    site, part, acl = f"{SITES}/{name}.conf", f"{BALANCER}/2-{name}.cfg", f"{REDIS}/2-{name}.acl"
    steps = []
    if site in found.paths:
        steps += [Step("remove", site), *([] if wish.last else [Step("reload", "nginx.service")])]
    if part in found.paths and not wish.last:
        # Written without the part before that is removed.
        steps += [Step("assemble", "haproxy"), Step("remove", part)]
    steps += _stop(found, _matching(found.active | found.enabled, OWN_UNITS, name))
    steps += [Step("remove container", container) for container in found.containers]
    steps += [Step("remove image", image) for image in found.images]
    steps += _rules(found, wish)
    steps += [Step("remove user", name)] if found.user else []
    steps += _remove(found, OWN_FILES, name)
    steps += [Step("remove if empty", path) for path in _matching(found.paths, OWN_EMPTY, name)]
    if acl in found.paths and not wish.last:
        steps += [Step("assemble", "redis"), Step("remove", acl)]
    return steps, []


def _database(found: Found, wish: Wish) -> Part:
    """Databases and their owners, only when that was said; and who is let in."""
    steps, stays = [], []
    if wish.delete_data:
        steps += [Step("drop database", name) for name in found.databases]
        steps += [Step("drop role", name) for name in found.roles]
    elif found.databases:
        stays.append(f"PostgreSQL keeps {', '.join(found.databases)}{_in(found, 'postgresql')}")
    for part in _matching(found.paths, (f"{HBA}/2-{{}}.conf",), wish.service) if not wish.last else []:
        steps += [Step("assemble", "postgres"), Step("remove", part)]
    return steps, stays


def _in(found: Found, word: str) -> str:
    below = [path for path in found.data if word in path]
    return f" in {', '.join(below)}" if below else ""


def _edge(found: Found, _wish: Wish) -> Part:
    """Debian's configuration instead of ours; Nginx goes on where somebody else's sites are."""
    steps, stays = [], []
    restored = [Step("restore", NGINX)] if NGINX in found.ours else []
    if restored or SITES in found.paths:
        if found.other_sites:
            steps += [*restored, Step("reload", "nginx.service")]
            stays.append(f"Nginx goes on for what is not ours: {', '.join(found.other_sites)}")
        else:
            steps += [*_stop(found, ["nginx.service"]), *restored]
    return [*steps, *([Step("restore", HAPROXY)] if HAPROXY in found.ours else [])], stays


def _fleet(found: Found, _wish: Wish) -> Part:
    """What services share, with the last of them."""
    steps = _stop(found, (unit for unit, path in FLEET_UNITS.items() if path in found.paths))
    steps += [Step("remove user", BACKUP_USER)] if found.backup_user else []
    steps += _remove(found, (path for path in FLEET_FILES if path not in DOCKER))
    steps += [Step("forget key", path) for path in _matching(found.paths, (KEYS,)) if path in found.ours]
    steps += [*_remove(found, [SSH]), *([Step("reload", "ssh.service")] if SSH in found.paths else [])]
    stays = (
        ["people's accounts stay, and /etc/sudoers.d/agentfleet: they are a way in"] if PEOPLE in found.paths else []
    )
    if REPOSITORY in found.paths:
        stays.append(f"the backups stay in {REPOSITORY}, and backup_key reads them: keep it")
    return steps, stays


def _data_host(found: Found, wish: Wish) -> Part:
    """PostgreSQL and Redis are stopped; what they hold stays unless it was said."""
    steps: list[Step] = []
    stays: list[str] = []
    if _has(found, POSTGRES_FILES):
        if found.other_databases:
            stays.append(f"PostgreSQL goes on as it is for what is not ours: {', '.join(found.other_databases)}")
            for part in _matching(found.paths, (f"{HBA}/2-{{}}.conf",), wish.service):
                steps += [Step("assemble", "postgres"), Step("remove", part)]
            # Its log would wait for ever for somebody to take it.
            archive = _remove(found, (ARCHIVE,))
            steps += [*archive, Step("reload", "postgresql@*.service")] if archive else []
        else:
            steps += _stop(found, _matching(found.active | found.enabled, POSTGRES_UNITS))
            steps += [Step("restore", path) for path in sorted(found.ours) if path.endswith("/pg_hba.conf")]
            steps += _remove(found, POSTGRES_FILES)
    if _has(found, REDIS_FILES):
        steps += _stop(found, ["redis-server.service"])
        kept = [path for path in found.data if "redis" in path]
        if wish.delete_data:
            steps += [Step("empty", path) for path in kept]
        elif kept:
            stays.append(f"Redis' data stay{_in(found, 'redis')}")
        steps += _remove(found, REDIS_FILES)
    return steps, stays


def _docker(found: Found, _wish: Wish) -> Part:
    if not set(DOCKER) <= found.paths:
        return _remove(found, DOCKER[1:]), []
    if found.other_containers:
        return [], [f"Docker goes on, with {DOCKER[0]}, for containers that are not ours"]
    return [*_stop(found, ["docker.socket", "docker.service"]), *_remove(found, DOCKER)], []


def _rest(found: Found, _wish: Wish) -> Part:
    """The last: with it goes what tells that there was anything, and what the firewall was before."""
    return [
        *(Step("remove if empty", path) for path in _matching(found.paths, FLEET_EMPTY)),
        *_remove(found, LAST_FILES),
    ], []
