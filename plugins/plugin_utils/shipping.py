"""Sending one file from the controller to a host, for a module call that takes it from there."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

Result = dict[str, Any]

# One round of SSH, where a directory, a transfer and the cleaning up take four.
RECEIVE = 'umask 077 && file=$(mktemp) && { cat >"$file" || { rm -f "$file"; exit 1; }; } && echo "$file"'


def shipped(action: ActionBase, local: str, call: Callable[[str], Result]) -> Result:
    """Result of CALL with the path that LOCAL has on the host; the module that is called removes it."""
    if not os.path.isfile(local):
        return {"failed": True, "msg": f"there is no artifact {local} on the controller"}
    data = Path(local).read_bytes()
    sent = action._low_level_execute_command(RECEIVE, in_data=data, sudoable=True)
    lines = sent["stdout"].strip().splitlines()
    if sent["rc"] or not lines:
        said = (sent.get("stderr") or sent["stdout"]).strip().splitlines()[-1:] or [f"exit status {sent['rc']}"]
        return {"failed": True, "msg": f"the artifact could not be sent: {said[0]}"}
    result = {**call(lines[-1]), "shipped_bytes": len(data)}
    if result.get("failed"):
        # A module that could not even begin has left it there.
        action._low_level_execute_command(f"rm -f {shlex.quote(lines[-1])}", sudoable=True)
    return result
