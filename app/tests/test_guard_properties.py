"""The guard's own rules, over whatever may come."""

import asyncio
import ipaddress
import json
import time
import uuid
from typing import Any

import jwt
import pytest
from access import FREE, SECRET, token
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis as SyncRedis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from servers import PASSWORD, Redis, free_port
from service import KEY

from agent_service.core.metrics import Metrics
from agent_service.guard.addresses import client_address, counted_as
from agent_service.guard.audit import Entry
from agent_service.guard.bearer import Tokens
from agent_service.guard.callers import Caller, Refused
from agent_service.guard.credentials import Credentials
from agent_service.guard.keys import Key, KeyRing, digest_of, line_of, new_key, parse_keys
from agent_service.guard.limits import Limit, Limiter
from agent_service.guard.size import estimate_tokens
from agent_service.guard.tiers import DEFAULT_TIERS
from agent_service.memory.redis import Rest

HEADER = st.text(st.characters(codec="latin-1"))
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True).filter(lambda name: name not in ("main", "token"))
TIER_NAMES = st.sampled_from(sorted(DEFAULT_TIERS))

CREDENTIALS = Credentials(
    [Key("main", "enterprise", digest_of(KEY.encode())), Key("shop", "free", digest_of(FREE.encode()))],
    Tokens(SECRET, "", "", "", DEFAULT_TIERS),
    DEFAULT_TIERS,
)


def opened(header: str) -> Caller | None:
    try:
        return CREDENTIALS.caller(header)
    except Refused:
        return None


# Keys


@given(st.dictionaries(NAMES, TIER_NAMES, max_size=6), st.data())
def test_lines_of_keys_are_read_back(tiers: dict[str, str], data: Any) -> None:
    keys = {name: new_key() for name in tiers}
    lines = [line_of(name, tier, keys[name]) for name, tier in tiers.items()]
    noise = data.draw(st.lists(st.sampled_from(["", "  ", "# a comment", "\t# free pro"]), max_size=4))
    ring = KeyRing(parse_keys("\n".join(data.draw(st.permutations(lines + noise))), DEFAULT_TIERS))
    for name, key in keys.items():
        found = ring.find(key.encode())
        assert found is not None
        assert (found.name, found.tier) == (name, tiers[name])
        assert ring.find(key.encode()[:-1]) is None
        assert ring.find(digest_of(key.encode())) is None
        assert ring.find(found.digest.hex().encode()) is None


@given(st.text())
def test_any_other_text_is_refused_without_being_quoted(text: str) -> None:
    try:
        keys = parse_keys(text, DEFAULT_TIERS)
    except ValueError as error:
        assert str(error).startswith("line ")
        assert not [word for word in text.split() if len(word) > 15 and word in str(error)]
    else:
        assert len(keys) <= len(text.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "shop free",
        # A key itself, where its digest belongs.
        pytest.param(f"shop free {new_key()}", id="key"),
        line_of("Shop", "free", "k"),
        line_of("main", "free", "k"),
        line_of("shop", "gold", "k"),
        line_of("shop", "free", "k").upper(),
        line_of("shop", "free", "k")[:-1],
        line_of("shop", "free", "k") + " more",
        line_of("shop", "free", "k") + "\n" + line_of("shop", "pro", "l"),
        line_of("shop", "free", "k") + "\n" + line_of("cafe", "pro", "k"),
    ],
)
def test_lines_that_are_wrong(line: str) -> None:
    with pytest.raises(ValueError, match=r"^line "):
        parse_keys(line, DEFAULT_TIERS)


# Credentials


@given(HEADER)
def test_no_other_header_opens(header: str) -> None:
    assert opened(header) is None
    assert opened(f"Bearer {header}") is None


@given(st.sampled_from(["Bearer", "bearer", "BEARER"]), st.sampled_from([KEY, FREE]))
def test_keys_open(scheme: str, key: str) -> None:
    assert opened(f"{scheme} {key}") is not None


