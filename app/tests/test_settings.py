import pytest

from agent_service.core.settings import load_settings

REAL = "Zt4kQ9wB7nXe2LrV"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("AGENT_API_KEY", REAL)


def refused() -> str:
    with pytest.raises(SystemExit) as caught:
        load_settings()
    return str(caught.value.code)


def test_key_is_enough() -> None:
    settings = load_settings()
    assert settings.database_sslmode == "require"
    assert settings.model == "deepseek-v4-flash"
    assert REAL not in repr(settings)


def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENT_API_KEY")
    assert refused() == "AGENT_API_KEY (or the credential agent_api_key): is missing"


@pytest.mark.parametrize(
    "secret",
    ["changeme", "CHANGE_ME", "change-me-please-now", "your-api-key-here", "<api key>", "xxxxxxxxxxxxxxxxxxxx"],
)
@pytest.mark.parametrize("name", ["API_KEY", "DATABASE_PASSWORD", "REDIS_PASSWORD", "MODEL_KEY"])
def test_placeholders(monkeypatch: pytest.MonkeyPatch, name: str, secret: str) -> None:
    monkeypatch.setenv(f"AGENT_{name}", secret)
    assert "is a placeholder" in refused()
    assert f"AGENT_{name} (or the credential agent_{name.lower()})" in refused()
    assert secret not in refused()


@pytest.mark.parametrize("secret", ["exchange-4kQ9wB7nXe2L", "secret-4kQ9wB7nXe2LrV", "Zt4kQ9wBx7nXe2LrV"])
def test_real_secrets(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("AGENT_API_KEY", secret)
    assert load_settings().api_key.get_secret_value() == secret


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"UAZ_WEBHOOK_SECRET": REAL}, "needs AGENT_QUEUE, AGENT_UAZ_URL and AGENT_UAZ_TOKEN"),
        ({"UAZ_WEBHOOK_SECRET": "tooshort"}, "AGENT_UAZ_WEBHOOK_SECRET must have at least 16 characters"),
        ({"UAZ_URL": "uaz.test"}, "AGENT_UAZ_URL"),
        ({"CRM_TOKEN": "changeme"}, "is a placeholder"),
    ],
)
def test_half_an_integration(monkeypatch: pytest.MonkeyPatch, values: dict[str, str], reason: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"AGENT_{name}", value)
    assert reason in refused()
    assert REAL not in refused()


def test_short_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_API_KEY", "tooshort")
    assert "must have at least 16 characters" in refused()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_PORT", "many"),
        ("DATABASE_PORT", "70000"),
        ("DATABASE_SSLMODE", "maybe"),
        ("LOG_LEVEL", "loud"),
        ("MODEL_URL", "api.deepseek.com"),
        ("OFFLINE_TOKENS", "0"),
        ("MODEL_TIMEOUT_SECONDS", "-1"),
    ],
)
def test_bad_values_are_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"AGENT_{name}", value)
    assert refused().startswith(f"AGENT_{name}")
