"""What the scenarios' tests share.

Testinfra takes the inventory's addresses as they are written, where Ansible would fill in their template.
"""

import atexit
import os
import shutil
import tempfile
from typing import Any

import pytest
import testinfra
from testinfra.utils import ansible_runner

PREFIX = os.environ.get("LAB_NETWORK", "10.79.0.0/24").rsplit(".", 1)[0]
CONTROL = tempfile.mkdtemp(prefix="agentfleet-ssh-")
atexit.register(shutil.rmtree, CONTROL, ignore_errors=True)

as_written = ansible_runner.get_ansible_inventory


def filled_in(*arguments: Any) -> Any:
    inventory = as_written(*arguments)
    for variables in inventory["_meta"]["hostvars"].values():
        variables["ansible_host"] = variables["ansible_host"].replace("{{ lab_prefix }}", PREFIX)
        # One connection for all of a test's commands instead of one for each.
        variables["ansible_ssh_common_args"] += f" -o ControlPath={CONTROL}/%C"
    return inventory


ansible_runner.get_ansible_inventory = filled_in


@pytest.fixture(scope="session")
def machine():
    """Another host of the scenario, by its name: machine("debian12")."""
    return lambda name: testinfra.get_host(
        f"ansible://{name}?ansible_inventory={os.environ['MOLECULE_INVENTORY_FILE']}"
    )


@pytest.fixture(scope="session")
def address_of():
    """The address of a host of the scenario, by its name."""
    return lambda name: f"{PREFIX}.{name.removeprefix('debian')}"


@pytest.fixture
def address(host, address_of):
    return address_of(host.backend.get_hostname())
