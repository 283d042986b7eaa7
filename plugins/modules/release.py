#!/usr/bin/python
"""Put a release into a slot of a host, and start, migrate, stop and retire slots."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Install, start, migrate, stop and retire the slots of a service on a host
description:
  - Every agent host has two slots, C(blue) and C(green). A slot is a release with its configuration and secrets,
    and runs as instances of one systemd template unit. This module works on the slots of one host; who gets
    traffic is decided elsewhere.
  - A run that was interrupted at any point leaves a state that the next run finds and mends.
  - One writer works at a time on a host; another one waits for it.
  - Secrets are written as credentials that systemd encrypts, and compared decrypted.
options:
  state:
    description:
      - V(observed) changes nothing and tells what there is.
      - V(installed) brings the release, its environment and the slot to what is wanted.
      - V(migrated) runs the release's migration once.
      - V(started) starts the slot's instances, waits until each is ready and has them start at boot.
      - V(prepared) is V(installed) and then V(started).
      - V(stopped) has the slot's instances end, once what they still answer is over, and stay down at boot.
      - V(retired) lets the slot run on for O(warm_minutes), keeps it down at boot and removes old releases.
      - V(settled) has the slot, which runs and serves, start at boot, and retires the other one; nothing is removed.
    type: str
    choices: [observed, installed, migrated, started, prepared, stopped, retired, settled]
    required: true
  name:
    description: Name of the service.
    type: str
    required: true
  root:
    description: Directory of the service; C(/opt/<name>) when not given.
    type: path
  slot:
    description: The slot to work on. Required but for V(state=observed).
    type: str
    choices: [blue, green]
  release:
    description: Id of the release that the slot shall run. Required for V(state=installed) and V(state=prepared).
    type: str
  artifact:
    description:
      - Path of the release's artifact on the controller. It is sent only if the host does not have the release.
    type: path
  sha256:
    description: Digest of the artifact; one that arrives otherwise is refused.
    type: str
  present:
    description: Whether the host is known to have the release, so that sending is tried only if it proves wrong.
    type: bool
    default: true
  address:
    description: Address on which the instances listen.
    type: str
    default: 127.0.0.1
  port:
    description: Port of the first instance of C(blue); those of C(green) are 50 higher.
    type: int
    default: 8100
  authority:
    description:
      - File of the authority that issued what the instances show, on the host; empty where they listen without TLS.
    type: str
    default: ""
  instances:
    description: How many processes a slot runs.
    type: int
    default: 1
  environment:
    description: Variables of the service.
    type: dict
    default: {}
  secrets:
    description: Secrets of the service by the name of their file; empty ones are left out.
    type: dict
    default: {}
  migrates:
    description: Whether the service has a migration, where the host has a unit for one.
    type: bool
    default: true
  ready_seconds:
    description: How long to wait until C(/ready) of every instance answers with 200.
    type: int
    default: 120
  warm_minutes:
    description: How long a retired slot runs on.
    type: int
    default: 60
  drain_seconds:
    description: How long a slot without traffic may go on with requests and streams before it is stopped.
    type: int
    default: 300
  keep_releases:
    description: How many of the newest releases stay on the host.
    type: int
    default: 5
  keep:
    description: Releases that stay in any case.
    type: list
    elements: str
    default: []
  runtime:
    description:
      - How the slot runs its release, from a virtual environment (V(venv)) or in a container (V(docker)).
      - Everything else is the same.
    type: str
    choices: [venv, docker]
    default: venv
  image:
    description: Image with Python that a container is made on. Required for V(runtime=docker).
    type: str
    default: ""
  python:
    description: Interpreter for which dependencies are installed.
    type: path
    default: /usr/bin/python3
  boot:
    description: Whether a retired slot goes on starting at boot, for it is not known yet whether it is used again.
    type: bool
    default: false
  host:
    description: This host's name in the balancer; asked before a retired slot is stopped.
    type: str
    default: ""
  edges:
    description: Where the edges' HAProxy shows its figures; asked before a retired slot is stopped.
    type: list
    elements: str
    default: []
  generation:
    description: The lease's number; once a newer one wrote here, an older one is refused. 0 is no lease.
    type: int
    default: 0
  lock_seconds:
    description: How long to wait for another writer on this host.
    type: int
    default: 300
  given:
    description:
      - Options by name, for those that the task itself does not set; the controller takes it apart.
      - A play whose calls all say the same works it out once for a host, not for each call.
    type: dict
    default: {}
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: See what the host runs
  agentfleet.vm.release:
    state: observed
    name: agent

- name: Install a release into the idle slot
  agentfleet.vm.release:
    state: installed
    name: agent
    slot: green
    release: 1.2.0-0123456789ab
    artifact: .build/1.2.0-0123456789ab.tar.gz
    sha256: "{{ digest }}"
    environment:
      AGENT_MODEL: deepseek-v4-flash
    secrets:
      api_key: "{{ agent_api_key }}"

- name: Start it and wait until it is ready
  agentfleet.vm.release:
    state: started
    name: agent
    slot: green
"""

