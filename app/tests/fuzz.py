"""Bodies that nobody sends on purpose: of the right shape with wrong values, of the wrong shape, and of none."""

import json
import random
from collections.abc import Iterator
from typing import Any

from work import message

_STRINGS = ("", " ", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "😀" * 50, "\uff41",
            "x" * 5000, "%s", "'; --", "\u202e",
            "5511@s.whatsapp.net", "5511999990000@s.whatsapp.net", "1@g.us", "null", "1e400", "-1", "٣٤٥٦٧٨",
            "\r\n", "\u2028")  # fmt: skip
_NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 1.5, 1e308, float("nan"), float("inf"))
_PIECES = (b"{", b"}", b"[", b'"', b":", b",", b"\\u", b"\xff", b"\xed\xa0\x80", b"null", b"1e9999", b"\x00", b"NaN")


def bodies(count: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        yield _body(chance)


def _body(chance: random.Random) -> bytes:
    match chance.randrange(10):
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            return json.dumps(_value(chance, 4)).encode("utf-8", "surrogatepass")
        case 2:
            depth = chance.choice((10, 990, 1010, 5_000, 60_000))
            return b'{"message":' + b"[" * depth + b"]" * depth + b"}"
        case 3 | 4:
            return _broken(chance, _dumped(chance, _mutated(chance)))
        case _:
            return _dumped(chance, _mutated(chance))


def _mutated(chance: random.Random) -> Any:
    document = message(chance.choice(("Hi", "Olá, tudo bem?", "안녕", *_STRINGS)))
    if chance.random() < 0.3:
        document = {"event": chance.choice(("message", "status", 5, None)), "data": document["message"]}
    inner = document.get("message", document.get("data"))
    for _ in range(chance.randrange(4)):
        target = chance.choice((document, inner))
        key = chance.choice((*target, chance.choice(_STRINGS))) if target else "x"
        if chance.random() < 0.3:
            target.pop(key, None)
        else:
            target[key] = _value(chance, 3)
    return document


def _value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(8 if depth else 5)
    match kind:
        case 0:
            return chance.choice(_STRINGS)
        case 1:
            return chance.choice(_NUMBERS)
        case 2:
            return chance.choice((True, False, None))
        case 3:
            return "".join(chr(chance.randrange(0x3000)) for _ in range(chance.randrange(30)))
        case 4:
            return chance.randrange(-1000, 1000)
        case 5 | 6:
            return {chance.choice(_STRINGS): _value(chance, depth - 1) for _ in range(chance.randrange(4))}
        case _:
            return [_value(chance, depth - 1) for _ in range(chance.randrange(4))]


def _dumped(chance: random.Random, document: Any) -> bytes:
    escaped = chance.random() < 0.5
    return json.dumps(document, ensure_ascii=escaped).encode("utf-8", "surrogatepass")


def _broken(chance: random.Random, body: bytes) -> bytes:
    at = chance.randrange(len(body) + 1)
    match chance.randrange(4):
        case 0:
            return body[:at]
        case 1:
            return body[:at] + chance.choice(_PIECES) + body[at:]
        case 2:
            return body[:at] + chance.randbytes(1) + body[at + 1 :]
        case _:
            return body + body
