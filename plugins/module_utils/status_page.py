"""The fleet's status as pages: one with everything for operators, one with a word for everybody. Pure.

Neither has a script or loads anything. What stands in them comes from the fleet, and is escaped all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import backup_view as backups
from ansible_collections.agentfleet.vm.plugins.module_utils.status import EDGE
from ansible_collections.agentfleet.vm.plugins.module_utils.status_words import (
    duration,
    milliseconds,
    moment,
    percent,
    rate,
)

Seen = Mapping[str, Any]
# A browser loads the page again after so long; the timer writes it as often.
SECONDS = 60
STYLE = """
:root { color-scheme: light dark; --ink: #1b222b; --soft: #566270; --paper: #f4f6f8; --card: #fff; --edge: #d9dfe6;
  --good: #1a7f4b; --fair: #8a5800; --bad: #b3261e; --calm: #2f5fa8; --bar: #dfe5ec; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e9ee; --soft: #9aa6b4; --paper: #12161b; --card: #1a2028;
  --edge: #313a45; --good: #5cc98e; --fair: #e3b04b; --bad: #ff8a80; --calm: #8ab4f8; --bar: #2a323d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1.2rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
header { display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: baseline; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .6rem; }
p { margin: .2rem 0; color: var(--soft); }
.word { font-weight: 600; } .word::before { content: "●"; margin-right: .35em; }
.up { color: var(--good); } .degraded, .maintenance { color: var(--fair); } .down { color: var(--bad); }
.unknown { color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .7rem; margin: 1rem 0 0; }
dl div, .card, li { background: var(--card); border: 1px solid var(--edge); border-radius: .5rem;
  padding: .6rem .8rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-weight: 600; }
ul { list-style: none; margin: 0; padding: 0; display: grid; gap: .5rem; }
li { border-left: .3rem solid var(--bad); } li.fair { border-left-color: var(--fair); }
.hosts { display: grid; grid-template-columns: repeat(auto-fill, minmax(18rem, 1fr)); gap: .8rem; }
.card h3 { margin: 0; font-size: 1rem; display: flex; justify-content: space-between; gap: .5rem; }
.card h3 span + span { font-weight: 400; color: var(--soft); font-size: .85rem; }
.card p { font-size: .9rem; } .card .bad { color: var(--bad); }
.slot { margin-top: .5rem; border-top: 1px solid var(--edge); padding-top: .4rem; font-size: .9rem; }
.bar { display: block; height: .3rem; border-radius: .2rem; background: var(--bar); margin: .3rem 0 .1rem; }
.bar i { display: block; height: 100%; border-radius: .2rem; background: var(--calm); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--edge); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
a { color: var(--calm); } footer { margin-top: 2rem; font-size: .85rem; }
@media (max-width: 30rem) { body { padding: .8rem; } .hosts { grid-template-columns: 1fr; } }
"""
WORDS = {
    "up": "All is well.",
    "degraded": "The service answers, and not as well as it should.",
    "down": "The service does not answer.",
    "maintenance": "The service is being worked on.",
    "unknown": "How the service does is not known now.",
}
ILL = ("unhealthy", "failed", "damaged")


def short(document: Seen) -> dict[str, str]:
    """What everybody may know."""
    return {"status": str(document["state"] or "unknown"), "at": str(document["made_at"])}


def public_page(known: Mapping[str, str]) -> str:
    word = known["status"]
    body = f"<header><h1>Status</h1>{state(word)}</header><p>{escape(WORDS[word])}</p>"
    return whole("Status", f"{body}<footer><p>As of {escape(when(known['at']))}.</p></footer>")


def page(document: Seen) -> str:
    """Everything, for operators."""
    fleet = str(document["fleet"])
    parts = [
        f"<header><h1>{escape(fleet)}</h1>{state(str(document['state'] or 'unknown'))}</header>",
        f"<p>{escape(origin(document))}</p>",
        cards(facts(document)),
        listed("Alerts", alerts(document["alerts"])),
        listed("What needs attention", attention(document["hosts"])),
        f'<h2>Hosts</h2><div class="hosts">{"".join(map(host, document["hosts"]))}</div>',
        history(document["history"]),
        '<footer><p><a href="status.json">The same as JSON</a></p></footer>',
    ]
    return whole(f"Status of {fleet}", "".join(parts))


def whole(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{SECONDS}"><meta name="robots" content="noindex">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def state(word: str) -> str:
    return f'<span class="word {word}">{word}</span>'


def when(stamp: str) -> str:
    return f"{stamp[:10]} {stamp[11:19]} UTC"


def origin(document: Seen) -> str:
    made = f"Made {when(str(document['made_at']))} from what"
    if document["made_from"] != EDGE:
        return f"{made} every host said of itself."
    told = "and Prometheus know" if document["alerts"] is not None else "knows, which has no Prometheus to ask"
    return f"{made} the edge {told}. What is not known is left out; status.yml asks every host."


def facts(document: Seen) -> Iterable[tuple[str, str]]:
    yield "Release", str(document["release"] or "none yet")
    traffic = document["traffic"]
    if traffic and len(traffic) > 1:
        yield "Traffic", ", ".join(f"{percent(share)} {release}" for release, share in traffic.items())
    figures = document["figures"]
    if figures:
        yield f"Requests in {duration(figures['seconds'])}", str(figures["requests"])
        yield "Failed", rate(figures["error_rate"]) or "–"
        yield "p95 to the first byte", milliseconds(figures["p95_seconds"]) or "–"
    certificate = document["certificate"]
    if certificate:
        yield "Certificate", f"{certificate['days']} days ({certificate['issuer']})"
    if document["last_backup_hours"] is not None:
        yield "Oldest backup", backups.ago(float(document["last_backup_hours"]))
    rollout, lease = document["rollout"], document["lease"]
    if rollout:
        yield "Under way", f"{rollout['kind']} of {rollout['release']}: {rollout['phase']}, {rollout['stage']}"
    if lease:
        yield "Lease", f"{lease['holder']}, {lease['work']}"


def cards(pairs: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>' for name, value in pairs)}</dl>"


def listed(title: str, items: Sequence[tuple[str, str]]) -> str:
    if not items:
        return ""
    lines = "".join(f'<li class="{kind}">{escape(text)}</li>' for kind, text in items)
    return f"<h2>{escape(title)}</h2><ul>{lines}</ul>"


def alerts(found: Sequence[Seen] | None) -> list[tuple[str, str]]:
    rows = []
    for alert in found or ():
        words = " · ".join(str(word) for word in (alert["severity"], alert["name"], alert["host"]) if word)
        rows.append(("bad", f"{words}: {alert['summary']}" if alert["summary"] else words))
    return rows


def attention(hosts: Sequence[Seen]) -> list[tuple[str, str]]:
    rows = [("bad", f"{one['name']}: {line}") for one in hosts for line in one["attention"]]
    return rows + [("fair", f"{one['name']}: {line}") for one in hosts for line in one["drift"] or ()]


def host(known: Seen) -> str:
    word = {True: "up", False: "down", None: "unknown"}[known["reachable"]]
    name = f'<span class="word {word}" title="{word}">{escape(str(known["name"]))}</span>'
    lines = [f"<h3>{name}<span>{escape(', '.join(known['groups']))}</span></h3>"]
    free = known["disk_free_percent"]
    about = [str(known["os"] or ""), "" if free is None else f"{free} % of disk free"]
    if any(about):
        lines.append(f"<p>{escape(' · '.join(word for word in about if word))}</p>")
    if word == "down":
        lines.append('<p class="bad">It does not answer.</p>')
    lines += [slot(each, one) for each, one in (known["slots"] or {}).items() if one["release"] or one["weight"]]
    return f'<div class="card">{"".join(lines)}</div>'


def slot(name: str, known: Seen) -> str:
    share = float(known["share"] or 0)
    words = [str(known["state"])]
    if known["instances"] and share:
        words.append(f"{known['answering']} of {known['instances']} answer")
    if share:
        words.append(f"{percent(share)} of the traffic")
    if known["requests"]:
        words.append(f"{known['requests']} requests, {rate(known['error_rate'])} failed")
        words.append(f"p95 {milliseconds(known['p95_seconds'])}")
    kind = "bad" if known["state"] in ILL else ""
    bar = f'<span class="bar"><i style="width:{share * 100:.1f}%"></i></span>' if share else ""
    text = f"<b>{escape(name)}</b> {escape(str(known['release'] or ''))}"
    return f'<div class="slot">{text}{bar}<p class="{kind}">{escape(" · ".join(words))}</p></div>'


HEADINGS = ("when (UTC)", "what", "outcome", "release", "strategy", "by")


def history(entries: Sequence[Seen]) -> str:
    """The last deploys and rollbacks, the newest first."""
    if not entries:
        return ""
    head = "".join(f"<th>{word}</th>" for word in HEADINGS)
    cells = [
        (moment(float(entry["began_at"])), *(str(entry[name]) for name in ("kind", *HEADINGS[2:])))
        for entry in reversed(entries)
    ]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<h2>Deploys</h2><div class="scroll">{table}</div>'
