"""`agentctl benchmark` and `agentctl profile`: models beside each other, and where an instance spends its time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Model, free_port
from service import agentctl, database_environment

from agent_service.commands import benchmark, profile
from agent_service.team.definition import load_team

SET = """\
- {message: "Whom do we hire next?", agent: hr, intent: hr_recruitment, words: [candidat*]}
- {message: "What did we earn?", agent: financial, intent: financial_analysis, words: [profit]}
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(model: Model, tmp_path: Path) -> Run:
    """The command with a set of two messages, on the local model server."""
    (tmp_path / "set.yml").write_text(SET)

    def command(*words: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        where = {"AGENT_MODEL_URL": model.url, "AGENT_MODEL_KEY": model.key, **database_environment(free_port(), "no")}
        return agentctl("benchmark", "--set", str(tmp_path / "set.yml"), *words, **{**where, **changes})

    return command


def reports(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_models_stand_beside_each_other(run: Run, model: Model) -> None:
    choice = {"agent": "hr", "intent": "hr_recruitment", "certainty": 0.9}
    model.control(choice=choice, answer="Two Candidates are ready.", latency_seconds=0.05)
    first, second = reports(run("--json", AGENT_MODEL_STRONG="deepseek-v4-pro"))
    assert [first["model"], second["model"]] == ["deepseek-v4-flash", "deepseek-v4-pro"]
    for report in (first, second):
        assert (report["cases"], report["right_agent"], report["right_intent"], report["good_answers"]) == (2, 1, 1, 1)
        assert report["failed"] == []
        assert 0.05 <= report["p50_seconds"] <= report["p95_seconds"]
        assert report["input_tokens"] > 0 < report["output_tokens"]
        assert float(report["cost_usd"]) > 0
    assert float(second["cost_usd"]) > float(first["cost_usd"])
    asked = [request["body"]["model"] for request in model.requests()]
    # Two messages, each routed and answered, by each model.
    assert (asked.count("deepseek-v4-flash"), asked.count("deepseek-v4-pro")) == (4, 4)


def test_for_people_it_is_a_table(run: Run, model: Model) -> None:
    model.control(choice={"agent": "hr", "intent": "", "certainty": 0.9})
    head, row = run("--model", "unknown-model", "--parallel", "2").stdout.splitlines()
    assert head.split()[:4] == ["model", "agent", "intent", "answers"]
    assert row.split()[:7] == ["unknown-model", "1", "of", "2", "0", "of", "2"]
    assert row.split()[-2:] == ["-", "-"], "a model without a price"


def test_a_model_that_fails_is_told_with_why(run: Run, model: Model) -> None:
    model.control(fail_next=1)
    [report] = reports(run("--json"))
    assert report["failed"] == ["routing 'Whom do we hire next?': model-failed"]
    model.control(fail_next=100, status=401)
    done = run()
    assert done.returncode == 1
    assert "deepseek-v4-flash: routing 'Whom do we hire next?': model-refused" in done.stderr
    assert model.key not in done.stderr + done.stdout


def test_the_offline_model_is_none_to_measure(run: Run) -> None:
    done = run(AGENT_MODEL_KEY="")
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "There is no model to ask but the offline one: set AGENT_MODEL_KEY.",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("a: [", "is no YAML"),
        ("[]", "has no messages"),
        ("- {message: Hi}", "0.agent: Field required"),
        ("- {message: Hi, agent: pilot}", "is for a team with pilot; give one for yours with --set"),
    ],
)
def test_a_set_that_cannot_be_used_is_one_line(run: Run, tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "own.yml"
    if text is not None:
        path.write_text(text)
    done = run("--set", str(path))
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_shipped_set_is_for_the_shipped_team() -> None:
    team = load_team()
    cases = benchmark.read_set(None, team)
    for case in cases:
        specialist = team.find(case.agent)
        assert specialist
        assert case.intent is None or case.intent in specialist.intents
    intents = {intent for specialist in team.specialists for intent in specialist.intents}
    assert intents <= {case.intent for case in cases}, "each intent is asked for"


@pytest.mark.parametrize(
    ("said", "words", "good"),
    [
        ("Corte os CUSTOS já", ["custo*"], True),
        ("A previsão é boa", ["previsao"], True),
        ("Netting helps", ["net"], False),
        ("下个季度的收入", ["收入"], True),
        ("연차를 이월하면", ["이월"], True),
        ("Anything", [], True),
        ("  ", [], False),
        ("Nothing of it", ["profit", "loss"], False),
    ],
)
def test_an_answer_is_good_with_one_of_its_words(said: str, words: list[str], good: bool) -> None:
    assert benchmark.is_good(said, words) is good


def test_percentiles() -> None:
    assert benchmark.percentile([], 0.5) is None
    assert benchmark.percentile([0.1, 0.2, 0.3, 0.4], 0.95) == 0.4


BIN = Path(sys.executable).parent
BUSY = "def whirl():\n    while True:\n        sum(range(1000))\nprint('on', flush=True)\nwhirl()"
# The kernel lets only root look into a process that is no child of one's own.
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="looking into another process takes root")


@pytest.fixture
def instance() -> Iterator[int]:
    """A process that is started as the service is, and does one thing."""
    words = [sys.executable, "-c", BUSY, "agent_service.main:app"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.wait()


def profiled(*words: str, path: object = BIN) -> "subprocess.CompletedProcess[str]":
    return agentctl("profile", *words, PATH=f"{path}:/usr/bin:/bin")


def test_without_py_spy_it_says_how_to_get_it() -> None:
    done = agentctl("profile", "--pid", "1", PATH="/nowhere")
    assert done.returncode == 2
    assert done.stderr.strip() == f"py-spy is not there; install it with: {profile.INSTALL}"


@as_root
def test_it_draws_where_an_instance_spends_its_time(instance: int, tmp_path: Path) -> None:
    output = tmp_path / "flame.svg"
    done = profiled("--pid", str(instance), "--seconds", "1", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert f"{output} is written; open it in a browser" in done.stdout
    assert "whirl" in output.read_text()
    stacks = tmp_path / "stacks.txt"
    assert profiled("--pid", str(instance), "--seconds", "1", "--output", str(stacks)).returncode == 0
    assert "whirl" in stacks.read_text()


@as_root
def test_it_shows_what_a_process_does_now(instance: int) -> None:
    done = profiled("--pid", str(instance), "--now")
    assert done.returncode == 0, done.stderr
    assert "whirl" in done.stdout


def test_a_process_that_cannot_be_looked_at_is_told(tmp_path: Path) -> None:
    done = profiled("--pid", "999999999", "--seconds", "1", "--output", str(tmp_path / "flame.svg"))
    assert done.returncode != 0
    assert "it takes root: sudo agentctl profile --pid 999999999" in done.stderr


def test_an_output_of_no_known_kind_is_refused() -> None:
    done = profiled("--pid", "77", "--output", "flame.png")
    assert done.returncode == 2
    assert "has to end with .svg, .json, .txt" in done.stderr


def test_the_only_instance_is_found_and_several_are_named(instance: int) -> None:
    found = dict(profile.instances())
    assert found[instance].startswith(sys.executable)
    assert os.getpid() not in found
    assert profile.the_instance({7: "x"}) == 7
    with pytest.raises(SystemExit, match="No instance of the service runs"):
        profile.the_instance({})
    with pytest.raises(SystemExit, match="--pid 7  x\n  --pid 8  y"):
        profile.the_instance({8: "y", 7: "x"})
