"""What every role promises: a specification that agrees with its defaults, one order, a scenario that is all there."""

import ast
import functools
import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import mismatch, read_options

TOP = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (TOP / "roles").iterdir() if path.is_dir())
# Every scenario's hosts are made and removed by the lab role: they are its test.
SCENARIOS = [role for role in ROLES if role != "lab"]
PHASES = ["preflight", "install", "configure", "run"]
SEQUENCE = ["destroy", "create", "check", "converge", "idempotence", "verify", "destroy"]
PLAYBOOK_OF = {"check": "converge", "idempotence": "converge"}


@functools.cache
def load(path):
    return yaml.safe_load((TOP / path).read_text()) if (TOP / path).exists() else None


def defaults_of(role):
    return load(f"roles/{role}/defaults/main.yml") or {}


def specification_of(role):
    return load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]


DEFAULTS = {role: defaults_of(role) for role in ROLES}
OPTIONS = {role: specification_of(role)["options"] for role in ROLES}
OWNER_OF = {name: role for role in ROLES for name in OPTIONS[role]}


def is_template(value):
    return "{{" in str(value)


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_specified_and_every_optional_one_has_a_default(role):
    assert set(DEFAULTS[role]) == {name for name, option in OPTIONS[role].items() if not option.get("required")}


@pytest.mark.parametrize(("role", "name"), [(role, name) for role in ROLES for name in DEFAULTS[role]])
def test_default_and_specification_agree(role, name):
    option = OPTIONS[role][name]
    assert "default" in option
    assert option["default"] == DEFAULTS[role][name]
    assert type(option["default"]) is type(DEFAULTS[role][name])


def options_inside(options, path=""):
    for name, option in options.items():
        yield f"{path}{name}", option
        yield from options_inside(option.get("options", {}), f"{path}{name}.")


