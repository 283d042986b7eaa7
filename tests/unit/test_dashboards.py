"""The dashboards: of the form that Grafana's own schema describes, with queries that PromQL's grammar takes."""

import enum
import itertools
import json
import re
import sys
import types
import typing
from pathlib import Path

import promql_parser
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests"))

from support.dashboards import expressions, filled, load  # noqa: E402 - the path above finds it

FILES = sorted((TOP / "files/dashboards").glob("*.json"))
DASHBOARDS = {path.stem: load(path) for path in FILES}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel.get('title', '')}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
]
QUERIES = [
    pytest.param(query, id=f"{name}: {where}")
    for name, dashboard in DASHBOARDS.items()
    for where, query in expressions(dashboard)
]
# What Prometheus's data source reads of an annotation, which the schema leaves to data sources.
OF_THE_DATA_SOURCE = {
    f".annotations.list[{number}].{name}"
    for number in (0, 1)
    for name in ("step", "titleFormat", "textFormat", "tagKeys", "useValueForTime")
}
UNITS = {value for name, value in vars(units).items() if name[0].isupper() and isinstance(value, str)}
# Labels that the role prometheus gives its targets, and those of the series of service and exporters.
LABELS = {
    *("job", "instance", "host", "slot", "number", "service", "site"),
    *("route", "status", "model", "direction", "agent", "by", "tool", "outcome", "result", "rating", "limit", "reason"),
    *("task", "state", "source", "release", "le", "code", "proxy", "server", "mode", "mountpoint", "fstype", "device"),
    *("datname", "db", "phase", "what"),
}

register_default_plugins()


def encoded(dashboard):
    """The dashboard as the schema reads and writes it: what it does not know is lost."""
    return json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))


def lost(before, after, path=""):
    """Where something that is in BEFORE is not in AFTER."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after and value is not None:
                yield f"{path}.{key}"
            elif key in after:
                yield from lost(value, after[key], f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield path
        for number, (old, new) in enumerate(zip(before, after, strict=False)):
            yield from lost(old, new, f"{path}[{number}]")
    elif before != after:
        yield f"{path}: {before!r}"


def misfits(value, kind, path=""):
    """Where a value of the schema's model is not of the type that the model declares."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind in (typing.Any, object):
        if hasattr(value, "to_json"):
            yield from misfits_of_model(value, path)
    elif origin in (typing.Union, types.UnionType):
        wrong = [list(misfits(value, one, path)) for one in inner]
        # Of several that it could be, the one that it is most like.
        yield from max(wrong, key=lambda found: len(found[0].partition(":")[0])) if all(wrong) else ()
    elif origin is typing.Literal:
        if value not in inner:
            yield f"{path}: {value!r} is none of {inner}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
        else:
            for number, one in enumerate(value):
                yield from misfits(one, inner[0], f"{path}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{path}: {value!r} is no mapping"
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        if value not in {member.value for member in kind}:
            yield f"{path}: {value!r} is no {kind.__name__}"
    elif kind is float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            yield f"{path}: {value!r} is no number"
    elif kind is int:
        if not isinstance(value, int) or isinstance(value, bool):
            yield f"{path}: {value!r} is no integer"
    elif isinstance(kind, type):
        # Some parts are left as they are when a dashboard is read.
        value = kind.from_json(value) if isinstance(value, dict) and hasattr(kind, "from_json") else value
        if not isinstance(value, kind):
            yield f"{path}: {value!r} is no {kind.__name__}"
        elif hasattr(value, "to_json"):
            yield from misfits_of_model(value, path)


def misfits_of_model(model, path=""):
    for parent in type(model).__mro__:
        names = vars(sys.modules[parent.__module__]) if hasattr(parent, "to_json") else {}
        for name, hint in getattr(parent, "__annotations__", {}).items() if names else ():
            kind = typing.get_type_hints(types.SimpleNamespace(__annotations__={name: hint}), names)[name]
            if hasattr(model, name):
                yield from misfits(getattr(model, name), kind, f"{path}.{name}")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_what_grafanas_schema_describes(name):
    dashboard = DASHBOARDS[name]
    assert {found for found in lost(dashboard, encoded(dashboard)) if found not in OF_THE_DATA_SOURCE} == set()
    assert list(misfits_of_model(Dashboard.from_json(dashboard))) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda panel: panel.update(tittle="x"), "tittle"),
        (lambda panel: panel["fieldConfig"]["defaults"].update(unti="s"), "unti"),
        (lambda panel: panel["options"].update(ledgend={}), "ledgend"),
        (lambda panel: panel["targets"][0].update(legend="x"), "legend"),
    ],
)
def test_what_the_schema_does_not_know_is_seen(change, told):
    dashboard = json.loads(json.dumps(DASHBOARDS["service"]))
    change(dashboard["panels"][0])
    assert any(told in found for found in lost(dashboard, encoded(dashboard)))


