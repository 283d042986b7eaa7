"""One lab for the session: booted fresh, provisioned and deployed once, each step's result kept for the tests to judge.

REUSE=1 takes the lab as an earlier run with KEEP=1 left it: one test against a fleet that stays up.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))

from support.deploys import appended, committed, options, over, shares, until  # noqa: E402 - the path above finds it
from support.fleet import HOSTS, Fleet, Result  # noqa: E402
from support.model import model_server as serve_model  # noqa: E402
from support.receivers import settings as told_soon  # noqa: E402
from support.secrets import SECRETS, watching  # noqa: E402

STATE = TOP / ".cache/fleet-tests"
MODEL_PORT = 18080


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """LANE=fleet leaves the tests that share a provisioned fleet, LANE=alone the others (tests/tools/lanes.py)."""
    if not (lane := os.environ.get("LANE")):
        return
    lanes: dict[str, list[pytest.Item]] = {"fleet": [], "alone": []}
    for item in items:
        lanes["fleet" if "provisioning" in getattr(item, "fixturenames", ()) else "alone"].append(item)
    items[:] = lanes.pop(lane)
    config.hook.pytest_deselected(items=[item for others in lanes.values() for item in others])


def lab_of(lane: str) -> tuple[str, str]:
    """A lane's lab, name and network: LAB_NAME and LAB_NETWORK, and the next beside them for what runs alone."""
    name, network = os.environ.get("LAB_NAME", "test"), os.environ.get("LAB_NETWORK", "10.78.0.0/24")
    if lane != "alone":
        return name, network
    first, second, rest = network.split(".", 2)
    return f"{name}1", f"{first}.{int(second) + 1}.{rest}"


def model_key() -> str:
    """The wire-protocol server's key: the same for every run against one lab, or REUSE=1 would be a new deploy."""
    path = STATE / "model_key"
    if not path.exists():
        STATE.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(24))
    return path.read_text()


@pytest.fixture(scope="session")
def lab() -> Iterator[Fleet]:
    """The lab's hosts, bare unless REUSE=1."""
    name, network = lab_of(os.environ.get("LANE", ""))
    variables = STATE / f"variables-{name}.yml"
    key = model_key()
    fleet = Fleet(name=name, network=network, variables=variables)
    variables.write_text(
        yaml.safe_dump(
            {
                "lab_name": fleet.name,
                "lab_network": fleet.network,
                # Every task would work it out for every address that it needs.
                "lab_prefix": fleet.prefix,
                "agent_model_key": key,
                "agent_model_url": f"http://{fleet.prefix}.1:{MODEL_PORT}",
                **told_soon(fleet.prefix),
            }
        )
    )
    variables.chmod(0o600)
    reuse = bool(os.environ.get("REUSE"))
    fleet.playbook("lab", "-e", "lab_state=up", *([] if reuse else ["-e", "lab_fresh=true"])).ok()
    yield fleet
    if not os.environ.get("KEEP") and not reuse:
        fleet.playbook("lab", "-e", "lab_state=down").ok()


@pytest.fixture(scope="session")
def model_server(lab: Fleet) -> Iterator[httpx.Client]:
    """The local server that speaks the model provider's wire protocol; the client is for its controls."""
    with serve_model(f"{lab.prefix}.1", MODEL_PORT, model_key(), STATE / f"model_server-{lab.name}.log") as client:
        yield client


@pytest.fixture(scope="session")
def process_lists() -> list[str]:
    """What test_secrets.py has seen of the hosts' process lists, a text for each look at a host."""
    return []


@pytest.fixture(scope="session")
def provisioning(lab: Fleet, process_lists: list[str]) -> dict[str, Result]:
    """site.yml on bare hosts: checked, applied, applied again; the last for test_secrets.py to judge as well."""
    if os.environ.get("REUSE"):
        return {}
    results = {"check": lab.playbook("site", "--check", "--diff"), "first": lab.playbook("site").ok()}
    with watching(lab, HOSTS, process_lists):
        results["again"] = lab.playbook("site", "-vvv", "--diff")
    return results


@pytest.fixture(scope="session")
def first_deploy(lab: Fleet, provisioning: dict[str, Result], model_server: httpx.Client) -> Result:
    return lab.playbook("deploy").ok()


@pytest.fixture(scope="session")
def fleet(lab: Fleet, first_deploy: Result) -> Fleet:
    """A fleet that serves the reference agent service, with the wire-protocol server as its model."""
    return lab


@pytest.fixture(scope="session")
def values(fleet: Fleet) -> dict[str, str]:
    """Every secret of the lab by name, the model's key among them."""
    return {name: fleet.secret(name) for name in SECRETS} | {"model_key": model_key()}


@pytest.fixture(scope="session")
def playbook(lab: Fleet) -> Callable[..., Result]:
    return lab.playbook


@pytest.fixture(scope="session")
def on(lab: Fleet) -> Callable[[str, str], Result]:
    return lab.on


@pytest.fixture
def client(fleet: Fleet) -> Iterator[httpx.Client]:
    with fleet.client() as client:
        yield client


@pytest.fixture(scope="session")
def app(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference app, committed anew so that it misbehaves when a variable says so."""
    faulty = (TOP / "tests/support/faulty.py").read_text()
    return committed(fleet, tmp_path_factory.mktemp("faulty") / "clone", appended(faulty))


@pytest.fixture
def stable(fleet: Fleet, app: Path) -> str:
    """A release that behaves, with all the traffic, whatever the test before left."""
    until(lambda: over(fleet), "the end of an earlier rollout")
    if not all(release.startswith("stable-") for release in shares(fleet)) or len(shares(fleet)) != 1:
        fleet.playbook("deploy", *options(app, "stable", 0)).ok()
    return next(iter(shares(fleet)))
