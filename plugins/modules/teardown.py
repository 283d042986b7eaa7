#!/usr/bin/python
"""Take away from one host what the collection put there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: teardown
short_description: Take a service away from a host, or all of the fleet with the last one
description:
  - Stops and removes what the collection put there for the service; with O(last) also what services share.
  - Looks at what there is, so that a host that was left half-way is finished, and a second run changes nothing.
  - Backups, people's accounts, installed packages and files of others stay; so do data, unless O(delete_data).
options:
  name:
    description: Name of the service.
    type: str
    required: true
  state:
    description: V(observed) only tells which services the host has anything of.
    type: str
    choices: [observed, absent]
    required: true
  last:
    description: Whether no other service of the fleet is left.
    type: bool
    default: false
  delete_data:
    description: Whether the service's databases and, with O(last), Redis' data go as well.
    type: bool
    default: false
  databases:
    description: Names of the service's databases.
    type: list
    elements: str
    default: []
  owners:
    description: Names of the databases' owners.
    type: list
    elements: str
    default: []
  generation:
    description: The number of the fleet's lease; an older one than the host has seen is refused.
    type: int
    default: 0
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Take the service away, and keep its data
  agentfleet.vm.teardown:
    name: shop
    state: absent
"""

RETURN = r"""
services:
  description: Services that the host has anything of.
  type: list
  elements: str
  returned: always
steps:
  description: What was done, or would be, in this order.
  type: list
  elements: str
  returned: when state is absent
stays:
  description: What is left on purpose, and where.
  type: list
  elements: str
  returned: when state is absent
"""

import contextlib
import glob
import json
import os
import pwd
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import (
    backup_access,
    containers,
    disk,
    firewall,
    installation,
    teardown,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SERVICE_NAME, Service
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError, run, systemctl
from ansible_collections.agentfleet.vm.plugins.module_utils.teardown import Found, Plan, Step, Wish

BEFORE = Path("/var/lib/agentfleet/firewall.json")
UFW_DEFAULTS = Path("/etc/default/ufw")
# The files that a package brings, which ours were written over.
PACKAGES = {teardown.NGINX: "nginx-common", teardown.HAPROXY: "haproxy"}
# As pg_createcluster writes it: whoever is a user of the host, and passwords otherwise.
HBA = """\
local   all             postgres                                peer
local   all             all                                     peer
host    all             all             127.0.0.1/32            scram-sha-256
host    all             all             ::1/128                 scram-sha-256
local   replication     all                                     peer
host    replication     all             127.0.0.1/32            scram-sha-256
host    replication     all             ::1/128                 scram-sha-256
"""
DATABASES = re.compile(r"postgres|template[01]")


class TeardownError(Exception):
    """What could not be taken away, and why."""


def expand(patterns: Iterable[str], service: str) -> frozenset[str]:
    """What there is of the catalogue: of any service where files are named after one."""
    named = {f"{directory}/{form}".replace("{}", "*") for directory, form in teardown.NAMED} | {"/opt/*/slots"}
    forms = {pattern.replace("{}", service) for pattern in patterns} | named
    return frozenset(path for form in forms for path in glob.glob(form))


def unit_names(*words: str) -> frozenset[str]:
    shown = systemctl(*words, "--plain", "--no-legend", "--no-pager")
    return frozenset(line.split()[0] for line in shown.splitlines() if line.strip())


def psql(statement: str, database: str = "postgres") -> list[str]:
    words = ("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", f"--dbname={database}")
    said = run("runuser", "-u", "postgres", "--", *words, f"--command={statement}")
    return [line for line in said.decode().splitlines() if line]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def of_postgres(wanted: Mapping[str, Any], active: frozenset[str]) -> dict[str, Any]:
    """Databases that are the service's and those that are nobody's of ours, where PostgreSQL runs."""
    if not any(unit.startswith("postgresql@") for unit in active):
        return {}
    there = psql("SELECT datname FROM pg_database")
    roles = psql("SELECT rolname FROM pg_roles")
    mine = [name for name in wanted["databases"] if name in there]
    return {
        "databases": tuple(mine),
        "roles": tuple(name for name in dict.fromkeys(wanted["owners"]) if name in roles),
        "other_databases": tuple(name for name in there if name not in mine and not DATABASES.fullmatch(name)),
    }


def of_docker(service: str) -> dict[str, Any]:
    """Containers of the service's slots, and its images."""
    if not shutil.which("docker"):
        return {}
    try:
        names = containers.docker("ps", "--all", "--format={{.Names}}").split()
        images = containers.docker(
            "image", "ls", f"--filter=label={containers.LABEL}.service={service}", "--format={{.Repository}}:{{.Tag}}"
        ).split()
    except CommandError:
        # One that does not run has none that run.
        return {}
    mine = [name for name in names if re.fullmatch(rf"{re.escape(service)}-((blue|green)(-\d+)?|build)", name)]
    tagged = tuple(image for image in images if "<none>" not in image)
    return {"containers": tuple(mine), "images": tagged, "other_containers": bool(set(names) - set(mine))}


def of_firewall() -> dict[str, Any]:
    if not shutil.which("ufw"):
        return {}
    added, status = run("ufw", "show", "added").decode(), run("ufw", "status").decode()
    before = json.loads(BEFORE.read_text()) if BEFORE.exists() else None
    return {"firewall": firewall.observed(status, added, UFW_DEFAULTS.read_text()), "before": before}


def bears_mark(path: str) -> bool:
    try:
        return teardown.MARK in Path(path).read_text(errors="replace")
    except OSError:
        return False


def has_user(name: str, home: str = "/nonexistent") -> bool:
    """Whether the user is there as our roles make it; another of that name is somebody's."""
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name).pw_dir == home
    return False