@pytest.mark.parametrize(
    "change",
    [
        lambda dashboard: dashboard.update(title=1),
        lambda dashboard: dashboard.update(graphTooltip=7),
        lambda dashboard: dashboard["panels"][0].update(id="one"),
        lambda dashboard: dashboard["panels"][0]["gridPos"].update(w="wide"),
        lambda dashboard: dashboard["panels"][0]["fieldConfig"]["defaults"].update(unit=5),
        lambda dashboard: dashboard["panels"][0]["targets"][0].update(expr=None),
        lambda dashboard: dashboard["panels"][0]["options"].update(colorMode="loud"),
    ],
)
def test_a_value_of_another_type_is_seen(change):
    dashboard = json.loads(json.dumps(DASHBOARDS["service"]))
    change(dashboard)
    assert list(misfits_of_model(Dashboard.from_json(dashboard)))


def test_there_is_one_for_each_part_of_the_fleet():
    assert set(DASHBOARDS) == {"service", "agents", "hosts", "data", "edge", "deploys"}
    assert {dashboard["uid"] for dashboard in DASHBOARDS.values()} == {f"agentfleet-{name}" for name in DASHBOARDS}
    assert all(re.fullmatch(r"[a-z-]{8,40}", dashboard["uid"]) for dashboard in DASHBOARDS.values())
    assert len({dashboard["title"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_of_no_grafana_in_particular(name):
    dashboard = DASHBOARDS[name]
    assert not {"id", "version", "gnetId", "__inputs"} & set(dashboard)
    assert dashboard["description"].endswith(".")
    sources = re.findall(r'"datasource": (\{[^}]*\})', json.dumps(dashboard))
    assert {json.dumps(json.loads(source)) for source in sources} == {'{"type": "prometheus", "uid": "agentfleet"}'}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_file_is_tidy(path):
    assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_places_of_their_own(name):
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_are_told_apart(name):
    panels = DASHBOARDS[name]["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    assert len({panel["title"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_and_in_which_unit(panel):
    assert panel["title"][0].isupper()
    assert not panel["title"].endswith(".")
    assert panel["description"].endswith(".")
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH")[: len(panel["targets"])]
    assert panel["targets"]


@pytest.mark.parametrize("panel", [case for case in PANELS if len(case.values[0]["targets"]) > 1])
def test_lines_of_several_queries_have_names(panel):
    legends = [target.get("legendFormat", "") for target in panel["targets"]]
    assert all(legends)
    assert len(set(legends)) == len(legends)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_promql(query):
    promql_parser.parse(filled(query))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_has_no_variable_that_its_dashboard_lacks(query):
    """What is left of it is Grafana's own or the dashboard's."""
    assert set(re.findall(r"\$\{?(\w+)", filled(query))) <= {"1"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_variable_of_a_dashboard_is_used(name):
    dashboard = DASHBOARDS[name]
    queries = [query for _where, query in expressions(dashboard)]
    for variable in dashboard["templating"]["list"]:
        assert any(f"${variable['name']}" in query for query in queries), variable["name"]


def labels_in(query):
    """Labels that a query selects, groups or joins by."""
    found = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
    for words in re.findall(r"\b(?:by|on|without|group_left|group_right)\s*\(([^)]*)\)", query):
        found |= {word.strip() for word in words.split(",") if word.strip()}
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_labels_that_there_are(query):
    assert labels_in(query) <= LABELS


@pytest.mark.parametrize("name", ["service", "agents", "edge", "deploys"])
def test_a_dashboard_of_a_service_is_about_the_one_that_is_chosen(name):
    """A second service on the fleet is not added to its figures."""
    of_a_service = re.compile(r"\b(agent_\w+|haproxy_(?:server|backend|frontend)_\w+)(\{[^}]*\})?")
    for _where, query in expressions(DASHBOARDS[name]):
        for metric, selector in of_a_service.findall(query):
            if metric not in ("agent_service_info",) or selector:
                assert "$service" in selector, (metric, query)


@pytest.mark.parametrize("case", [case for case in PANELS if "legendFormat" in json.dumps(case.values[0])])
def test_names_of_lines_are_labels(case):
    for target in case["targets"]:
        for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
            assert label in LABELS, target["legendFormat"]
            assert label in labels_in(target["expr"]) or " by " not in target["expr"], target
