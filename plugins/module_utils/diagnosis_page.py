"""One page of a diagnosis: what was found, then every host's sections. Pure; it needs no script and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding

STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --soft: #5b6673; --paper: #fff; --raised: #f3f5f8; --edge: #d7dde4;
  --warn: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #9aa6b3; --paper: #14181d; --raised: #1d232b;
  --edge: #343d48; --warn: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; color: var(--soft); }
ol { padding: 0; list-style: none; }
li { border: 1px solid var(--edge); border-left: .3rem solid var(--warn); border-radius: .3rem; padding: .5rem .8rem;
  margin: .5rem 0; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; }
li code { display: block; background: var(--raised); padding: .3rem .5rem; margin-top: .3rem; border-radius: .2rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--edge); white-space: nowrap; }
details { border-top: 1px solid var(--edge); } summary { padding: .45rem 0; cursor: pointer; }
pre { overflow-x: auto; background: var(--raised); padding: .7rem; margin: 0 0 .7rem; border-radius: .3rem;
  overflow-wrap: normal; }
a { color: inherit; }
"""
HEADINGS = ("host", "system", "slots", "fullest disk", "memory free")
Result = Mapping[str, Any]


def row(host: str, result: Result) -> tuple[str, ...]:
    """A host in a line of the table."""
    facts = result.get("facts")
    if facts is None:
        return (host, f"not looked at: {result.get('why', '')}", "", "", "")
    slots = facts.get("slots") or {}
    running = [f"{name} {slot['release'] or '–'} ({slot['state']})" for name, slot in slots.items() if slot["release"]]
    fullest = max((disk["used"] for disk in facts.get("disks") or ()), default=None)
    free = facts.get("memory_free_percent")
    return (
        host,
        str(facts.get("os") or ""),
        ", ".join(running),
        "" if fullest is None else f"{fullest} %",
        "" if free is None else f"{free} %",
    )


def page(fleet: str, when: str, found: Sequence[Finding], results: Mapping[str, Result]) -> str:
    """FLEET at WHEN, as one file."""
    title = f"Diagnosis of {fleet}"
    items = "".join(
        f"<li><strong>{escape(finding.host)}</strong>: {escape(finding.text)}<code>{escape(finding.mend)}</code></li>"
        for finding in found
    )
    hosts = "".join(_host(host, result) for host, result in results.items())
    head = "".join(f"<th>{heading}</th>" for heading in HEADINGS)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row(host, result))}</tr>"
        for host, result in results.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{escape(when)} UTC. Secrets are removed; read it before you pass it on.</p>"
        f"<h2>{'What needs attention' if found else 'Nothing that needs attention was found'}</h2>"
        f'<ol>{items}</ol><h2>Hosts</h2><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{hosts}</body></html>\n"
    )


def _host(host: str, result: Result) -> str:
    parts = "".join(
        f"<details><summary>{escape(section['title'])}</summary><pre>{escape(section['text'])}</pre></details>"
        for section in result.get("sections") or ()
    )
    return f'<h2 id="{escape(host)}">{escape(host)}</h2>{parts or "<p>It could not be looked at.</p>"}'
