"""Every metric that a rule or a panel names is there: what is misspelt, or another exporter's, never fires."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from support import promql
from support.deploys import until
from support.fleet import TOP, Fleet

FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=30).read().decode())"
# A histogram is known by one name, and each of these is a metric.
PARTS = ("_bucket", "_count", "_sum", "_total", "_created", "_info")
# A Debian 12 host of the lab runs agents alone; what other exporters show there is for molecule/exporters to see.
ON_BOTH = ("node_", "process_")
# There only once the fleet has been backed up, a restore rehearsed, a rollout under way.
LATER = ("agentfleet_backup_", "agentfleet_rollout_stage_")

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def ask(fleet: Fleet) -> Ask:
    """What Prometheus answers, asked on its own host."""

    def call(path: str, **words: str) -> Any:
        url = f"http://127.0.0.1:9090/api/v1/{path}?{urlencode(words)}"
        return json.loads(fleet.on("ops1", f"python3 -c {shlex.quote(FETCH)} {shlex.quote(url)}").ok().stdout)["data"]

    return call


@pytest.fixture(scope="module")
def named(ask: Ask) -> dict[str, set[str]]:
    """Metrics by the rule or the dashboard that names them."""
    groups = ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    asked = [
        {"alert" if rule["type"] == "alerting" else "record": rule["name"], "expr": rule["query"]} for rule in rules
    ]
    return promql.of_rules(asked) | promql.of_dashboards()


def known(ask: Ask) -> set[str]:
    """What Prometheus has, and what its targets say they would show."""
    told = set(ask("metadata"))
    return set(ask("label/__name__/values")) | told | {f"{name}{part}" for name in told for part in PARTS}


def test_every_metric_that_is_named_exists(ask: Ask, named: dict[str, set[str]]) -> None:
    assert {"ErrorRate", "HostDown", "agentfleet:serving"} <= set(named)

    def missing() -> dict[str, set[str]]:
        there = known(ask)
        absent = {
            name: {metric for metric in metrics - there if not metric.startswith(LATER)}
            for name, metrics in named.items()
        }
        return {name: metrics for name, metrics in absent.items() if metrics}

    # What was started for this test is read within a look or two.
    until(lambda: not missing(), f"metrics {missing()}", 60)


def test_what_comes_later_is_what_is_written_then() -> None:
    """The names in the code that writes them, since the lab has been neither backed up nor is it being deployed to."""
    writers = ("backup/metrics.py", "director/exposition.py")
    text = "".join((TOP / "plugins/module_utils" / writer).read_text() for writer in writers)
    groups = [
        group for path in (TOP / "files/alerts").glob("*.yml") for group in yaml.safe_load(path.read_text())["groups"]
    ]
    wanted = promql.of_rules([rule for group in groups for rule in group["rules"]]) | promql.of_dashboards()
    for metric in set().union(*wanted.values()):
        if metric.startswith(LATER):
            assert metric.removeprefix("agentfleet_backup_") in text, metric


def test_debian_12_and_13_show_the_same(ask: Ask, named: dict[str, set[str]]) -> None:
    for metric in {metric for metrics in named.values() for metric in metrics if metric.startswith(ON_BOTH)}:
        for host in ("agent1", "agent2"):
            assert ask("query", query=f'count({metric}{{host="{host}"}})')["result"], (metric, host)
