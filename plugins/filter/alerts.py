"""Alert rules for Prometheus, with the limits of a fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
name: alert_rules
short_description: Alert rules with the limits of a fleet
description:
  - Rules are what Prometheus reads, and write a limit as C(<< name >>).
positional: limits, own
options:
  _input:
    description: Paths of files with rules on the controller.
    type: list
    elements: str
    required: true
  limits:
    description: Every limit by its name.
    type: dict
    required: true
  own:
    description: Those of O(limits) that are others for this fleet.
    type: dict
    default: {}
  pace:
    description: What every window and wait of a rule is multiplied with.
    type: float
    default: 1
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
rules: "{{ ['files/alerts/hosts.yml'] | agentfleet.vm.alert_rules({'cpu': 0.9}) }}"
"""

RETURN = r"""
_value:
  description: One document for Prometheus.
  type: str
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.agentfleet.vm.plugins.plugin_utils.alerts import AlertError, Rules, limits_of, render


def plain(value: Any) -> Any:
    """The number that an extra variable may be a text of."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def alert_rules(
    paths: Iterable[str], limits: Mapping[str, float], own: Mapping[str, Any] | None = None, pace: float = 1
) -> str:
    try:
        mine = {str(name): plain(value) for name, value in (own or {}).items()}
        files = [Rules(str(path), Path(path).read_text(encoding="utf-8")) for path in paths]
        return render(files, limits_of(limits, mine), float(pace))
    except (AlertError, OSError) as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"alert_rules": alert_rules}
