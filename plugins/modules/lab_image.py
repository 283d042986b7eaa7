#!/usr/bin/python
"""Build the root file system of a Debian release once, for all local hosts to share."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_image
short_description: Build a Debian root file system for the lab's hosts
description:
  - Runs mmdebstrap once for a suite and a list of packages; hosts share the result through overlayfs.
  - The name holds a digest of what it was made from, so a changed list builds a new image and leaves old ones.
options:
  suite:
    description: Debian release, such as V(bookworm) or V(trixie).
    type: str
    required: true
  packages:
    description: Packages beside the minimal base system.
    type: list
    elements: str
    required: true
  directory:
    description: Where the lab keeps what it makes.
    type: path
    required: true
  authorities:
    description: PEM files of certificate authorities that the hosts have to trust, as a closed network needs.
    type: list
    elements: path
    default: []
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Build the image of Debian 13
  agentfleet.vm.lab_image:
    suite: trixie
    packages: [systemd, systemd-sysv, openssh-server, python3]
    directory: /var/lib/agentfleet-lab
"""

RETURN = r"""
path:
  description: The root file system.
  type: str
  returned: always
"""

import fcntl
import hashlib
import json
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils.lab import LabError, run

# What every image gets after its packages; part of its digest, so an edit builds a new one.
FINISH = r"""
set -eu
root=$1
chroot "$root" systemctl enable --quiet systemd-networkd ssh
chroot "$root" systemctl mask --quiet systemd-networkd-wait-online.service
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/machine-id
touch "$root"/etc/machine-id
# A test host's disk need not survive a power cut in the middle of an unpack: three times faster.
echo force-unsafe-io > "$root"/etc/dpkg/dpkg.cfg.d/lab
chroot "$root" update-ca-certificates >/dev/null 2>&1
# Emptied lists that look new would be taken for fresh ones, and no package be found.
touch -d @0 "$root"/var/lib/apt/lists
"""


def digest(suite: str, packages: list[str], authorities: list[str]) -> str:
    certificates = [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in sorted(authorities)]
    text = json.dumps([suite, sorted(packages), certificates, FINISH])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def build(suite: str, packages: list[str], authorities: list[str], target: Path) -> None:
    """Build beside TARGET and rename: an interrupted build is never taken for a whole one."""
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    run(
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(packages)}",
        suite,
        str(unfinished),
    )
    trusted = unfinished / "usr/local/share/ca-certificates"
    for name in authorities:
        shutil.copy(name, trusted)
    run("sh", "-c", FINISH, "finish", str(unfinished))
    unfinished.rename(target)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "suite": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "authorities": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    name = f"{wanted['suite']}-{digest(wanted['suite'], wanted['packages'], wanted['authorities'])}"
    target = Path(wanted["directory"]) / "images" / name
    changed = not target.exists()
    if changed and not module.check_mode:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.with_name(f"{name}.lock").open("w") as lock:
                # Two labs that begin at the same time need the same image once.
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not target.exists():
                    build(wanted["suite"], wanted["packages"], wanted["authorities"], target)
        except LabError as error:
            module.fail_json(msg=f"image of {wanted['suite']}: {error}")
    module.exit_json(changed=changed, path=str(target))


if __name__ == "__main__":
    main()
