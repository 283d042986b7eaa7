"""Failures that a client is told about, as RFC 9457 describes them."""

from typing import Any


class Problem(Exception):
    """An answer other than success: raised anywhere, rendered once at the edge of the service."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        source: str | None = None,
        headers: dict[str, str] | None = None,
        **extensions: Any,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.extensions = extensions
        if source:
            # The edge counts failures of a dependency apart from failures of a release.
            self.headers["X-Agent-Error-Source"] = source

    def document(self, request_id: str | None = None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": f"urn:agent:problem:{self.code}",
            "title": self.code.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            **self.extensions,
        }
        if request_id:
            document["request_id"] = request_id
        return document


def internal_error() -> Problem:
    return Problem(500, "internal-error", "The service failed. The request_id finds it in the log.")


def database_down() -> Problem:
    return Problem(
        503,
        "database-unavailable",
        "The conversation store does not answer; nothing was stored. Try again shortly.",
        source="database",
        headers={"Retry-After": "5"},
    )
