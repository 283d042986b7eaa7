"""Misspelt words: the word or stem of a vocabulary that somebody most likely meant."""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

# A word this short may have two letters swapped; from LONG on two faults are forgiven.
SHORT, MIDDLE, LONG = 4, 5, 8
# Faults are counted in letters, of which a Korean syllable has two or three.
SYLLABLE = 2.4


class Speller:
    """Finds by deleting a letter on both sides, as in the SymSpell algorithm."""

    def __init__(self, vocabulary: Iterable[str], known: Iterable[str]) -> None:
        self._words: dict[str, list[tuple[str, str]]] = {}
        self._known = set(known)
        for entry in set(vocabulary):
            stem = letters(entry.removesuffix("*"))
            if len(stem) < SHORT:
                continue
            for variant in _variants(stem):
                self._words.setdefault(variant, []).append((stem, entry))
        self.correct = lru_cache(maxsize=4096)(self._correct)

    def _correct(self, word: str) -> str | None:
        """The entry of the vocabulary nearest to a word, or None where none is near or the word is a real one."""
        if word in self._known or len(word) > 24:
            return None
        spelt = letters(word)
        best: tuple[int, int, str] | None = None
        for length in range(SHORT, len(spelt) + 1):
            begin, whole = spelt[:length], length == len(spelt)
            for variant in _variants(begin):
                for stem, entry in self._words.get(variant, ()):
                    if not whole and not entry.endswith("*"):
                        continue
                    faults = distance(begin, stem)
                    if faults > _allowed(begin, stem, entry.endswith("*")):
                        continue
                    found = (faults, -len(stem), entry)
                    if best is None or found < best:
                        best = found
        return best[2] if best else None


def letters(text: str) -> str:
    """Hangul in its letters, so that one wrong vowel is one fault and not a whole syllable."""
    return text if text.isascii() else unicodedata.normalize("NFD", text)


def distance(one: str, other: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        previous, row, before_last = row, [i], before
        before = previous
        for j, wanted in enumerate(other, 1):
            cost = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, before_last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _allowed(word: str, stem: str, begins: bool) -> int:
    shortest = min(len(word), len(stem))
    if not word.isascii():
        return 1 if shortest >= 6 else 0
    # The first letter is rarely wrong, and what differs in it mostly is another word.
    if word[0] != stem[0] and word[:2] != stem[1::-1]:
        return 0
    if shortest < MIDDLE + begins:
        return 1 if not begins and sorted(word) == sorted(stem) else 0
    return 2 if shortest >= LONG + begins else 1


def _variants(word: str) -> Iterable[str]:
    yield word
    for position in range(len(word)):
        yield word[:position] + word[position + 1 :]
