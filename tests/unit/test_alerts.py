"""Every alert fires when it should and not when it should not, says what to do, and where to read on."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ansible_collections.agentfleet.vm.plugins.plugin_utils.alerts import (
    AlertError,
    Rules,
    limits_of,
    render,
    shortened,
)
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known

TOP = Path(__file__).resolve().parents[2]
FILES = sorted((TOP / "files/alerts").glob("*.yml"))
LIMITS = yaml.safe_load((TOP / "roles/prometheus/vars/main.yml").read_text())["_prometheus_limits"]
SEVERITIES = {"critical", "warning"}
# How long a summary may be, which is a mail's subject.
SUMMARY = 120
COMMAND = re.compile(r"ansible(-playbook)? |systemctl |journalctl |agentfleet-director |du -|agent_instances")


def rendered(limits=LIMITS, pace=1.0):
    return render([Rules(path.name, path.read_text()) for path in FILES], limits, pace)


GROUPS = yaml.safe_load(rendered())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
# All of it as it is written: 0x10 is ten times 0, for promtool.
CASES = {
    name: case
    for path in FILES
    for name, case in yaml.load((Path(__file__).parent / "alerts" / path.name).read_text(), yaml.BaseLoader).items()
}


@pytest.fixture(scope="session")
def promtool():
    found = shutil.which("promtool")
    assert found, "there is no promtool: tests/tools/apt-install prometheus"
    return lambda *words: subprocess.run([found, *map(str, words)], capture_output=True, text=True)


def test_every_alert_has_its_cases():
    assert set(CASES) == set(ALERTS)


@pytest.mark.parametrize("pace", [1.0, 0.05, 0.001])
def test_prometheus_takes_them_at_any_pace(promtool, tmp_path, pace):
    path = tmp_path / "rules.yml"
    path.write_text(rendered(pace=pace))
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def expectation(name, case):
    """What `ALERTS` holds of it, as promtool's own tests say it."""
    query = f'ALERTS{{alertname="{name}",alertstate="firing"}}'
    if "labels" not in case:
        return {"expr": query, "eval_time": case["at"], "exp_samples": []}
    severity = ALERTS[name]["labels"]["severity"]
    labels = {"alertname": name, "alertstate": "firing", "severity": severity, **case["labels"]}
    words = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {"expr": query, "eval_time": case["at"], "exp_samples": [{"labels": f"ALERTS{{{words}}}", "value": 1}]}


def tried(name, case):
    """One test of promtool's."""
    series = [{"series": key, "values": values} for key, values in case["series"].items()]
    words = {"interval": case.get("interval", "1m"), "input_series": series}
    return {**words, "promql_expr_test": [expectation(name, case)]}


def alone(name):
    """The alert with what it is made of: each rule more is looked at for all the time of a case."""
    recorded = [rule for group in GROUPS for rule in group["rules"] if "record" in rule]
    needed = recorded if "agentfleet:" in ALERTS[name]["expr"] else []
    return {"groups": [{"name": "alone", "rules": [*needed, ALERTS[name]]}]}


@pytest.mark.parametrize("kind", ["fires", "quiet"])
@pytest.mark.parametrize("name", ALERTS)
def test_it_fires_when_it_should_and_not_when_not(promtool, tmp_path, name, kind):
    case = CASES[name][kind]
    assert ("labels" in case) is (kind == "fires")
    rules, path = tmp_path / "rules.yml", tmp_path / "test.yml"
    rules.write_text(yaml.safe_dump(alone(name)))
    # A reading counts for five minutes: rules are looked at as often as there is one.
    words = {"rule_files": [str(rules)], "evaluation_interval": case.get("interval", "1m")}
    path.write_text(yaml.safe_dump({**words, "tests": [tried(name, case)]}))
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def anchors(page):
    """The places of a page that can be linked, as they are made from its headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ALERTS)
def test_it_says_what_to_do_and_where_to_read_on(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in SEVERITIES
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook"}
    assert len(said["summary"]) <= SUMMARY
    assert COMMAND.search(said["description"]), said["description"]
    page, _, anchor = said["runbook"].partition("#")
    assert anchor in anchors(TOP / page), said["runbook"]


@pytest.mark.parametrize("name", ALERTS)
def test_it_names_only_labels_that_it_has(name):
    """Another is shown as nothing."""
    said = " ".join(ALERTS[name]["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", said)) <= set(CASES[name]["fires"]["labels"])


@pytest.mark.parametrize("name", ALERTS)
def test_what_is_to_be_typed_exists(name):
    known = load_known()
    for playbook, options in re.findall(r"playbooks/(\w+)\.yml([^:;.]*)", ALERTS[name]["annotations"]["description"]):
        assert playbook in known.playbooks
        assert set(re.findall(r"-e '?(\w+)=", options)) <= set(known.extra(playbook))


def test_every_limit_is_used_and_described_with_its_value():
    wanted = set(re.findall(r"<< (\w+) >>", " ".join(path.read_text() for path in FILES)))
    described = load_known().roles["prometheus"]["prometheus_limits"].options
    assert wanted == set(LIMITS) == set(described)
    for name, option in described.items():
        assert f"; {LIMITS[name]} unless set." in option.description


def test_a_fleets_own_limits_count():
    limits = limits_of(LIMITS, {"error_rate": 0.5})
    assert "agentfleet:error_ratio:rate5m > 0.5 " in rendered(limits)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"eror_rate": 0.5}, "there is no limit 'eror_rate'; there are certificate_days, error_rate"),
        ({"error_rate": "much"}, "error_rate must be a number, and is 'much'"),
        ({"error_rate": True}, "error_rate must be a number, and is True"),
    ],
)
def test_limits_that_are_none_are_refused(own, said):
    with pytest.raises(AlertError, match=re.escape(said)):
        limits_of(LIMITS, own)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "groups: [{name: a, rules: [{alert: A, expr: 'x > << much >>'}]}]",
            "mine.yml wants the limit 'much'",
        ),
        ("groups: {", "mine.yml is no YAML"),
        ("rules: []", "mine.yml has no list 'groups'"),
    ],
)
def test_a_file_that_holds_no_rules_is_refused_by_its_name(text, said):
    with pytest.raises(AlertError, match=re.escape(said)):
        render([Rules("mine.yml", text)], LIMITS)


def test_two_groups_of_one_name_are_refused():
    mine = Rules("mine.yml", "groups: [{name: mine, rules: []}]")
    with pytest.raises(AlertError, match="two groups of alert rules are named 'mine'"):
        render([mine, mine], {})


def test_a_pace_shortens_windows_waits_and_offsets_alone():
    query = 'rate(a_5m{route="/x/5m"}[1h30m]) > 300 and max_over_time(b[1d:10m] offset 2h) and c{r=~"[0-9]s"}'
    text = yaml.safe_dump({"groups": [{"name": "a", "rules": [{"alert": "A", "expr": query, "for": "1h"}]}]})
    [rule] = yaml.safe_load(render([Rules("a.yml", text)], {}, 0.1))["groups"][0]["rules"]
    wanted = 'rate(a_5m{route="/x/5m"}[540s]) > 300 and max_over_time(b[8640s:60s] offset 720s) and c{r=~"[0-9]s"}'
    assert (rule["expr"], rule["for"]) == (wanted, "360s")


@pytest.mark.parametrize(("duration", "pace", "wanted"), [("5m", 0.05, "15s"), ("1m", 0.001, "1s"), ("0s", 0.5, "0s")])
def test_nothing_is_shorter_than_a_second_but_nothing(duration, pace, wanted):
    assert shortened(duration, pace) == wanted
