"""Where alerts arrive: a mail server and a webhook on this machine, at the lab's own address of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

MAIL_PORT, WEBHOOK_PORT = 18025, 18026
ADDRESS = "people@lab.test"


def settings(prefix: str) -> dict[str, Any]:
    """Variables with which a fleet tells these, and soon: a minute of the rules is three seconds."""
    return {
        "prometheus_scrape_seconds": 3,
        "prometheus_alert_pace": 0.05,
        # What a test can wait for.
        "prometheus_limits": {"queue_seconds": 20, "month_usd": 50},
        "alertmanager_mail_to": [ADDRESS],
        "alertmanager_smarthost": f"{prefix}.1:{MAIL_PORT}",
        "alertmanager_smarthost_tls": False,
        "alertmanager_webhook_url": f"http://{prefix}.1:{WEBHOOK_PORT}/alerts",
        "alertmanager_group_wait_seconds": 2,
        "alertmanager_group_interval_seconds": 5,
    }


@dataclass
class Received:
    """All that arrived, in its order."""

    mails: list[EmailMessage] = field(default_factory=list)
    posts: list[dict[str, Any]] = field(default_factory=list)

    def of(self, name: str, since: datetime) -> list[dict[str, Any]]:
        """Messages of the webhook of alerts of that name which began since then: an older one's end may come late."""
        posts = [post for post in list(self.posts) if post["groupLabels"]["alertname"] == name]
        return [post for post in posts if datetime.fromisoformat(post["alerts"][0]["startsAt"]) >= since]

    def mails_with(self, text: str) -> list[str]:
        """Mails that have TEXT in their subject, with subject and text."""
        found = [(str(mail["Subject"]), text_of(mail)) for mail in list(self.mails)]
        return [f"{subject}\n{body}" for subject, body in found if text in subject]


def text_of(mail: EmailMessage) -> str:
    """What people read; it comes in parts, of which there is one."""
    body = mail.get_body(("plain",))
    return str(body.get_content()) if body else ""


def webhook(received: Received) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """What arrived is kept."""

    return Handler


class Mailbox:
    def __init__(self, received: Received) -> None:
        self.received = received

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.received.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 taken"


@contextmanager
def receivers(prefix: str) -> Iterator[Received]:
    received = Received()
    mail = Controller(Mailbox(received), hostname=f"{prefix}.1", port=MAIL_PORT)
    posts = ThreadingHTTPServer((f"{prefix}.1", WEBHOOK_PORT), webhook(received))
    mail.start()
    threading.Thread(target=posts.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        mail.stop()
        posts.shutdown()
        posts.server_close()
