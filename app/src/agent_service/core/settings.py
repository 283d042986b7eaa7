"""Every setting of the service, read once; a start with a missing or placeholder secret is refused."""

import ipaddress
import os
import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from agent_service.guard.bearer import SECRET_BYTES, read_public_key
from agent_service.guard.keys import parse_keys
from agent_service.guard.tiers import DEFAULT_TIERS, Tier, with_defaults
from agent_service.models.prices import load_prices

_PLACEHOLDER = re.compile(
    r"(?:change|replace)[-_ ]?(?:me|this|it)?.*|your[-_ ].*|.*placeholder.*|<.*>|\$?\{.*\}"
    r"|x+|\*+|todo|none|null|secret|password|example|default|insecure",
    re.IGNORECASE,
)
API_KEY_CHARACTERS = 16

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Url = Annotated[str, Field(pattern=r"^https?://")]
ModelTier = Literal["economy", "standard", "strong"]
Provider = Literal["deepseek", "openai", "anthropic", "offline"]

DEEPSEEK_URL = "https://api.deepseek.com"


def _words(value: object) -> object:
    """A list as people write it into a variable: a, b c."""
    return tuple(re.findall(r"[^,\s]+", value)) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Networks = Annotated[tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], NoDecode, BeforeValidator(_words)]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="AGENT_",
        env_file=".env",
        extra="ignore",
        # A rejected value may be a secret, and validation errors end in the journal.
        hide_input_in_errors=True,
        frozen=True,
    )

    name: str = "agent"
    release: str = "development"
    slot: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    api_key: SecretStr
    body_max_bytes: int = Field(default=256 * 1024, ge=1024)
    message_max_characters: int = Field(default=32_000, ge=1)

    model: str = Field(default="deepseek-v4-flash", min_length=1)
    model_url: Url = DEEPSEEK_URL
    model_key: SecretStr = SecretStr("")
    model_thinking: Literal["disabled", "enabled", "unset"] = "disabled"
    model_timeout_seconds: Seconds = 60
    model_retries: int = Field(default=2, ge=0)
    turn_seconds: Seconds = 240
    offline_tokens: int = Field(default=40, ge=1)
    offline_tokens_per_second: float = Field(default=0, ge=0)

    # The team: a file in place of the shipped one, and bounds of what surrounds the specialists' own calls.
    team_file: str = ""
    # How long the classifier may think where the rules are not sure; 0 for rules alone.
    classifier_seconds: float = Field(default=3, ge=0)
    tool_rounds: int = Field(default=5, ge=1)
    tool_seconds: Seconds = 20
    mcp_seconds: Seconds = 2

    database_host: str = "127.0.0.1"
    database_port: Port = 5432
    database_name: str = "agent"
    database_user: str = "agent"
    database_password: SecretStr = SecretStr("")
    database_sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "require"
    # A file of authorities; empty for the system's.
    database_ca: str = ""
    database_connections: int = Field(default=10, ge=1)
    database_wait_seconds: Seconds = 3
    history_messages: int = Field(default=100, ge=2)
    history_characters: int = Field(default=100_000, ge=1)

    # Empty for none: each process then counts and remembers alone.
    redis_host: str = "127.0.0.1"
    redis_port: Port = 6379
    redis_user: str = ""
    redis_database: int = Field(default=0, ge=0)
    redis_tls: bool = False
    redis_ca: str = ""
    redis_password: SecretStr = SecretStr("")
    session_seconds: int = Field(default=24 * 3600, ge=1)
    session_wait_seconds: Seconds = 60

    # Who may call, how much, and from where: docs/access.md.
    tiers: dict[str, Tier] = Field(default=dict(DEFAULT_TIERS), min_length=1)
    # Lines of `name tier sha256:digest`.
    api_keys: SecretStr = SecretStr("")
    # Tokens are verified by a shared secret or by a public key, in PEM or the name of its file.
    jwt_secret: SecretStr = SecretStr("")
    jwt_public_key: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    # A client's requests, and those that were refused for their credential; 0 is unlimited.
    address_requests_per_minute: int = Field(default=0, ge=0)
    address_failures_per_minute: int = Field(default=120, ge=0)
    # Whose X-Forwarded-For is believed.
    trusted_proxies: Networks = ()
    # Names that the service answers to; empty for any.
    trusted_hosts: Names = ()
    cors_origins: Names = ()

    # The chat page, and sockets that say nothing (docs/chat.md).
    chat_page: bool = True
    socket_idle_seconds: Seconds = 600

    # Model access (docs/models.md): the model above is the standard tier's; empty tiers use it too.
    model_provider: Provider = "deepseek"
    model_economy: str = ""
    model_strong: str = ""
    model_tiering: bool = False
    model_tier_minimum: ModelTier = "economy"
    model_tier_maximum: ModelTier = "strong"
    # Where fallbacks at other providers than the model's own are reached.
    deepseek_url: Url = DEEPSEEK_URL
    deepseek_key: SecretStr = SecretStr("")
    openai_url: Url = "https://api.openai.com/v1"
    openai_key: SecretStr = SecretStr("")
    anthropic_url: Url = "https://api.anthropic.com"
    anthropic_key: SecretStr = SecretStr("")
    model_fallbacks: Names = ()
    breaker_failures: int = Field(default=5, ge=1)
    breaker_seconds: Seconds = 5
    degraded_answer: str = ""
    prices_file: str = ""
    budget_usd_daily: Decimal | None = Field(default=None, gt=0)
    budget_alert_share: Decimal = Field(default=Decimal("0.8"), gt=0, le=1)
    budget_mode: Literal["economy", "refuse", "alert"] = "economy"
    response_cache_seconds: int = Field(default=0, ge=0)

    # Work in the background (docs/work.md). Off, the service has no queue, no analysis, no webhook and no events.
    queue: bool = False
    worker_concurrency: int = Field(default=4, ge=1)
    # How long a running job may take to end when its worker is stopped, before it is given back.
    worker_stop_seconds: Seconds = 30
    worker_metrics_host: str = "127.0.0.1"
    worker_metrics_port: int = Field(default=0, ge=0, le=65535)
    # After so long a release without workers is one that nobody handed over: its host was lost, or is back without it.
    job_orphaned_seconds: Seconds = 60
    job_attempts: int = Field(default=8, ge=1)
    outbox_attempts: int = Field(default=12, ge=1)
    # For how long finished work, events and sent effects are kept.
    work_days: int = Field(default=90, ge=1)
    upload_days: int = Field(default=7, ge=1)
    analyze_max_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    analyze_documents: int = Field(default=20, ge=1)
    analyze_max_characters: int = Field(default=400_000, ge=1)
    analyze_chunk_characters: int = Field(default=12_000, ge=1_000)
    # Calls of the model at a time, over all documents of one analysis.
    analyze_concurrency: int = Field(default=4, ge=1)
    analyze_seconds: Seconds = 900
    # Hosts that documents may be fetched from, each with or without a port; none where empty.
    analyze_url_hosts: Names = ()
    analyze_url_http: bool = False
    analyze_url_seconds: Seconds = 15
    uaz_webhook_secret: SecretStr = SecretStr("")
    uaz_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    uaz_token: SecretStr = SecretStr("")
    crm_url: str = Field(default="", pattern=r"^(https?://.+)?$")
    crm_token: SecretStr = SecretStr("")
    crm_check_path: str = "/health"
    crm_notes_path: str = "/notes"
    integration_timeout_seconds: Seconds = 10

    # Memory (docs/memory.md). What the model's window holds; 0: as is known of the model.
    context_tokens: int = Field(default=0, ge=0)
    # From which share of it on a conversation is summarized, and what stays as it was said; 0: never.
    summary_share: float = Field(default=0.75, ge=0, le=1)
    summary_keep_messages: int = Field(default=50, ge=2)
    # Whether anything is remembered of users beyond their conversations, how much, and how much of it is recalled.
    memory: bool = True
    memory_facts: int = Field(default=200, ge=1)
    memory_results: int = Field(default=4, ge=1)
    # How like a memory must be to what is asked; unset, it depends on how they are compared.
    memory_threshold: float | None = Field(default=None, gt=0, le=1)
    # For vector search; without a model by a rule that needs none.
    embedding_model: str = ""
    embedding_url: Url = "https://api.openai.com/v1"
    embedding_key: SecretStr = SecretStr("")
    embedding_seconds: Seconds = 2

    # Telemetry (docs/telemetry.md). Without this address, or OTEL_EXPORTER_OTLP_ENDPOINT, no trace leaves the process.
    trace_endpoint: str = Field(default="", pattern=r"^(https?://.+)?$")
    # name=value,name=value, as the collector wants them.
    trace_headers: SecretStr = SecretStr("")
    trace_ratio: float = Field(default=1, ge=0, le=1)
    log_spans: bool = False
    # Whether logs and traces may hold what users and models say.
    telemetry_texts: bool = False
    sentry_dsn: SecretStr = SecretStr("")

    @field_validator(
        "api_key", "jwt_secret", "model_key", "deepseek_key", "openai_key", "anthropic_key",
        "database_password", "redis_password", "uaz_webhook_secret", "uaz_token", "crm_token",
        "embedding_key", "trace_headers", "sentry_dsn",
    )  # fmt: skip
    @classmethod
    def _refuse_placeholder(cls, secret: SecretStr) -> SecretStr:
        if _PLACEHOLDER.fullmatch(secret.get_secret_value().strip()):
            raise ValueError("is a placeholder, not a secret")
        return secret

    @field_validator("api_key")
    @classmethod
    def _refuse_short_key(cls, key: SecretStr) -> SecretStr:
        if len(key.get_secret_value()) < API_KEY_CHARACTERS:
            raise ValueError(f"must have at least {API_KEY_CHARACTERS} characters")
        return key

    @field_validator("tiers", mode="before")
    @classmethod
    def _complete_tiers(cls, given: object) -> object:
        return with_defaults(given)

    @field_validator("api_keys")
    @classmethod
    def _check_keys(cls, keys: SecretStr, info: ValidationInfo) -> SecretStr:
        parse_keys(keys.get_secret_value(), info.data.get("tiers", DEFAULT_TIERS))
        return keys

    @field_validator("jwt_secret")
    @classmethod
    def _refuse_short_secret(cls, secret: SecretStr) -> SecretStr:
        if 0 < len(secret.get_secret_value().encode()) < SECRET_BYTES:
            raise ValueError(f"must have at least {SECRET_BYTES} bytes")
        return secret

    @field_validator("jwt_public_key")
    @classmethod
    def _read_public_key(cls, key: str, info: ValidationInfo) -> str:
        if key and info.data.get("jwt_secret", SecretStr("")).get_secret_value():
            raise ValueError("is set together with AGENT_JWT_SECRET; tokens are verified by one of them")
        return read_public_key(key) if key else ""

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if any(not re.fullmatch(r"\*|https?://[^/\s*]+", origin) for origin in origins):
            raise ValueError("must be origins as browsers send them, https://shop.example.com, or *")
        return origins

    @field_validator("prices_file")
    @classmethod
    def _refuse_wrong_prices(cls, path: str) -> str:
        load_prices(path)
        return path

    @field_validator("model_fallbacks")
    @classmethod
    def _refuse_unreachable_fallbacks(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """A fallback without a key would be found out on the day that it is needed."""
        for name in names:
            provider = name.partition(":")[0]
            if provider == info.data.get("model_provider") or f"{provider}_key" not in info.data:
                continue
            if not info.data[f"{provider}_key"].get_secret_value():
                raise ValueError(f"names {provider}, whose key (AGENT_{provider.upper()}_KEY) is not set")
        return names

    @model_validator(mode="after")
    def _refuse_half_a_webhook(self) -> "Settings":
        secret = self.uaz_webhook_secret.get_secret_value()
        if secret and len(secret) < API_KEY_CHARACTERS:
            raise ValueError(f"AGENT_UAZ_WEBHOOK_SECRET must have at least {API_KEY_CHARACTERS} characters")
        if secret and not (self.queue and self.uaz_url and self.uaz_token.get_secret_value()):
            raise ValueError("AGENT_UAZ_WEBHOOK_SECRET needs AGENT_QUEUE, AGENT_UAZ_URL and AGENT_UAZ_TOKEN")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # Credentials come first: a variable left over in an environment file must not shadow them.
        credentials = SecretsSettingsSource(settings_cls, secrets_dir=os.environ.get("CREDENTIALS_DIRECTORY"))
        return init_settings, credentials, env_settings, dotenv_settings


def load_settings() -> Settings:
    """Read the settings, or end the process with one line for each fault."""
    try:
        return Settings()
    except ValidationError as error:
        raise SystemExit("\n".join(_faults(error))) from None


def _faults(error: ValidationError) -> list[str]:
    def reason(place: tuple[int | str, ...], kind: str, message: str) -> str:
        where = ".".join(map(str, place[1:]))
        told = "is missing" if kind == "missing" else message.removeprefix("Value error, ")
        return f"{where} {told}" if where else told

    def place(location: tuple[int | str, ...]) -> str:
        # What concerns several settings names them itself.
        return f"AGENT_{str(location[0]).upper()} (or the credential agent_{location[0]}): " if location else ""

    return [
        place(fault["loc"]) + reason(fault["loc"], fault["type"], fault["msg"])
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
