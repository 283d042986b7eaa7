#!/usr/bin/python
"""Write several small files in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: files
short_description: Write several small files in one round trip
description:
  - Makes a directory and what lies below it exactly the files that are given. Others below it are removed.
  - Each file is replaced at once, so nobody reads half of one. All belong to root.
options:
  directory:
    description: Where the files go.
    type: path
    required: true
  files:
    description: The text of each file by its path below O(directory).
    type: dict
    required: true
  executable:
    description: Paths of those that are programs.
    type: list
    elements: str
    default: []
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Install a program of two files
  agentfleet.vm.files:
    directory: /usr/local/lib/hello
    files:
      hello: "{{ lookup('ansible.builtin.file', 'hello') }}"
      words.py: "{{ lookup('ansible.builtin.file', 'words.py') }}"
    executable: [hello]
"""

RETURN = r"""
written:
  description: Paths that were written.
  type: list
  elements: str
  returned: always
removed:
  description: Paths that were removed.
  type: list
  elements: str
  returned: always
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils.disk import write

DIRECTORY, TEXT, PROGRAM = 0o755, 0o644, 0o755


def present(directory: Path) -> dict[str, tuple[str, int]]:
    """Text and mode of every file below DIRECTORY; what Python compiled is not one."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            text = path.read_text(errors="replace")
            found[str(path.relative_to(directory))] = (text, path.stat().st_mode & 0o7777)
    return found


def wanted(files: dict[str, Any], executable: list[str]) -> dict[str, tuple[str, int]]:
    return {name: (str(text), PROGRAM if name in executable else TEXT) for name, text in files.items()}


def settle(directory: Path, files: dict[str, Any], executable: list[str], check: bool) -> dict[str, Any]:
    before, after = present(directory), wanted(files, executable)
    written = [name for name, file in after.items() if before.get(name) != file]
    removed = [name for name in before if name not in after]
    for name in written if not check else []:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text, mode = after[name]
        write(path, text.encode(), mode)
    for name in removed if not check else []:
        (directory / name).unlink()
    changed = [*written, *removed]
    return {
        "changed": bool(changed),
        "written": written,
        "removed": removed,
        "diff": [
            {
                "before_header": str(directory / name),
                "after_header": str(directory / name),
                "before": before.get(name, ("", 0))[0],
                "after": after.get(name, ("", 0))[0],
            }
            for name in changed
        ],
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "executable": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    os.umask(0o022)
    outside = [name for name in params["files"] if name.startswith("/") or ".." in Path(name).parts]
    if outside:
        module.fail_json(msg=f"{', '.join(outside)}: a path below {params['directory']} is wanted")
    try:
        result = settle(Path(params["directory"]), params["files"], params["executable"], module.check_mode)
    except OSError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
