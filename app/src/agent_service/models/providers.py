"""Chat models of the providers that the settings name; a provider's library is loaded when it is chosen."""

from dataclasses import dataclass

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr

from agent_service.agents.offline import OFFLINE, OfflineModel
from agent_service.core.settings import DEEPSEEK_URL, Provider, Settings


@dataclass(frozen=True, slots=True)
class Model:
    """A model as answers, metrics and prices name it, and the place where its health is judged."""

    name: str
    place: str
    chat: BaseChatModel

    async def close(self) -> None:
        if close := getattr(self.chat, "close", None):
            await close()


def create_model(settings: Settings, reference: str = "") -> Model:
    """The model REFERENCE, `name` or `provider:name`; the offline one where the main provider has no key."""
    if reference == OFFLINE or settings.model_provider == OFFLINE or not settings.model_key.get_secret_value():
        return Model(OFFLINE, OFFLINE, OfflineModel(
            tokens=settings.offline_tokens, tokens_per_second=settings.offline_tokens_per_second
        ))  # fmt: skip
    provider, name = _split(settings, reference or settings.model)
    url, key = _access(settings, provider)
    seconds = settings.model_timeout_seconds
    chat: BaseChatModel
    # Retries are the service's own in all of them: it knows what has been sent to the client.
    if provider == "anthropic":
        from langchain_anthropic import ChatAnthropic

        chat = ChatAnthropic(model=name, api_key=key, base_url=url, timeout=seconds, max_retries=0, stream_usage=True)
    elif provider == "openai":
        from langchain_openai import ChatOpenAI

        from agent_service.models.direct import Direct

        class DirectOpenAI(Direct, ChatOpenAI):
            pass

        chat = DirectOpenAI(
            model=name, api_key=key, base_url=url, timeout=seconds, max_retries=0, stream_usage=True,
        )  # fmt: skip
    else:
        from langchain_deepseek import ChatDeepSeek

        from agent_service.models.direct import Direct

        class DirectDeepSeek(Direct, ChatDeepSeek):
            pass

        thinking = {} if settings.model_thinking == "unset" else {"thinking": {"type": settings.model_thinking}}
        chat = DirectDeepSeek(
            model_name=name, api_key=key, base_url=url, timeout=seconds, max_retries=0, stream_usage=True,
            extra_body=thinking or None,
        )  # fmt: skip
    return Model(name, f"{provider}:{name}@{url}", chat)


async def check_model(model: Model) -> None:
    """Fail unless the model's server answers and takes the key; costs no tokens."""
    client = getattr(model.chat, "root_async_client", None) or getattr(model.chat, "_async_client", None)
    if client is not None:
        await client.with_options(max_retries=0, timeout=2).models.list()


def _split(settings: Settings, reference: str) -> tuple[Provider, str]:
    """A colon may be part of a name, so only a provider's name before it counts."""
    provider, _, name = reference.partition(":")
    match provider:
        case "deepseek" | "openai" | "anthropic" if name:
            return provider, name
    return settings.model_provider, reference


def _access(settings: Settings, provider: Provider) -> tuple[str, SecretStr]:
    own = {
        "deepseek": (settings.deepseek_url, settings.deepseek_key),
        "openai": (settings.openai_url, settings.openai_key),
        "anthropic": (settings.anthropic_url, settings.anthropic_key),
    }
    if provider != settings.model_provider:
        return own[provider]
    # Unset, the URL is DeepSeek's, where no other provider's key belongs.
    unset = provider != "deepseek" and settings.model_url.rstrip("/") == DEEPSEEK_URL
    return own[provider][0] if unset else settings.model_url, settings.model_key
