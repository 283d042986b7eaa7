"""How memories are found: by vectors where the database has pgvector, by words in any."""

import asyncio
import json
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import pytest
from servers import Model, Postgres, wait_for
from service import KEY
from work import Site

from agent_service.agents.assembly import assemble, read_team
from agent_service.cli import main
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.core.tracing import Tracing
from agent_service.guard.audit import Audit
from agent_service.memory.database import connection, create_pool
from agent_service.memory.embeddings import Embedder, OfflineEmbeddings
from agent_service.memory.long_term import TEXT, VECTOR, LongTerm
from agent_service.memory.redis import Rest, create_redis
from agent_service.memory.words import terms
from agent_service.work.runner import Runner
from agent_service.work.summaries import summarizing

Result = TypeVar("Result")
Use = Callable[[LongTerm], Awaitable[Result]]

DROP = "ALTER TABLE memories DROP COLUMN IF EXISTS embedding, DROP COLUMN IF EXISTS embedding_model"
FACTS = [
    "The user's company is a bakery in Porto with twelve employees.",
    "The user prefers answers in euros, without cents.",
    "A meta do cliente é faturar 200 mil reais em dezembro.",
    "用户的公司在上海生产自行车。",
    "사용자의 회사는 부산에서 커피를 수입합니다.",
]
QUESTIONS = {
    "How many employees does my bakery have?": 0,
    "Which EURO figures do you prefer for answers?": 1,
    "Qual era a meta de faturamento para dezembro?": 2,
    "我们公司生产的自行车卖得怎么样?": 3,
    "커피 수입 비용을 알려 주세요": 4,
}


@pytest.fixture(params=[TEXT, VECTOR])
def search(request: pytest.FixtureRequest, postgres: Postgres) -> str:
    if request.param == VECTOR and not has_vectors(postgres):
        pytest.skip("this PostgreSQL has no pgvector; on Debian 13 and newer: apt install postgresql-17-pgvector")
    return str(request.param)


