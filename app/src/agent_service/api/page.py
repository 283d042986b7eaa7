"""The chat page: one static file that may load nothing, and run nothing but itself."""

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from agent_service.api.middleware import PAGE
from agent_service.core.problems import Problem

FILE = Path(__file__).parents[1] / "page" / "chat.html"

router = APIRouter(include_in_schema=False)


def _policy(html: str) -> str:
    """Scripts and styles by their digests, so that no other text of the page ever becomes one."""

    def digests(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        sums = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in found)
        return " ".join(f"'sha256-{digest}'" for digest in sums)

    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {digests('script')}",
            f"style-src {digests('style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        )
    )


_HTML = FILE.read_text("utf-8")
_HEADERS = {
    "Content-Security-Policy": _policy(_HTML),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A new release's page talks to a new release.
    "Cache-Control": "no-cache",
}


@router.get(PAGE)
async def page(request: Request) -> Response:
    if not request.app.state.settings.chat_page:
        raise Problem(404, "not-found", "There is nothing at /.")
    return HTMLResponse(_HTML, headers=_HEADERS)
