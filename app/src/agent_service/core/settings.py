"""Every setting of the service, read once; a start with a missing or placeholder secret is refused."""

import os
import re
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

_PLACEHOLDER = re.compile(
    r"(?:change|replace)[-_ ]?(?:me|this|it)?.*|your[-_ ].*|.*placeholder.*|<.*>|\$?\{.*\}"
    r"|x+|\*+|todo|none|null|secret|password|example|default|insecure",
    re.IGNORECASE,
)
API_KEY_CHARACTERS = 16

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


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
    model_url: str = Field(default="https://api.deepseek.com", pattern=r"^https?://")
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
    history_messages: int = Field(default=40, ge=2)
    history_characters: int = Field(default=100_000, ge=1)

    redis_host: str = "127.0.0.1"
    redis_port: Port = 6379
    redis_user: str = ""
    redis_database: int = Field(default=0, ge=0)
    redis_tls: bool = False
    redis_ca: str = ""
    redis_password: SecretStr = SecretStr("")
    session_seconds: int = Field(default=24 * 3600, ge=1)
    session_wait_seconds: Seconds = 60

    @field_validator("api_key", "model_key", "database_password", "redis_password")
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
    def reason(kind: str, message: str) -> str:
        return "is missing" if kind == "missing" else message.removeprefix("Value error, ")

    return [
        f"AGENT_{str(fault['loc'][0]).upper()} (or the credential agent_{fault['loc'][0]}): "
        f"{reason(fault['type'], fault['msg'])}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
