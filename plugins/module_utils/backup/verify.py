"""What `pgbackrest verify` found: its exit status is 0 whatever it was, so its text is read. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import wal
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Backup

BACKUP = re.compile(r"^\s*backup: (\S+), status: ([\w-]+)(?:, total files checked: (\d+), total valid files: (\d+))?")
LOG = re.compile(r"^\s*archiveId: (\S+), total WAL checked: (\d+), total valid WAL: (\d+)")


@dataclass(frozen=True)
class Verdict:
    """What is wrong with each backup, by label; it is whole where nothing is. `log` is what is wrong with the log."""

    wrong: Mapping[str, str] = field(default_factory=dict)
    log: tuple[str, ...] = ()
    files: int = 0

    @property
    def good(self) -> bool:
        return not self.wrong and not self.log


def read(text: str) -> tuple[dict[str, str], dict[str, int], list[str]]:
    """State of each backup and the number of its files, and what is wrong with the log, from the verbose text."""
    states, files, log = {}, {}, []
    for line in text.splitlines():
        if match := BACKUP.match(line):
            states[match[1]] = match[2]
            files[match[1]] = int(match[3] or 0)
        elif match := LOG.match(line):
            bad = int(match[2]) - int(match[3])
            if bad:
                log.append(f"{bad} of {match[2]} segments of the log are damaged")
        elif line.strip().startswith("No usable"):
            log.append(line.strip()[0].lower() + line.strip()[1:])
    return states, files, log


def judge(text: str, backups: Sequence[Backup], have: wal.Archive) -> Verdict:
    """All of it together: what pgBackRest said, and the segments that it does not miss.

    A backup counts as whole only where it was named so, and all that it needs as well.
    """
    states, files, log = read(text)
    wrong: dict[str, str] = {}
    for backup in backups:
        lacking = wal.within(backup.wal_start, backup.wal_stop, have)
        needed = [label for label in backup.needs if states.get(label, "valid") != "valid"]
        if states.get(backup.label) != "valid":
            wrong[backup.label] = f"its files are {states.get(backup.label, 'not looked at')}"
        elif needed:
            wrong[backup.label] = f"it needs {', '.join(needed)}, which is damaged"
        elif lacking:
            wrong[backup.label] = f"the log lacks {wal.few(lacking)}, without which it cannot be restored"
        elif backup.broken:
            wrong[backup.label] = "a page of the database was damaged already when it was made"
    if backups and not log:
        _last, lacking = wal.follow(backups[-1].wal_start, have)
        if lacking:
            log.append(f"the log lacks {wal.few(lacking)}: moments after that cannot be restored")
    if "status: ok" not in text and not wrong and not log:
        log.append("pgbackrest verify did not say that it is whole")
    return Verdict(wrong, tuple(log), sum(files.get(backup.label, 0) for backup in backups))
