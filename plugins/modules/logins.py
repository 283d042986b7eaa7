#!/usr/bin/python
"""Who may log in at Nginx, as a file of names and salted digests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: logins
short_description: Who may log in at Nginx
description:
  - Writes a file for Nginx's C(auth_basic_user_file) with a salted SHA-512 digest of each password. Who keeps a
    password keeps the digest, so that a second run changes nothing.
  - No password reaches a command line, and a difference shows names alone.
options:
  path:
    description: The file. Root owns it.
    type: path
    required: true
  users:
    description: Password by name. Without any the file is removed.
    type: dict
    required: true
  group:
    description: The group that reads the file.
    type: str
    default: www-data
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Let Alice in
  agentfleet.vm.logins:
    path: /etc/nginx/operators
    users:
      alice: "{{ vault_password_of_alice }}"
"""

RETURN = r"""
users:
  description: Names of those who may log in.
  type: list
  elements: str
  returned: always
"""

import grp
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import disk, logins

MODE = 0o640


def settle(path: Path, users: dict[str, Any], group: str, check: bool) -> dict[str, Any]:
    there = path.exists()
    before = logins.parse(path.read_text()) if there else {}
    after = logins.settle(before, {name: str(password) for name, password in users.items()})
    owner = (0, grp.getgrnam(group).gr_gid)
    changed = before != after or there != bool(after)
    if there and after and not changed:
        known = path.stat()
        changed = (known.st_uid, known.st_gid, known.st_mode & 0o7777) != (*owner, MODE)
    if changed and not check:
        if after:
            disk.write(path, logins.render(after).encode(), MODE)
            os.chown(path, *owner)
        else:
            path.unlink()
    return {"changed": changed, "users": sorted(after), "diff": logins.difference(before, after)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "users": {"type": "dict", "required": True, "no_log": True},
            "group": {"type": "str", "default": "www-data"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    os.umask(0o077)
    try:
        result = settle(Path(wanted["path"]), wanted["users"], wanted["group"], module.check_mode)
    except KeyError:
        module.fail_json(msg=f"there is no group {wanted['group']}; mend it with: apt install nginx")
    except (logins.LoginError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