@given(st.binary(max_size=40), st.integers(0, 400), st.integers(0, 255))
def test_a_changed_token_opens_nothing(extra: bytes, position: int, byte: int) -> None:
    signed = token("ana").encode()
    position %= len(signed)
    exchanged = signed[:position] + bytes([byte]) + signed[position + 1 :]
    for changed in (exchanged, signed[:position] + extra, signed + extra):
        caller = opened(f"Bearer {changed.decode('latin-1')}")
        # The last letter of a signature has bits to spare, and white space at the end is none of the token's.
        if caller is not None:
            assert caller.user_id == "ana"
            assert changed.strip()[: len(signed) - 1] == signed[:-1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda children: st.lists(children, max_size=3)
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "tier", "iss", "aud", "jti"]), JSON))
def test_whatever_is_signed_opens_only_for_a_user_a_time_and_a_tier(claims: dict[str, Any]) -> None:
    signed = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, "HS256")
    caller = opened(f"Bearer {signed}")
    if caller is not None:
        assert caller.user_id == claims["sub"]
        assert 1 <= len(caller.user_id or "") <= 128
        assert claims["exp"] > time.time()
        assert caller.tier_name == claims.get("tier", "free")
        assert "aud" not in claims or claims["aud"] is None


# Sizes


@given(st.text(st.characters(exclude_categories=[])), st.text(st.characters(exclude_categories=[])))
def test_estimate_is_of_the_whole_text_and_never_absurd(one: str, other: str) -> None:
    both = estimate_tokens(one + other)
    assert max(estimate_tokens(one), estimate_tokens(other)) <= both <= estimate_tokens(one) + estimate_tokens(other)
    assert len(one) / 4 <= estimate_tokens(one) <= 3 * len(one)


@given(st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)))
def test_chinese_is_a_token_a_character(text: str) -> None:
    assert estimate_tokens(text) == len(text)


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)))
def test_korean_is_a_token_a_syllable(text: str) -> None:
    assert estimate_tokens(text) == len(text)


# Addresses

ADDRESSES = st.ip_addresses().map(str)
PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
PROXY = st.ip_addresses(network="10.0.0.0/8").map(str)


def is_proxy(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in PROXIES)


@given(ADDRESSES, st.lists(HEADER))
def test_peer_that_is_no_proxy_is_the_client(peer: str, forwarded: list[str]) -> None:
    if not is_proxy(peer) and not peer.startswith("::ffff:"):
        assert client_address(peer, forwarded, PROXIES) == peer


@given(st.lists(HEADER), st.ip_addresses(v=4).map(str).filter(lambda a: not is_proxy(a)), st.lists(PROXY), PROXY)
def test_client_is_what_the_last_trusted_proxy_saw(
    invented: list[str], client: str, proxies: list[str], peer: str
) -> None:
    written = ", ".join([*invented, client, *proxies])
    assert client_address(peer, [written], PROXIES) == client


@given(HEADER, st.lists(HEADER))
def test_address_is_one_whatever_is_sent(peer: str, forwarded: list[str]) -> None:
    address = client_address(peer, forwarded, PROXIES)
    assert address == peer or ipaddress.ip_address(address)
    assert counted_as(address) == address or ipaddress.ip_network(counted_as(address)).prefixlen == 64


@given(st.ip_addresses(v=6))
def test_ipv6_is_counted_by_its_network(address: ipaddress.IPv6Address) -> None:
    same = ipaddress.IPv6Address(int(address) ^ 1)
    if address.ipv4_mapped is None:
        assert counted_as(str(address)) == counted_as(str(same))


