"""What a keyword of team.yml means, and how text is written before keywords are looked for.

`budget` is the word and its plural, `forecast*` every word that begins so, `cash flow` these words in this order with
nothing but ignored words between them, `招聘` or `채용` these characters anywhere, `guest*|visitor* + leave|left` one
of either side anywhere in one sentence; `^2` behind it counts double.
"""

import re
import unicodedata
from dataclasses import dataclass

from agent_service.team.traditional import SIMPLIFIED

_WEIGHT = re.compile(r"\d+(?:\.\d+)?")
_WORD = re.compile(r"[a-z0-9]+(?:[&'][a-z0-9]+)*")
_WORD_OF_KEYWORD = re.compile(r"[a-z0-9]+(?:[&'][a-z0-9]+)*\*?")
# Spaces are no boundary in Chinese, and are put as one likes in Korean.
_RUN = re.compile(r"[\u3400-\u9fff]+(?:\s+[\u3400-\u9fff]+)*|[\uac00-\ud7a3]+(?:\s+[\uac00-\ud7a3]+)*")
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u02bc": "'", "`": "'"})


@dataclass(frozen=True, slots=True)
class Keyword:
    """Words (each with `*` where it is a stem), a piece of a script without spaces, or sides that stand together."""

    words: tuple[str, ...]
    piece: str
    weight: float
    sides: tuple[tuple[str, ...], ...] = ()


def listed(text: str) -> list[str]:
    """What stands between the commas."""
    return [part for part in map(str.strip, text.split(",")) if part]


def parse(value: str) -> Keyword:
    text, _, weight = normalize(value.strip()).partition("^")
    if not text or not (_WEIGHT.fullmatch(weight) if "^" in value else not weight):
        raise ValueError(f"{value!r} is no keyword: write word, stem*, several words or any of them with ^weight")
    if "+" in text or "|" in text:
        return Keyword((), "", float(weight or 1), tuple(_side(side, value) for side in text.split("+")))
    words, piece = _parts(text, value)
    return Keyword(words, piece, float(weight or 1))


def _side(side: str, value: str) -> tuple[str, ...]:
    alternatives = [_parts(alternative, value) for alternative in side.split("|")]
    if any(len(words) > 1 for words, _ in alternatives):
        raise ValueError(f"{value!r} is no keyword: beside + and | are single words, stems or pieces")
    return tuple(piece or words[0] for words, piece in alternatives)


def _parts(text: str, value: str) -> tuple[tuple[str, ...], str]:
    """The words of it, or its piece."""
    words = tuple(_WORD_OF_KEYWORD.findall(text.replace("'", "") if "'" in text else text))
    pieces = [] if text.isascii() else _RUN.findall(text)
    if bool(words) == bool(pieces) or len(pieces) > 1:
        raise ValueError(f"{value!r} is no keyword: it must have words, or one piece of Chinese or Korean")
    return words, "".join(pieces[0].split()) if pieces else ""


def normalize(text: str) -> str:
    """One way to write what can be written in several: width, case, accents, traditional characters."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES)).casefold()
    bare = "".join(character for character in decomposed if not unicodedata.combining(character))
    return unicodedata.normalize("NFC", bare).translate(SIMPLIFIED)


def words_of(text: str) -> list[str]:
    return [word.removesuffix("'s").replace("'", "") for word in _WORD.findall(text)]


def runs_of(text: str) -> list[str]:
    return _RUN.findall(text)
