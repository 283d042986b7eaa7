"""What the log host has of a request, a time, a host, a level or a component."""

from __future__ import annotations

import datetime
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import log_store
from ansible_collections.agentfleet.vm.plugins.module_utils.log_files import from_file
from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, distinct, from_unit, is_wanted
from ansible_collections.agentfleet.vm.plugins.module_utils.log_store import Vanished

DAY = 86400
MARK = "-- MARK --"
MARKS_UNIT = "agentfleet-logs.service"
# Each host sends a line a minute.
LATE_SECONDS = 150
TRIES = 5


def read_line(line: str) -> tuple[str, Mapping[str, Any]] | None:
    """Whose line it is by the log host's own word, and what its host sent."""
    host, _, text = line.partition(" ")
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return (host, record) if isinstance(record, dict) else None


def written(record: Mapping[str, Any]) -> datetime.datetime:
    """The moment of the journal, or that at which a file was read."""
    return datetime.datetime.fromisoformat(str(record.get("time") or record["read"]))


def from_store(line: str, service: str) -> Entry | None:
    """An entry of a line that is kept; None where it is none, another service's, or the one of each minute."""
    found = read_line(line)
    if not found:
        return None
    host, record = found
    try:
        text = str(record["text"])
        if "file" in record:
            entry = from_file(str(record["file"]), text, written(record))
        else:
            unit = str(record["unit"])
            if unit == MARKS_UNIT and text == MARK:
                return None
            at = int(record["source"]) / 1e6 if record.get("source") else written(record).timestamp()
            entry = from_unit(
                at, unit or f"{record.get('name') or 'kernel'}.service", str(record["priority"]), text, service
            )
    except (KeyError, ValueError):
        return None
    # Another service's instances are no part of this one.
    return Entry(**{**entry.to_dict(), "host": host}) if entry and entry.kind else None


def with_text(store: Path, wanted: Mapping[str, Any], since: float, text: str) -> list[str]:
    """The lines of all hosts with a text; files that are compressed meanwhile are looked through once more."""
    for attempt in range(TRIES):
        found = log_store.chosen(log_store.parts(store), since, math.inf, wanted["host"])
        try:
            return log_store.grep(found, text)
        except Vanished:
            if attempt == TRIES - 1:
                raise
    raise AssertionError


def of_request(store: Path, wanted: Mapping[str, Any], since: float) -> list[Entry]:
    """What all hosts wrote about one request."""
    entries = (from_store(line, wanted["name"]) for line in with_text(store, wanted, since, wanted["request_id"]))
    return [entry for entry in entries if entry and entry.at >= since and is_wanted(entry, wanted)]


def texts(store: Path, wanted: Mapping[str, Any], since: float, text: str) -> list[tuple[str, str]]:
    """Host and words of the lines with a text, as they were written."""
    read = (read_line(line) for line in with_text(store, wanted, since, text))
    return [(found[0], str(found[1].get("text"))) for found in read if found]


def latest(store: Path, wanted: Mapping[str, Any], since: float) -> list[Entry]:
    """The last lines of each host that are wanted, as far back as SINCE."""
    found = log_store.chosen(log_store.parts(store), since, math.inf, wanted["host"])
    entries: list[Entry] = []
    for host in sorted({part.host for part in found}):
        read = (line for part in reversed(found) if part.host == host for line in reversed(log_store.content(part)))
        told = (from_store(line, wanted["name"]) for line in read)
        own = (entry for entry in told if entry and entry.at >= since and is_wanted(entry, wanted))
        entries += itertools.islice(own, 2 * wanted["lines"])
    return entries


def between(store: Path, wanted: Mapping[str, Any], since: float, until: float) -> Iterator[Entry]:
    """Every line of a time that is wanted, each once."""
    # A host that was cut off reads its files late.
    for part in log_store.chosen(log_store.parts(store), since, until + DAY, wanted["host"]):
        told = (from_store(line, wanted["name"]) for line in log_store.content(part))
        yield from distinct(entry for entry in told if entry and since <= entry.at < until and is_wanted(entry, wanted))


def appended(store: Path, wanted: Mapping[str, Any], sizes: Mapping[str, int]) -> tuple[list[Entry], dict[str, int]]:
    """What came to the files that are written to since they had SIZES, and the sizes that they have now."""
    entries: list[Entry] = []
    now: dict[str, int] = {}
    for part in log_store.parts(store):
        if part.kind or wanted["host"] not in ("", part.host):
            continue
        try:
            with part.path.open("rb") as file:
                file.seek(sizes.get(str(part.path), 0))
                text = file.read()
        except FileNotFoundError:
            continue
        whole = text[: text.rfind(b"\n") + 1]
        now[str(part.path)] = sizes.get(str(part.path), 0) + len(whole)
        told = (from_store(line, wanted["name"]) for line in whole.decode(errors="replace").split("\n"))
        entries += [entry for entry in told if entry and is_wanted(entry, wanted)]
    return [entry for entry in entries if wanted["request_id"] in ("", entry.request_id)], now


def sizes(store: Path) -> dict[str, int]:
    return {str(part.path): part.path.stat().st_size for part in log_store.parts(store) if not part.kind}


def late(store: Path, hosts: Iterable[str], now: float) -> list[dict[str, Any]]:
    """Hosts whose last line is older than the one that each sends a minute, and its moment: 0 where there is none."""
    found = log_store.parts(store)
    behind = []
    for host in hosts:
        at = 0.0
        for part in reversed([part for part in found if part.host == host]):
            records = [read[1] for line in log_store.tail(part) if (read := read_line(line))]
            at = max((written(record).timestamp() for record in records), default=0.0)
            if at:
                break
        if at < now - LATE_SECONDS:
            behind.append({"host": host, "at": at})
    return behind
