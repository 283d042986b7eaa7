"""One way to ask a model: the tier's own first, then its fallbacks, each with retries and behind its breaker."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from redis.asyncio import Redis

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.settings import ModelTier, Settings
from agent_service.memory.database import Pool
from agent_service.memory.model_calls import store_calls
from agent_service.memory.redis import Rest
from agent_service.models.breakers import Breakers
from agent_service.models.cache import ResponseCache
from agent_service.models.failures import REPEATABLE, UNWELL, asked_wait, model_problem
from agent_service.models.prices import load_prices
from agent_service.models.providers import Model, check_model, create_model
from agent_service.models.recorder import Recorder
from agent_service.models.retry import pause
from agent_service.models.spending import Spending
from agent_service.models.tiers import TIERS
from agent_service.models.turn import TurnCalls, current_turn

Answer = TypeVar("Answer")

logger = get_logger(__name__)


class Models:
    def __init__(self, settings: Settings, metrics: Metrics, pool: Pool, redis: Redis, rest: Rest) -> None:
        self.settings = settings
        self._metrics = metrics
        self._pool = pool
        self._retries = settings.model_retries
        prices = load_prices(settings.prices_file)

        @cache
        def model(reference: str) -> Model:
            created = create_model(settings, reference)
            created.chat.callbacks = [Recorder(created, prices, metrics, settings.telemetry_texts)]
            return created

        fallbacks = [model(reference) for reference in settings.model_fallbacks]
        own: dict[ModelTier, str] = {"economy": settings.model_economy, "strong": settings.model_strong, "standard": ""}
        self._chains = {
            tier: tuple({m.place: m for m in (model(own[tier] or settings.model), *fallbacks)}.values())
            for tier in TIERS
        }
        self.all = tuple({m.place: m for chain in self._chains.values() for m in chain}.values())
        self._unpriced = [m.name for m in self.all if not prices.known(m.name)]
        self._breakers = Breakers(settings, metrics, redis, rest, [m.place for m in self.all])
        self.spending = Spending(settings, metrics, redis, rest, pool)
        self.cache = ResponseCache(settings, metrics, redis, rest)
        if settings.budget_usd_daily and settings.budget_mode == "economy":
            economy, standard = self._chains["economy"][0], self._chains["standard"][0]
            if economy.place == standard.place:
                logger.warning("economy_saves_nothing", model=economy.name)
        self._background: set[asyncio.Task[None]] = set()

    def first(self, tier: ModelTier = "standard") -> Model:
        """The model of a tier, one for the process. Its calls are counted, and have no fallback: `ask` has."""
        return self._chains[tier][0]

    async def chain(self, tier: ModelTier) -> tuple[Model, ...]:
        """Whom to ask, in order; the answer to the client where the budget leaves nobody."""
        await self._breakers.look()
        chain = self._chains[await self.spending.tier(tier)]
        current_turn().counter = self.spending.counter
        return chain

    async def ask(
        self,
        agent: str,
        chain: tuple[Model, ...],
        attempt: Callable[[BaseChatModel], Awaitable[Answer]],
        restart: Callable[[], Awaitable[None]] | None = None,
    ) -> Answer:
        """The first answer of the chain, or the first model's problem.

        ATTEMPT makes one call, and raises a Problem for an answer that is none. RESTART is called before another model
        is asked after a part of an answer was sent to the client.
        """
        turn = current_turn()
        # What an earlier call of the turn sent, before a tool, is no part of this one's answer.
        turn.agent, turn.sending = agent, False
        first: Problem | None = None
        for model in chain:
            if turn.sending and restart:
                await restart()
            try:
                answer = await self._ask(model, attempt, turn)
            except Problem as problem:
                first = first or problem
                continue
            if first:
                self._metrics.model_fallbacks.labels(model.name).inc()
                logger.warning("model_fell_back", model=model.name, code=first.code)
            turn.model = model.name
            return answer
        assert first
        raise first

    def count_degraded(self) -> None:
        self._metrics.degraded_answers.inc()

    async def settle(self, turn: TurnCalls) -> None:
        """Count what a turn cost, after its rows are stored."""
        await self.spending.add(turn.known_cost, turn.counter)

    def settle_later(self, turn: TurnCalls) -> None:
        """Store and count the calls of what stores no turn, without keeping its client waiting."""
        if turn.calls:
            task = asyncio.create_task(self._settle_alone(turn))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def look(self) -> None:
        """Learn what other instances found out, for a report."""
        await self._breakers.look()
        await self.spending.look()

    def report(self) -> list[dict[str, str]]:
        """Each model with the tiers that it serves and how its breaker stands."""
        return [
            {
                "name": model.name,
                "tiers": ", ".join(tier for tier in TIERS if self._chains[tier][0].place == model.place) or "fallback",
                "breaker": self._breakers.state(model.place),
            }
            for model in self.all
        ]

    def budget_report(self) -> dict[str, Any] | None:
        report = self.spending.report()
        if report and self._unpriced:
            report |= {"status": "degraded", "reason": f"no price for {', '.join(self._unpriced)}"}
        return report

    async def check(self) -> None:
        """Fail unless every model's server answers."""
        await asyncio.gather(*(check_model(model) for model in self.all))

    async def close(self) -> None:
        await asyncio.gather(*self._background, return_exceptions=True)
        for model in self.all:
            await model.close()

    async def _ask(
        self, model: Model, attempt: Callable[[BaseChatModel], Awaitable[Answer]], turn: TurnCalls
    ) -> Answer:
        await self._breakers.enter(model.place)
        began = time.monotonic()
        turn.sending = False
        number = 0
        try:
            while True:
                try:
                    answer = await attempt(model.chat)
                    break
                except Exception as error:
                    problem = model_problem(error)
                    wait = None if turn.sending else self._pause(problem, error, number)
                    if wait is None:
                        self._metrics.model_errors.labels(model.name, problem.code).inc()
                        logger.warning("model_failed", model=model.name, code=problem.code, exc_info=error)
                        if problem.code in UNWELL:
                            await self._breakers.failed(model.place, began)
                        raise problem from (None if problem is error else error)
                    logger.info("model_retried", model=model.name, code=problem.code, exc_info=error)
                self._metrics.model_retries.labels(model.name).inc()
                await asyncio.sleep(wait)
                number += 1
        finally:
            self._metrics.model_seconds.labels(model.name).observe(time.monotonic() - began)
        await self._breakers.succeeded(model.place)
        return answer

    def _pause(self, problem: Problem, error: Exception, number: int) -> float | None:
        if problem.code not in REPEATABLE or number >= self._retries:
            return None
        return pause(number, asked_wait(error), random.random())

    async def _settle_alone(self, turn: TurnCalls) -> None:
        try:
            await store_calls(self._pool, turn)
            await self.settle(turn)
        except Problem as problem:
            logger.warning("model_calls_lost", calls=len(turn.calls), code=problem.code)
