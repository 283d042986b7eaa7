"""Figures of the backups for node exporter's textfile collector. Pure but for `publish`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.disk import write

FILE = Path("/var/lib/prometheus/node-exporter/agentfleet_backup.prom")
KINDS = ("postgres", "redis", "config")
# Name → (help, what it is in the state, whether it has a label for what was kept).
OF_KIND: Mapping[str, tuple[str, str]] = {
    "last_success_timestamp_seconds": ("When it was last backed up", "at"),
    "verified_timestamp_seconds": ("When its newest backup was last read back whole", "verified_at"),
    "size_bytes": ("Bytes of the newest backup before compression", "size"),
    "seconds": ("How long the newest backup took", "seconds"),
    "failed_timestamp_seconds": ("When backing it up last failed", "failed_at"),
}
OF_DRILL: Mapping[str, tuple[str, str]] = {
    "drill_timestamp_seconds": ("When a restore was last rehearsed", "at"),
    "drill_ok": ("Whether the last rehearsal held", "ok"),
}
OF_ARCHIVE: Mapping[str, tuple[str, str]] = {
    "archive_lag_seconds": (
        "How long the oldest file of the log has waited to be archived",
        "waiting_seconds",
    ),
    "archive_waiting_files": ("Files of PostgreSQL's log that wait to be archived", "waiting"),
    "archive_failures_total": ("Failed tries to archive a file of PostgreSQL's log", "failures"),
    "archive_seen": ("Whether the PostgreSQL host could be asked", "seen"),
}


def lines(state: Mapping[str, Any], free: int | None) -> Iterator[str]:
    """The text, a line at a time; what is not known is left out."""
    for name, (text, key) in OF_KIND.items():
        values = {kind: state[kind][key] for kind in KINDS if state.get(kind, {}).get(key) is not None}
        if values:
            yield from head(name, text, "gauge")
            yield from (f'agentfleet_backup_{name}{{what="{kind}"}} {float(value)}' for kind, value in values.items())
    for part, figures in (("drill", OF_DRILL), ("archive", OF_ARCHIVE)):
        for name, (text, key) in figures.items():
            value = state.get(part, {}).get(key)
            if value is not None:
                yield from head(name, text, "counter" if name.endswith("_total") else "gauge")
                yield f"agentfleet_backup_{name} {float(value)}"
    if free is not None:
        yield from head("repository_free_bytes", "Free bytes of the repository's file system", "gauge")
        yield f"agentfleet_backup_repository_free_bytes {float(free)}"


def head(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP agentfleet_backup_{name} {text}."
    yield f"# TYPE agentfleet_backup_{name} {kind}"


def publish(state: Mapping[str, Any], free: int | None, path: Path = FILE) -> None:
    """Write the figures, where a node exporter reads them."""
    if path.parent.is_dir():
        write(path, "".join(f"{line}\n" for line in lines(state, free)).encode(), 0o644)
