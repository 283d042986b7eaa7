#!/usr/bin/python
"""Make a host's UFW let in exactly what the inventory wants."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_rules
short_description: Make UFW let in exactly what is wanted
description:
  - Turns UFW on, for IPv4 and IPv6, with incoming traffic denied by default, and adds the wanted rules first.
  - Rules with the comment C(agentfleet) that are wanted no longer are deleted, and those of O(service); all others,
    be they an administrator's or another service's, stay.
  - Before it changes anything it starts a timer that puts everything back. Whoever calls it stops the timer
    C(agentfleet-firewall-undo.timer) through a new connection, and so proves that the way in is still open.
options:
  rules:
    description: What to let in.
    type: list
    elements: dict
    required: true
    suboptions:
      ports:
        description: Ports, or ranges such as V(8100:8103).
        type: list
        elements: str
        required: true
      protocol:
        description: Protocol of the ports.
        type: str
        choices: [tcp, udp]
        default: tcp
      sources:
        description: Addresses or networks that may connect; V(any) stands for everybody, and an empty list for nobody.
        type: list
        elements: str
        required: true
      name:
        description: What it is for; becomes part of the rules' comment.
        type: str
        required: true
      of_service:
        description: Whether the rules are the O(service)'s alone, and not the fleet's.
        type: bool
        default: false
  service:
    description: The service whose rules are looked after besides the fleet's.
    type: str
    default: agent
  own:
    description: The host's own addresses; what it sends to itself needs no rule.
    type: list
    elements: str
    default: []
  undo_seconds:
    description: Time until everything is put back, unless the timer is stopped.
    type: int
    default: 90
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Let in SSH from everywhere, and the database's clients
  agentfleet.vm.firewall_rules:
    rules:
      - {name: ssh, ports: [22], sources: [any]}
      - {name: postgres, ports: [5432], sources: [10.0.0.21, 10.0.0.22]}
"""

RETURN = r"""
commands:
  description: The commands that were run, or would be.
  type: list
  elements: str
  returned: always
"""

import json
import os
import shlex
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import disk, firewall
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError, run

DEFAULTS = Path("/etc/default/ufw")
KEPT = Path("/run/agentfleet/firewall")
# What there was before the fleet, for whoever takes the fleet away.
BEFORE = Path("/var/lib/agentfleet/firewall.json")
UNDO = "agentfleet-firewall-undo"
FILES = (DEFAULTS, *(Path("/etc/ufw") / name for name in ("ufw.conf", "user.rules", "user6.rules")))


def ufw(*arguments: str) -> str:
    return run("ufw", *arguments).decode()


def observe() -> firewall.Firewall:
    if not shutil.which("ufw"):
        return firewall.Firewall()
    return firewall.observed(ufw("status"), ufw("show", "added"), DEFAULTS.read_text())


def note(now: firewall.Firewall) -> None:
    """Note what the firewall was, once, before anything of ours is in it."""
    if not BEFORE.exists() and not firewall.has_ours(now):
        BEFORE.parent.mkdir(parents=True, exist_ok=True)
        disk.write(BEFORE, f"{json.dumps({'active': now.active, 'incoming': now.incoming})}\n".encode(), 0o644)


def arm(active: bool, seconds: int) -> None:
    """Have systemd put the files and the state of now back after SECONDS."""
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True, mode=0o700)
    for file in FILES:
        shutil.copy2(file, KEPT / file.name)
    back = "; ".join(shlex.join(["cp", "-p", str(KEPT / file.name), str(file)]) for file in FILES)
    again = "ufw --force enable" if active else "true"
    if run("systemctl", "list-units", "--no-legend", "--all", f"{UNDO}.timer").strip():
        run("systemctl", "stop", f"{UNDO}.timer")
    timer = (f"--unit={UNDO}", f"--on-active={seconds}", "--timer-property=AccuracySec=1s")
    run("systemd-run", "--quiet", "--collect", *timer, "/bin/sh", "-c", f"ufw --force disable; {back}; {again}")


def apply(plan: firewall.Plan, seconds: int) -> None:
    if not shutil.which("ufw"):
        raise firewall.FirewallError("ufw is not installed: apt-get install ufw")
    note(plan.now)
    arm(plan.now.active, seconds)
    if not plan.now.ipv6:
        DEFAULTS.write_text(firewall.set_ipv6(DEFAULTS.read_text()))
    for call in plan.commands():
        ufw(*call)
    reached = observe()
    if set(reached.rules) != set(plan.then.rules) or not reached.active:
        raise firewall.FirewallError(f"UFW is not what it was made to be:\n{reached.describe()}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "rules": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "ports": {"type": "list", "elements": "str", "required": True},
                    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
                    "sources": {"type": "list", "elements": "str", "required": True},
                    "name": {"type": "str", "required": True},
                    "of_service": {"type": "bool", "default": False},
                },
            },
            "service": {"type": "str", "default": "agent"},
            "own": {"type": "list", "elements": "str", "default": []},
            "undo_seconds": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    # A module's environment is the caller's; over SSH with sudo, /usr/sbin may be missing from it.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    try:
        rules = firewall.expand(wanted["rules"], wanted["service"], wanted["own"])
        plan = firewall.plan(observe(), rules, wanted["service"])
        if plan.changed and not module.check_mode:
            apply(plan, wanted["undo_seconds"])
    except (firewall.FirewallError, CommandError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=plan.changed,
        commands=[shlex.join(["ufw", *call]) for call in plan.commands()] if plan.changed else [],
        diff={
            "before_header": "ufw",
            "after_header": "ufw",
            "before": plan.now.describe(),
            "after": plan.then.describe(),
        },
    )


if __name__ == "__main__":
    main()