def bears_key(path: str) -> bool:
    """Whether somebody's keys have ours among them."""
    try:
        return any(line.endswith(f" {backup_access.MARK}") for line in Path(path).read_text().splitlines())
    except OSError:
        return False


def forget_key(path: str) -> None:
    """The keys without ours; a file that had no other goes."""
    before = Path(path)
    others = [line for line in before.read_text().splitlines() if not line.endswith(f" {backup_access.MARK}")]
    if others:
        kept = before.stat()
        disk.write(before, "".join(f"{line}\n" for line in others).encode(), kept.st_mode & 0o777)
        os.chown(before, kept.st_uid, kept.st_gid)
    else:
        before.unlink()


def observe(wanted: Mapping[str, Any]) -> Found:
    service = wanted["name"]
    active = unit_names("list-units", "--all", "--state=active,activating,failed")
    shared = [teardown.NGINX, teardown.HAPROXY, *glob.glob("/etc/postgresql/*/main/pg_hba.conf")]
    keys = [teardown.KEYS] if bears_key(teardown.KEYS) else []
    # Debian's own link is no site of anybody's.
    sites = [*glob.glob("/etc/nginx/sites-enabled/*"), *glob.glob("/etc/nginx/conf.d/*.conf")]
    data = [*glob.glob("/var/lib/postgresql/*/main"), *glob.glob("/var/lib/redis")]
    mounts = mount_points()
    return Found(
        paths=frozenset(path for path in expand(teardown.EVERYTHING, service) if not holds_mount(path, mounts)),
        active=active,
        enabled=unit_names("list-unit-files", "--state=enabled"),
        ours=frozenset([*keys, *(path for path in shared if bears_mark(path))]),
        other_sites=tuple(path for path in sorted(sites) if path != "/etc/nginx/sites-enabled/default"),
        user=has_user(service),
        backup_user=has_user(teardown.BACKUP_USER, "/var/lib/agentfleet-backup"),
        data=tuple(data),
        **of_postgres(wanted, active),
        **of_docker(service),
        **of_firewall(),
    )


def holds_mount(path: str, mounts: Iterable[str]) -> bool:
    """Whether something is mounted at or below PATH: what is in it is somebody's, and not this host's alone."""
    real = os.path.realpath(path)
    return any(mount == real or mount.startswith(f"{real}/") for mount in mounts)


def mount_points() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split(" ")[1].encode().decode("unicode_escape") for line in lines]


def remove(path: str) -> None:
    target = Path(path)
    if holds_mount(path, mount_points()):
        raise TeardownError(f"{path}: something is mounted there; umount it, then run this again")
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def remove_if_empty(path: str) -> None:
    with contextlib.suppress(OSError):
        Path(path).rmdir()


def empty(path: str) -> None:
    for entry in Path(path).iterdir():
        remove(str(entry))


def stop(unit: str) -> None:
    """What is stopped does not start at boot either; an instance of a template may have no file that says so."""
    systemctl("stop", unit)
    with contextlib.suppress(CommandError):
        systemctl("disable", "--quiet", unit)
    with contextlib.suppress(CommandError):
        systemctl("reset-failed", unit)


def reload(unit: str) -> None:
    systemctl("try-reload-or-restart", unit)


def restore(path: str) -> None:
    """The file as Debian has it, with who may read it as before."""
    before = Path(path).stat()
    data = from_package(PACKAGES[path], path) if path in PACKAGES else HBA.encode()
    disk.write(Path(path), data, before.st_mode & 0o777)
    os.chown(path, before.st_uid, before.st_gid)


def from_package(package: str, path: str) -> bytes:
    """A file as the archive's package has it."""
    mend = f"apt-get install --reinstall -o Dpkg::Options::=--force-confnew {package}"
    with tempfile.TemporaryDirectory() as directory:
        # apt fetches as a user of its own.
        os.chmod(directory, 0o755)
        try:
            # The installed version's, unless the archive has a newer one alone.
            version = run("dpkg-query", "--show", "--showformat=${Version}", package).decode()
            fetch = f"apt-get -q download {package}={version} 2>&1 || apt-get -q download {package} 2>&1"
            run("sh", "-c", f"cd {shlex.quote(directory)} && {{ {fetch}; }}")
            archive = next(Path(directory).glob("*.deb"))
            return run("sh", "-c", f"dpkg-deb --fsys-tarfile {shlex.quote(str(archive))} | tar -xO .{path}")
        except (CommandError, StopIteration) as error:
            raise TeardownError(
                f"{path} of Debian cannot be fetched ({error}); try again, or: rm {path}; {mend}"
            ) from error


