"""Texts as vectors: of a model that is asked over the network, or of a rule that needs none."""

import asyncio
import base64
import hashlib
import math
import zlib
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

from langchain_core.embeddings import Embeddings
from redis.asyncio import Redis
from redis.exceptions import RedisError

from agent_service.agents.offline import OFFLINE
from agent_service.core.settings import Settings
from agent_service.memory.redis import Rest
from agent_service.memory.words import terms

DIMENSIONS = 1024
CACHE_SECONDS = 30 * 24 * 3600


class OfflineEmbeddings(Embeddings):
    """Texts that share terms, or pieces of words, point the same way. It knows no meaning, and no model."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [0.0] * DIMENSIONS
        for feature, weight in _features(text).items():
            number = zlib.crc32(feature.encode("utf-8", "replace"))
            vector[number % DIMENSIONS] += weight if number & 0x8000_0000 else -weight
        # A text without features is like no other, and a vector of zeros has no direction at all.
        length = math.sqrt(sum(value * value for value in vector))
        return [value / length for value in vector] if length else [1 / math.sqrt(DIMENSIONS)] * DIMENSIONS


def _features(text: str) -> Counter[str]:
    features: Counter[str] = Counter()
    for term in terms(text):
        features[term] += 3
        # A pair of dense characters is a piece already.
        padded = f"^{term}$" if len(term) > 2 else ""
        for at in range(len(padded) - 2):
            features[padded[at : at + 3]] += 1
    return features


def create_embeddings(settings: Settings) -> Embeddings:
    if not settings.embedding_model:
        return OfflineEmbeddings()
    from langchain_openai import OpenAIEmbeddings

    options: dict[str, Any] = {
        "api_key": settings.embedding_key,
        "base_url": settings.embedding_url,
        "timeout": settings.embedding_seconds,
        "max_retries": 0,
        # Texts are sent as they are: counting their tokens here would fetch a tokenizer from elsewhere.
        "check_embedding_ctx_length": False,
    }
    return OpenAIEmbeddings(model=settings.embedding_model, **options)


class Embedder:
    """Vectors as the database takes them; what a model was asked for once is kept by the text's hash."""

    def __init__(self, settings: Settings, redis: Redis, rest: Rest) -> None:
        self.model = settings.embedding_model or OFFLINE
        self._embeddings = create_embeddings(settings)
        self._seconds = settings.embedding_seconds
        self._prefix = f"{settings.name}:embedding:"
        self._redis = redis
        self._rest = rest

    async def vectors(self, texts: Sequence[str]) -> list[str]:
        if self.model == OFFLINE:
            return [_literal(vector) for vector in self._embeddings.embed_documents(list(texts))]
        keys = [self._key(text) for text in texts]
        kept = await self._kept(keys)
        missing = [text for text, found in zip(texts, kept, strict=True) if found is None]
        if not missing:
            return [found for found in kept if found is not None]
        async with asyncio.timeout(self._seconds):
            made = await self._embeddings.aembed_documents(missing)
        fresh = iter(made)
        vectors = [next(fresh) if found is None else found for found in kept]
        await self._keep({key: vector for key, vector in zip(keys, vectors, strict=True) if isinstance(vector, list)})
        return [vector if isinstance(vector, str) else _literal(vector) for vector in vectors]

    def _key(self, text: str) -> str:
        return self._prefix + hashlib.sha256(f"{self.model}\0{text}".encode("utf-8", "replace")).hexdigest()

    async def _kept(self, keys: list[str]) -> list[str | None]:
        if self._rest:
            return [None] * len(keys)
        try:
            return [None if found is None else _literal(_unpacked(found)) for found in await self._redis.mget(keys)]
        except (RedisError, OSError) as error:
            self._rest.begin(error)
            return [None] * len(keys)

    async def _keep(self, vectors: dict[str, list[float]]) -> None:
        if self._rest:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key, vector in vectors.items():
                    pipeline.set(key, _packed(vector), ex=CACHE_SECONDS)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            self._rest.begin(error)


def _literal(vector: Sequence[float]) -> str:
    return f"[{','.join(f'{value:.7g}' for value in vector)}]"


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()


def _unpacked(text: str | bytes) -> Sequence[float]:
    vector = array("f")
    vector.frombytes(base64.b64decode(text))
    return vector
