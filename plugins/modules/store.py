#!/usr/bin/python
"""The edge's store of releases: artifacts, and which release is current."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store
short_description: Keep releases on the edge and note which is current
description:
  - A host that is new or was away gets the current release from here, without the controller that built it.
options:
  state:
    description:
      - V(observed) changes nothing and tells what is there.
      - V(stored) keeps an artifact, verified by its digest.
      - V(current) notes which release is current, and removes artifacts beyond the newest ones.
    type: str
    choices: [observed, stored, current]
    required: true
  path:
    description: Directory of the store.
    type: path
    required: true
  artifact:
    description: Path of the artifact on the controller.
    type: path
  release:
    description: What is known of the release, as M(agentfleet.vm.artifact) returns it.
    type: dict
    default: {}
  record:
    description: What is noted of the current release, C(release) being its id.
    type: dict
    default: {}
  keep_releases:
    description: How many of the newest artifacts stay.
    type: int
    default: 5
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Keep the artifact on the edge
  agentfleet.vm.store:
    state: stored
    path: /var/lib/agentfleet/agent
    artifact: "{{ built.path }}"
    release: "{{ built.release }}"
"""

RETURN = r"""
artifacts:
  description: What is known of each release in the store, by its id.
  type: dict
  returned: when state is observed
current:
  description: What was noted of the current release; null when nothing was deployed yet.
  type: dict
  returned: when state is observed
removed:
  description: Releases that were removed.
  type: list
  elements: str
  returned: when state is current
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import ArtifactError, read_artifact
from ansible_collections.agentfleet.vm.plugins.module_utils.installation import removable, sync, write

Params = dict[str, Any]


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def kept(store: Path) -> dict[str, dict[str, Any]]:
    """Descriptions of the artifacts in the store, oldest first; one without its artifact does not count."""
    found = [path for path in (store / "artifacts").glob("*.tar.gz") if not path.name.startswith(".")]
    artifacts = {}
    for path in sorted(found, key=lambda path: path.stat().st_mtime):
        name = path.name.removesuffix(".tar.gz")
        description = read_json(path.with_name(f"{name}.json"))
        if description:
            artifacts[name] = description
    return artifacts


def observed(params: Params, _check: bool) -> Params:
    store = Path(params["path"])
    return {"changed": False, "artifacts": kept(store), "current": read_json(store / "current.json")}


def stored(params: Params, check: bool) -> Params:
    store, release = Path(params["path"]), params["release"]
    present = kept(store).get(str(release.get("id")))
    path = store / "artifacts" / f"{release.get('id')}.tar.gz"
    if present and hashlib.sha256(path.read_bytes()).hexdigest() == present.get("sha256"):
        return {"changed": False}
    if check:
        return {"changed": True}
    data = Path(params["artifact"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != release.get("sha256"):
        raise ArtifactError(f"the artifact of release {release.get('id')} arrived damaged")
    if read_artifact(data)[0]["id"] != release.get("id"):
        raise ArtifactError(f"the artifact is not release {release.get('id')}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path.with_name(f"{release['id']}.json"), (json.dumps(release, indent=2) + "\n").encode(), 0o600)
    write(path, data, 0o600)
    return {"changed": True}


def current(params: Params, check: bool) -> Params:
    store, record = Path(params["path"]), params["record"]
    release = str(record["release"])
    gone = [name for name in removable(list(kept(store)), [release], params["keep_releases"]) if name != release]
    if not check:
        store.mkdir(parents=True, exist_ok=True)
        write(store / "current.json", (json.dumps(record, indent=2) + "\n").encode(), 0o600)
        for name in gone:
            for suffix in (".tar.gz", ".json"):
                (store / "artifacts" / f"{name}{suffix}").unlink(missing_ok=True)
        sync(store)
    return {"changed": True, "removed": gone}


STATES = {"observed": observed, "stored": stored, "current": current}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "path": {"type": "path", "required": True},
            "artifact": {"type": "path"},
            "release": {"type": "dict", "default": {}},
            "record": {"type": "dict", "default": {}},
            "keep_releases": {"type": "int", "default": 5},
        },
        required_if=[("state", "stored", ["release"]), ("state", "current", ["record"])],
        supports_check_mode=True,
    )
    # Releases are the operator's; other users of the edge need not read an app's code.
    os.umask(0o077)
    try:
        module.exit_json(**STATES[module.params["state"]](module.params, module.check_mode))
    except (ArtifactError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
