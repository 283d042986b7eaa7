"""Looking for secrets where none may be: in what a playbook prints, and in the hosts' process lists."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from .fleet import Fleet

SECRETS = (
    *("api_key", "database_password", "redis_password", "backup_key"),
    *("operator_password", "grafana_admin_password"),
)
LOOP = "while [ ! -e /run/watched ]; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null; sleep 0.2; done"


def shown(text: str, values: Mapping[str, str]) -> list[str]:
    """Names of the secrets in a text, each with the last task before it where the text is a playbook's output."""
    found = []
    for name, value in values.items():
        before, there, _after = text.partition(value)
        if there:
            tasks = [line for line in before.splitlines() if line.startswith("TASK [")]
            found.append(f"{name}: {tasks[-1]}" if tasks else name)
    return found


@contextmanager
def watching(fleet: Fleet, hosts: Sequence[str], lists: list[str]) -> Iterator[None]:
    """Read each host's process list over and over meanwhile; what was seen is added to LISTS."""

    def watch(host: str) -> None:
        # As long as a playbook takes, on whatever machine.
        command = f"rm -f /run/watched; {{ {LOOP}; }} | tr '\\0' '\\n' | sort -u"
        lists.append(fleet.on(host, command, seconds=3600).stdout)

    threads = [threading.Thread(target=watch, args=(host,)) for host in hosts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for host in hosts:
            fleet.on(host, "touch /run/watched").ok()
        for thread in threads:
            thread.join()
