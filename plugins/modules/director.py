#!/usr/bin/python
"""Ask the director on the edge."""

from __future__ import annotations

DOCUMENTATION = r"""
module: director
short_description: Ask the director on the edge, which owns the fleet's traffic
description:
  - The director is a program on the edge. It moves traffic, judges releases and holds the fleet's lease.
  - All of this runs on the controller and talks to the director over the host's connection.
options:
  state:
    description:
      - V(observed) tells servers, releases, rollout and history of O(backend).
      - V(leased) takes the fleet's lease and renews it until the playbook ends. V(released) gives it back.
      - V(overwritten) takes slots out of the traffic, into which another release is about to be written, and waits
        until nothing of their requests and streams is left.
      - V(contracted) notes O(floor), before a migration that older code does not outlive.
      - V(rolled_out) hands over O(rollout), and follows it to its end if O(follow).
      - V(rolled_back) takes the lease and moves all traffic to O(release), or the release before the current, if its
        slots are warm; otherwise nothing is changed.
      - V(drained) keeps new requests from a host and waits until it has none. V(undrained) lets them come again and
        waits until it answers.
      - V(recorded) keeps O(record) in the history.
    type: str
    choices:
      [observed, leased, released, overwritten, contracted, rolled_out, rolled_back, drained, undrained, recorded]
    required: true
  backend:
    description: Name of the service; V(drained) and V(undrained) without one are for all services of the host.
    type: str
    default: ""
  generation:
    description: The lease's number, without which nothing is changed.
    type: int
    default: 0
  holder:
    description: Who takes the lease; user and host of the controller unless set.
    type: str
    default: ""
  work:
    description: What the lease is taken for.
    type: str
    default: ""
  wait_seconds:
    description:
      - How long to wait for a lease whose holder is gone and for a rollout that is not over; or with V(drained)
        and V(overwritten), until nothing of the requests and streams is left.
    type: float
    default: 300
  certificate:
    description: The edge's certificate, of which V(observed) tells how many days it has left.
    type: path
    default: ""
  optional:
    description: Whether an edge without a director is no failure.
    type: bool
    default: false
  slots:
    description: The slot of each host.
    type: dict
    default: {}
  floor:
    description: The migration that the database needs its code to know.
    type: str
    default: ""
  rollout:
    description: Stages, weights, gates and who asks, as the director takes them.
    type: dict
    default: {}
  release:
    description: Id of the release to go back to; the one before the current unless set.
    type: str
    default: ""
  smoke:
    description: What every new slot must answer through the edge before it has users.
    type: dict
    default: {}
  follow:
    description: Whether to wait for the end.
    type: bool
    default: true
  host:
    description: Name of the host to drain.
    type: str
    default: ""
  record:
    description: An entry for the history.
    type: dict
    default: {}
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Keep new requests from a host until what it has is answered
  agentfleet.vm.director:
    state: drained
    backend: agent
    host: agent1
"""

RETURN = r"""
backend:
  description: Servers, slots, current release, rollout and history.
  type: dict
  returned: when state is observed
certificate_days:
  description: Days until the edge's certificate ends; null where there is none, or nobody asked.
  type: int
  returned: when state is observed
generation:
  description: The lease's number; 0 where the edge has no director.
  type: int
  returned: when state is leased
warm:
  description: Whether the edge alone could go back; RV(reason) says why not.
  type: bool
  returned: when state is rolled_back
reason:
  description: Why the edge alone could not go back.
  type: str
  returned: when state is rolled_back and it is not warm
plan:
  description: What was done, for the filter P(agentfleet.vm.deploy_result#filter).
  type: dict
  returned: when state is rolled_back and it is warm
previous:
  description: The release that was current before.
  type: str
  returned: when state is rolled_back and it is warm
by:
  description: Who asked for it.
  type: str
  returned: when state is rolled_back and it is warm
progress:
  description: How far that is, for the filter P(agentfleet.vm.deploy_advance#filter).
  type: dict
  returned: when state is rolled_back and it is warm
outcome:
  description: V(promoted), V(reverted), or V(submitted) when nobody waited.
  type: str
  returned: when state is rolled_out
weights:
  description: Weight of every server, read back at the end.
  type: dict
  returned: when state is rolled_out
verdicts:
  description: What the director judged, stage by stage, with its figures.
  type: list
  elements: dict
  returned: when state is rolled_out
sessions:
  description: Requests and streams that the host or the slots still have.
  type: int
  returned: when state is drained, undrained or overwritten
"""

ARGUMENTS = {
    "state": {
        "type": "str",
        "required": True,
        "choices": [
            "observed",
            "leased",
            "released",
            "overwritten",
            "contracted",
            "rolled_out",
            "rolled_back",
            "drained",
            "undrained",
            "recorded",
        ],
    },
    "backend": {"type": "str", "default": ""},
    "generation": {"type": "int", "default": 0},
    "holder": {"type": "str", "default": ""},
    "work": {"type": "str", "default": ""},
    "wait_seconds": {"type": "float", "default": 300},
    "certificate": {"type": "path", "default": ""},
    "optional": {"type": "bool", "default": False},
    "slots": {"type": "dict", "default": {}},
    "floor": {"type": "str", "default": ""},
    "rollout": {"type": "dict", "default": {}},
    "release": {"type": "str", "default": ""},
    "smoke": {"type": "dict", "default": {}, "no_log": True},
    "follow": {"type": "bool", "default": True},
    "host": {"type": "str", "default": ""},
    "record": {"type": "dict", "default": {}},
}
