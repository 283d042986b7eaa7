import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.team.definition import GENERAL, Team, load_team
from agent_service.team.keywords import normalize, parse
from agent_service.team.router import CHARACTERS, Router

FILES = sorted((Path(__file__).parent / "routing").glob("*.jsonl"))
SHARE = 0.9

ROUTER = Router(load_team())


def team_of(**keywords: list[str]) -> Team:
    """A team of the general assistant and of specialists with these keywords."""
    described = {"description": "D", "prompt": "P"}
    words = {GENERAL: [], **keywords}
    return Team.model_validate(
        {"specialists": [{"id": id, "name": id, "keywords": {"en": texts}, **described} for id, texts in words.items()]}
    )


def table(rows: list[dict[str, Any]], right: list[bool]) -> str:
    lines = []
    for field in ("language", "kind", "agent"):
        asked, answered = Counter(row[field] for row in rows), Counter[str]()
        answered.update(row[field] for row, good in zip(rows, right, strict=True) if good)
        lines += [f"{field:9} {name:16} {answered[name]:4} of {asked[name]:4}" for name in sorted(asked)]
    return "\n".join(lines)


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_nine_of_ten_messages_reach_whom_they_are_for(file: Path) -> None:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    routes = [ROUTER.route(row["message"]).route for row in rows]
    right = [route.agent == row["agent"] for route, row in zip(routes, rows, strict=True)]
    intents = [route.intent == row["intent"] for route, row, good in zip(routes, rows, right, strict=True) if good]
    print(f"\n{file.name}: {sum(right)} of {len(rows)}, intent too {sum(intents)}\n{table(rows, right)}")
    assert sum(right) >= SHARE * len(rows)
    assert sum(intents) >= SHARE * len(intents)


@pytest.mark.parametrize(
    ("message", "agent", "intent"),
    [
        ("What is our cash position?", "cashflow", "cashflow_monitoring"),
        ("WHAT IS OUR CASH-POSITION?!", "cashflow", "cashflow_monitoring"),
        ("Qual e o ponto de equilibrio?", "financial", "financial_analysis"),
        ("Qual é o ponto de equilíbrio?", "financial", "financial_analysis"),
        ("財務預算怎麼編製", "financial", "budget_planning"),
        ("财务预算怎么编制", "financial", "budget_planning"),
        ("현금 흐름 알려줘", "cashflow", None),
        ("현금흐름 알려줘", "cashflow", None),
        ("채욘 공고 써 줘", "hr", "hr_recruitment"),
        ("How much anual leave do I have?", "hr", "policy_consultation"),
        ("the recruitmnet of a new welder", "hr", "hr_recruitment"),
        ("我们的 cash flow 怎么样", "cashflow", None),
        ("Tell me a joke", "general", None),
        ("", "general", None),
    ],
)
def test_writing_makes_no_difference(message: str, agent: str, intent: str | None) -> None:
    route = ROUTER.route(message).route
    assert route.agent == agent
    assert intent is None or route.intent == intent


def test_confidence_follows_the_evidence() -> None:
    nothing = ROUTER.route("xyzzy")
    weak = ROUTER.route("the department")
    clear = ROUTER.route("the budget of the department")
    torn = ROUTER.route("the budget for recruitment")
    assert (nothing.known, nothing.sure) == (False, False)
    assert clear.sure and not torn.sure
    assert clear.route.confidence > weak.route.confidence
    assert clear.route.confidence > torn.route.confidence


def test_who_answered_last_has_a_head_start_and_no_more() -> None:
    assert ROUTER.route("and for March?", last="hr").route.agent == "hr"
    assert ROUTER.route("and for March?", last="gone").route.agent == GENERAL
    assert ROUTER.route("What is our cash position?", last="hr").route.agent == "cashflow"
    assert ROUTER.route("xyzzy", last=GENERAL) == ROUTER.route("xyzzy")


def test_sides_of_a_keyword_stand_together_in_one_sentence_in_any_order() -> None:
    router = Router(team_of(marketing_sales=["guest*|visitor* + leave|left^2", "客人 + 离开^2"]))
    assert router.route("The visitors look at the rooms and then left.").route.agent == "marketing_sales"
    assert router.route("They leave, our guests.").route.agent == "marketing_sales"
    assert router.route("离开的客人").route.agent == "marketing_sales"
    assert not router.route("Our guests are happy. We leave at noon.").known
    assert not router.route("The visitors stay.").known


def test_what_is_asked_counts_more_than_what_is_told() -> None:
    router = Router(team_of(hr=["vacancy^2", "candidate^2"], cashflow=["invoice^2"]))
    told, asked = "We filled a vacancy with a candidate", "Which invoice is open?"
    assert router.route(f"{told}. {asked}").route.agent == "cashflow"
    assert router.route(f"{asked} {told}.").route.agent == "cashflow"
    assert router.route(f"{told}, and an invoice is open.").route.agent == "hr"
    assert router.route(f"{told}. What now?").route.agent == "hr"


@given(st.text(max_size=300), st.sampled_from([None, "hr", GENERAL, "gone"]))
def test_any_text_has_a_route(message: str, last: str | None) -> None:
    verdict = ROUTER.route(message, last)
    assert 0 < verdict.route.confidence <= 1
    assert verdict.route.agent in {"financial", "cashflow", "marketing_sales", "hr", "general"}
    assert verdict == ROUTER.route(message, last)


@given(st.text(max_size=200))
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize(
    "keyword", ["", "*", "^2", "cash^", "cash^x", "现金 cash", "cash^2^3", "!", "a +", "a b + c", "a|"]
)
def test_what_is_no_keyword_is_refused(keyword: str) -> None:
    with pytest.raises(ValueError):
        parse(keyword)


def test_only_the_first_thousands_of_characters_are_read() -> None:
    message = "the budget of the department " * 150
    assert len(message) > CHARACTERS
    assert ROUTER.route(message + "the recruitment of a welder " * 10_000) == ROUTER.route(message)
