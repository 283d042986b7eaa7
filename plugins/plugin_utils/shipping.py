"""Sending one file from the controller to a host, for a module call that takes it from there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ansible.plugins.action import ActionBase

Result = dict[str, Any]


def shipped(action: ActionBase, local: str, call: Callable[[str], Result]) -> Result:
    """Result of CALL with the path that LOCAL has on the host.

    Only root's modules are called with it, so it needs no other rights; the action's own end removes it.
    """
    if not os.path.isfile(local):
        return {"failed": True, "msg": f"there is no artifact {local} on the controller"}
    remote = action._connection._shell.join_path(action._make_tmp_path(), "artifact")
    action._transfer_file(local, remote)
    return {**call(remote), "shipped_bytes": os.path.getsize(local)}
