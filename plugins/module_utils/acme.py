"""A certificate from an authority that speaks ACME, by Debian's certbot: when to ask for one, and what came of it.

Runs inside a module and, for the renewal, as a program on the edge; both do the same.
"""

from __future__ import annotations

import fcntl
import grp
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils import disk
from ansible_collections.agentfleet.vm.plugins.module_utils.certificate import DAY, Certificate, canonical

# Apart from /etc/letsencrypt, where certificates may be that are not ours.
STATE = Path("/var/lib/agentfleet/certbot")
ORDERS = Path("/etc/agentfleet/certificates")
NGINX = "nginx.service"
PATIENCE = 600
# What certbot says around the line that matters.
NOISE = re.compile(
    r"^(Saving debug log|Ask for help|See the logfile|An unexpected error occurred|Please see the logfile"
    r"|Account registered|Requesting a certificate|Renewing an existing|Some challenges have failed|Hint:)"
)
CAUSES = (
    "Connection refused",
    "No route to host",
    "Network is unreachable",
    "Name or service not known",
    "Temporary failure in name resolution",
    "timed out",
    "Connection reset by peer",
)


@dataclass(frozen=True)
class Order:
    """The certificate that a service wants: from whom, for which names, and where it goes."""

    service: str
    names: tuple[str, ...]
    mail: str
    directory: str
    webroot: str
    certificate: str
    key: str
    group: str = "root"
    renew_days: int = 30
    authority: str = ""  # PEM of the authority that the directory's own certificate is verified by
    units: tuple[str, ...] = ()

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Order:
        known = {field.name: raw[field.name] for field in fields(cls) if field.name in raw}
        for name in ("names", "units"):
            known[name] = tuple(str(value) for value in known.get(name, ()))
        return cls(**{**known, "renew_days": int(known.get("renew_days", cls.renew_days))})


@dataclass(frozen=True)
class Lineage:
    """What certbot keeps for a service."""

    state: Path
    service: str

    @property
    def chain(self) -> Path:
        return self.state / "live" / self.service / "fullchain.pem"

    @property
    def key(self) -> Path:
        return self.state / "live" / self.service / "privkey.pem"

    @property
    def unread(self) -> Path:
        """There from before the files change until what uses them has read them, whatever comes between."""
        return self.state / f"{self.service}.unread"

    def certificate(self) -> Certificate | None:
        found = certificates.read(self.chain)
        return found if found and found.public_key == certificates.public_half(self.key) else None

    def directory(self) -> str:
        """The address of the authority that issued it."""
        path = self.state / "renewal" / f"{self.service}.conf"
        found = re.search(r"^server\s*=\s*(\S+)", path.read_text(), re.MULTILINE) if path.exists() else None
        return found[1] if found else ""


def reason_to_issue(found: Certificate | None, directory: str, order: Order, now: float) -> str | None:
    """Why the authority has to be asked, or None. FOUND is what it issued last, at DIRECTORY."""
    if found is None:
        return "there is none yet"
    wanted = {canonical(name) for name in order.names}
    if found.names != wanted:
        return f"it names {', '.join(sorted(found.names)) or 'nothing'} instead of {', '.join(sorted(wanted))}"
    if directory != order.directory:
        return f"it is from {directory or 'an unknown authority'} instead of {order.directory}"
    # Authorities issue for shorter and shorter times: of a short one a third is kept for trying again.
    if found.expires - now < min(order.renew_days * DAY, (found.expires - found.begins) / 3):
        return f"{found.days_left(now)} days are left"
    return None


def command(order: Order, state: Path) -> list[str]:
    """Whether to ask is decided already, so certbot is told to."""
    return [
        *("certbot", "certonly", "--non-interactive", "--agree-tos", "--email", order.mail, "--no-eff-email"),
        *("--config-dir", str(state), "--work-dir", str(state / "work"), "--logs-dir", str(state / "logs")),
        *("--max-log-backups", "30", "--server", order.directory, "--cert-name", order.service),
        *("--webroot", "--webroot-path", order.webroot, "--key-type", "ecdsa"),
        *("--force-renewal", "--renew-with-new-domains", "--break-my-certs"),
        *(word for name in order.names for word in ("--domain", name)),
    ]


def explain(said: str, order: Order) -> str:
    """One line for what certbot SAID when it failed."""
    flat = " ".join(said.split())
    refused = re.findall(r"Domain:\s*(\S+)\s+Type:\s*(\S+)\s+Detail:\s*(.+?)(?=\n\s*\n|\n\s*Domain:|\Z)", said, re.S)
    if refused:
        told = "; ".join(f"{name}: {' '.join(detail.split())} ({kind})" for name, kind, detail in refused)
        names = ", ".join(dict.fromkeys(name for name, _, _ in refused))
        return f"the challenge failed, {told}; DNS must lead {names} to this host, and its port 80 be open to the world"
    if re.search(r"rateLimited|too many requests|too many certificates|rate limit", said, re.I):
        return f"{order.directory} refuses for now, its rate limit is reached ({told_last(said)})"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"{order.directory} shows a certificate that is not trusted; name its authority's file by tls_acme_ca"
    if re.search(r"ConnectionError|Timeout|Max retries exceeded|" + "|".join(CAUSES), flat):
        cause = next((cause for cause in CAUSES if cause in flat), "no answer")
        return f"{order.directory} cannot be reached ({cause})"
    return f"{order.directory} did not issue: {told_last(said)}"


