"""Judges what an inventory says of the edge's certificate, before anything changes. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding


@dataclass(frozen=True)
class Wish:
    """The variables of role tls; `files` has the paths that are set, `absent` names those that are no file."""

    mode: str = "self_signed"
    names: Sequence[str] = ()
    mail: str = ""
    staging: bool = False
    directory: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()


def judge_tls(host: str, wish: Wish, inventory: str) -> list[Finding]:
    """What keeps the certificate from being had as it is wished."""
    judges = {"certbot": _judge_certbot, "files": _judge_files}
    judge = judges.get(wish.mode)
    return [Finding(text, mend, host) for text, mend in (judge(wish, inventory) if judge else [])]


def _judge_files(wish: Wish, inventory: str) -> list[tuple[str, str]]:
    judged = []
    for name in ("tls_certificate_file", "tls_key_file"):
        if name not in wish.files:
            judged.append((f"'{name}' is not set, and tls_mode files needs it", f"Set it in {inventory}"))
    return judged + _judge_absent(wish, ("tls_certificate_file", "tls_key_file"))


def _judge_certbot(wish: Wish, inventory: str) -> list[tuple[str, str]]:
    judged = []
    for name in wish.names:
        if name.startswith("*."):
            text = f"tls_names has {name}, and tls_mode certbot proves names by webroot, which knows no wildcards"
            judged.append((text, "List each name, or get the certificate elsewhere and set tls_mode: files"))
        elif _is_address(name):
            text = f"tls_names has the address {name}, and tls_mode certbot gets certificates for names alone"
            judged.append((text, "Set edge_server_name to a name that DNS knows, or tls_mode: self_signed"))
        elif "." not in name:
            text = f"tls_names has {name}, which no DNS in the world knows"
            judged.append((text, "Write its domain as well, or set tls_mode: self_signed"))
    if "@" not in wish.mail.strip("@"):
        told = f"is '{wish.mail}'" if wish.mail else "is not set"
        judged.append((f"'tls_mail' {told}, and tls_mode certbot needs a mail address", f"Set it in {inventory}"))
    if wish.staging and wish.directory:
        text = "tls_staging asks Let's Encrypt, and tls_acme_directory another authority"
        judged.append((text, "Set one of both"))
    if wish.directory and not wish.directory.startswith("https://"):
        judged.append((f"'tls_acme_directory' must begin with https://, not '{wish.directory}'", "Correct it there"))
    return judged + _judge_absent(wish, ("tls_acme_ca",))


def _judge_absent(wish: Wish, names: Sequence[str]) -> list[tuple[str, str]]:
    return [
        (f"'{name}' is {wish.files[name]}, which is no file on this machine", "Put it there, or correct the path")
        for name in names
        if name in wish.absent
    ]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
