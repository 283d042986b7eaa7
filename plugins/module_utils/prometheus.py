"""Asking Prometheus over HTTP, with nothing but Python's own library."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

PORT = 9090


class PrometheusError(Exception):
    """It does not answer, or not as Prometheus does."""


class QueryError(PrometheusError):
    """It cannot read the question; the text is its own."""


def get(address: str, path: str, seconds: float, **words: str) -> Any:
    """The `data` of an answer of its API."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or PORT, timeout=seconds)
    try:
        connection.request("GET", f"{place.path.rstrip('/')}/api/v1/{path}{'?' if words else ''}{urlencode(words)}")
        reply = connection.getresponse()
        answer = json.loads(reply.read(4 << 20))
        if reply.status == HTTPStatus.BAD_REQUEST:
            raise QueryError(str(answer.get("error") or "Prometheus cannot read the query"))
        return answer["data"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrometheusError(f"Prometheus does not answer at {address}: {error or type(error).__name__}") from error
    finally:
        connection.close()


def query(address: str, words: str, seconds: float = 5.0) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each series that answers."""
    try:
        found = get(address, "query", seconds, query=words)["result"]
        return [(dict(series["metric"]), float(series["value"][1])) for series in found]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise PrometheusError(f"Prometheus at {address} answers in an unknown form: {error}") from error


def firing(address: str, seconds: float = 5.0) -> list[dict[str, Any]]:
    """The alerts that fire now; the most severe first."""
    return alerts_of(get(address, "alerts", seconds))


SEVERITIES = ("page", "critical", "warning", "ticket", "info")


def alerts_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What of Prometheus' list of alerts is for people."""
    alerts: Sequence[Mapping[str, Any]] = data.get("alerts") or ()
    found = []
    for alert in alerts:
        labels, notes = alert.get("labels") or {}, alert.get("annotations") or {}
        if alert.get("state") == "firing":
            found.append(
                {
                    "name": str(labels.get("alertname", "")),
                    "severity": str(labels.get("severity", "")),
                    "host": str(labels.get("host") or labels.get("instance") or ""),
                    "since": str(alert.get("activeAt") or ""),
                    "summary": str(notes.get("summary") or notes.get("description") or ""),
                }
            )
    order = {severity: position for position, severity in enumerate(SEVERITIES)}
    return sorted(found, key=lambda one: (order.get(one["severity"], len(order)), one["name"], one["host"]))
