"""What the balancer, the deploy and Prometheus ask."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from agent_service.api.access import CallerAccess
from agent_service.api.problems import documented, respond
from agent_service.core.logs import get_logger
from agent_service.core.problems import Problem
from agent_service.models.access import Models

Check = Callable[[], Awaitable[None]]
# Says itself how it stands, and never fails.
Report = Callable[[], Awaitable[dict[str, Any]]]

# How long a check may take, and how long the model's is believed: it leaves the fleet.
CHECK_SECONDS = 2.5
MODEL_SECONDS = 30

router = APIRouter(tags=["operations"])
# The same from outside, where the edge lets it through: for keys alone.
for_keys = APIRouter(tags=["operations"], responses=documented(403))
logger = get_logger(__name__)


class Readiness:
    """Each dependency with its own result. Only the database is one the service cannot live without."""

    def __init__(
        self,
        database: Check,
        redis: Check | None,
        models: Models,
        others: Mapping[str, Check],
        reports: Mapping[str, Report],
    ) -> None:
        self._database = database
        self._redis = redis
        self._models = models
        self._others = others
        self._reports = reports
        self._model_result: dict[str, Any] = {}
        self._model_until = 0.0
        self._failing: set[str] = set()

    async def results(self) -> dict[str, dict[str, Any]]:
        database, redis, model, _, *others = await asyncio.gather(
            self._result("database", self._database, "down"),
            self._check_redis(),
            self._check_model(),
            self._look(),
            *(self._result(name, check, "degraded") for name, check in self._others.items()),
        )
        models = self._models.report()
        resting = any(entry["breaker"] == "open" for entry in models)
        model = {**model, **({"status": "degraded"} if resting else {}), "models": models}
        checks = {"database": database, "redis": redis, "model": model, **dict(zip(self._others, others, strict=True))}
        if budget := self._models.budget_report():
            checks["budget"] = budget
        # They are in the database: where that is down, asking takes time and tells nothing.
        if database["status"] == "ok":
            checks |= {name: await report() for name, report in self._reports.items()}
        return checks

    async def _check_redis(self) -> dict[str, Any]:
        result = await self._result("redis", self._redis, "degraded") if self._redis else {"status": "off"}
        return result if result["status"] == "ok" else {**result, "limits": "counted by each process alone"}

    async def _check_model(self) -> dict[str, Any]:
        if time.monotonic() >= self._model_until:
            result = await self._result("model", self._models.check, "degraded")
            self._model_result = {"name": self._models.first().name, **result}
            self._model_until = time.monotonic() + MODEL_SECONDS
        return self._model_result

    async def _look(self) -> None:
        # What is known has to do where Redis hangs.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                await self._models.look()

    async def _result(self, name: str, check: Check, failed: str) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await check()
        except Exception as error:
            # Asked every second, a change is news and its repetition is not.
            if name not in self._failing:
                self._failing.add(name)
                logger.warning("check_failed", dependency=name, exc_info=error)
            return {"status": failed, "reason": type(error.__cause__ or error).__name__}
        if name in self._failing:
            self._failing.discard(name)
            logger.info("check_recovered", dependency=name)
        return {"status": "ok", "milliseconds": round((time.perf_counter() - started) * 1000, 1)}


@router.get("/health")
async def health() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/ready", responses=documented(503))
async def ready(request: Request) -> Response:
    settings = request.app.state.settings
    checks = await request.app.state.readiness.results()
    about = {"release": settings.release, "slot": settings.slot, "checks": checks}
    if checks["database"]["status"] != "ok":
        problem = Problem(
            503, "not-ready", "The database cannot be used.", source="database", headers={"Retry-After": "5"}, **about
        )
        return respond(problem, request.scope["state"]["request_id"])
    whole = all(check["status"] in ("ok", "off") for check in checks.values())
    return JSONResponse({"status": "ready" if whole else "degraded", **about})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


@for_keys.get("/api/metrics", response_class=PlainTextResponse)
async def metrics_for_keys(request: Request, access: CallerAccess) -> Response:
    if access.own:
        raise Problem(403, "forbidden", "Metrics are for holders of an API key.")
    return await metrics(request)
