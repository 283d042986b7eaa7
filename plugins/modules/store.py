#!/usr/bin/python
"""The edge's store of releases: keep an artifact."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store
short_description: Keep a release on the edge
description:
  - A host that is new or was away gets a release from here, without the controller that built it.
  - The artifact is verified by its digest. Artifacts beyond the newest ones are removed, but for those of O(keep).
options:
  path:
    description: Directory of the store.
    type: path
    required: true
  artifact:
    description: Path of the artifact on the controller.
    type: path
    required: true
  release:
    description: What is known of the release, as M(agentfleet.vm.artifact) returns it.
    type: dict
    required: true
  keep:
    description: Releases that stay in any case.
    type: list
    elements: str
    default: []
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
    path: /var/lib/agentfleet/agent
    artifact: "{{ built.path }}"
    release: "{{ built.release }}"
"""

RETURN = r"""
removed:
  description: Releases that were removed.
  type: list
  elements: str
  returned: always
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import ArtifactError, read_artifact
from ansible_collections.agentfleet.vm.plugins.module_utils.director.store import kept, removable
from ansible_collections.agentfleet.vm.plugins.module_utils.disk import sync, write

Params = dict[str, Any]


def stored(params: Params, check: bool) -> Params:
    store, release = Path(params["path"]), params["release"]
    name = str(release.get("id"))
    present = kept(store).get(name)
    path = store / "artifacts" / f"{name}.tar.gz"
    if present and hashlib.sha256(path.read_bytes()).hexdigest() == present.get("sha256"):
        return {"changed": False, "removed": []}
    if check:
        return {"changed": True, "removed": []}
    data = Path(params["artifact"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != release.get("sha256"):
        raise ArtifactError(f"the artifact of release {name} arrived damaged")
    if read_artifact(data)[0]["id"] != name:
        raise ArtifactError(f"the artifact is not release {name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path.with_name(f"{name}.json"), (json.dumps(release, indent=2) + "\n").encode(), 0o600)
    write(path, data, 0o600)
    gone = removable(list(kept(store)), [name, *params["keep"]], params["keep_releases"])
    for old in gone:
        for suffix in (".tar.gz", ".json"):
            (store / "artifacts" / f"{old}{suffix}").unlink(missing_ok=True)
    sync(store)
    return {"changed": True, "removed": gone}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "artifact": {"type": "path", "required": True},
            "release": {"type": "dict", "required": True},
            "keep": {"type": "list", "elements": "str", "default": []},
            "keep_releases": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    # Releases are the operator's; other users of the edge need not read an app's code.
    os.umask(0o077)
    try:
        module.exit_json(**stored(module.params, module.check_mode))
    except (ArtifactError, OSError) as error:
        module.fail_json(msg=str(error))
    finally:
        if not module.check_mode:
            # It was sent for this call alone.
            Path(module.params["artifact"]).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
