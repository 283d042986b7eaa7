"""What UFW has, what it should have, and the commands that lead from one to the other. Pure: no command runs here."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MARK = "agentfleet"
ANYWHERE = "any"
OPENING = ("allow", "limit")
CLOSING = ("deny", "reject")
# What /etc/default/ufw calls the policies of `ufw default`.
POLICIES = {"ACCEPT": "allow", "DROP": "deny", "REJECT": "reject"}


class FirewallError(Exception):
    """A wish that cannot be met, with what mends it."""


@dataclass(frozen=True)
class Rule:
    """A rule as `ufw` takes and shows it, without its comment: `allow from 10.0.0.11 to any port 5432 proto tcp`."""

    command: str
    comment: str = ""

    def line(self) -> str:
        return f"{self.command} comment '{self.comment}'" if self.comment else self.command


@dataclass(frozen=True)
class Firewall:
    """The state of one host's UFW."""

    active: bool = False
    ipv6: bool = False
    incoming: str = "allow"
    rules: tuple[Rule, ...] = ()

    def describe(self) -> str:
        """One line a fact, for a diff."""
        head = [
            f"status: {'active' if self.active else 'inactive'}",
            f"ipv6: {'on' if self.ipv6 else 'off'}",
            f"incoming: {self.incoming}",
        ]
        return "\n".join([*head, *(rule.line() for rule in self.rules), ""])


@dataclass(frozen=True)
class Plan:
    """The rules to add and to delete, and the state that follows."""

    add: tuple[Rule, ...]
    delete: tuple[Rule, ...]
    now: Firewall
    then: Firewall

    @property
    def changed(self) -> bool:
        return bool(self.add or self.delete) or self.now != self.then

    def commands(self) -> list[list[str]]:
        """Arguments of each `ufw` call. What opens comes before what closes, so that no session is cut between two."""
        calls = []
        if self.now.active and self.now.ipv6 != self.then.ipv6:
            calls.append(["reload"])  # else the chains of IPv6, which take the rules, are not there
        for rule in self.add:
            calls.append([*shlex.split(rule.command), *(["comment", rule.comment] if rule.comment else [])])
        if self.now.incoming != self.then.incoming:
            calls.append(["default", self.then.incoming, "incoming"])
        if not self.now.active:
            calls.append(["--force", "enable"])
        calls += [["delete", *shlex.split(rule.command)] for rule in self.delete]
        return calls


def source_of(address: str) -> str:
    """An address or network as UFW shows it."""
    if address == ANYWHERE:
        return ANYWHERE
    try:
        network = ipaddress.ip_network(address, strict=False)
    except ValueError as error:
        raise FirewallError(f"'{address}' is no IP address or network; a host's is set by fleet_address") from error
    if network.prefixlen == 0:
        return ANYWHERE
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def port_of(port: Any) -> str:
    """A port or a range of them as UFW shows it."""
    first, colon, last = str(port).partition(":")
    numbers = [first, last] if colon else [first]
    if not all(re.fullmatch(r"\d{1,5}", number) and 0 < int(number) < 65536 for number in numbers):
        raise FirewallError(f"'{port}' is no port and no range of ports such as 8100:8103")
    if colon and int(first) > int(last):
        raise FirewallError(f"the range of ports '{port}' ends before it begins")
    return first if not colon or int(first) == int(last) else f"{int(first)}:{int(last)}"


def expand(wishes: Iterable[Mapping[str, Any]], service: str, own: Sequence[str] = ()) -> list[Rule]:
    """A rule for each port and source of each wish; a host needs none for its OWN addresses."""
    mine = {source_of(address) for address in own}
    rules: dict[str, Rule] = {}
    for wish in wishes:
        comment = f"{MARK} {service}: {wish['name']}" if wish["of_service"] else f"{MARK}: {wish['name']}"
        if "'" in comment:
            raise FirewallError(f'the name "{wish["name"]}" has a quote, which ufw does not take')
        for source in (source_of(address) for address in wish["sources"]):
            for port in (port_of(port) for port in wish["ports"]):
                if source not in mine:
                    command = _command(port, wish["protocol"], source)
                    rules.setdefault(command, Rule(command, comment))
    return list(rules.values())


