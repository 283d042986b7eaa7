"""Sending one JSON object from the controller to a webhook. Its address may hold a token: it is never in a message."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

SECONDS = 5.0


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere arrives as a GET: nobody would have been told."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        return None


def send(url: str, message: Mapping[str, Any], seconds: float = SECONDS) -> str:
    """Why the webhook did not take MESSAGE within SECONDS in all, or nothing."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        return "its address is none of http or https"
    said: list[str] = []
    # A limit for each read alone would let a server that trickles hold a deploy up.
    asking = threading.Thread(target=lambda: said.append(post(url, message, seconds)), daemon=True)
    asking.start()
    asking.join(seconds)
    return said[0] if said else f"no answer within {seconds:g} s"


def post(url: str, message: Mapping[str, Any], seconds: float) -> str:
    body = json.dumps(message, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "agentfleet"}
    try:
        request = urllib.request.Request(url, body, headers, method="POST")
        with urllib.request.build_opener(NoRedirect).open(request, timeout=seconds) as answer:
            answer.read(4096)
        return ""
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except urllib.error.URLError as error:
        return type(error.reason).__name__ if isinstance(error.reason, BaseException) else "it cannot be reached"
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Some of these say the address.
        return type(error).__name__
