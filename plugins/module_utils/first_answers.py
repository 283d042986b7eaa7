"""The answers that init.yml takes: what to ask next, what is missing, and what is wrong with them. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import placeholder

# Inventories that come with the project; another fleet's answers have no place in them.
EXAMPLES = ("single", "fleet", "lab")
# Which hosts do what, by the option that says it.
PARTS: Mapping[str, tuple[str, ...]] = {
    "edge_host": ("edge",),
    "agent_hosts": ("agents",),
    "data_host": ("postgres", "redis"),
}
SSH = {"ssh_user": "ansible_user", "ssh_port": "ansible_port", "ssh_key_file": "ansible_ssh_private_key_file"}
OF_HOSTS = frozenset({"addresses", "private_addresses", *PARTS, *SSH})
DEFAULTS = {"ssh_user": "root", "ssh_port": "22"}

Given = Mapping[str, str]


@dataclass(frozen=True)
class Question:
    """What a person is asked; an empty answer means `default`, which is shown where it is not empty."""

    name: str
    text: str
    default: str = ""
    secret: bool = False


@dataclass(frozen=True)
class Domain:
    """What the name of the service resolves to."""

    name: str
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()


def split(value: str) -> list[str]:
    return [part for part in re.split(r"[,\s]+", value) if part]


def next_question(given: Given) -> Question | None:
    """What is to be asked next of who makes a new inventory; each answer may make another question needless."""
    addresses = split(given.get("addresses", ""))
    questions = [
        Question("fleet_name", "Name of the fleet (small letters, digits and -)"),
        Question("addresses", "Addresses of its hosts, with commas between them"),
    ]
    if len(addresses) > 1:
        parts = default_parts(addresses)
        questions += [
            Question("edge_host", "The edge, which takes all requests", parts["edge_host"]),
            Question("agent_hosts", "The hosts that run the service", parts["agent_hosts"]),
            Question("data_host", "The host of PostgreSQL and Redis", parts["data_host"]),
            Question("private_addresses", "Their addresses in a private network, in the same order (empty: none)"),
        ]
    questions += [
        Question("ssh_user", "User that SSH logs in with: root, or one with sudo", DEFAULTS["ssh_user"]),
        Question("ssh_port", "Port of SSH", DEFAULTS["ssh_port"]),
        Question("ssh_key_file", "Private key of SSH (empty: what ssh uses by itself)"),
        Question("domain", "Name under which users reach the service, such as agent.example.com"),
    ]
    if "tls_mode" not in given:
        questions.append(Question("mail", "Mail address for Let's Encrypt (empty: a self-signed certificate)"))
    elif given["tls_mode"] == "certbot":
        questions.append(Question("mail", "Mail address for Let's Encrypt"))
    questions.append(Question("app_source", "Git checkout of your own app (empty: the reference agent service)"))
    if given.get("app_source"):
        questions.append(Question("app", "The app as uvicorn takes it, such as shop.main:app"))
    questions.append(Question("model_key", "Key of the model's provider (empty: the offline model)", secret=True))
    return next((question for question in questions if question.name not in given), None)


def missing(given: Given) -> list[str]:
    """What has no default and was not given, as it is to be written on the command line."""
    wanted = {
        "fleet_name": "-e fleet_name=NAME",
        "addresses": "-e addresses=ADDRESS[,ADDRESS…]",
        "domain": "-e domain=NAME",
        "mail": "-e mail=ADDRESS (or -e tls_mode=self_signed)",
        "model_key": "-e model_key=KEY (nothing after the = for the offline model)",
    }
    if given.get("tls_mode", "certbot") != "certbot":
        del wanted["mail"]
    if given.get("app_source"):
        wanted["app"] = "-e app=MODULE:APP"
    return [words for name, words in wanted.items() if name not in given]


def completed(given: Given) -> dict[str, str]:
    """The answers with their defaults."""
    answers = {name: value.strip() for name, value in given.items()}
    for name, value in DEFAULTS.items():
        answers[name] = answers.get(name) or value
    addresses = split(answers.get("addresses", ""))
    for name, value in default_parts(addresses).items():
        answers[name] = ",".join(split(answers.get(name) or value))
    answers["addresses"] = ",".join(addresses)
    answers["private_addresses"] = ",".join(split(answers.get("private_addresses", "")))
    answers["tls_mode"] = answers.get("tls_mode") or ("certbot" if answers.get("mail") else "self_signed")
    for name in ("ssh_key_file", "mail", "app_source", "app"):
        answers.setdefault(name, "")
    return answers


def default_parts(addresses: Sequence[str]) -> dict[str, str]:
    """One host does everything; of two, one computes; of more, the first is the edge and the last has the data."""
    if not addresses:
        return dict.fromkeys(PARTS, "")
    edge, *rest = addresses
    agents, data = (rest[:-1], rest[-1]) if len(rest) > 1 else (rest or [edge], edge)
    return {"edge_host": edge, "agent_hosts": ",".join(agents), "data_host": data}


# Judging


def judge(given: Given, answers: Given) -> list[Finding]:
    """What is wrong with what was GIVEN; `answers` are all of them, of which many may stand in an inventory already."""
    findings = [_finding(name, given[name], wrong) for name in given if (wrong := wrong_answer(name, given[name]))]
    if findings:
        return findings
    if OF_HOSTS & set(given):
        findings += _judge_hosts(answers)
    if answers["tls_mode"] == "certbot" and not answers["mail"]:
        findings.append(
            Finding("tls_mode certbot needs a mail address", "Add -e mail=ADDRESS, or -e tls_mode=self_signed")
        )
    if bool(answers["app_source"]) != bool(answers["app"]):
        lacks, has = ("app", "app_source") if answers["app_source"] else ("app_source", "app")
        findings.append(Finding(f"{has} is set and {lacks} is not", f"Add -e {lacks}={_SHAPES[lacks]}"))
    return findings


def wrong_answer(name: str, value: str) -> str:
    """Why this cannot be, with the way out after a full stop; empty where it can."""
    judged = _JUDGES.get(name)
    return judged(value.strip()) if judged else ""


def judge_domain(domain: Domain, edges: Iterable[str], answers: Given) -> tuple[list[Finding], list[Finding]]:
    """What keeps the name from being used at all, and what has to be mended later."""
    edge = ", ".join(edges)
    mend = f"Set its A record to {edge}"
    if domain.ipv6 and not domain.ipv4:
        text = f"{domain.name} has an IPv6 address alone ({domain.ipv6[0]}), and most users come over IPv4"
        return [Finding(text, mend)], []
    if not domain.ipv4:
        found = [Finding(f"{domain.name} does not resolve", f"{mend}, or correct -e domain")]
        # Without a certificate authority that has to find it, the name may come later.
        return (found, []) if answers["tls_mode"] == "certbot" else ([], [])
    if not set(domain.ipv4) & set(edges):
        return [], [Finding(f"{domain.name} is {', '.join(domain.ipv4)}, and the edge is {edge}", mend)]
    return [], []


def _finding(name: str, value: str, wrong: str) -> Finding:
    text, _, mend = wrong.partition(". ")
    shown = "" if name == "model_key" else f" '{value}'"
    return Finding(f"{name}{shown} {text}", mend or f"Write it as {_SHAPES[name]}")


_SHAPES = {
    "fleet_name": "shop or shop-eu",
    "addresses": "192.0.2.10,192.0.2.21,192.0.2.31",
    "private_addresses": "10.0.0.10,10.0.0.21,10.0.0.31",
    "ssh_user": "root or debian",
    "ssh_port": "22",
    "ssh_key_file": "~/.ssh/id_ed25519",
    "domain": "agent.example.com",
    "mail": "you@example.com",
    "tls_mode": "certbot, self_signed or files",
    "app_source": "~/shop",
    "app": "shop.main:app",
    "model_key": "the provider shows it",
}
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def _wrong_name(value: str) -> str:
    if value in EXAMPLES:
        return "is an example's name. Take another"
    if re.search("[A-Z]", value):
        return f"has capitals. Write {value.lower()}"
    return "" if re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", value) else "is no name of a fleet"


def _wrong_addresses(value: str) -> str:
    addresses = split(value)
    if not addresses:
        return "is empty"
    wrong = next(filter(None, map(_wrong_address, addresses)), "")
    twice = [address for address in addresses if addresses.count(address) > 1]
    if not wrong and twice:
        return f"names {twice[0]} twice. Name every host once; one host may do everything"
    return wrong


def _wrong_private(value: str) -> str:
    return _wrong_addresses(value) if value else ""


def _wrong_address(address: str) -> str:
    if "@" in address:
        return f"names a user in {address}. Write the address alone, and -e ssh_user={address.partition('@')[0]}"
    bare = address.strip("[]")
    try:
        if ipaddress.ip_address(bare).version == 6:
            return f"has the IPv6 address {bare}, and hosts are reached over IPv4. Write the host's IPv4 address"
        return ""
    except ValueError:
        pass
    if re.fullmatch(r"[^:]+:\d+", address):
        host, _, port = address.partition(":")
        return f"has a port in {address}. Write {host}, and -e ssh_port={port}"
    if re.search("[A-Z]", address):
        return f"has capitals in {address}. Write {address.lower()}"
    if re.fullmatch(r"[0-9./]+", address) or not _is_host_name(address):
        return f"has {address}, which is neither an IPv4 address nor a host's name"
    return ""


def _is_host_name(name: str) -> bool:
    return len(name) <= 253 and re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", name) is not None


def _wrong_domain(value: str) -> str:
    if re.search("[A-Z]", value) and "/" not in value:
        return f"has capitals. Write {value.lower()}"
    if re.fullmatch(r"[0-9.]+|\[?[0-9a-f:]*:[0-9a-f:]*\]?", value):
        return "is an address. Write the name that resolves to it"
    if "://" in value or "/" in value:
        return "is a URL. Write the name alone"
    # The name that every example has is nobody's.
    if re.fullmatch(r"(.*\.)?example\.(com|org|net)", value):
        return "is an example's name. Write a name of your own"
    return "" if "." in value and _is_host_name(value) else "is no name of a site"


def _wrong_mail(value: str) -> str:
    if not value:
        return ""
    local, _, domain = value.rpartition("@")
    if not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`|~-]+", local) or not _is_host_name(domain.lower()):
        return "is no mail address"
    if re.fullmatch(r"(.*\.)?example\.(com|org|net)", domain.lower()):
        return "is an example's address. Write one of your own"
    return "" if "." in domain else "is no mail address"


def _wrong_port(value: str) -> str:
    fits = value.isascii() and value.isdigit() and 0 < int(value[:9]) < 65536
    return "" if fits or not value else "is no port. Write a number from 1 to 65535"


def _wrong_user(value: str) -> str:
    return "" if not value or re.fullmatch(r"[a-z_][a-z0-9_.-]{0,31}", value) else "is no user's name"


def _wrong_path(value: str) -> str:
    if value.endswith(".pub"):
        return f"is the public half. Write {value.removesuffix('.pub')}"
    wrong = "{" in value or not value.isprintable() or value.startswith("-")
    return "cannot be a path" if wrong else ""


def _wrong_source(value: str) -> str:
    if re.match(r"\w+://|git@", value):
        return "is a URL. Clone it, and write where it lies on this machine"
    return _wrong_path(value)


def _wrong_app(value: str) -> str:
    if not value or re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", value):
        return ""
    return "is not what uvicorn takes, a module and a variable in it"


def _wrong_mode(value: str) -> str:
    return "" if value in ("certbot", "self_signed", "files") else "is none of certbot, self_signed, files"


def _wrong_key(value: str) -> str:
    if not value:
        return ""
    again = "Copy it again from the provider's page; nothing after the = stands for the offline model"
    if not re.fullmatch(r"[A-Za-z0-9._~+/=:-]+", value):
        return f"has characters that no key has (quotes, spaces?). {again}"
    if wrong := placeholder(value, minimum=16):
        return f"{wrong}. {again}"
    # Of two keys pasted one after the other, or one pasted twice.
    if len(value) > 512 or value.count("sk-") > 1:
        return f"is more than one key. {again}"
    return ""


_JUDGES: Mapping[str, Callable[[str], str]] = {
    "fleet_name": _wrong_name,
    "addresses": _wrong_addresses,
    "private_addresses": _wrong_private,
    "edge_host": _wrong_private,
    "agent_hosts": _wrong_private,
    "data_host": _wrong_private,
    "ssh_user": _wrong_user,
    "ssh_port": _wrong_port,
    "ssh_key_file": _wrong_path,
    "domain": _wrong_domain,
    "mail": _wrong_mail,
    "tls_mode": _wrong_mode,
    "app_source": _wrong_source,
    "app": _wrong_app,
    "model_key": _wrong_key,
}


def _judge_hosts(answers: Given) -> list[Finding]:
    addresses = split(answers["addresses"])
    findings = []
    used: set[str] = set()
    for part in PARTS:
        chosen = split(answers[part])
        used.update(chosen)
        strangers = [address for address in chosen if address not in addresses]
        if strangers:
            text = f"{part} names {', '.join(strangers)}, which is not among the addresses"
            findings.append(Finding(text, f"Take it from {answers['addresses']}"))
        if len(chosen) > 1 and part != "agent_hosts":
            findings.append(Finding(f"{part} names {len(chosen)} hosts", "Name one; several are not supported yet"))
    idle = [address for address in addresses if address not in used]
    if idle and not findings:
        text = f"{', '.join(idle)} would have nothing to do"
        findings.append(Finding(text, f"Name it in one of {', '.join(PARTS)}, or leave it out of addresses"))
    private = split(answers["private_addresses"])
    if private and len(private) != len(addresses):
        text = f"private_addresses has {len(private)} for {len(addresses)} hosts"
        findings.append(Finding(text, "Give each host's, in the order of addresses"))
    return findings
