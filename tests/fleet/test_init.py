"""init.yml as a person uses it: questions or answers by -e, an inventory, a look at the hosts, the next commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from support.desk import Desk, commands_of, told_by
from support.fleet import Fleet, Result

KEY = "sk-0f1e2d3c4b5a69788796a5b4c3d2e1f0"
ANSWERS = {
    "fleet_name": "shop",
    "addresses": "192.0.2.10",
    "domain": "agent.shop.test",
    "tls_mode": "self_signed",
    "model_key": KEY,
}
Init = Callable[..., Result]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_without_a_terminal_it_says_what_is_missing(desk: Desk) -> None:
    result = desk.init(fleet_name="shop")
    assert result.returncode == 2
    [line] = told_by(result)
    assert line.startswith(
        "fleet: there is no terminal to ask at, and not all that is needed was given. Add -e addresses="
    )
    assert "-e domain=NAME -e mail=ADDRESS (or -e tls_mode=self_signed) -e model_key=KEY" in line
    assert not (desk.directory / "inventories").exists()


def test_a_second_run_changes_nothing_and_another_only_what_it_says(desk: Desk) -> None:
    first = desk.init("-vvv", **ANSWERS, check_hosts="false").ok()
    assert first.changed() == {"localhost": 1}
    assert "inventories/shop is written: hosts.yml, group_vars/all/main.yml, group_vars/all/vault.yml" in first.stdout
    assert KEY not in first.stdout
    before = desk.files()
    secrets = desk.vault()
    assert secrets["agent_model_key"] == KEY
    assert len({str(secrets[name]) for name in secrets}) == len(secrets) == 7
    assert KEY.encode() not in b"".join(before.values())
    for name in ("credentials/vault_password", "group_vars/all/vault.yml"):
        assert (desk.shop / name).stat().st_mode & 0o777 == 0o600

    again = desk.init(**ANSWERS, check_hosts="false").ok()
    assert again.changed() == {"localhost": 0}
    assert "inventories/shop is there; nothing is changed" in again.stdout
    assert commands_of(again) == commands_of(first)
    assert desk.files() == before

    main = desk.shop / "group_vars/all/main.yml"
    main.write_text(main.read_text().replace("agent_instances: 1", "agent_instances: 2  # two cores"))
    edited = main.read_text()
    desk.init(fleet_name="shop", domain="chat.shop.test", check_hosts="false").ok()
    assert main.read_text() == edited.replace(": agent.shop.test", ": chat.shop.test")
    assert desk.vault() == secrets

    other = KEY.replace("0f", "f0")
    changed = desk.init(fleet_name="shop", model_key=other, check_hosts="false").ok()
    assert "inventories/shop is changed: group_vars/all/vault.yml" in changed.stdout
    assert desk.vault() == {**secrets, "agent_model_key": other}


def test_a_check_writes_nothing(desk: Desk) -> None:
    result = desk.init("--check", "--diff", **ANSWERS, check_hosts="false").ok()
    assert result.changed() == {"localhost": 1}
    assert "+edge_server_name: agent.shop.test" in result.stdout
    assert KEY not in result.stdout
    assert not desk.shop.exists()


def test_the_commands_it_prints_work_as_they_are(desk: Desk) -> None:
    result = desk.init(**ANSWERS, check_hosts="false").ok()
    site, deploy = commands_of(result)
    assert "site.yml" in site
    assert "deploy.yml" in deploy
    for command in (site, deploy):
        assert "vm1" in desk.run(*shlex.split(command), "--list-hosts").ok().stdout


def test_the_vault_takes_the_password_that_is_given(desk: Desk) -> None:
    (desk.directory / "mine").write_text("open sesame")
    result = desk.init("--vault-password-file", "mine", **ANSWERS, check_hosts="false").ok()
    assert not (desk.shop / "credentials").exists()
    for command in commands_of(result):
        assert command.endswith(" --vault-password-file mine")
        desk.run(*shlex.split(command), "--list-hosts").ok()
    [line] = told_by(desk.init(fleet_name="shop", model_key="", check_hosts="false"))
    assert line == (
        "fleet: no password opens inventories/shop/group_vars/all/vault.yml."
        " Add --vault-password-file FILE or --ask-vault-pass"
    )


def test_at_a_terminal_it_asks(desk: Desk) -> None:
    replies = {
        "Name of the fleet": "Shop",
        "It has capitals. Write shop.": "shop",
        "Addresses of its hosts": "192.0.2.10,192.0.2.21,192.0.2.31",
        "The edge": "",
        "The hosts that run the service": "",
        "The host of PostgreSQL and Redis": "",
        "private network": "10.0.0.10,10.0.0.21,10.0.0.31",
        "User that SSH logs in with": "debian",
        "Port of SSH": "",
        "Private key of SSH": "",
        "Name under which users reach": "agent.shop.test",
        "Mail address": "",
        "your own app": "",
        "Key of the model's provider": KEY,
    }
    result = desk.answer(replies, "-e", "check_hosts=false")
    assert result.returncode == 0, result.stdout
    assert KEY not in result.stdout
    assert len(commands_of(result)) == 2
    hosts = yaml.safe_load((desk.shop / "hosts.yml").read_text())["all"]["children"]
    assert hosts["machines"]["vars"] == {"ansible_user": "debian"}
    assert hosts["machines"]["hosts"]["agent1"] == {"ansible_host": "192.0.2.21", "fleet_address": "10.0.0.21"}
    assert yaml.safe_load((desk.shop / "group_vars/all/main.yml").read_text())["tls_mode"] == "self_signed"
    assert desk.vault()["agent_model_key"] == KEY


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"domain": "Agent.shop.test"}, "fleet: domain 'Agent.shop.test' has capitals. Write agent.shop.test"),
        (
            {"tls_mode": "certbot", "mail": ""},
            "fleet: tls_mode certbot needs a mail address. Add -e mail=ADDRESS, or -e tls_mode=self_signed",
        ),
        (
            {"tls_mode": "certbot", "mail": "ops@shop.test", "domain": "agent.shop.invalid"},
            "fleet: agent.shop.invalid does not resolve. Set its A record to 192.0.2.10, or correct -e domain",
        ),
        ({"addresses": "2001:db8::1"}, "fleet: addresses '2001:db8::1' has the IPv6 address 2001:db8::1, and hosts"),
        ({"addresses": "vm1.shop.invalid"}, "fleet: vm1.shop.invalid does not resolve. Correct -e addresses"),
        ({"model_key": "sk-short"}, "fleet: model_key is shorter than 16 characters. Copy it again"),
        ({"adresses": "192.0.2.1"}, "fleet: unknown option -e adresses; did you mean 'addresses'?"),
        ({"app_source": "/nowhere", "app": "shop.main:app"}, "fleet: app_source '/nowhere' is no directory on this"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.soak
def test_wrong_answers_are_refused_before_anything_is_written(desk: Desk, wrong: dict[str, str], line: str) -> None:
    result = desk.init(**{**ANSWERS, **wrong})
    assert result.returncode == 2
    [told] = told_by(result)
    assert told.startswith(line)
    assert not desk.shop.exists()


# Hosts


@pytest.fixture
def look(desk: Desk, lab: Fleet) -> Init:
    """Makes an inventory of the lab's edge as one VM that does everything."""

    def init(*options: str, **given: str) -> Result:
        own = {"addresses": lab.address("edge1"), "ssh_key_file": str(lab.credentials / "ssh_key")}
        return desk.init(*options, **{**ANSWERS, **own, **given})

    return init


