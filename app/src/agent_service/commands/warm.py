"""Ask a running service the questions of a file, so that their answers are kept.

Through the service and not around it: whatever shapes an answer there shapes its place in the cache too.
"""

import argparse
import json
import sys
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from agent_service.core.settings import load_settings

SECONDS = 300


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("questions", type=Path, help="a file with one question a line; # begins a comment")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where the service is (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=4, help="questions at a time (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    settings = load_settings()
    if not settings.response_cache_seconds:
        print("Nothing would be kept: AGENT_RESPONSE_CACHE_SECONDS is 0.", file=sys.stderr)
        return 2
    try:
        lines = [line.strip() for line in options.questions.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        print(f"{options.questions} cannot be read: {error}", file=sys.stderr)
        return 2
    questions = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    ask = partial(_ask, options.url.rstrip("/"), settings.api_key.get_secret_value())
    with ThreadPoolExecutor(max(1, options.parallel)) as pool:
        results = list(pool.map(ask, questions))
    for question, result in zip(questions, results, strict=True):
        if result not in ("kept", "new"):
            print(f"{result}: {question[:60]}", file=sys.stderr)
    failed = sum(result not in ("kept", "new") for result in results)
    print(f"{results.count('new')} answered, {results.count('kept')} kept already, {failed} failed")
    return 1 if failed else 0


def _ask(url: str, key: str, question: str) -> str:
    """`new` or `kept`, else what went wrong."""
    body = {"message": question, "session_id": f"warm-{uuid.uuid4()}"}
    request = urllib.request.Request(
        f"{url}/api/chat",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            answer = json.load(response)
    except (OSError, ValueError) as error:
        return str(error)
    if answer["degraded"]:
        return "no model answered"
    return "kept" if answer["usage"] and answer["usage"]["from_cache"] else "new"