def _command(port: str, protocol: str, source: str) -> str:
    if source == ANYWHERE:
        return f"allow {port}/{protocol}"
    return f"allow from {source} to any port {port} proto {protocol}"


def parse_added(text: str) -> tuple[Rule, ...]:
    """What `ufw show added` prints."""
    rules = []
    for line in text.splitlines():
        if line.startswith("ufw "):
            command, _mark, comment = line.removeprefix("ufw ").partition(" comment '")
            rules.append(Rule(command.strip(), comment.removesuffix("'")))
    return tuple(rules)


def parse_settings(text: str) -> dict[str, str]:
    """The assignments of a file such as /etc/default/ufw."""
    pairs = re.findall(r"^\s*([A-Z0-9_]+)=(.*)$", text, re.MULTILINE)
    return {name: value.strip().strip("\"'") for name, value in pairs}


def set_ipv6(text: str) -> str:
    """/etc/default/ufw with IPv6 on."""
    if re.search(r"^IPV6=", text, re.MULTILINE):
        return re.sub(r"^IPV6=.*$", "IPV6=yes", text, flags=re.MULTILINE)
    return f"{text.rstrip()}\nIPV6=yes\n".lstrip()


def observed(status: str, added: str, defaults: str) -> Firewall:
    """The state that UFW's own words and its file of defaults tell."""
    settings = parse_settings(defaults)
    return Firewall(
        active="Status: active" in status,
        ipv6=settings.get("IPV6", "no").lower() == "yes",
        incoming=POLICIES.get(settings.get("DEFAULT_INPUT_POLICY", ""), "allow"),
        rules=parse_added(added),
    )


def is_ours(rule: Rule, service: str) -> bool:
    """Whether the rule is the fleet's or SERVICE's, rather than an administrator's or another service's."""
    return rule.comment.startswith((f"{MARK}:", f"{MARK} {service}:"))


def has_ours(now: Firewall) -> bool:
    """Whether there is a rule of any fleet's or service's of ours."""
    return any(rule.comment.startswith((f"{MARK}:", f"{MARK} ")) for rule in now.rules)


def plan(now: Firewall, wanted: Sequence[Rule], service: str) -> Plan:
    """The way from NOW to an active firewall that lets in what is WANTED, and otherwise only what others allowed.

    A rule of somebody else's that already does what is wanted stays theirs; only our own are deleted.
    """
    has = {rule.command: rule for rule in now.rules}
    wants = {rule.command for rule in wanted}
    foreign = [rule for rule in now.rules if not is_ours(rule, service)]
    _refuse_contradictions(foreign, wanted)
    # A rule made while IPv6 was off has no twin there: adding it again gives it one.
    add = tuple(_covering(rule, has) or rule for rule in wanted if not (now.ipv6 and _covering(rule, has)))
    delete = tuple(rule for rule in now.rules if is_ours(rule, service) and rule.command not in wants)
    kept = [rule for rule in now.rules if rule not in delete]
    new = [rule for rule in add if rule.command not in has]
    then = Firewall(active=True, ipv6=True, incoming="deny", rules=(*kept, *new))
    return Plan(add, delete, now, then)


def _rest(rule: Rule) -> str:
    return rule.command.partition(" ")[2]


def _covering(rule: Rule, has: Mapping[str, Rule]) -> Rule | None:
    """The rule there is that already lets in what RULE would."""
    found = (has.get(f"{action} {_rest(rule)}") for action in OPENING)
    return next((other for other in found if other), None)


def _refuse_contradictions(foreign: Iterable[Rule], wanted: Iterable[Rule]) -> None:
    closed = {rule.command for rule in foreign}
    for rule in wanted:
        for action in CLOSING:
            against = f"{action} {_rest(rule)}"
            if against in closed:
                raise FirewallError(
                    f"the rule '{against}' on this host contradicts '{rule.line()}', which the inventory wants: "
                    f"ufw delete {against}"
                )