def test_a_host_is_trusted_knowingly_and_looked_at(desk: Desk, lab: Fleet, look: Init) -> None:
    shown = lab.on("edge1", "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").ok().stdout.split()[1]
    unknown = look()
    assert unknown.returncode == 2
    [line] = told_by(unknown)
    assert line.startswith(
        f"vm1: its SSH key is not known yet: {shown} (ssh-ed25519) at {lab.address('edge1')}. Compare"
    )
    assert len(commands_of(unknown)) == 2
    assert desk.shop.exists()
    assert not desk.known_hosts.exists()

    accepted = look(accept_host_keys="true").ok()
    assert f"vm1: accepted its SSH key {shown}" in accepted.stdout
    again = look()
    assert again.ok().changed() == {"localhost": 0, "vm1": 0}
    # What the product itself has against it is nothing.
    [site, _] = commands_of(again)
    desk.run(*shlex.split(site.replace("/site.yml", "/preflight.yml"))).ok()


@pytest.mark.soak
@pytest.mark.parametrize("reply", ["yes", "no"])
def test_at_a_terminal_it_asks_whether_the_key_is_the_hosts(desk: Desk, lab: Fleet, reply: str) -> None:
    own = {**ANSWERS, "addresses": lab.address("edge1"), "ssh_key_file": str(lab.credentials / "ssh_key")}
    answers = [word for name, value in own.items() for word in ("-e", f"{name}={value}")]
    result = desk.answer({"Is it this host?": reply}, *answers)
    assert result.returncode == (0 if reply == "yes" else 2), result.stdout
    assert desk.known_hosts.exists() is (reply == "yes")
    assert desk.shop.exists()


@contextmanager
def spoiled(lab: Fleet, spoil: str, mend: str) -> Iterator[None]:
    lab.on("edge1", spoil).ok()
    try:
        yield
    finally:
        lab.on("edge1", mend).ok()


