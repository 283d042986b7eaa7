"""Spans that the service logged (AGENT_LOG_SPANS) as a tree: what a request did, in which order, how long. Pure."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Columns of a tree's names; a longer one pushes its figures to the right.
WIDTH = 48
# Of a span's attributes, those that say which model, tool or route it was about, in this order.
TELLING = (
    *("http.response.status_code", "agent.route.by", "gen_ai.agent.name", "gen_ai.response.model"),
    *("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "agent.job.outcome", "agent.job.attempt"),
)


@dataclass
class Span:
    """A part of a trace; `at` is when it began, in seconds since 1970."""

    trace: str
    name: str
    at: float
    milliseconds: float
    failed: bool = False
    request: str = ""
    host: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    children: list[Span] = field(default_factory=list)


def show(lines: Iterable[str | tuple[str, str]], wanted: str) -> list[str]:
    """The trees of a request's id or a trace's, a line for each span; empty where no span of it is among LINES.

    A line is the JSON that the service wrote, or a pair of its host and it. Others than spans are passed over.
    """
    trees = build(lines, wanted)
    shown = []
    for number, (trace, roots) in enumerate(trees.items()):
        request = next((span.request for span in roots if span.request), "")
        shown += [""] if number else []
        shown.append(f"trace {trace}" + (f", request {request}" if request else ""))
        begin = roots[0].at
        for root in roots:
            shown += branch(root, begin, 1)
    return shown


def build(lines: Iterable[str | tuple[str, str]], wanted: str) -> dict[str, list[Span]]:
    """By trace, its spans without a parent that is known, in the order in which they began; the rest is below them."""
    found: dict[tuple[str, str], tuple[str, Span]] = {}
    for line in lines:
        host, text = line if isinstance(line, tuple) else ("", line)
        read_line(host, text, found)
    traces = {trace for trace, _own in found if trace == wanted}
    traces |= {span.trace for _parent, span in found.values() if wanted and wanted == span.request}
    roots: dict[str, list[Span]] = {}
    for (trace, _own), (parent, span) in sorted(found.items(), key=lambda item: item[1][1].at):
        if trace not in traces:
            continue
        above = found.get((trace, parent))
        # A span whose parent is the client's, or was not read, stands at the top.
        (above[1].children if above else roots.setdefault(trace, [])).append(span)
    return roots


def read_line(host: str, text: str, found: dict[tuple[str, str], tuple[str, Span]]) -> None:
    try:
        said = json.loads(text)
        if said["event"] != "span":
            return
        milliseconds = float(said["milliseconds"])
        ended = datetime.datetime.fromisoformat(said["timestamp"]).timestamp()
        attributes = dict(said.get("attributes") or {})
        span = Span(
            trace=str(said["trace_id"]),
            name=str(said["name"]),
            # The line is written when the span ends.
            at=ended - milliseconds / 1000,
            milliseconds=milliseconds,
            failed=bool(said.get("failed")),
            request=str(attributes.get("agent.request_id") or said.get("request_id") or ""),
            host=host,
            attributes=attributes,
        )
        key = (span.trace, str(said["span_id"]))
    except (ValueError, KeyError, TypeError):
        return
    # Read twice, from the journal and from the log host, it is one.
    found.setdefault(key, (str(said.get("parent_id") or ""), span))


def branch(span: Span, begin: float, depth: int) -> list[str]:
    name = f"{'  ' * depth}{span.name}"
    details = [f"{key.rpartition('.')[2]}={span.attributes[key]}" for key in TELLING if key in span.attributes]
    if span.failed:
        details.insert(0, f"FAILED {span.attributes.get('error.type', '')}".strip())
    if span.host and depth == 1:
        details.append(f"on {span.host}")
    line = f"{name:<{WIDTH}} {span.milliseconds:>9.1f} ms  +{max(span.at - begin, 0) * 1000:.0f}  {'  '.join(details)}"
    return [line.rstrip(), *(below for child in span.children for below in branch(child, begin, depth + 1))]
