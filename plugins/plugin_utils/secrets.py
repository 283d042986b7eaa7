"""The secrets that the inventory gives a host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.specs import Option
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import Known
from ansible_collections.agentfleet.vm.plugins.plugin_utils.evaluation import Evaluation


def texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        yield str(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item)


def within(option: Option, value: Any) -> Iterator[str]:
    """What of an option's value is secret: all of it, or what its own options say."""
    if option.secret:
        yield from texts(value)
    elif isinstance(value, Mapping):
        for name, inner in option.options.items():
            yield from within(inner, value.get(name))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from within(option, item)


def inventory_secrets(evaluation: Evaluation, known: Known, names: Mapping[str, Any]) -> set[str]:
    """Values of options that are secrets, and of variables that only a vault holds."""
    found = {text for name in names if name.startswith("vault_") for text in texts(evaluation.value(name))}
    for name, option in known.inventory().items():
        found |= set(within(option, evaluation.value(name)))
    return {text for text in found if text}
