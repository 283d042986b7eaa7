"""agentfleet-director: the fleet's traffic from the edge alone, without Ansible."""

from __future__ import annotations

import argparse
import getpass
import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.director.control import (
    DirectorError,
    NotRunning,
    ask,
    exchange,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import place_of


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agentfleet-director", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    def backend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("backend", nargs="?", default="", help="the service; needed only where there are several")

    status = command("status", "Show releases, traffic, the lease and what is under way.")
    status.add_argument("--json", action="store_true", help="one JSON document")
    backend(command("history", "Show the deploys and rollbacks of a service."))
    rollback = command(
        "rollback", "Move all traffic back to the release before, or to one that is named; it must be warm."
    )
    rollback.add_argument("--release", default="", help="the release's id")
    backend(rollback)
    backend(command("abort", "Turn the rollout that is under way back."))
    for name, text in (("drain", "Send a host no new requests."), ("undrain", "Send a host requests again.")):
        one = command(name, text)
        one.add_argument("host")
        backend(one)
    floor = command("floor", "Show which migration the database needs its code to know.")
    floor.add_argument("--set", help="note another, or none with '', once the database was restored from before it")
    backend(floor)
    request = command("request", "Send one JSON object from standard input to the director; for playbooks.")
    request.add_argument("do")
    command("run", "Run the director; systemd does.")
    return parser


def who() -> str:
    return f"{getpass.getuser()} on {socket.gethostname()}"


def only_backend(wanted: str) -> str:
    if wanted:
        return wanted
    backends: list[str] = sorted(ask("status")["backends"])
    if len(backends) != 1:
        raise DirectorError(f"name the service: {', '.join(backends) or 'there is none yet'}")
    return backends[0]


def follow(backend: str, since: int) -> int:
    """Show what a rollout does until it is over."""
    while True:
        answer = ask("events", backend=backend, since=since, wait=20)
        for event in answer["events"]:
            print(event["text"], flush=True)
        since = answer["last"]
        work = answer["rollout"]
        if work and work["over"]:
            return 0 if work["phase"] == "promoted" else 1


def moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def show_status(document: Mapping[str, Any]) -> list[str]:
    lease = document["lease"]
    lines = [f"lease: {lease['holder']}, {lease['work']}" if lease["live"] else "lease: free"]
    for backend, seen in document["backends"].items():
        current = seen["current"] or {}
        lines.append(f"{backend}: release {current.get('release', 'none yet')}")
        total = sum(server["weight"] for server in seen["servers"].values()) or 1
        for name, server in seen["servers"].items():
            release = seen["slots"].get(place_of(name), "")
            share = f"{100 * server['weight'] / total:.3g} %"
            lines.append(
                f"  {name:<20} {share:>6}  {server['state']:<8} {release}  {seen['figures'].get(name, '')}".rstrip()
            )
        work = seen["rollout"]
        if work and not work["over"]:
            lines.append(f"  under way: {work['kind']} of {work['release']}, {work['phase']}, stage {work['stage']}")
    return lines


def show_history(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{moment(entry['began_at'])}  {entry['kind']:<8} {entry['outcome']:<9} {entry['release']}  {entry['strategy']}"
        f"  {entry['seconds']:.0f} s  {entry['by']}  {entry.get('id', '')}"
        + (f"  {entry['reason']}" if entry["reason"] else "")
        for entry in entries
    ]


def main(words: Sequence[str]) -> int:
    chosen = arguments().parse_args(words)
    try:
        return carry_out(chosen)
    except DirectorError as error:
        print(f"agentfleet-director: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def carry_out(chosen: argparse.Namespace) -> int:
    match chosen.command:
        case "run":
            # A playbook asks several times a run, and would wait for all that only the program itself needs.
            import asyncio

            from ansible_collections.agentfleet.vm.plugins.module_utils.director.program import Places
            from ansible_collections.agentfleet.vm.plugins.module_utils.director.service import serve

            asyncio.run(serve(Places()))
        case "request":
            asked = json.loads(sys.stdin.read() or "{}")
            try:
                print(json.dumps(exchange(chosen.do, **asked), ensure_ascii=False))
            except DirectorError as error:
                running = not isinstance(error, NotRunning)
                print(json.dumps({"ok": False, "running": running, "error": str(error)}, ensure_ascii=False))
        case "status":
            document = ask("status")
            print(json.dumps(document, ensure_ascii=False) if chosen.json else "\n".join(show_status(document)))
        case "history":
            backend = only_backend(chosen.backend)
            print("\n".join(show_history(ask("status", backend=backend)["backends"][backend]["history"])))
        case "rollback":
            backend = only_backend(chosen.backend)
            begun = ask("rollback", backend=backend, release=chosen.release, holder=who())
            status = follow(backend, begun["since"])
            ask("release", generation=begun["generation"])
            return status
        case "floor":
            backend = only_backend(chosen.backend)
            if chosen.set is not None:
                generation = ask("lease", holder=who(), work="floor")["generation"]
                ask("contract", backend=backend, floor=chosen.set, generation=generation)
                ask("release", generation=generation)
            print(ask("status", backend=backend)["backends"][backend]["floor"] or "none")
        case "abort":
            backend = only_backend(chosen.backend)
            since = ask("status")["last_event"]
            ask("abort", backend=backend, by=who())
            # Turned back is what was asked for.
            return 1 - follow(backend, since)
        case "drain" | "undrain":
            backend = only_backend(chosen.backend)
            done = ask("drain", backend=backend, host=chosen.host, on=chosen.command == "drain", by=who())
            print(f"{chosen.host}: {done['sessions']} requests and streams under way")
    return 0
