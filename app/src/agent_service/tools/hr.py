"""Vacancies from a template, leave by arithmetic, and the company's rules by look-up."""

import datetime
from decimal import ROUND_FLOOR, Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from agent_service.team.keywords import normalize
from agent_service.tools.calling import ToolError

POLICIES = Path(__file__).with_name("policies.yml")

_HEADINGS = {
    "en": ("We are hiring: {title}", "Your tasks", "What you bring", "What we offer", "Place", "Apply with your CV."),
    "pt": ("Vaga: {title}", "Suas atividades", "O que você traz", "O que oferecemos", "Local", "Envie seu currículo."),
    "zh": ("诚聘：{title}", "岗位职责", "任职要求", "我们提供", "工作地点", "请投递简历。"),  # noqa: RUF001
    "ko": ("채용 공고: {title}", "담당 업무", "자격 요건", "복리후생", "근무지", "이력서를 보내 주세요."),
}

Line = Annotated[str, Field(min_length=1, max_length=300)]
Lines = Annotated[list[Line], Field(min_length=1, max_length=15)]
Days = Annotated[Decimal, Field(ge=0, le=366, max_digits=6, decimal_places=2)]


def draft_vacancy(
    title: Line,
    tasks: Lines,
    requirements: Lines,
    offer: Lines,
    place: Line,
    language: Literal["en", "pt", "zh", "ko"] = "en",
) -> str:
    """Draft a vacancy from the company's template, in the language wanted."""
    heading, *names, where, close = _HEADINGS[language]
    parts = [f"# {heading.format(title=title)}"]
    for name, lines in zip(names, (tasks, requirements, offer), strict=True):
        parts.append("\n".join((f"## {name}", *(f"- {line}" for line in lines))))
    return "\n\n".join((*parts, f"**{where}:** {place}", close))


def leave_balance(
    days_per_year: Days,
    days_taken: Days,
    employed_since: datetime.date,
    on: datetime.date,
    days_carried_over: Days = Decimal(0),
) -> dict[str, Any]:
    """Days of annual leave earned and left on a day: a twelfth of the year's days for each full month of that year."""
    begin = max(employed_since, datetime.date(on.year, 1, 1))
    if begin > on:
        raise ToolError("The day lies before the employment begins.")
    months = (on.year - begin.year) * 12 + on.month - begin.month - (on.day < begin.day)
    # The last day of a month completes it, whatever day the next begins with.
    months += (on + datetime.timedelta(days=1)).day == 1 and begin.day == 1
    whole_year = 13 - begin.month - (begin.day > 1)
    earned = _earned(days_per_year, months)
    return {
        "months_completed": months,
        "earned": str(earned),
        "left": str(earned + days_carried_over - days_taken),
        "left_by_end_of_year": str(_earned(days_per_year, whole_year) + days_carried_over - days_taken),
    }


def find_policy(topic: Line) -> dict[str, Any]:
    """Look up what the company's rules say on a topic, such as annual leave, overtime or dress code."""
    asked = normalize(topic)
    found = [
        {"topic": policy["topic"], "rule": policy["rule"]}
        for policy in _policies()
        if any(normalize(word) in asked for word in policy["words"])
    ]
    if not found:
        topics = ", ".join(policy["topic"] for policy in _policies())
        raise ToolError(f"There is no rule on that. There are rules on: {topics}.")
    return {"rules": found[:3]}


def _earned(days_per_year: Decimal, months: int) -> Decimal:
    """In half days, rounded down."""
    return (days_per_year * months / 12 * 2).to_integral_value(ROUND_FLOOR) / 2


@cache
def _policies() -> list[dict[str, Any]]:
    policies: list[dict[str, Any]] = yaml.safe_load(POLICIES.read_text(encoding="utf-8"))
    return policies
