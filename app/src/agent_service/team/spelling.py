"""Misspelt words: the word or stem of a vocabulary that somebody most likely meant."""

import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from zlib import crc32

# A word this short may have two letters swapped; from LONG on two faults are forgiven.
SHORT, MIDDLE, LONG = 4, 5, 8
# So many letters at the beginning find what a word may be; all of them decide.
BEGINNING = 6


class Speller:
    """Finds by deleting a letter on both sides, as in the SymSpell algorithm."""

    def __init__(self, vocabulary: Iterable[str], known: Iterable[str]) -> None:
        self._entries = sorted({entry for entry in vocabulary if len(_stem(entry)) >= SHORT})
        # A variant's number and an entry's place in one: tens of thousands of texts would take more than all the words.
        self._variants = array(
            "Q",
            sorted(
                _number(variant) << 32 | place
                for place, entry in enumerate(self._entries)
                for variant in set(_variants(_stem(entry)[:BEGINNING]))
            ),
        )
        self._known = set(known)
        self.correct = lru_cache(maxsize=4096)(self._correct)

    def _correct(self, word: str) -> str | None:
        """The entry of the vocabulary nearest to a word, or None where none is near or the word is a real one."""
        if word in self._known or len(word) > 24:
            return None
        spelt = letters(word)
        candidates = {entry for variant in set(_variants(spelt[:BEGINNING])) for entry in self._with(variant)}
        nearest = [
            (faults, -len(entry), entry) for entry in candidates if (faults := _faults(spelt, entry)) is not None
        ]
        return min(nearest)[2] if nearest else None

    def _with(self, variant: str) -> Iterator[str]:
        """Entries with this variant; one of another with the same number is found to be too far away."""
        number = _number(variant) << 32
        first = bisect_left(self._variants, number)
        for found in self._variants[first : bisect_left(self._variants, number + (1 << 32), first)]:
            yield self._entries[found - number]


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


def _stem(entry: str) -> str:
    return letters(entry.removesuffix("*"))


def _number(variant: str) -> int:
    return crc32(variant.encode())


def _faults(word: str, entry: str) -> int | None:
    """How many faults a word has as a spelling of an entry, or None where they are too many."""
    begins = entry.endswith("*")
    stem = _stem(entry)
    # Of a stem the beginning of the word is a spelling, and a fault may have made that longer or shorter.
    lengths = range(len(stem) - 1, len(stem) + 2) if begins else (len(word),)
    possible = [
        faults
        for length in lengths
        if SHORT <= length <= len(word)
        and abs(length - len(stem)) <= 2
        and (faults := distance(word[:length], stem)) <= _allowed(word[:length], stem, begins)
    ]
    return min(possible, default=None)


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
