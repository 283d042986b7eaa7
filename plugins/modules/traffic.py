#!/usr/bin/python
"""Observe and move the balancer's traffic."""

from __future__ import annotations

DOCUMENTATION = r"""
module: traffic
short_description: Observe and move the traffic of a backend of HAProxy
description:
  - Sets weights at HAProxy's runtime socket, without a reload, so that no connection is touched.
  - Waits until every server that is to get more traffic is up, raises those, lowers the others, reads all back,
    and keeps the weights in HAProxy's state file for its next start.
  - Servers that are not named keep their weight.
options:
  state:
    description: V(observed) only looks; V(set) makes the weights what O(servers) says.
    type: str
    choices: [observed, set]
    default: observed
  backend:
    description: Name of the backend.
    type: str
    required: true
  servers:
    description: Weight wanted of each server, from 0 to 256, by its name.
    type: dict
    default: {}
  ready_seconds:
    description: How long to wait for servers that are to get more traffic.
    type: float
    default: 30
  socket:
    description: HAProxy's runtime socket with level admin.
    type: path
    default: /run/haproxy/admin.sock
  state_file:
    description: Where weights are kept for HAProxy's next start.
    type: path
    default: /var/lib/haproxy/server-state
  config:
    description: HAProxy's configuration, to which the kept state is fitted.
    type: path
    default: /etc/haproxy/haproxy.cfg
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Move all traffic to the green slots
  agentfleet.vm.traffic:
    state: set
    backend: agent
    servers:
      agent1-blue-1: 0
      agent1-green-1: 100

- name: See who serves
  agentfleet.vm.traffic:
    backend: agent
  register: __traffic
"""

RETURN = r"""
backend:
  description: Name of the backend.
  type: str
  returned: always
servers:
  description: Each server after the change, by name.
  type: dict
  returned: always
  sample:
    agent1-green-1: {name: agent1-green-1, weight: 100, state: up, check: L7OK 200, ready: true, sessions: 3}
before:
  description: Weights before, by server.
  type: dict
  returned: always
after:
  description: Weights after, by server; in check mode those that would be.
  type: dict
  returned: always
not_ready:
  description: Servers that could not take the traffic wanted for them now.
  type: list
  elements: str
  returned: in check mode
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy


def weights(servers: dict[str, haproxy.Server]) -> dict[str, int]:
    return {name: server.weight for name, server in sorted(servers.items())}


def result(
    backend: str, before: dict[str, int], after: dict[str, int], servers: dict[str, haproxy.Server]
) -> dict[str, Any]:
    return {
        "changed": before != after,
        "backend": backend,
        "servers": {name: server.as_dict() for name, server in sorted(servers.items())},
        "before": before,
        "after": after,
        "diff": {"before": before, "after": after},
    }


def run(wanted: dict[str, Any], check: bool) -> dict[str, Any]:
    runtime = haproxy.Runtime(wanted["socket"])
    backend = wanted["backend"]
    servers = runtime.servers(backend)
    before = weights(servers)
    if wanted["state"] == "observed":
        return result(backend, before, before, servers)

    targets = haproxy.read_weights(wanted["servers"])
    haproxy.refuse_unknown(targets, servers, backend)
    if check:
        waiting = haproxy.not_ready(haproxy.plan_move(targets, servers), servers)
        seen = result(backend, before, {**before, **targets}, servers)
        return seen | {"not_ready": [server.name for server in waiting]}

    with haproxy.locked(wanted["state_file"]):
        found, moved = haproxy.set_weights(runtime, backend, targets, wanted["ready_seconds"])
        haproxy.save_state(runtime, wanted["state_file"], wanted["config"])
    return result(backend, weights(found), weights(moved), moved)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["observed", "set"], "default": "observed"},
            "backend": {"type": "str", "required": True},
            "servers": {"type": "dict", "default": {}},
            "ready_seconds": {"type": "float", "default": 30},
            "socket": {"type": "path", "default": haproxy.SOCKET},
            "state_file": {"type": "path", "default": haproxy.STATE_FILE},
            "config": {"type": "path", "default": haproxy.CONFIG},
        },
        supports_check_mode=True,
    )
    try:
        done = run(module.params, module.check_mode)
    except (haproxy.HaproxyError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**done)


if __name__ == "__main__":
    main()
