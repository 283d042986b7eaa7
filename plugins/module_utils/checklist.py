"""What is looked at before a deploy, a line each: ok, warning or missing, with the figure that says so. Pure.

Nothing here refuses: what cannot work is the plan's to refuse. This tells the rest, from what was observed anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import backup_view
from ansible_collections.agentfleet.vm.plugins.module_utils.schema import Schema, raises, schema_from

OK, WARNING, MISSING = "ok", "warning", "missing"
# A certificate is renewed a month before its end: one that has less left was not.
CERTIFICATE_DAYS = 14
NAMED = 3


@dataclass(frozen=True)
class Item:
    """One line of the list."""

    status: str
    about: str
    text: str


@dataclass(frozen=True)
class Seen:
    """What a deploy knows before it begins. `secrets` tells of each whether it has a value, `disks` free MB by host,
    `stored` which releases the edge keeps, `changes` what of each host's slot that serves would be another, `backups`
    what the backup host remembers, which only a deploy that makes a restore point asks: by its name, null where it did
    not answer.
    """

    release: Mapping[str, Any]
    current: str = ""
    uncommitted: Sequence[str] = ()
    secrets: Mapping[str, bool] = field(default_factory=dict)
    disks: Mapping[str, int] = field(default_factory=dict)
    disk_wanted_mb: int = 0
    certificate_days: int | None = None
    stored: Sequence[str] = ()
    changes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    floor: str = ""
    backups: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)


def items(seen: Seen) -> list[Item]:
    return [
        tests(seen.release.get("proof")),
        code(seen),
        changes(seen),
        way_back(seen),
        database(schema_from(seen.release.get("schema")), seen.floor),
        secrets(seen.secrets),
        disk(seen.disks, seen.disk_wanted_mb),
        certificate(seen.certificate_days),
        backup(seen.backups),
    ]


def lines(seen: Seen) -> list[str]:
    return ["checklist:", *(f"  {item.status:<8} {item.about:<12} {item.text}" for item in items(seen))]


def tests(proof: object) -> Item:
    if not isinstance(proof, Mapping):
        return Item(MISSING, "tests", "no proof: agent_proof names the file that your tests write")
    what = f"{proof['file']}, sha256 {str(proof['sha256'])[:12]}"
    if not proof.get("sha256"):
        return Item(MISSING, "tests", f"there is no {proof['file']} (agent_proof): run the tests that write it")
    if proof.get("failed"):
        return Item(WARNING, "tests", f"{proof['failed']} of {proof['tests']} failed: {what}")
    if proof.get("older"):
        return Item(WARNING, "tests", f"{what} was written before the code was committed")
    if proof.get("tests") == 0:
        return Item(WARNING, "tests", f"{what} has no test in it")
    return Item(OK, "tests", f"{proof['tests']} passed: {what}" if proof.get("tests") else what)


def code(seen: Seen) -> Item:
    release, commit = str(seen.release["id"]), str(seen.release.get("commit") or "")[:12]
    text = release + (f", commit {commit}" if commit else ", of no commit that is known")
    if seen.uncommitted:
        return Item(WARNING, "code", f"{text}, without what is not committed: {some(seen.uncommitted)}")
    return Item(OK, "code", text)


def changes(seen: Seen) -> Item:
    """Why slots get another identity: hosts with the same reasons in one, all of them without a name."""
    hosts_of: dict[str, list[str]] = {}
    for host, differs in seen.changes.items():
        if differs:
            hosts_of.setdefault(", ".join(differs), []).append(host)
    if not hosts_of:
        return Item(
            OK, "changes", "nothing of what serves" if seen.current else "all of it: nothing was deployed before"
        )
    if len(hosts_of) == 1 and len(seen.changes) == len(next(iter(hosts_of.values()))):
        return Item(OK, "changes", next(iter(hosts_of)))
    return Item(OK, "changes", "; ".join(f"{', '.join(hosts)}: {what}" for what, hosts in hosts_of.items()))


def way_back(seen: Seen) -> Item:
    if not seen.current:
        return Item(WARNING, "way back", "none: nothing was deployed before")
    if seen.current not in seen.stored:
        return Item(WARNING, "way back", f"{seen.current} while it is warm; the edge does not keep it")
    return Item(OK, "way back", f"{seen.current}, which serves now; the edge keeps it")


def database(schema: Schema | None, floor: str) -> Item:
    needs = f"needs code that knows migration {floor}" if floor else "needs no certain migration"
    if schema and raises(schema, floor):
        text = f"{needs}; then {schema.floor}, and what does not know it is no way back any more"
        return Item(WARNING, "database", text)
    if floor and (schema is None or floor not in schema.revisions):
        return Item(MISSING, "database", f"{needs}, which this release does not")
    return Item(OK, "database", needs)


def secrets(known: Mapping[str, bool]) -> Item:
    lacking = [name for name, there in known.items() if not there]
    if lacking:
        return Item(WARNING, "secrets", f"{len(known) - len(lacking)} set; empty: {some(lacking)}")
    return Item(OK, "secrets", f"{len(known)} set")


def disk(free: Mapping[str, int], wanted: int) -> Item:
    if not free:
        return Item(MISSING, "disk", "no host told")
    least = min(free, key=lambda host: free[host])
    status = MISSING if free[least] < wanted else WARNING if free[least] < 2 * wanted else OK
    return Item(status, "disk", f"{least} has the least, {free[least]} MB free; at least {wanted} are wanted")


def certificate(days: int | None) -> Item:
    if days is None:
        return Item(MISSING, "certificate", "the edge shows none")
    if days < 0:
        return Item(MISSING, "certificate", f"ended {-days} days ago")
    return Item(OK if days >= CERTIFICATE_DAYS else WARNING, "certificate", f"{days} days left")


def backup(asked: Mapping[str, Mapping[str, Any] | None]) -> Item:
    if not asked:
        return Item(OK, "backup", "not asked, for no restore point is made: playbooks/status.yml shows it")
    host, seen = next(iter(asked.items()))
    if seen is None:
        return Item(MISSING, "backup", f"{host}, which keeps them, did not say how old it is")
    if "postgres" not in backup_view.hours(seen):
        return Item(MISSING, "backup", "of PostgreSQL none yet: ansible-playbook playbooks/backup.yml makes one")
    wrong = next(iter(backup_view.problems(seen)), "")
    return Item(WARNING, "backup", wrong) if wrong else Item(OK, "backup", backup_view.ages(seen))


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"
