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


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("API_KEYS", "shop free a-plain-key-and-no-digest", "line 1 has no digest"),
        ("TIERS", '{"free": {"requests_a_day": 1}}', "Extra inputs"),
        ("TIERS", '{"gold": {"requests_per_day": 1}}', "gold.tokens_per_request is missing"),
        ("JWT_SECRET", "31-bytes-are-one-too-few-for-it", "at least 32 bytes"),
        ("JWT_SECRET", "changeme", "placeholder"),
        ("JWT_PUBLIC_KEY", "/nowhere/key.pem", "cannot be read"),
        ("JWT_PUBLIC_KEY", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "is not a public key"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, edge1", "valid"),
        ("CORS_ORIGINS", "shop.example.com", "origins as browsers send them"),
        ("ADDRESS_REQUESTS_PER_MINUTE", "-1", "greater than or equal"),
    ],
)
def test_guard_is_closed_rather_than_guessed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(f"AGENT_{name}", value)
    assert refused().startswith(f"AGENT_{name}")
    assert reason in refused()
    assert "a-plain-key" not in refused()


def test_one_way_to_verify_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_JWT_SECRET", REAL * 2)
    monkeypatch.setenv("AGENT_JWT_PUBLIC_KEY", "/etc/key.pem")
    assert refused().startswith("AGENT_JWT_PUBLIC_KEY (or the credential agent_jwt_public_key): is set together")


def test_lists_and_tiers_as_people_write_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_TRUSTED_PROXIES", "10.0.0.0/8 127.0.0.1,fd77::/64")
    monkeypatch.setenv("AGENT_TRUSTED_HOSTS", "")
    monkeypatch.setenv("AGENT_TIERS", '{"free": {"requests_per_day": 100000}, "pro": {"requests_per_day": null}}')
    settings = load_settings()
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "127.0.0.1/32", "fd77::/64"]
    assert settings.trusted_hosts == ()
    assert settings.tiers["free"].requests_per_day == 100_000
    assert settings.tiers["free"].tokens_per_request == 1_000
    assert settings.tiers["pro"].requests_per_day is None
    assert settings.tiers["enterprise"].requests_per_day is None


def test_fallbacks_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_MODEL_FALLBACKS", "deepseek-v4-pro, offline,")
    assert load_settings().model_fallbacks == ("deepseek-v4-pro", "offline")
    monkeypatch.setenv("AGENT_MODEL_FALLBACKS", "openai:gpt-5-mini")
    assert "AGENT_MODEL_FALLBACKS" in refused()
    assert "AGENT_OPENAI_KEY" in refused()


def test_wrong_prices_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_PRICES_FILE", "/nowhere")
    assert refused() == (
        "AGENT_PRICES_FILE (or the credential agent_prices_file): /nowhere cannot be read: No such file or directory"
    )
