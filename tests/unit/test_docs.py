"""What the pages tell people to type exists: playbooks, their options, and the pages that are linked."""

import re
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known

TOP = Path(__file__).resolve().parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md")), *sorted(TOP.glob("roles/*/README.md"))]
KNOWN = load_known()


def commands(text):
    """What a page has in code: its indented lines, a continued one as one, its spans, and its tables' rows."""
    lines = re.findall(r"^    (.+(?:\\\n.+)*)", text, re.MULTILINE)
    rows = [line.replace("`", "") for line in text.splitlines() if line.startswith("|")]
    return [*lines, *rows, *(span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", text))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_what_is_typed_is_there(page):
    for command in commands(page.read_text(encoding="utf-8")):
        for name in re.findall(r"playbooks/(\w+)\.yml", command):
            assert (TOP / f"playbooks/{name}.yml").exists(), command
        named = re.search(r"(?:^|[ /])(\w+)\.yml\b(.*)", command, re.DOTALL)
        if named and named[1] in KNOWN.playbooks:
            for option in re.findall(r"-e (\w+)=", named[2]):
                assert option in KNOWN.extra(named[1]), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_what_is_linked_is_there(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