RETURN = r"""
observed:
  description: What the host has and runs.
  type: dict
  returned: when state is observed
given:
  description: What O(given) came to, to be given again without working it out anew. It may hold secrets.
  type: dict
  returned: when state is observed
did:
  description: What was made new, of C(release), C(venv), or C(dependencies) and C(image), and C(slot).
  type: list
  elements: str
  returned: when state is installed
needs_artifact:
  description: Whether the release is neither on the host nor was sent.
  type: bool
  returned: when state is installed
shipped_bytes:
  description: Size of the artifact that was sent to the host.
  type: int
  returned: when state is installed
lines:
  description: The last lines of the migration.
  type: list
  elements: str
  returned: when state is migrated
seconds:
  description: How long it took until every instance was ready.
  type: float
  returned: when state is started
removed:
  description: Releases, environments and images that were removed.
  type: list
  elements: str
  returned: when state is retired
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import installation, observation
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import ArtifactError
from ansible_collections.agentfleet.vm.plugins.module_utils.installation import HostError
from ansible_collections.agentfleet.vm.plugins.module_utils.observation import Wanted
from ansible_collections.agentfleet.vm.plugins.module_utils.runtimes import DOCKER, RUNTIMES, VENV
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import RELEASE_ID, SERVICE_NAME, Service, other, ports
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError

Params = dict[str, Any]


def wanted_of(params: Params) -> Wanted | None:
    if not params["release"]:
        return None
    return Wanted(
        release=params["release"],
        environment={name: str(value) for name, value in params["environment"].items()},
        secrets={name: str(value) for name, value in params["secrets"].items() if str(value)},
        instances=params["instances"],
        runtime=params["runtime"],
        image=params["image"],
    )


def verified_archive(path: str | None, sha256: str | None) -> Path | None:
    """The artifact as it arrived, if one was sent."""
    if not path:
        return None
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if digest != sha256:
        raise HostError(f"the artifact arrived damaged: its sha256 is {digest[:12]}…, not {(sha256 or '')[:12]}…")
    return Path(path)


def observed(service: Service, params: Params, _check: bool) -> Params:
    found = observation.observe(
        service,
        params["address"],
        params["port"],
        params["instances"],
        wanted_of(params),
        params["runtime"],
        params["python"],
    )
    found["migrates"] = found["migrates"] and params["migrates"]
    return {"changed": False, "observed": found}


def installed(service: Service, params: Params, check: bool) -> Params:
    wanted = wanted_of(params)
    if wanted is None:
        raise HostError("release is required to install")
    diff = installation.change_of(service, params["slot"], wanted)
    if check:
        intact = observation.release_intact(service, wanted.release)
        changed = not observation.holds(service, params["slot"], wanted, intact)
        return {"changed": changed, "did": [], "needs_artifact": False, "diff": diff if changed else {}}
    archive = verified_archive(params["artifact"], params["sha256"])
    done = installation.install(service, params["slot"], wanted, params["port"], archive, params["python"])
    return {"changed": bool(done["did"]), "diff": diff if "slot" in done["did"] else {}, **done}


def migrated(service: Service, params: Params, check: bool) -> Params:
    secrets = [str(value) for value in params["secrets"].values()]
    return {"changed": True, "lines": [] if check else installation.migrate(service, params["slot"], secrets)}


def started(service: Service, params: Params, check: bool) -> Params:
    slot = params["slot"]
    if check:
        names = set(installation.boot_instances(service, slot)) & set(installation.active_instances(service, slot))
        return {"changed": len(names) != params["instances"], "seconds": 0.0}
    return installation.start(
        service,
        slot,
        params["address"],
        ports(slot, params["port"], params["instances"]),
        params["ready_seconds"],
        [str(value) for value in params["secrets"].values()],
        params["authority"],
    )


def prepared(service: Service, params: Params, check: bool) -> Params:
    done = installed(service, params, check)
    if check or done["needs_artifact"]:
        return done
    begun = started(service, params, check)
    return {**begun, **done, "changed": done["changed"] or begun["changed"]}


def asking(params: Params) -> installation.Asking:
    return installation.Asking(params["host"], params["edges"], params["drain_seconds"])


def stopped(service: Service, params: Params, check: bool) -> Params:
    slot = params["slot"]
    if check:
        left = installation.active_instances(service, slot) + installation.boot_instances(service, slot)
        return {"changed": bool(left)}
    running = bool(installation.active_instances(service, slot))
    changed = [installation.cancel_stop(service, slot), installation.disable(service, slot), running]
    if running:
        # What it still answers may take minutes; whoever needs the slot next waits for that.
        installation.stop_later(service, slot, 0, asking(params), failed=True)
    return {"changed": any(changed)}


def retire(service: Service, slot: str, params: Params, check: bool) -> bool:
    running = bool(installation.active_instances(service, slot))
    stopping = running and not installation.stop_pending(service, slot)
    booting = bool(installation.boot_instances(service, slot)) and not params["boot"]
    if not check:
        # Down at boot comes last: a slot that still starts at boot is one that was not retired to the end.
        if stopping:
            installation.stop_later(service, slot, params["warm_minutes"], asking(params))
        if booting:
            installation.disable(service, slot)
    return booting or stopping


def retired(service: Service, params: Params, check: bool) -> Params:
    changed = retire(service, params["slot"], params, check)
    removed = installation.prune(service, params["keep_releases"], params["keep"], params["python"], check)
    return {"changed": changed or bool(removed), "removed": removed}


def settled(service: Service, params: Params, check: bool) -> Params:
    kept = installation.keep(service, params["slot"], check)
    return {"changed": retire(service, other(params["slot"]), params, check) or kept}


STATES = {
    "observed": observed,
    "installed": installed,
    "migrated": migrated,
    "started": started,
    "prepared": prepared,
    "stopped": stopped,
    "retired": retired,
    "settled": settled,
}


def problem(params: Params) -> str:
    """Why the request cannot be carried out at all."""
    if not SERVICE_NAME.match(params["name"]):
        return f"name {params['name']!r}: a lower-case letter, then letters, digits or dashes"
    if params["release"] and not RELEASE_ID.match(params["release"]):
        return f"release {params['release']!r} is no release's id"
    return ""


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "name": {"type": "str", "required": True},
            "root": {"type": "path"},
            "slot": {"type": "str", "choices": ["blue", "green"]},
            "release": {"type": "str"},
            "artifact": {"type": "path"},
            "sha256": {"type": "str"},
            "present": {"type": "bool", "default": True},
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 8100},
            "authority": {"type": "str", "default": ""},
            "instances": {"type": "int", "default": 1},
            "environment": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "migrates": {"type": "bool", "default": True},
            "ready_seconds": {"type": "int", "default": 120},
            "warm_minutes": {"type": "int", "default": 60},
            "drain_seconds": {"type": "int", "default": 300},
            "keep_releases": {"type": "int", "default": 5},
            "keep": {"type": "list", "elements": "str", "default": []},
            "runtime": {"type": "str", "choices": list(RUNTIMES), "default": VENV},
            "image": {"type": "str", "default": ""},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "boot": {"type": "bool", "default": False},
            "host": {"type": "str", "default": ""},
            "edges": {"type": "list", "elements": "str", "default": []},
            "generation": {"type": "int", "default": 0},
            "lock_seconds": {"type": "int", "default": 300},
            "given": {"type": "dict", "default": {}},
        },
        required_if=[
            ("state", "installed", ["slot", "release"]),
            ("state", "migrated", ["slot"]),
            ("state", "started", ["slot"]),
            ("state", "prepared", ["slot", "release"]),
            ("state", "stopped", ["slot"]),
            ("state", "retired", ["slot"]),
            ("state", "settled", ["slot"]),
            ("runtime", DOCKER, ["image"]),
        ],
        supports_check_mode=True,
    )
    params = module.params
    wrong = problem(params)
    if wrong:
        module.fail_json(msg=wrong)
    # The service's own user reads releases and environments, whatever root's mask is on this host.
    os.umask(0o022)
    service = Service(params["name"], Path(params["root"] or f"/opt/{params['name']}"))
    act = STATES[params["state"]]
    try:
        if params["state"] == "observed" or module.check_mode:
            result = act(service, params, True)
        else:
            with installation.locked(service, params["lock_seconds"]):
                installation.check_generation(params["generation"])
                result = act(service, params, False)
    except (HostError, ArtifactError, CommandError, OSError) as error:
        module.fail_json(msg=str(error))
    finally:
        if params["artifact"] and not module.check_mode:
            # It was sent for this call alone.
            Path(params["artifact"]).unlink(missing_ok=True)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