ADD_USER = (
    "id clerk 2>/dev/null || useradd -m -s /bin/sh clerk; echo clerk:right | chpasswd;"
    "install -d -o clerk -m 700 ~clerk/.ssh;"
    "install -o clerk -m 600 ~/.ssh/authorized_keys ~clerk/.ssh/authorized_keys;"
    "echo 'clerk ALL=(ALL) ALL' >/etc/sudoers.d/clerk"
)
DELETE_USER = "rm -f /etc/sudoers.d/clerk; until userdel -r clerk 2>/dev/null; do pkill -u clerk; done"
# The host's clock is its controller's; what it reads is another day's.
DATE = "/usr/local/sbin/date"
TOMORROW = f"printf '#!/bin/sh\\necho $(($(/bin/date +%%s) + 86400))\\n' >{DATE}; chmod +x {DATE}"
LISTEN = (
    "systemctl stop nginx 2>/dev/null; systemd-run --quiet --unit=foreign python3 -m http.server 80 &&"
    " until ss -Hltn 'sport = :80' | grep -q .; do :; done"
)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("spoil", "mend", "given", "line"),
    [
        (TOMORROW, f"rm {DATE}", {}, r"vm1: its clock is 86\d\d\d s ahead of this machine's\. Set it"),
        (
            LISTEN,
            # Others use the edge after this.
            "systemctl stop foreign; systemctl cat nginx >/dev/null 2>&1 && systemctl start nginx; true",
            {},
            r"vm1: port 80 is held by 'python3' \(foreign\.service\), and Nginx needs",
        ),
        (
            "mount -t tmpfs -o size=64m small /opt",
            "umount /opt",
            {},
            r"vm1: \d\d MB free on /opt; fleet_minimum_free_mb",
        ),
        (ADD_USER, DELETE_USER, {"ssh_user": "clerk"}, r"vm1: user clerk cannot work as root: Missing sudo password"),
        (
            "true",
            "true",
            {"ssh_user": "nobody2"},
            r"vm1: unreachable at \S+ port 22: .*Permission denied.* Try: ssh -i",
        ),
        (
            "true",
            "true",
            {"ssh_port": "2"},
            r"vm1: unreachable at \S+ port 2: Connection (refused|timed out)\. Try: ssh",
        ),
    ],
    ids=["clock", "port", "disk", "sudo", "user", "sshd"],
)
def test_what_is_wrong_with_a_host_is_one_line_and_the_inventory_is_written(
    desk: Desk, lab: Fleet, look: Init, spoil: str, mend: str, given: dict[str, str], line: str
) -> None:
    with spoiled(lab, spoil, mend):
        result = look(accept_host_keys="true", **given)
    assert result.returncode == 2
    [told] = told_by(result)
    assert re.match(line, told), told
    assert "When what is told below is mended:" in result.stdout
    assert desk.shop.exists()


@pytest.mark.soak
@pytest.mark.parametrize(("password", "right"), [("right", True), ("wrong", False)])
def test_a_password_for_sudo_is_tried(desk: Desk, lab: Fleet, look: Init, password: str, right: bool) -> None:
    (desk.directory / "sudo").write_text(password)
    with spoiled(lab, ADD_USER, DELETE_USER):
        result = look("--become-password-file", "sudo", accept_host_keys="true", ssh_user="clerk")
    assert (result.returncode == 0) is right, result.stdout
    for command in commands_of(result):
        assert command.endswith(" --become-password-file sudo")
    if not right:
        [told] = told_by(result)
        assert told.startswith("vm1: user clerk cannot work as root: Incorrect sudo password. Try: ssh -i ")


@pytest.mark.soak
def test_another_key_than_the_one_known_is_never_accepted(desk: Desk, lab: Fleet, look: Init) -> None:
    look(accept_host_keys="true").ok()
    desk.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "other").ok()
    kind, key = (desk.directory / "other.pub").read_text().split()[:2]
    forged = f"{lab.address('edge1')} {kind} {key}\n"
    desk.known_hosts.write_text(forged)
    result = look(accept_host_keys="true")
    [told] = told_by(result)
    assert told.startswith("vm1: its SSH key is another than the one known: now SHA256:")
    assert f"ssh-keygen -R {lab.address('edge1')} -f {desk.known_hosts}" in told
    assert desk.known_hosts.read_text() == forged


@pytest.mark.soak
def test_a_port_that_a_firewall_closes_is_told(desk: Desk, lab: Fleet, look: Init) -> None:
    # On this side of the wire, as a provider's firewall is.
    table = "ip agentfleet-closed"
    rule = f"add table {table}; add chain {table} out {{ type filter hook output priority 0; }};"
    rule += f" add rule {table} out ip daddr {lab.address('edge1')} tcp dport 80 drop"
    desk.run("nft", rule).ok()
    try:
        result = look(accept_host_keys="true")
    finally:
        desk.run("nft", f"delete table {table}").ok()
    assert result.returncode == 2
    assert told_by(result) == [
        f"vm1: nothing comes back from port 80 of {lab.address('edge1')} (a firewall?); certbot and redirects need 80."
        " Open it in the provider's firewall for everybody; UFW on the host is opened by site.yml"
    ]
