"""Judges what a host shows before anything of ours is on it: its SSH key, and its ports as seen from here. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding

# The order in which ssh prefers them.
KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
OF_USERS = {80: "certbot and redirects need", 443: "users need"}


@dataclass(frozen=True)
class HostKey:
    """A public key as ssh-keyscan and known_hosts have it."""

    kind: str
    key: str

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.key)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def host_pattern(address: str, port: int) -> str:
    """The host as known_hosts names it."""
    return address if port == 22 else f"[{address}]:{port}"


def keys_in(text: str) -> list[HostKey]:
    """The keys in lines of known_hosts, the one that ssh would take first; what is no such line is left out."""
    keys = []
    for line in text.splitlines():
        words = line.split()
        # A line with a marker revokes a key or names an authority.
        if line.startswith(("#", "@")) or len(words) < 3 or words[1] not in KINDS:
            continue
        try:
            base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        keys.append(HostKey(words[1], words[2]))
    return sorted(keys, key=lambda key: KINDS.index(key.kind))


def judge_keys(shown: Iterable[HostKey], known: Iterable[HostKey]) -> str:
    """known, changed or unknown."""
    shown, known = list(shown), list(known)
    if set(shown) & set(known):
        return "known"
    return "changed" if known else "unknown"


def lines_for(pattern: str, keys: Iterable[HostKey]) -> str:
    """What known_hosts gets when the keys are accepted."""
    return "".join(f"{pattern} {key.kind} {key.key}\n" for key in keys)


def unknown_key(host: str, address: str, keys: Iterable[HostKey], check: str) -> Finding:
    key = next(iter(keys))
    text = f"its SSH key is not known yet: {key.fingerprint} ({key.kind}) at {address}"
    return Finding(text, f"Compare it ({check}), then run this again with -e accept_host_keys=true", host)


def changed_key(host: str, pattern: str, keys: Iterable[HostKey], file: str) -> Finding:
    key = next(iter(keys))
    text = f"its SSH key is another than the one known: now {key.fingerprint} ({key.kind})"
    forget = f"ssh-keygen -R {shlex.quote(pattern)} -f {shlex.quote(file)}"
    return Finding(text, f"If it was reinstalled: {forget}; if not, somebody is in between", host)


def judge_doors(host: str, address: str, doors: Mapping[int, str]) -> list[Finding]:
    """`doors` are ports of the edge: what came of connecting to them, as "open", "closed" or "silent".

    Closed is fine: nobody listens there before the first run.
    """
    silent = [port for port, state in doors.items() if state == "silent"]
    if not silent:
        return []
    ports = f"port{'s' if len(silent) > 1 else ''} {' and '.join(map(str, silent))}"
    needs = ", ".join(f"{OF_USERS[port]} {port}" for port in silent)
    return [
        Finding(
            f"nothing comes back from {ports} of {address} (a firewall?); {needs}",
            "Open it in the provider's firewall for everybody; UFW on the host is opened by site.yml",
            host,
        )
    ]