@pytest.mark.parametrize(
    ("role", "name", "option"),
    [(role, name, option) for role in ROLES for name, option in options_inside(OPTIONS[role])],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_option_says_what_it_is(role, name, option):
    description = option["description"]
    for sentence in [description] if isinstance(description, str) else description:
        assert sentence.strip().endswith(".")
    assert option["type"] in {"str", "int", "float", "bool", "list", "dict", "path", "raw"}
    if option["type"] == "list":
        assert option["elements"]
    if "choices" in option and "default" in option:
        assert option["default"] in option["choices"]


@pytest.mark.parametrize("role", ROLES)
def test_every_default_fits_its_type(role):
    options = read_options(role, OPTIONS[role])
    wrong = {name: mismatch(options[name], value) for name, value in DEFAULTS[role].items() if not is_template(value)}
    assert {name: why for name, why in wrong.items() if why} == {}


def is_called_a_secret(name, option):
    return option["type"] in ("str", "dict") and re.search(r"(password|secret|token|api_key|model_key)s?$", name)


@pytest.mark.parametrize("role", ROLES)
def test_what_sounds_like_a_secret_is_one(role):
    for name, option in options_inside(OPTIONS[role]):
        if is_called_a_secret(name, option):
            assert option.get("no_log"), f"{name} would be shown"


def holds_a_secret(option):
    return bool(option.get("no_log")) or any(map(holds_a_secret, option.get("options", {}).values()))


def all_tasks(tasks):
    for task in tasks or []:
        yield task
        yield from all_tasks([inner for part in ("block", "rescue", "always") for inner in task.get(part, [])])


@pytest.mark.parametrize("role", ROLES)
def test_a_loop_over_secrets_shows_none(role):
    """At -vvv each item is printed whole, whatever the loop's label is."""
    secrets = {name for options in OPTIONS.values() for name, option in options.items() if holds_a_secret(option)}
    for path in yaml_files(f"roles/{role}/tasks", f"roles/{role}/handlers"):
        for task in all_tasks(yaml.safe_load(path.read_text())):
            named = set(re.findall(r"\w+", str(task.get("loop", "")))) & secrets
            assert not named or task.get("no_log") is True, f"{path.name}: {task['name']}"


def imported(role):
    for task in load(f"roles/{role}/tasks/main.yml"):
        word = next((task[key] for key in task if key.endswith(("import_tasks", "include_tasks"))), None)
        if word:
            yield word


@pytest.mark.parametrize("role", ROLES)
def test_tasks_read_in_one_order(role):
    files = list(imported(role))
    phases = [Path(file).stem for file in files]
    assert phases == [phase for phase in PHASES if phase in phases]
    assert phases[:2] == ["preflight", "install"]
    assert phases[-1] in ("configure", "run")
    for file in files:
        assert (TOP / f"roles/{role}/tasks/{file}").is_file()


@pytest.mark.parametrize("role", ROLES)
def test_no_file_of_tasks_is_forgotten(role):
    """A file that nothing names never runs."""
    directory = TOP / f"roles/{role}/tasks"
    everything = "".join(
        path.read_text() for place in (TOP / "roles", TOP / "playbooks") for path in place.rglob("*.yml")
    )
    for path in directory.glob("*.yml"):
        named = re.search(rf"(tasks|tasks_from): {re.escape(path.stem)}(\.yml)?\s", everything)
        computed = re.search(r"include_tasks: \"\{\{", everything) and path.stem in str(OPTIONS[role])
        assert path.stem == "main" or named or computed, path.name


def merged(base, over):
    if isinstance(base, dict) and isinstance(over, dict):
        return {key: merged(base.get(key), over[key]) if key in over else base[key] for key in {**base, **over}}
    return base if over is None else over


def scenario_of(role):
    return merged(load(".config/molecule/config.yml"), load(f"molecule/{role}/molecule.yml"))


@pytest.mark.parametrize("role", SCENARIOS)
def test_a_scenario_tries_a_dry_run_first_and_a_second_run_last(role):
    assert (TOP / f"molecule/{role}/molecule.yml").is_file()
    assert scenario_of(role)["scenario"]["test_sequence"] == SEQUENCE


def hosts_of(playbook):
    """Whom each play of it is for, with those of playbooks that it imports."""
    hosts = []
    for play in yaml.safe_load(playbook.read_text()):
        imported = play.get("ansible.builtin.import_playbook")
        hosts += hosts_of(playbook.parent / imported) if imported else [play["hosts"]]
    return hosts


@pytest.mark.parametrize("role", SCENARIOS)
def test_every_step_of_a_scenario_has_its_file(role):
    """Molecule passes in silence over a step whose file is missing."""
    scenario = scenario_of(role)
    for step in set(SEQUENCE) - {"verify"}:
        assert hosts_of(TOP / f"molecule/{role}" / scenario["provisioner"]["playbooks"][PLAYBOOK_OF.get(step, step)])


@pytest.mark.parametrize("role", SCENARIOS)
def test_a_scenario_verifies_something(role):
    verifier = scenario_of(role)["verifier"]
    assert verifier["name"] == "testinfra"
    files = list((TOP / f"molecule/{role}/{verifier['directory']}").glob("test_*.py"))
    functions = [
        node.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert functions


@pytest.mark.parametrize("role", SCENARIOS)
def test_a_scenario_runs_on_debian_12_and_13(role):
    assert {"debian12", "debian13"} <= {platform["name"] for platform in scenario_of(role)["platforms"]}


def yaml_files(*places):
    return sorted(path for place in places for path in (TOP / place).rglob("*") if path.suffix in (".yml", ".j2"))


LITERAL = r"""('[^']*'|"[^"]*"|-?\d+(?:\.\d+)?|true|false|\[\]|\{\})"""


def fallbacks():
    """Where one role stands in for a variable of another: file, variable and the literal that it takes."""
    for path in yaml_files("roles", "playbooks"):
        for name, literal in re.findall(rf"\b(\w+) \| default\({LITERAL}\)", path.read_text()):
            if name in OWNER_OF:
                yield pytest.param(name, yaml.safe_load(literal), id=f"{path.relative_to(TOP)}-{name}")


@pytest.mark.parametrize(("name", "literal"), sorted(fallbacks(), key=lambda case: str(case.id)))
def test_a_fallback_is_the_owners_default(name, literal):
    """A variable that has to be given has no default; the only stand-in for it says that it is not there."""
    assert literal == DEFAULTS[OWNER_OF[name]].get(name, "")


WORDS_FOR_PEOPLE = {"name", "msg", "fail_msg", "success_msg"}


def code_of(tasks):
    """All strings of tasks that are not there for people to read."""
    if isinstance(tasks, dict):
        for key, value in tasks.items():
            yield key
            yield from code_of(value) if key not in WORDS_FOR_PEOPLE or not isinstance(value, str) else ()
    elif isinstance(tasks, list):
        for value in tasks:
            yield from code_of(value)
    else:
        yield str(tasks)


def strangers(role):
    """Variables of other roles that this role's tasks, handlers and templates name."""
    for path in yaml_files(*(f"roles/{role}/{part}" for part in ("tasks", "handlers", "templates"))):
        text = path.read_text()
        code = text if path.suffix == ".j2" else "\n".join(code_of(yaml.safe_load(text)))
        for name in set(re.findall(r"\b[a-z]+_\w+\b", code)) & set(OWNER_OF):
            if OWNER_OF[name] != role:
                yield f"{path.relative_to(TOP)}: {name}"


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_needs_of_others_stands_in_its_defaults_or_vars(role):
    assert list(strangers(role)) == []
