"""Each provider's own wire protocol, and what the settings make of a name."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from conftest import MODEL_SECONDS
from pydantic import ValidationError
from servers import Model
from service import LocalService, environment

from agent_service.core.settings import Settings
from agent_service.models.providers import create_model

Run = Callable[[dict[str, Any]], LocalService]

URLS = {"openai": "/v1", "anthropic": ""}


def settings(**changes: Any) -> Settings:
    return Settings(_env_file=None, api_key="a-key-for-a-test", **{"model_key": "a-key-of-a-model", **changes})


@pytest.mark.parametrize("provider", URLS)
def test_provider_answers_plain_and_streamed(
    run_briefly: Run, model_settings: dict[str, Any], model: Model, provider: str
) -> None:
    chosen = {"model_provider": provider, "model": "gpt-5-mini", "model_url": model.url + URLS[provider]}
    client = run_briefly({**model_settings, **chosen}).client
    model.control(cached_tokens=2)
    body = client.chat("Olá, ação").json()
    assert (body["response"], body["model"]) == ("(1) You said: Olá, ação", "gpt-5-mini")
    assert body["usage"]["cached_tokens"] == 2
    *tokens, done = client.events("Olá, ação")
    assert "".join(event.data["token"] for event in tokens) == done.data["response"] == body["response"]
    assert done.data["usage"] == body["usage"]
    assert float(body["usage"]["cost_usd"]) > 0
    assert client.get("/ready").json()["checks"]["model"]["status"] == "ok"


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        ({"fail_next": 9, "status": 500}, 502, "model-failed"),
        ({"fail_next": 9, "status": 429}, 503, "model-busy"),
        ({"fail_next": 9, "status": 401}, 502, "model-refused"),
        ({"latency_seconds": MODEL_SECONDS + 0.5}, 504, "model-timeout"),
        ({"garbage": True}, 502, "model-failed"),
        ({"empty": True}, 502, "model-empty"),
    ],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("provider", URLS)
def test_failures_read_the_same_at_every_provider(
    run_briefly: Run,
    model_settings: dict[str, Any],
    model: Model,
    provider: str,
    behaviour: Any,
    status: int,
    code: str,
) -> None:
    chosen = {"model_provider": provider, "model": "gpt-5-mini", "model_url": model.url + URLS[provider]}
    client = run_briefly({**model_settings, **chosen, "breaker_failures": 1000}).client
    model.control(**behaviour)
    response = client.chat("Hi")
    assert response.status_code == status, response.text
    assert response.json()["type"] == f"urn:agent:problem:{code}"
    assert response.headers["x-agent-error-source"] == "model"


def test_name_may_have_a_colon_of_its_own() -> None:
    assert create_model(settings(model_provider="openai"), "llama3:8b").name == "llama3:8b"
    assert create_model(settings(anthropic_key="a-key-of-another"), "anthropic:claude-x").name == "claude-x"


def test_key_is_never_sent_to_another_provider() -> None:
    """The role always gives a URL; left at its default it is DeepSeek's."""
    assert create_model(settings(model_provider="openai"), "m").place == "openai:m@https://api.openai.com/v1"
    assert create_model(settings(model_provider="anthropic"), "m").place == "anthropic:m@https://api.anthropic.com"
    other = settings(openai_key="a-key-of-another")
    assert create_model(other, "openai:m").chat.openai_api_key.get_secret_value() == "a-key-of-another"  # type: ignore[attr-defined]


@pytest.mark.parametrize("changes", [{"model_key": ""}, {"model_provider": "offline"}])
def test_without_a_key_every_name_is_the_offline_model(changes: dict[str, Any]) -> None:
    for reference in ("", "deepseek-v4-pro", "openai:gpt-5"):
        assert create_model(settings(**changes), reference).name == "offline"


def test_fallback_without_a_key_is_refused_at_the_start() -> None:
    with pytest.raises(ValidationError, match="names anthropic, whose key"):
        settings(model_fallbacks="deepseek-v4-pro, anthropic:claude-haiku-4-5")
    assert settings(model_fallbacks="llama3:8b,offline").model_fallbacks == ("llama3:8b", "offline")


def test_library_of_a_provider_is_loaded_when_chosen() -> None:
    script = "import sys, agent_service.main; print([m for m in ('anthropic', 'openai') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
