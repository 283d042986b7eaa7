"""What holds for the query of every route."""

from collections import Counter

from starlette.requests import HTTPConnection

from agent_service.core.problems import Problem


async def once(request: HTTPConnection) -> None:
    """Each parameter is one value; of two nobody knows which is meant, and proxies do not agree."""
    if request.scope["query_string"]:
        counts = Counter(name for name, _ in request.query_params.multi_items())
        repeated = [name for name, count in counts.items() if count > 1]
        if repeated:
            raise Problem(422, "invalid-request", f"{repeated[0]}: is given more than once")
