"""Each configured model with a labelled set: does it find who is meant, does it answer, how fast, at what cost.

The models are asked as the service asks them, with the team's own prompts, but without tools, history or retries.
"""

import argparse
import asyncio
import json
import re
import sys
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agent_service.agents.offline import OFFLINE
from agent_service.commands import table
from agent_service.core.settings import Settings, load_settings
from agent_service.models.failures import check_answer, model_problem
from agent_service.models.prices import Prices, load_prices
from agent_service.models.providers import Model, create_model
from agent_service.team.classifier import Choices
from agent_service.team.definition import SHIPPED, Team, load_team

HEADINGS = (
    *("model", "agent", "intent", "answers", "failed", "p50 s", "p95 s", "tokens in", "tokens out", "USD"),
    "USD per 1000",
)


class Case(BaseModel):
    """A message, whom it is for, and words of which a good answer has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    message: Annotated[str, Field(min_length=1)]
    agent: str
    intent: str | None = None
    words: list[str] = []


@dataclass
class Score:
    """What one model came to."""

    model: str
    cases: int
    agents: int = 0
    intents: int = 0
    answers: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal | None = Decimal(0)

    def report(self) -> dict[str, Any]:
        times = sorted(self.seconds)
        return {
            "model": self.model,
            "cases": self.cases,
            "right_agent": self.agents,
            "right_intent": self.intents,
            "good_answers": self.answers,
            "failed": self.failed,
            "p50_seconds": percentile(times, 0.5),
            "p95_seconds": percentile(times, 0.95),
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": None if self.cost is None else f"{self.cost:f}",
        }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", type=Path, help="a labelled set of your own, in YAML; the shipped one by default")
    parser.add_argument(
        "--model", action="append", help="a model to ask, name or provider:name; all configured ones by default"
    )
    parser.add_argument("--parallel", type=int, default=1, help="messages at a time (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON document, with every failure")


def run(options: argparse.Namespace) -> int:
    settings = load_settings()
    team = load_team(Path(settings.team_file or SHIPPED))
    cases = read_set(options.set, team)
    models = chosen(settings, options.model)
    if any(model.name == OFFLINE for model in models):
        raise SystemExit("There is no model to ask but the offline one: set AGENT_MODEL_KEY.")
    prices = load_prices(settings.prices_file)
    scores = [asyncio.run(ask_all(model, cases, team, prices, max(1, options.parallel))) for model in models]
    reports = [score.report() for score in scores]
    print(json.dumps(reports, indent=2, ensure_ascii=False) if options.json else text(reports))
    return 1 if any(len(score.failed) == 2 * score.cases for score in scores) else 0


def read_set(path: Path | None, team: Team) -> list[Case]:
    name = str(path or "the shipped set")
    try:
        source = (
            path.read_text("utf-8")
            if path
            else files("agent_service.commands").joinpath("benchmark.yml").read_text("utf-8")
        )
        cases = TypeAdapter(list[Case]).validate_python(yaml.safe_load(source))
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"{name} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise SystemExit(f"{name} is no YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise SystemExit(f"{name}: {where}: {fault['msg']}") from None
    if not cases:
        raise SystemExit(f"{name} has no messages")
    strangers = sorted({case.agent for case in cases if team.find(case.agent) is None})
    if strangers:
        # The shipped set is of the shipped team.
        raise SystemExit(f"{name} is for a team with {', '.join(strangers)}; give one for yours with --set")
    return cases


def chosen(settings: Settings, names: Sequence[str] | None) -> list[Model]:
    """The models that are asked for, else those of all tiers and the fallbacks; each once."""
    tiers = (settings.model, settings.model_economy, settings.model_strong)
    references = names or [reference for reference in (*tiers, *settings.model_fallbacks) if reference]
    models = {model.place: model for model in (create_model(settings, reference) for reference in references)}
    return list(models.values())


async def ask_all(model: Model, cases: Sequence[Case], team: Team, prices: Prices, parallel: int) -> Score:
    score = Score(model.name, len(cases))
    choices, turns = Choices(team), asyncio.Semaphore(parallel)

    async def one(case: Case) -> None:
        async with turns:
            await route(model, case, choices, prices, score)
            await answer(model, case, team, prices, score)

    try:
        await asyncio.gather(*(one(case) for case in cases))
    finally:
        await model.close()
    return score


async def route(model: Model, case: Case, choices: Choices, prices: Prices, score: Score) -> None:
    """Whether the model knows whom a message is for."""
    structured = model.chat.with_structured_output(choices.schema, include_raw=True)
    try:
        said = await structured.ainvoke(choices.question(case.message, None))
    except Exception as error:
        score.failed.append(f"routing {case.message!r}: {model_problem(error).code}")
        return
    assert isinstance(said, dict)
    count(said["raw"], model.name, prices, score)
    found = choices.read(said["parsed"])
    score.agents += found is not None and found.agent == case.agent
    score.intents += found is not None and (found.agent, found.intent) == (case.agent, case.intent)


async def answer(model: Model, case: Case, team: Team, prices: Prices, score: Score) -> None:
    """Whether the specialist that a message is for says something to the point."""
    specialist = team.find(case.agent)
    assert specialist
    parameters = specialist.parameters.model_dump(exclude_none=True)
    began = time.perf_counter()
    try:
        said = await model.chat.ainvoke([SystemMessage(specialist.prompt), HumanMessage(case.message)], **parameters)
        assert isinstance(said, AIMessage)
        check_answer(said)
    except Exception as error:
        score.failed.append(f"answering {case.message!r}: {model_problem(error).code}")
        return
    score.seconds.append(time.perf_counter() - began)
    count(said, model.name, prices, score)
    score.answers += is_good(said.text, case.words)


def count(message: Any, model: str, prices: Prices, score: Score) -> None:
    usage = getattr(message, "usage_metadata", None) or {}
    asked, answered = int(usage.get("input_tokens") or 0), int(usage.get("output_tokens") or 0)
    cached = int((usage.get("input_token_details") or {}).get("cache_read") or 0)
    score.input_tokens += asked
    score.output_tokens += answered
    cost = prices.cost(model, datetime.now(UTC), asked, cached, answered)
    score.cost = None if cost is None or score.cost is None else score.cost + cost


def is_good(said: str, words: Sequence[str]) -> bool:
    """Not empty, and with one of the words where there are any."""
    folded = fold(said)
    return bool(folded.strip()) and (not words or any(contains(folded, word) for word in words))


def contains(folded: str, word: str) -> bool:
    bare = fold(word.removesuffix("*"))
    if not bare.isascii():
        # Scripts without spaces between words.
        return bare in folded
    end = "" if word.endswith("*") else r"\b"
    return re.search(rf"\b{re.escape(bare)}{end}", folded) is not None


def fold(text: str) -> str:
    """Without capitals and accents."""
    parts = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFKC", "".join(part for part in parts if not unicodedata.combining(part)))


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """The value that SHARE of the sorted values do not exceed."""
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else None


def text(reports: Sequence[dict[str, Any]]) -> str:
    rows = []
    for one in reports:
        cost = None if one["cost_usd"] is None else Decimal(one["cost_usd"])
        rows.append(
            [
                one["model"],
                *(f"{one[name]} of {one['cases']}" for name in ("right_agent", "right_intent", "good_answers")),
                len(one["failed"]),
                *(one[name] for name in ("p50_seconds", "p95_seconds", "input_tokens", "output_tokens")),
                None if cost is None else f"{cost:.4f}",
                None if cost is None else f"{cost * 1000 / one['cases']:.2f}",
            ]
        )
    for report in reports:
        for line in report["failed"][:3]:
            print(f"{report['model']}: {line}", file=sys.stderr)
    return table(HEADINGS, rows)
