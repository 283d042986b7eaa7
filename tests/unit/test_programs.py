"""What roles install of our own programs: they read the modules' code, so all that it imports has to come along."""

import ast
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
MODULES = TOP / "plugins/module_utils"
PACKAGE = "ansible_collections.agentfleet.vm.plugins.module_utils"


def imported(name):
    for node in ast.walk(ast.parse((MODULES / name).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            within = node.module.removeprefix(PACKAGE).removeprefix(".").replace(".", "/")
            if within and (MODULES / f"{within}.py").exists():
                yield f"{within}.py"
            else:
                yield from (f"{within}/{alias.name}.py".removeprefix("/") for alias in node.names)


def needed(name, known=()):
    found = {*known, name}
    for other in imported(name):
        if other not in found:
            found |= needed(other, found)
    return found


@pytest.mark.parametrize(
    ("role", "program"), [("edge", "edge_status.py"), ("routine", "routine/command.py"), ("balancer", None)]
)
def test_a_role_installs_what_its_program_imports_and_nothing_else(role, program):
    listed = set(yaml.safe_load((TOP / f"roles/{role}/vars/main.yml").read_text())[f"_{role}_modules"])
    if program:
        assert listed == needed(program)
    else:
        assert listed == set().union(*map(needed, listed))
