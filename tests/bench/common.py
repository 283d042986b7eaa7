"""What the benches share: a fleet for as long as it is measured, times, and lines of a table."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from secrets import token_hex
from typing import Any

import yaml

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))

from support.fleet import Fleet, Result, copy_inventory  # noqa: E402 - the path above finds it

MODEL_PORT = 18080
SMALL_APP = {
    "agent_source": str(TOP / "tests/support/small_app"),
    "agent_app": "main:app",
    "agent_migrate_command": "",
    "balancer_cookie": "",
    # The app keeps nothing; preflight wants to know where all the same.
    "agent_database_host": "127.0.0.1",
    "agent_redis_host": "127.0.0.1",
}


def timed(what: Callable[[], Result]) -> float:
    began = time.monotonic()
    what().ok()
    return time.monotonic() - began


def table(*headings: str) -> None:
    """The head of a table; every bench that does not print rows of `row` begins its own."""
    row_of(*headings)
    row_of(*["---"] * len(headings))


def row_of(*cells: object) -> None:
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def row(what: str, seconds: float, limit: str, command: str) -> None:
    row_of(what, f"{seconds:.1f} s", limit, f"`{command}`")


def variables(name: str, network: str, **more: object) -> Path:
    path = Path(tempfile.mkdtemp(prefix="agentfleet-bench-")) / "variables.json"
    path.write_text(json.dumps({"lab_name": name, "lab_network": network, **more}))
    path.chmod(0o600)
    return path


def inventory(target: Path, name: str, network: str, suites: Mapping[str, str], data: bool = False) -> Path:
    """The lab's, with an edge, the agent hosts of SUITES on their Debian releases and, if wanted, a DATA host.

    Addresses, secrets and the way in are written out, as init.yml does: where each is a template, every task
    evaluates it.
    """
    copy_inventory(TOP / "inventories/lab", target)
    known = {"inventory_dir": str(target), "lab_name": os.environ.get("LAB_NAME", name)}
    for kept in sorted(target.glob("group_vars/**/*.yml")):
        kept.write_text(json.dumps(written_out(yaml.safe_load(kept.read_text()), known)))
    prefix = os.environ.get("LAB_NETWORK", network).rsplit(".", 1)[0]
    agents = {
        name: {"lab_suite": suite, "ansible_host": f"{prefix}.{21 + number}"}
        for number, (name, suite) in enumerate(suites.items())
    }
    edge = {"edge1": {"lab_suite": "trixie", "ansible_host": f"{prefix}.11"}}
    machines = {"children": {"edge": {"hosts": edge}, "agents": {"hosts": agents}}}
    if data:
        store = {"data1": {"lab_suite": "trixie", "ansible_host": f"{prefix}.31"}}
        machines["children"] |= {"postgres": {"hosts": store}, "redis": {"hosts": store}}
    (target / "hosts.yml").write_text(json.dumps({"all": {"children": {"machines": machines}}}))
    return target


def written_out(value: Any, known: Mapping[str, str]) -> Any:
    """Secrets and files in place of the lookups that find them, and what is KNOWN in place of its name."""
    if isinstance(value, dict):
        return {name: written_out(part, known) for name, part in value.items()}
    if "lookup(" in str(value):
        return token_hex(20)
    if files := re.search(r"'ansible.builtin.fileglob', '(.+?)'", str(value)):
        return sorted(glob(files[1]))
    return re.sub(r"{{ (\w+) }}", lambda name: known[name[1]], value) if isinstance(value, str) else value


@contextmanager
def lab(
    default: str, network: str, inventory: Path | None = None, keep: bool = True, **more: object
) -> Iterator[Fleet]:
    """A lab and its end. LAB_NAME and LAB_NETWORK say which; KEEP=1 leaves it up, for a second try that is quicker.

    KEEP is false for one that another follows in the same place.
    """
    name, network = os.environ.get("LAB_NAME", default), os.environ.get("LAB_NETWORK", network)
    fleet = Fleet(name, network, variables(name, network, **more), inventory or TOP / "inventories/lab")
    try:
        fleet.playbook("lab").ok()
        yield fleet
    finally:
        if not (keep and os.environ.get("KEEP")):
            fleet.playbook("lab", "-e", "lab_state=down").ok()
