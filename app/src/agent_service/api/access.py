"""What is decided about a request before a route sees it: the name it asks for, where it is from, whose it is."""

import contextlib
import math
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_service.api.middleware import OPERATIONS, PAGE, SOCKET, WEBHOOKS
from agent_service.api.problems import note, respond
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.guard.addresses import Network, client_address, counted_as
from agent_service.guard.audit import Audit, Entry
from agent_service.guard.callers import Caller, Refused
from agent_service.guard.credentials import Credentials
from agent_service.guard.keys import MAIN
from agent_service.guard.limits import Limit, Limiter, Outcome
from agent_service.guard.size import estimate_tokens

DAY_SECONDS = 24 * 3600
MINUTE_SECONDS = 60


class TrustedHosts:
    """Refuse a request for a name that is not the service's. The balancer asks by address, and is let through."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names if not name.startswith("*."))
        self._endings = tuple(name[1:].lower() for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope["path"] not in OPERATIONS and not self._is_ours(scope):
            problem = Problem(400, "unknown-host", "The service does not answer to this name.")
            await _refuse(problem, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        name = Headers(scope=scope).get("host", "").rsplit(":", 1)[0].lower()
        return name in self._names or name.endswith(self._endings)


class Guard:
    """Let nobody in without a credential that holds, nor more often than is allowed, and record each request."""

    def __init__(
        self,
        app: ASGIApp,
        credentials: Credentials,
        limiter: Limiter,
        audit: Audit,
        metrics: Metrics,
        trusted_proxies: Sequence[Network],
        requests_per_minute: int,
        failures_per_minute: int,
    ) -> None:
        self._app = app
        self._credentials = credentials
        self._limiter = limiter
        self._audit = audit
        self._metrics = metrics
        self._trusted_proxies = trusted_proxies
        self._requests = requests_per_minute
        self._failures = failures_per_minute

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in OPERATIONS or scope["path"] == PAGE:
            await self._app(scope, receive, send)
            return
        if scope["path"] in WEBHOOKS:
            await self._pass(scope, receive, send)
            return
        entry = self._begin(scope)

        async def send_noted(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                entry.status = message["status"]
            elif message["type"] == "websocket.accept":
                entry.status = 101
            await send(message)

        authorization = Headers(scope=scope).get("authorization", "")
        scope["state"]["guard"] = self
        if scope["type"] == "websocket" and scope["path"] == SOCKET and not authorization:
            await self._unnamed(scope, entry, receive, send_noted)
            return
        try:
            await self._admit(scope, entry, authorization)
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        with self._audit.entry(entry):
            try:
                await self._app(scope, receive, send_noted)
            except Exception:
                entry.status = 500
                raise
            finally:
                self._named(scope, entry, entry.status)

    async def authenticate(self, scope: Scope, authorization: str) -> None:
        """Admit a socket by its first message."""
        await self._admit(scope, scope["state"]["audit"], authorization)

    @contextlib.asynccontextmanager
    async def message(self, scope: Scope, authorization: str) -> AsyncIterator[None]:
        """Admit and record a message of a socket as a request is: keys are taken back, and tokens end."""
        entry = self._begin(scope)
        await self._admit(scope, entry, authorization)
        with self._audit.entry(entry):
            try:
                yield
                entry.status = 200
            except Problem as problem:
                entry.status = problem.status
                raise
            finally:
                self._named(scope, entry, entry.status)

    def _begin(self, scope: Scope) -> Entry:
        state = scope.setdefault("state", {})
        # A client that left before any answer is recorded as Nginx does.
        entry = Entry(
            address=self._address(scope), request_id=state.setdefault("request_id", uuid.uuid4().hex), status=499
        )
        state["audit"] = entry
        return entry

    async def _unnamed(self, scope: Scope, entry: Entry, receive: Receive, send: Send) -> None:
        """A socket that is yet to say whose it is. Nobody fills the audit log by opening such."""
        try:
            await self._take_request(entry.address or "")
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if entry.caller:
                self._audit.record(self._named(scope, entry, entry.status))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whoever calls a webhook has no key, and the limit of an address as others have."""
        try:
            await self._take_request(self._address(scope))
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, entry: Entry, authorization: str) -> None:
        await self._take_request(entry.address or "")
        try:
            entry.caller = self._credentials.caller(authorization)
        except Refused as refused:
            entry.reason = refused.reason
            self._metrics.unauthorized.labels(refused.reason).inc()
            scope["state"].setdefault("log", {})["reason"] = refused.reason
            # Too many are counted and no longer recorded: nobody fills the audit log from outside.
            if self._failures:
                await self._take("failures", entry.address or "", self._failures)
            self._audit.record(self._named(scope, entry, 401))
            raise Problem(
                401,
                "unauthorized",
                "Send an API key or a token as Authorization: Bearer <key or token>.",
                headers={"WWW-Authenticate": "Bearer"},
            ) from None
        entry.user_id = entry.caller.user_id
        scope["state"]["caller"] = entry.caller

    async def _take_request(self, address: str) -> None:
        if self._requests:
            await self._take("address", address, self._requests)

    async def _take(self, name: str, address: str, allowed: int) -> None:
        outcome = await self._limiter.take(Limit(name, counted_as(address), allowed, MINUTE_SECONDS))
        if not outcome.taken:
            raise too_many(f"One address may send {allowed} such requests a minute.", outcome, allowed)

    def _address(self, scope: Scope) -> str:
        peer = scope["client"][0] if scope.get("client") else ""
        return client_address(peer, Headers(scope=scope).getlist("x-forwarded-for"), self._trusted_proxies)

    def _named(self, scope: Scope, entry: Entry, status: int | None) -> Entry:
        route = getattr(scope.get("route"), "path", None)
        # Without a route there is the client's own text, which is not kept.
        entry.action = f"{scope.get('method', 'WEBSOCKET')[:16]} {route or 'unknown'}"
        entry.status = status
        return entry