def has_vectors(postgres: Postgres) -> bool:
    return bool(postgres.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'"))


@pytest.fixture
def searched(search: str, postgres: Postgres, database: str) -> Iterator[str]:
    """The database with the columns for vectors, or without."""
    postgres.execute(DROP, database)
    if search == VECTOR:
        postgres.execute("CREATE EXTENSION IF NOT EXISTS vector", database)
        postgres.execute("ALTER TABLE memories ADD embedding vector, ADD embedding_model text", database)
    yield search
    postgres.execute(DROP, database)


def use(base_settings: dict[str, Any], work: Use[Result], **changes: Any) -> Result:
    settings = Settings(_env_file=None, api_key=KEY, **{**base_settings, **changes})

    async def run() -> Result:
        metrics = Metrics("agent", "r", "")
        redis = create_redis(settings)
        async with create_pool(settings) as pool:
            try:
                return await work(LongTerm(settings, pool, Embedder(settings, redis, Rest(metrics)), metrics))
            finally:
                await redis.aclose()

    return asyncio.run(run())


def keeping(user_id: str, contents: list[str]) -> Use[None]:
    async def work(long_term: LongTerm) -> None:
        async with connection(long_term._pool) as borrowed:
            facts = await long_term.prepare(borrowed, contents)
            await long_term.keep(borrowed, user_id, "session", facts)

    return work


def recalling(user_id: str, *messages: str) -> Use[list[list[str]]]:
    async def work(long_term: LongTerm) -> list[list[str]]:
        return [await long_term.recall(user_id, message) for message in messages]

    return work


@pytest.fixture
def user_id() -> str:
    return f"user-{uuid.uuid4()}"


def test_what_matters_is_found_in_four_languages(base_settings: dict[str, Any], searched: str, user_id: str) -> None:
    use(base_settings, keeping(user_id, FACTS))
    found = use(base_settings, recalling(user_id, *QUESTIONS))
    assert [facts[:1] for facts in found] == [[FACTS[number]] for number in QUESTIONS.values()]
    other = ["Good morning!", "What is the weather like tomorrow?", "你好", "안녕하세요", "Obrigado!", "?", "🎉"]
    assert use(base_settings, recalling(user_id, *other)) == [[]] * len(other)
    assert use(base_settings, recalling("eve", *QUESTIONS)) == [[]] * len(QUESTIONS)


def test_bounds_are_settings_and_nothing_is_kept_twice(
    base_settings: dict[str, Any], searched: str, user_id: str
) -> None:
    facts = [f"Bakery number {number} is in Porto." for number in range(8)]
    use(base_settings, keeping(user_id, [*facts, *facts]), memory_facts=6)
    use(base_settings, keeping(user_id, facts[2:4]), memory_facts=6)
    [found] = use(base_settings, recalling(user_id, "Which bakery is in Porto?"), memory_results=3)
    assert len(found) == 3
    [found] = use(base_settings, recalling(user_id, "Which bakery is in Porto?"), memory_results=50)
    assert sorted(found) == facts[2:]
    [found] = use(base_settings, recalling(user_id, "Which bakery is in Porto?"), memory_threshold=0.99)
    assert found == []


class Embeddings:
    """A server of embeddings as OpenAI's: each word it knows is a direction of its own."""

    WORDS = ("bakery", "padaria", "bike", "other")

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.fails = False
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked += body["input"]
                data = [
                    {"object": "embedding", "index": at, "embedding": server.vector(text)}
                    for at, text in enumerate(body["input"])
                ]
                usage = {"prompt_tokens": 1, "total_tokens": 1}
                answer = {"object": "list", "model": body["model"], "data": data, "usage": usage}
                content = json.dumps(answer).encode()
                self.send_response(500 if server.fails else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.settings = {
            "embedding_model": "embed-1",
            "embedding_url": f"http://127.0.0.1:{self._server.server_address[1]}/v1",
            "embedding_key": "a-key-for-embeddings",
        }

    def vector(self, text: str) -> list[float]:
        # It knows that both are one thing, which words do not tell.
        known = text.lower().replace("padaria", "bakery")
        return [float(word in known) for word in self.WORDS[:-1]] + [0.1]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def embeddings() -> Iterator[Embeddings]:
    server = Embeddings()
    yield server
    server.stop()


@pytest.mark.parametrize("search", [VECTOR], indirect=True)
def test_model_for_embeddings_finds_what_words_do_not_and_words_serve_without_it(
    base_settings: dict[str, Any], searched: str, embeddings: Embeddings, user_id: str
) -> None:
    facts = ["The user owns a bakery.", "The user sells bikes."]
    use(base_settings, keeping(user_id, facts), **embeddings.settings)
    ask = recalling(user_id, "Minha padaria vende menos", "Minha padaria vende menos")
    assert use(base_settings, ask, **embeddings.settings) == [[facts[0]], [facts[0]]]
    # The question that was asked twice is asked of the model once.
    assert embeddings.asked == [*facts, "Minha padaria vende menos"]
    embeddings.fails = True
    found = use(base_settings, recalling(user_id, "A padaria?", "Which bikes sell?"), **embeddings.settings)
    assert found == [[], [facts[1]]]
    # What another model's vectors say nothing of is found by words.
    assert use(base_settings, recalling(user_id, "Which bikes sell?")) == [[facts[1]]]


def test_embeddings_are_asked_once_for_a_text_and_also_without_redis(
    base_settings: dict[str, Any], embeddings: Embeddings
) -> None:
    texts = [f"bakery {uuid.uuid4()}", f"bike {uuid.uuid4()}"]

    async def vectors(long_term: LongTerm) -> list[list[str]]:
        embedder = long_term._embedder
        return [await embedder.vectors(texts[:1]), await embedder.vectors(texts), await embedder.vectors(texts)]

    first, both, again = use(base_settings, vectors, **embeddings.settings)
    assert both == again == [first[0], "[0,0,1,0.1]"]
    assert embeddings.asked == texts
    use(base_settings, vectors, **embeddings.settings, redis_port=1)
    assert len(embeddings.asked) == len(texts) + 5


def test_database_that_gets_pgvector_later_is_indexed(
    base_settings: dict[str, Any],
    postgres: Postgres,
    database: str,
    user_id: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {**base_settings, "api_key": KEY}.items():
        monkeypatch.setenv(f"AGENT_{name.upper()}", str(value))
    postgres.execute(DROP, database)
    postgres.execute("DROP EXTENSION IF EXISTS vector", database)
    use(base_settings, keeping(user_id, FACTS))
    # The role may not make it, if it is there at all.
    with pytest.raises(SystemExit, match="has no pgvector"):
        main(["memory", "index"])
    if not has_vectors(postgres):
        pytest.skip("this PostgreSQL has no pgvector to get")
    postgres.execute("CREATE EXTENSION vector", database)
    assert main(["memory", "index"]) == main(["memory", "index"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert int(first.removesuffix(" memories were given vectors")) >= len(FACTS)
    assert second == "0 memories were given vectors"
    report = use(base_settings, LongTerm.report)
    postgres.execute(DROP, database)
    assert report == {"status": "ok", "search": "vector", "embeddings": "offline"}


def test_summary_is_a_job_where_there_is_a_queue(site: Site, model: Model) -> None:
    model.control(choice={"summary": "In short.", "facts": ["The user owns a bakery."]})
    changes = {"history_messages": 8, "summary_keep_messages": 4, "classifier_seconds": 0}
    client = site.api("r1", **changes)
    for number in range(1, 8):
        client.chat(f"Message {number}", session_id="s", user_id="ana")
    wait_for(lambda: site.count("job_keys WHERE task = 'summarize'") == 1, 10, "the job")
    assert site.count("conversation_summaries") == 0
    settings = Settings(_env_file=None, api_key=KEY, **{**site.settings, **changes, "release": "r1"})

    async def work() -> None:
        metrics = Metrics("agent", "r1", "")
        redis = create_redis(settings)
        async with create_pool(settings) as pool:
            parts = await assemble(settings, read_team(settings), metrics, pool, redis, Rest(metrics))
            runner = Runner(
                settings,
                pool,
                [summarizing(pool, parts.summaries, Audit(metrics))],
                metrics,
                Tracing(settings, metrics, "worker"),
            )
            running = asyncio.create_task(runner.run())
            async with asyncio.timeout(20), connection(pool) as borrowed:
                while not await (await borrowed.execute("SELECT 1 FROM job_keys WHERE done_at IS NOT NULL")).fetchone():
                    await asyncio.sleep(0.05)
            runner.stop()
            await running
            await parts.close()
            await redis.aclose()

    asyncio.run(work())
    assert site.rows("SELECT position, content FROM conversation_summaries") == [(10, "In short.")]
    assert site.rows("SELECT user_id, content FROM memories") == [("ana", "The user owns a bakery.")]
    assert site.count("model_calls WHERE agent = 'summary' AND user_id = 'ana'") == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The companies' reports", ["compan", "report"]),
        ("A situação da empresa", ["situac", "empres"]),
        ("生产iPhone手机", ["生产", "iphone", "手机"]),
        ("커피 수입", ["커피", "수입"]),
        ("ＦＵＬＬ width", ["full", "width"]),  # noqa: RUF001
        ("?! 🎉", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_offline_vectors_are_of_one_length_and_always_the_same() -> None:
    vectors = OfflineEmbeddings().embed_documents(["A bakery in Porto", "", "한국어", "A bakery in Porto"])
    assert vectors[0] == vectors[3]
    assert [round(sum(value * value for value in vector), 6) for vector in vectors] == [1, 1, 1, 1]
