"""What ansible-doc shows of every module: whole, true to its arguments, with examples that can be copied."""

import ast
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
MODULES = sorted((TOP / "plugins/modules").glob("*.py"))
TYPES = {"str", "int", "float", "bool", "list", "dict", "path", "raw"}


def parts(path):
    """The module's texts, and its tree."""
    tree = ast.parse(path.read_text())
    texts = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    return texts, tree


def sentences(description):
    return [description] if isinstance(description, str) else description


def described(options, path=""):
    for name, option in options.items():
        yield f"{path}{name}", option
        yield from described(option.get("suboptions") or option.get("contains") or {}, f"{path}{name}.")


@pytest.fixture(params=MODULES, ids=lambda path: path.stem)
def module(request):
    return request.param


def test_it_says_what_it_is(module):
    document = yaml.safe_load(parts(module)[0]["DOCUMENTATION"])
    assert document["module"] == module.stem
    assert document["short_description"]
    assert not document["short_description"].endswith(".")
    assert document["author"]
    for sentence in sentences(document["description"]):
        assert sentence.strip().endswith("."), sentence


def test_every_option_and_every_value_it_returns_is_described(module):
    texts, _tree = parts(module)
    options = yaml.safe_load(texts["DOCUMENTATION"]).get("options") or {}
    returned = yaml.safe_load(texts["RETURN"])
    for name, option in [*described(options), *described(returned)]:
        assert option["type"] in TYPES, name
        for sentence in sentences(option["description"]):
            assert sentence.strip().endswith("."), f"{name}: {sentence}"
        assert option["type"] != "list" or option["elements"], name
    for name, value in described(returned):
        assert "." in name or value["returned"], name


def test_its_examples_are_tasks_that_use_it(module):
    texts, _tree = parts(module)
    tasks = yaml.safe_load(texts["EXAMPLES"])
    assert tasks, "an example says more than a list of options"
    known = set(yaml.safe_load(texts["DOCUMENTATION"]).get("options") or {})
    used = [task[f"agentfleet.vm.{module.stem}"] for task in tasks if f"agentfleet.vm.{module.stem}" in task]
    assert used
    for given in used:
        assert set(given or {}) <= known
    for task in tasks:
        assert task["name"]


def specification(tree):
    """The names of a module's arguments, where it names them itself; those of an action plugin are there."""
    for node in ast.walk(tree):
        given = isinstance(node, ast.keyword) and node.arg == "argument_spec"
        named = isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "ARGUMENTS"
        if (given or named) and isinstance(node.value, ast.Dict):
            return {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    return None


def test_it_takes_what_it_says(module):
    texts, tree = parts(module)
    action = TOP / "plugins/action" / module.name
    takes = specification(tree)
    if takes is None and action.exists():
        takes = specification(ast.parse(action.read_text()))
    if takes is not None:
        assert takes == set(yaml.safe_load(texts["DOCUMENTATION"]).get("options") or {})