# Limits


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    allowed=st.integers(0, 6),
    steps=st.lists(st.sampled_from(["take", "take", "take", "forget", "other"]), max_size=25),
)
def test_no_more_is_taken_than_allowed_whatever_redis_forgets(redis: Redis, allowed: int, steps: list[str]) -> None:
    subject = uuid.uuid4().hex

    async def run() -> tuple[int, list[bool]]:
        clients = [AsyncRedis(port=redis.port, password=PASSWORD, decode_responses=True) for _ in range(2)]
        metrics = Metrics("a", "r", "")
        limiters = [Limiter(client, Rest(metrics), "properties", metrics) for client in clients]
        limit = Limit("day", subject, allowed, 10**6)
        taken: list[bool] = []
        for step in steps:
            if step == "forget":
                # All that Redis knew; the first instance has seen each request but the other's since.
                async for key in clients[0].scan_iter(f"properties:limit:day:{subject}:*"):
                    await clients[0].delete(key)
            elif step == "other":
                outcomes = await asyncio.gather(*(limiter.take(limit) for limiter in limiters))
                # At once, so either may have come first; then the first instance learns what the other did.
                taken += sorted((outcome.taken for outcome in outcomes), reverse=True)
                await limiters[0].take(Limit("day", subject, 0, 10**6))
            else:
                taken.append((await limiters[0].take(limit)).taken)
        for client in clients:
            await client.aclose()
        return allowed, taken

    allowed, taken = asyncio.run(run())
    assert sum(taken) <= allowed
    # Nobody is refused what is allowed, either.
    assert taken == sorted(taken, reverse=True)
    assert sum(taken) == min(allowed, len(taken))


@given(allowed=st.integers(0, 6), asked=st.integers(0, 12), subjects=st.integers(1, 3))
@settings(max_examples=30)
def test_alone_a_process_keeps_to_the_same_figure(allowed: int, asked: int, subjects: int) -> None:
    async def run() -> dict[str, list[Any]]:
        client = AsyncRedis(port=free_port(), retry=Retry(NoBackoff(), 0))
        metrics = Metrics("a", "r", "")
        limiter = Limiter(client, Rest(metrics), "properties", metrics)
        outcomes = {
            name: [await limiter.take(Limit("day", name, allowed, 10**6)) for _ in range(asked)]
            for name in map(str, range(subjects))
        }
        await client.aclose()
        return outcomes

    for outcomes in asyncio.run(run()).values():
        assert [outcome.taken for outcome in outcomes] == [number < allowed for number in range(asked)]
        assert [outcome.remaining for outcome in outcomes] == [max(0, allowed - n) for n in range(1, asked + 1)]


def test_window_ends(redis: Redis) -> None:
    """Counts are gone with their window, from Redis too."""

    async def run() -> list[bool]:
        client = AsyncRedis(port=redis.port, password=PASSWORD, decode_responses=True)
        metrics = Metrics("a", "r", "")
        limiter = Limiter(client, Rest(metrics), "properties", metrics)
        limit = Limit("short", uuid.uuid4().hex, 1, 1)
        taken = []
        deadline = time.monotonic() + 5
        while sum(taken) < 3 and time.monotonic() < deadline:
            taken.append((await limiter.take(limit)).taken)
            await asyncio.sleep(0.05)
        await client.aclose()
        return taken

    taken = asyncio.run(run())
    assert taken.count(True) == 3
    assert taken.count(False) > 3
    with SyncRedis(port=redis.port, password=PASSWORD) as connection:
        assert all(0 < connection.ttl(key) <= 61 for key in connection.scan_iter("properties:limit:short:*"))


# Audit


@given(st.builds(Entry, action=st.text(), user_id=st.none() | st.text(), reason=st.none() | st.text()), st.data())
def test_rows_of_an_entry_can_be_stored_and_name_each_conversation(entry: Entry, data: Any) -> None:
    conversations = data.draw(st.dictionaries(st.text(), st.tuples(st.none() | st.text(), st.just("data"))))
    entry.touched = conversations
    rows = list(entry.rows())
    assert len(rows) == max(1, len(conversations))
    for row in rows:
        assert not [value for value in row.values() if isinstance(value, str) and "\x00" in value]
        "".join(value for value in row.values() if isinstance(value, str)).encode()
