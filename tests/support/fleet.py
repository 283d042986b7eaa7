"""The front door of a fleet under test: playbooks as a user runs them, SSH to a host, HTTPS at the edge."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from ansible_collections.agentfleet.vm.plugins.module_utils import lab as labs

TOP = Path(__file__).resolve().parents[2]
BIN = TOP / ".venv/bin"
# Hosts by group, as an inventory has them.
Groups = dict[str, Any]
# The last number of a host's address; from 51 on they are boarders, which tests boot beside the lab's own.
LAST = {
    **{"edge1": 11, "agent1": 21, "agent2": 22, "agent3": 23, "data1": 31, "ops1": 41},
    **{"desk1": 51, "site1": 61, "site2": 62},
    **{f"bare{number}": 70 + number for number in range(1, 9)},
    **{"open1": 83, "open2": 84, "open3": 85, "alone1": 81, "away1": 82},
}
# The lab's own hosts.
HOSTS = ("edge1", "agent1", "agent2", "data1", "ops1")
# What tests had a host say on purpose has this name in its journal.
BLAB = "blab"
RECAP = re.compile(r"^(\S+)\s+: (ok=\d+.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """What a command gave: its exit status, and what it wrote to both streams in the order it came."""

    returncode: int
    stdout: str
    seconds: float = 0.0

    def recap(self) -> dict[str, dict[str, int]]:
        """Counts of the play recap, by host."""
        return {
            host: {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", counts)}
            for host, counts in RECAP.findall(self.stdout)
        }

    def changed(self) -> dict[str, int]:
        return {host: counts["changed"] for host, counts in self.recap().items()}

    def ok(self) -> Result:
        assert self.returncode == 0, f"exit status {self.returncode}\n{self.stdout[-12000:]}"
        return self


class SiteTransport(httpx.HTTPTransport):
    """Connects to an address while the request, its TLS and its Host header name the site."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__(**options)
        self.name = name

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": self.name}
        request.headers["Host"] = self.name
        return super().handle_request(request)


@dataclass(frozen=True)
class Fleet:
    """A lab by name and network, reached as a user reaches a fleet."""

    name: str
    network: str
    variables: Path
    inventory: Path = TOP / "inventories/lab"

    def address(self, host: str) -> str:
        return f"{self.prefix}.{LAST[host]}"

    @property
    def prefix(self) -> str:
        return self.network.rsplit(".", 1)[0]

    @property
    def credentials(self) -> Path:
        return TOP / "inventories/lab/credentials"

    def secret(self, name: str) -> str:
        return (self.credentials / name).read_text().strip()

    def run(self, *command: str, cwd: Path = TOP, env: dict[str, str] | None = None, timeout: float = 900) -> Result:
        whole = {**os.environ, "ANSIBLE_NOCOLOR": "1", "PYTHONUNBUFFERED": "1", **(env or {})}
        done = subprocess.run(
            command, cwd=cwd, env=whole, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout
        )
        return Result(done.returncode, done.stdout)

    def command(self, name: str, *options: str, inventory: Path | None = None) -> list[str]:
        """The command line that runs a playbook of the checkout against this lab."""
        source = str(inventory or self.inventory)
        # Half a minute of watching each deploy is for users; a test that is about it says how long.
        unwatched = name == "deploy" and not any("bake_seconds" in option for option in options)
        return [
            str(BIN / "ansible-playbook"),
            "-i",
            source,
            f"playbooks/{name}.yml",
            "-e",
            f"@{self.variables}",
            *(["-e", "bake_seconds=0"] if unwatched else []),
            *options,
        ]

    def playbook(
        self, name: str, *options: str, inventory: Path | None = None, env: dict[str, str] | None = None
    ) -> Result:
        return self.run(*self.command(name, *options, inventory=inventory), env=env)

    def status(self) -> dict[str, Any]:
        """The one document of status.yml."""
        return dict(json.loads(self.playbook("status", "-e", "status_format=json").ok().stdout))

    def ssh(self, host: str) -> list[str]:
        return [
            "ssh",
            "-o",
            f"UserKnownHostsFile={self.credentials}/known_hosts_{self.name}",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-i",
            str(self.credentials / "ssh_key"),
            f"root@{self.address(host)}",
        ]

    def board(self, inventory: Path, *hosts: str) -> None:
        """Boot hosts of another inventory in this lab, and note their keys."""
        only = ["-e", json.dumps({"lab_only": hosts}), "-e", f"lab_credentials={self.credentials}"]
        self.playbook("lab", "-e", "lab_state=up", *only, inventory=inventory).ok()
        known = self.credentials / f"known_hosts_{self.name}"
        addresses = tuple(f"{self.address(host)} " for host in hosts)
        # A lab that was made for its network alone has noted none yet.
        noted = known.read_text().splitlines() if known.exists() else []
        lines = [line for line in noted if not line.startswith(addresses)]
        for host in hosts:
            key = Path("/var/lib/agentfleet-lab/hosts") / self.name / host / "root/etc/ssh/ssh_host_ed25519_key.pub"
            lines.append(f"{self.address(host)} {' '.join(key.read_text().split()[:2])}")
        known.write_text("\n".join(lines) + "\n")

    def forget(self, *hosts: str) -> None:
        """Remove boarders with their disks; one that boards again is bare."""
        directory = Path("/var/lib/agentfleet-lab")
        lab = labs.Lab(self.name, self.network, "", directory, "", ())
        for host in hosts:
            labs.remove_host(lab, host)

    def on(self, host: str, command: str, stdin: str | None = None, seconds: float = 300) -> Result:
        """A shell command on a host, as root."""
        done = subprocess.run(
            [*self.ssh(host), command],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
        )
        return Result(done.returncode, done.stdout)

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.credentials / f"{self.name}-{self.service}.crt"))

    @contextmanager
    def client(self, key: str | None = None, **options: Any) -> Iterator[httpx.Client]:
        """An HTTP client of the site that verifies its certificate; KEY is the API key unless another is given."""
        headers = {"Authorization": f"Bearer {self.secret('api_key') if key is None else key}"}
        with httpx.Client(
            base_url=f"https://{self.address('edge1')}",
            transport=SiteTransport("agent.lab.test", verify=self.tls(), limits=httpx.Limits(max_connections=50)),
            headers=headers,
            timeout=60,
            **options,
        ) as client:
            yield client

    def sql(self, statement: str) -> str:
        """The database's answer, as its own superuser sees it: unaligned, without headings."""
        command = f"cd / && runuser -u postgres -- psql -X -A -t -v ON_ERROR_STOP=1 -d {self.service}"
        return self.on("data1", command, stdin=statement).ok().stdout.strip()

    service: str = "agent"


def copy_inventory(source: Path, target: Path) -> Path:
    """A copy to change one thing in; the generated credentials stay where they are, linked."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("credentials"))
    (target / "credentials").symlink_to(source / "credentials")
    return target


def change_hosts(inventory: Path, change: Callable[[Groups], None]) -> None:
    """Rewrite which hosts a copy has, by group."""
    hosts = inventory / "hosts.yml"
    known = yaml.safe_load(hosts.read_text())
    change(known["all"]["children"]["machines"]["children"])
    hosts.write_text(yaml.safe_dump(known, sort_keys=False))