def told_last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip() and not NOISE.match(line.strip())]
    return lines[-1].rpartition(" :: ")[2] if lines else "certbot gave no reason"


@dataclass(frozen=True)
class Done:
    """What came of it: why the authority had to be asked, whether files changed, and what went wrong."""

    reason: str = ""
    changed: bool = False
    problem: str = ""
    authority: bool = False


def foresee(order: Order, state: Path, now: float) -> Done:
    """What obtain() would do, as far as it depends on this host."""
    lineage = Lineage(state, order.service)
    reason = reason_to_issue(lineage.certificate(), lineage.directory(), order, now)
    due = reason is not None or lineage.unread.exists() or not served(order, lineage)
    return Done(reason or "", due, "", True)


def obtain(order: Order, state: Path, now: float) -> Done:
    """Have the certificate in place, asking for a new one where it is time; what fails leaves the old one serving."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with locked(state):
        lineage = Lineage(state, order.service)
        reason = reason_to_issue(lineage.certificate(), lineage.directory(), order, now)
        problem = issue(order, state) if reason else ""
        new = not problem and (lineage.unread.exists() or not served(order, lineage))
        if new:
            problem = put_in_place(order, lineage)
        note(state, order.service, problem, now)
    found = certificates.read(Path(order.certificate))
    return Done(reason or "", new and not problem, problem, found is not None and bool(found.issuer))


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """One at a time: the timer and a playbook may want the same."""
    with (state / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def issue(order: Order, state: Path) -> str:
    """Ask the authority; nothing, or why there is no certificate."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as bundle:
        if order.authority:
            bundle.write(order.authority)
            bundle.flush()
            environment["REQUESTS_CA_BUNDLE"] = bundle.name
        try:
            done = subprocess.run(
                command(order, state),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE,
            )
        except FileNotFoundError:
            return "certbot is not installed"
        except subprocess.TimeoutExpired:
            return f"{order.directory} did not come to an end within {PATIENCE} s"
    return explain(f"{done.stdout}\n{error_in_log(state)}", order) if done.returncode else ""


def error_in_log(state: Path) -> str:
    """The authority's own words: where Debian 12's certbot has only a fault of its own to tell, they are in its log."""
    path = state / "logs" / "letsencrypt.log"
    log = path.read_text(errors="replace") if path.exists() else ""
    return "".join(re.findall(r"^acme\.messages\.Error: .+$", log, re.MULTILINE)[-1:])


def served(order: Order, lineage: Lineage) -> bool:
    """Whether certificate and key in place are those of the lineage."""
    pairs = ((Path(order.certificate), lineage.chain), (Path(order.key), lineage.key))
    try:
        return all(ours.read_bytes() == theirs.read_bytes() for ours, theirs in pairs)
    except FileNotFoundError:
        return False


def put_in_place(order: Order, lineage: Lineage) -> str:
    """Swap both files and have Nginx read them; where it would not start with them, the old ones come back."""
    certificate, key = Path(order.certificate), Path(order.key)
    group = grp.getgrnam(order.group).gr_gid
    before = (certificate.read_bytes(), key.read_bytes()) if certificate.exists() and key.exists() else None
    lineage.unread.touch()
    certificates.install(certificate, key, lineage.chain.read_bytes(), lineage.key.read_bytes(), group)
    if NGINX in order.units and shutil.which("nginx"):
        wrong = fails("nginx", "-t", "-q")
        if wrong and before:
            certificates.install(certificate, key, *before, group)
        if wrong:
            return f"Nginx does not take the new certificate, so the old one stays: {wrong}"
    for unit in order.units:
        if not fails("systemctl", "is-active", "--quiet", unit):
            wrong = fails("systemctl", "reload", unit)
            if wrong:
                return f"{unit} could not be reloaded: {wrong}"
    lineage.unread.unlink(missing_ok=True)
    return ""


def fails(*words: str) -> str:
    """What a command that failed says of it in one line, or nothing."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not done.returncode:
        return ""
    said = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
    return next((line for line in said if "[emerg]" in line), said[-1])


def note(state: Path, service: str, problem: str, now: float) -> None:
    """Keep for the fleet's status what the last try came to, and since when it fails."""
    before = noted(state, service)
    since = before.get("since") if problem and before.get("problem") else now if problem else None
    text = json.dumps({"problem": problem, "tried": now, "since": since})
    disk.write(state / f"{service}.json", text.encode(), 0o600)


def noted(state: Path, service: str) -> dict[str, Any]:
    """What note() kept; empty where certificates come another way, or nothing was tried yet."""
    with suppress(OSError, ValueError):
        found = json.loads((state / f"{service}.json").read_text())
        if isinstance(found, dict):
            return found
    return {}


def main(arguments: Sequence[str]) -> int:
    """The program of the timer: agentfleet-certificate SERVICE."""
    known = sorted(path.stem for path in ORDERS.glob("*.json"))
    if len(arguments) != 1 or arguments[0] not in known:
        print(f"usage: agentfleet-certificate {'|'.join(known) or 'SERVICE'}", file=sys.stderr)
        return 2
    order = Order.read(json.loads((ORDERS / f"{arguments[0]}.json").read_text()))
    done = obtain(order, STATE, time.time())
    if done.problem:
        print(done.problem, file=sys.stderr)
        return 1
    print(f"{order.certificate}: {'a new one is in place' if done.changed else 'nothing to do'}")
    return 0
