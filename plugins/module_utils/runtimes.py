"""How slots run their releases: from virtual environments, or in containers. Everything else is the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from ansible_collections.agentfleet.vm.plugins.module_utils.containers import Containers
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import Service
from ansible_collections.agentfleet.vm.plugins.module_utils.venvs import Venvs

VENV = "venv"
DOCKER = "docker"
RUNTIMES = (VENV, DOCKER)


class Runtime(Protocol):
    """What a slot needs beside its release's code, its variables and its secrets."""

    def prepared(self) -> bool:
        """Whether the host has what it takes."""

    def python_version(self) -> str:
        """That of the host's Python which runs releases; empty where it is none of the host's."""

    def digests(self) -> dict[str, str]:
        """What of it belongs to a slot's identity."""

    def clear_unfinished(self) -> None:
        """Remove what an interrupted run left half-made."""

    def make(self, release: str) -> list[str]:
        """Have what the release runs in; names what was made new."""

    def attach(self, slot: str, release: str, variables: Iterable[str], instances: Iterable[str]) -> dict[str, str]:
        """Have the slot's units run it with these VARIABLES; what the slot's record says of it."""

    def detach(self, slot: str) -> None:
        """The slot is run otherwise."""

    def whole(self, slot: str, record: Mapping[str, Any]) -> bool:
        """Whether the slot still has what its record says."""

    def processes(self, instances: Iterable[str]) -> set[int]:
        """Processes of the instances besides the main ones of their units."""

    def prune(self, releases: Iterable[str], check: bool) -> list[str]:
        """Remove what neither these releases nor a slot needs; names it."""


def all_runtimes(service: Service, python: str = "", image: str = "") -> dict[str, Runtime]:
    return {VENV: Venvs(service, python), DOCKER: Containers(service, image)}


def of_record(service: Service, record: Mapping[str, Any]) -> Runtime:
    """That of a slot's record; one without a word of it is from before there were two."""
    return all_runtimes(service)[record.get("runtime", VENV)]