def parts(directory: str, form: str, without: str) -> bytes:
    """All of a directory's files in their order, but one."""
    text = b""
    for path in sorted(Path(directory).glob(form)):
        if path.name != without:
            data = path.read_bytes()
            text += data if data.endswith(b"\n") else data + b"\n"
    return text


def assemble(service: str) -> Callable[[str], None]:
    """Configuration that is made of each service's part, without this one's."""

    def write(path: Path, data: bytes) -> None:
        before = path.stat()
        disk.write(path, data, before.st_mode & 0o777)
        os.chown(path, before.st_uid, before.st_gid)

    def of(what: str) -> None:
        if what == "haproxy":
            data = parts(teardown.BALANCER, "[12]-*.cfg", f"2-{service}.cfg")
            with tempfile.NamedTemporaryFile(suffix=".cfg") as trial:
                trial.write(data)
                trial.flush()
                run("/usr/sbin/haproxy", "-c", "-q", "-f", trial.name)
            write(Path(teardown.HAPROXY), data)
            systemctl("reload", "haproxy.service")
        elif what == "redis":
            write(Path("/etc/redis/agentfleet.acl"), parts(teardown.REDIS, "[12]-*.acl", f"2-{service}.acl"))
            systemctl("restart", "redis-server.service")
        else:
            for directory in glob.glob(teardown.HBA):
                write(Path(directory).with_name("pg_hba.conf"), parts(directory, "[123]-*.conf", f"2-{service}.conf"))
            systemctl("reload", "postgresql@*.service")

    return of


def remove_user(name: str) -> None:
    run("userdel", name)
    with contextlib.suppress(CommandError):
        # Gone with the user, unless it has other members.
        run("groupdel", name)


def ufw(*words: str) -> None:
    run("ufw", *words)


def actions(service: str) -> dict[str, Callable[[str], object]]:
    return {
        "stop": stop,
        "reload": reload,
        "remove": remove,
        "remove if empty": remove_if_empty,
        "empty": empty,
        "restore": restore,
        "assemble": assemble(service),
        "remove user": remove_user,
        "forget key": forget_key,
        "remove container": lambda name: containers.docker("rm", "--force", name),
        "remove image": lambda name: containers.docker("image", "rm", "--force", name),
        "drop database": lambda name: psql(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)"),
        "drop role": lambda name: psql(f"DROP ROLE IF EXISTS {quoted(name)}"),
        "disable": lambda _ufw: ufw("--force", "disable"),
        "default incoming": lambda policy: ufw("default", policy, "incoming"),
        "delete rule": lambda command: ufw("--force", "delete", *shlex.split(command)),
    }


def carry_out(plan: Plan, service: str) -> None:
    do = actions(service)
    try:
        for step in plan.steps:
            one(step, do)
    finally:
        # Whatever stopped it, systemd knows what files there are.
        systemctl("daemon-reload")


def one(step: Step, do: Mapping[str, Callable[[str], object]]) -> None:
    try:
        do[step.do](step.what)
    except (CommandError, OSError) as error:
        raise TeardownError(f"{step.line()}: {error}") from error


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["observed", "absent"], "required": True},
            "last": {"type": "bool", "default": False},
            "delete_data": {"type": "bool", "default": False},
            "databases": {"type": "list", "elements": "str", "default": []},
            "owners": {"type": "list", "elements": "str", "default": []},
            "generation": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    # A module's environment is the caller's; over SSH with sudo, /usr/sbin may be missing from it.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    name = wanted["name"]
    if not SERVICE_NAME.match(name):
        module.fail_json(msg=f"{name!r} is no name of a service")
    try:
        if wanted["state"] == "observed":
            services = teardown.services_of(expand((), name))
            module.exit_json(changed=False, services=sorted(services))
        wish = Wish(name, wanted["last"], wanted["delete_data"])
        found = observe(wanted)
        services = teardown.services_of(found.paths)
        plan = teardown.decide(found, wish)
        if plan.steps and not module.check_mode:
            with installation.locked(Service(name, Path("/opt") / name), seconds=300):
                installation.check_generation(wanted["generation"])
                # The lock and the generation are files of ours, too.
                plan = teardown.decide(observe(wanted), wish)
                carry_out(plan, name)
                # What still ran when it was looked at may have written since, or failed.
                rest = teardown.decide(observe(wanted), wish)
                carry_out(rest, name)
                plan = Plan((*plan.steps, *rest.steps), plan.stays)
    except (TeardownError, CommandError, installation.HostError, OSError) as error:
        module.fail_json(msg=str(error))
    lines = [step.line() for step in plan.steps]
    module.exit_json(
        changed=bool(lines),
        services=sorted(services),
        steps=lines,
        stays=list(plan.stays),
        diff={"before": "".join(f"{line}\n" for line in lines), "after": ""},
    )


if __name__ == "__main__":
    main()
