"""Somebody who is new, with bare hosts, and what is typed on the way to a service."""

from __future__ import annotations

import shlex
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml

from .desk import Desk, commands_of
from .fleet import Fleet, Result, SiteTransport, copy_inventory
from .pebble import Authority, pebble

DOMAIN = "agent.shop.test"
AUTHORITIES = sorted(Path("/usr/local/share/ca-certificates").glob("*.crt"))
# Another's site and rule, which were on the host before.
NEIGHBOUR = """
apt-get -q update && apt-get -q -y --no-install-recommends install nginx ufw
printf 'server { listen 80; server_name blog.shop.test; return 200 "a blog"; }' >/etc/nginx/sites-enabled/blog
systemctl reload nginx
ufw allow 7000/tcp comment 'the blog'
"""
# A cloud image's user, and sshd on a port of its own.
CLOUD = """
useradd --create-home --shell /bin/bash debian && echo 'debian ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/90-cloud
install -d -o debian -m 700 ~debian/.ssh && install -o debian -m 600 ~/.ssh/authorized_keys ~debian/.ssh/
printf 'Port 2222\\n' >/etc/ssh/sshd_config.d/port.conf && systemctl restart ssh
"""


@dataclass
class Kind:
    """One kind of fleet: its bare hosts, what was done to them before, what is answered to which questions."""

    hosts: tuple[str, ...]
    before: str = ""
    replies: dict[str, str] = field(default_factory=dict)
    variables: dict[str, object] = field(default_factory=dict)
    user: str = "root"
    port: int = 22


SEVERAL = {"The edge": "", "The hosts that run the service": "", "The host of PostgreSQL and Redis": ""}
KINDS = {
    "one": Kind(("bare1",)),
    "beside another site": Kind(("bare2",), before=NEIGHBOUR),
    "three": Kind(
        ("bare3", "bare4", "bare5"),
        CLOUD,
        {
            **SEVERAL,
            "private network": "the same",
            "User that SSH logs in with": "debian",
            "Port of SSH": "2222",
        },
        user="debian",
        port=2222,
    ),
    # The lab's addresses are private ones, so it has to be told.
    "three in public": Kind(
        ("bare6", "bare7", "bare8"), replies={**SEVERAL, "private network": ""}, variables={"fleet_tls": True}
    ),
}


class Newcomer:
    """Somebody at a desk, with VMs."""

    def __init__(self, lab: Fleet, kind: Kind, directory: Path, authority: Authority) -> None:
        self.lab, self.kind, self.authority = lab, kind, authority
        known = yaml.safe_load(lab.variables.read_text())
        self.model_key, self.model_url = str(known["agent_model_key"]), str(known["agent_model_url"])
        self.addresses = [lab.address(host) for host in kind.hosts]
        self.edge = self.addresses[0]
        self.desk = Desk(directory, {DOMAIN: self.edge})
        self.root = ssl.create_default_context(cafile=str(authority.root))
        self.key = ""
        self.typed: dict[str, str] = {}

    def init(self) -> Result:
        replies = {
            "Name of the fleet": "shop",
            "Addresses of its hosts": ",".join(self.addresses),
            "User that SSH logs in with": "",
            "Port of SSH": "",
            "Private key of SSH": str(self.lab.credentials / "ssh_key"),
            "Name under which users reach": DOMAIN,
            "Mail address": "ops@shop.test",
            "your own app": "",
            "Key of the model's provider": self.model_key,
            **self.kind.replies,
        }
        if replies.get("private network") == "the same":
            replies["private network"] = ",".join(self.addresses)
        return self.desk.answer(replies, "-e", "accept_host_keys=true")

    def begin(self) -> None:
        """init.yml, whose commands are typed from then on, and what belongs to this place."""
        asked = self.init()
        assert asked.returncode == 0, asked.stdout
        site, deploy = commands_of(asked)
        self.typed = {"site": site, "deploy": deploy}
        self.configure()

    def configure(self) -> None:
        """What is different here from the world outside: its authority, its model, and whom it trusts."""
        own = {
            "tls_acme_directory": self.authority.directory,
            "tls_acme_ca": str(self.authority.ca),
            "base_ca_certificates": [str(path) for path in AUTHORITIES],
            "agent_model_url": self.model_url,
            **self.kind.variables,
        }
        # Read after main.yml, which names a model as well.
        (self.desk.shop / "group_vars/all/own.yml").write_text(yaml.safe_dump(own))
        self.key = self.desk.vault()["agent_api_key"]

    def play(self, name: str, *options: str) -> Result:
        """One of the commands, as init.yml printed the first of them."""
        line = self.typed.get(name) or self.typed["site"].replace("/site.yml", f"/{name}.yml")
        return self.desk.run(*shlex.split(line), *options, timeout=900)

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        transport = SiteTransport(DOMAIN, verify=self.root)
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(base_url=f"https://{self.edge}", transport=transport, headers=headers, timeout=60) as client:
            yield client

    def chat(self, client: httpx.Client) -> httpx.Response:
        return client.post(
            "/api/chat",
            json={"message": "Is anybody there?", "session_id": uuid.uuid4().hex},
            headers={"X-Request-Id": uuid.uuid4().hex},
        )

    def on(self, address: str, command: str) -> Result:
        known = f"UserKnownHostsFile={self.desk.known_hosts}"
        words = ["ssh", "-o", known, "-o", "IdentitiesOnly=yes", "-i", str(self.lab.credentials / "ssh_key")]
        done = subprocess.run(
            [*words, "-p", str(self.kind.port), f"{self.kind.user}@{address}", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        return Result(done.returncode, done.stdout)


@contextmanager
def arrival(lab: Fleet, kind: Kind, directory: Path) -> Iterator[Newcomer]:
    """Bare hosts of a KIND, in a LAB whose inventory is left as it is, and somebody whose files are in DIRECTORY."""
    inventory = copy_inventory(lab.inventory, directory / "bare")
    suites = ("trixie", "bookworm")
    hosts = {
        host: {"lab_suite": suites[number % 2], "ansible_host": lab.address(host)}
        for number, host in enumerate(kind.hosts)
    }
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"machines": {"hosts": hosts}}}}))
    lab.forget(*kind.hosts)
    lab.board(inventory, *kind.hosts)
    for host in kind.hosts:
        lab.on(host, kind.before or "true").ok()
    with pebble(f"{lab.prefix}.1", directory / "authority") as authority:
        authority.names_lead_to(lab.address(kind.hosts[0]))
        yield Newcomer(lab, kind, directory, authority)
    lab.forget(*kind.hosts)