class Access:
    """What the caller of a route may do."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._state = connection.scope["state"]
        self._limiter: Limiter = connection.app.state.limiter
        self.caller: Caller = self._state["caller"]

    def acts_for(self, user_id: str | None) -> str | None:
        """The user whom the request is for: a token's own, whatever the request says, else the one it names."""
        user_id = self.caller.user_id or user_id
        self._state["audit"].user_id = user_id
        return user_id

    @property
    def own(self) -> bool:
        """Whether only what is the user's own may be opened."""
        return self.caller.user_id is not None

    def check_operator(self) -> None:
        """Refuse whoever does not hold the fleet's own key: how it stands is no customer's business."""
        if self.caller.name != MAIN:
            raise Problem(403, "forbidden", "This is for the holder of the service's own key.")

    def check_size(self, text: str) -> None:
        tokens, allowed = estimate_tokens(text), self.caller.tier.tokens_per_request
        if tokens > allowed:
            raise Problem(
                413,
                "prompt-too-large",
                f"The message has about {tokens} tokens; tier {self.caller.tier_name} allows {allowed} a request.",
                tokens=tokens,
                allowed=allowed,
                tier=self.caller.tier_name,
            )

    async def take(self, wanted: int = 1) -> None:
        """Count requests of the tier's, or refuse them: one for each thing that costs money."""
        allowed = self.caller.tier.requests_per_day
        if allowed is None:
            return
        outcome = await self._limiter.take(Limit("day", self.caller.counted_as, allowed, DAY_SECONDS), wanted)
        if not outcome.taken:
            detail = f"Tier {self.caller.tier_name} allows {allowed} requests a day; the next day, by UTC, begins in"
            raise too_many(f"{detail} {outcome.reset_seconds} s.", outcome, allowed, tier=self.caller.tier_name)
        self._state["headers"] = _figures(outcome, allowed)


async def _access(connection: HTTPConnection) -> Access:
    return Access(connection)


CallerAccess = Annotated[Access, Depends(_access)]


def too_many(detail: str, outcome: Outcome, allowed: int, **extensions: str) -> Problem:
    headers = {"Retry-After": str(max(1, outcome.reset_seconds)), **_figures(outcome, allowed)}
    return Problem(429, "too-many-requests", detail, headers=headers, allowed=allowed, **extensions)


def _figures(outcome: Outcome, allowed: int) -> Mapping[str, str]:
    return {
        "RateLimit-Limit": str(allowed),
        "RateLimit-Remaining": str(outcome.remaining),
        "RateLimit-Reset": str(math.ceil(outcome.reset_seconds)),
    }


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    state = scope.setdefault("state", {})
    note(scope, problem)
    await respond(problem, state.get("request_id"))(scope, receive, send)
