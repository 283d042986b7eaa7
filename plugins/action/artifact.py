"""Makes or finds a release's artifact on the controller; see modules/artifact.py for its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import ArtifactError
from ansible_collections.agentfleet.vm.plugins.plugin_utils import build

NAMED = 5


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(
            argument_spec={
                "source": {"type": "str", "default": ""},
                "include": {"type": "list", "elements": "str", "default": []},
                "label": {"type": "str", "default": ""},
                "artifact": {"type": "str", "default": ""},
                "proof": {"type": "str", "default": ""},
                "app": {"type": "str", "default": ""},
                "migrate": {"type": "str", "default": ""},
                "service": {"type": "dict", "default": {}},
                "cache": {"type": "str", "default": ""},
            },
        )[1]
        result: dict[str, Any] = super().run(tmp, task_vars)
        cache = Path(wanted["cache"]).expanduser() if wanted["cache"] else build.default_cache()
        source = Path(wanted["source"]).expanduser() if wanted["source"] else build.COLLECTION / "app"
        try:
            if wanted["artifact"]:
                made = build.find(str(wanted["artifact"]), cache)
            else:
                made = build.build(
                    source.resolve(),
                    [str(name) for name in wanted["include"]],
                    str(wanted["label"]),
                    cache,
                    bool(self._task.check_mode),
                    str(wanted["proof"]),
                    (str(wanted["app"]), str(wanted["migrate"])) if wanted["app"] else None,
                )
        except (ArtifactError, OSError) as error:
            return {**result, "failed": True, "msg": str(error)}
        if made.get("note"):
            self._display.warning(made["note"])
        left = made["uncommitted"]
        if left:
            more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
            self._display.warning(f"not committed, so not deployed: {', '.join(left[:NAMED])}{more}")
        return {**result, **made, "cache": str(cache), "by": build.builder(), "service": wanted["service"]}
