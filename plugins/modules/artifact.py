#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: artifact
short_description: Make the one artifact of a release
description:
  - Packs an app's files into an archive on the controller; the same contents give the same id and the same bytes.
  - From a git checkout the files are those of the last commit, never those of the working tree. Without git they
    are those that O(include) names, or the usual ones.
  - Refuses files that look like secrets.
  - Dependencies are those of a C(requirements.txt) that is pinned by hashes; else uv locks them on the controller, from
    C(uv.lock), C(requirements.txt) or C(pyproject.toml), once for each state of these.
  - Runs on the controller alone, whatever host the task names.
options:
  source:
    description: Directory of the app; empty for the collection's own agent service.
    type: path
    default: ""
  include:
    description: Names or patterns of what belongs to a release, where the default does not fit.
    type: list
    elements: str
    default: []
  label:
    description: Names the release instead of the app's version, and makes it distinct from another with the same code.
    type: str
    default: ""
  artifact:
    description: An artifact that was made before, by its path or by its id; nothing is built then.
    type: str
    default: ""
  proof:
    description:
      - A file that the app's tests write, relative to O(source); JUnit's XML is understood. Its digest and what it
        says are kept beside the artifact.
    type: str
    default: ""
  app:
    description: The ASGI app as uvicorn takes it, which must be in the release; not looked for where it is empty.
    type: str
    default: ""
  migrate:
    description: The migration that is run with it.
    type: str
    default: ""
  service:
    description:
      - What this host's variables say of the service; given back as it is, for tasks that work for the whole fleet on
        another host.
    type: dict
    default: {}
  cache:
    description: Where artifacts are kept; C(.build) in a checkout, C(~/.cache/agentfleet) otherwise.
    type: path
    default: ""
attributes:
  check_mode:
    description: Tells the id without keeping the artifact.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Build the agent service
  agentfleet.vm.artifact:

- name: Build an app of one's own
  agentfleet.vm.artifact:
    source: ~/shop-agent
    label: spring
"""

RETURN = r"""
release:
  description: The release; only its id where O(artifact) names one that is not in the cache.
  type: dict
  returned: success
  contains:
    id: {description: "The label, else the version, and a digest of the content.", type: str}
    version: {description: Version of the app., type: str}
    lock: {description: Digest of the dependencies., type: str}
    sha256: {description: Digest of the artifact., type: str}
    bytes: {description: Size of the artifact., type: int}
    schema: {description: "Its migrations, and the one that they leave the database in need of.", type: dict}
    proof: {description: "What the file of O(proof) says.", type: dict}
    commit: {description: Git commit it was built from., type: str}
    python: {description: "The Python it wants, by its pyproject.toml.", type: str}
    built_by: {description: Who built it and where., type: str}
path:
  description: The artifact; empty where there is none.
  type: str
  returned: success
available:
  description: Whether this controller has the artifact, or would have it outside of check mode.
  type: bool
  returned: success
cache:
  description: The directory of artifacts.
  type: str
  returned: success
by:
  description: Who runs this.
  type: str
  returned: success
service:
  description: What O(service) was.
  type: dict
  returned: success
uncommitted:
  description: Files of the app that differ from the last commit, which are not in the artifact.
  type: list
  elements: str
  returned: success
"""
