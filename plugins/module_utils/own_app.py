"""What keeps an app from being a release, seen in its files before anything changes. Pure."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import REQUIREMENTS, Files

APP = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")
PROJECT = "pyproject.toml"
SOURCES = "src/"


def project_of(files: Files) -> Mapping[str, Any]:
    """The table [project] of an app's pyproject.toml, empty where there is none that can be read."""
    try:
        project = tomllib.loads(files[PROJECT].data.decode()).get("project", {})
    except (KeyError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}
    return project if isinstance(project, Mapping) else {}


def modules_of(files: Iterable[str]) -> set[str]:
    """What can be imported from a release: it and its `src` are where Python looks."""
    found = set()
    for name in files:
        if name.endswith(".py"):
            module = name.removeprefix(SOURCES).removesuffix(".py").removesuffix("/__init__")
            found.add(module.replace("/", "."))
    return found


def packages_of(requirements: str) -> set[str]:
    """Names that a lock pins, spelt as Python spells modules."""
    names = re.findall(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==", requirements)
    return {re.sub(r"[-_.]+", "_", name).lower() for name in names}


def refuse_app(files: Files, app: str, migrate: str) -> str:
    """Why these files, whose dependencies are locked, cannot run as APP with the migration MIGRATE; or nothing."""
    if not APP.match(app):
        return f"agent_app must be package.module:app, as in `from shop.main import app`: shop.main:app; it is {app!r}"
    locked = packages_of(files[REQUIREMENTS].data.decode(errors="replace"))
    if "uvicorn" not in locked:
        return "uvicorn, which runs the app, is not among its dependencies: add it to them, and commit that"
    module = app.partition(":")[0]
    there = modules_of(files)
    if module not in there and module.split(".")[0].lower() not in locked:
        near = difflib.get_close_matches(module, sorted(there), 1) or sorted(
            name for name in there if name.split(".")[-1] == module.split(".")[-1]
        )
        mend = f"did you mean {near[0]}:{app.partition(':')[2]}?" if near else "is it committed?"
        return f"agent_app is {app}, and the release has no {module.replace('.', '/')}.py; {mend}"
    words = migrate.split()
    if words[:1] == ["alembic"] and not {"-c", "--config"}.intersection(words) and "alembic.ini" not in files:
        return (
            f"agent_migrate_command is {migrate!r}, and the release has no alembic.ini: commit it, or set"
            ' agent_migrate_command: "" for an app without migrations'
        )
    return ""
