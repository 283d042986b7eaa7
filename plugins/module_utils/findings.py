"""What a check found wrong: one line each, told once, on the hosts it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """`text` names what is wrong, `mend` what to run or edit; `host` is empty where it is about the whole fleet."""

    text: str
    mend: str
    host: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def from_dict(raw: Mapping[str, Any]) -> Finding:
    return Finding(text=str(raw["text"]), mend=str(raw["mend"]), host=str(raw["host"]))


def lines_by_host(findings: Iterable[Finding], hosts: Sequence[str]) -> dict[str, list[str]]:
    """The lines to print under each host.

    A mistake in a group's variables is found on every host of the group: its line is printed once, under the first
    of them, and names the others. What concerns no host of the play is printed under the play's first host.
    """
    concerned: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        names = concerned.setdefault((finding.text, finding.mend), [])
        if finding.host and finding.host not in names:
            names.append(finding.host)
    lines: dict[str, list[str]] = {}
    for (text, mend), names in concerned.items():
        names.sort(key=lambda name: hosts.index(name) if name in hosts else len(hosts))
        owner = names[0] if names and names[0] in hosts else hosts[0]
        stop = "" if text.endswith("?") else "."
        lines.setdefault(owner, []).append(f"{_heading(names)}: {text}{stop} {mend}")
    return lines


def _heading(names: Sequence[str]) -> str:
    if not names:
        return "fleet"
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} more hosts"
