"""The team's keywords, and which of them a message has."""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agent_service.team.definition import Keywords, Team
from agent_service.team.keywords import Keyword, normalize, runs_of, words_of
from agent_service.team.spelling import MIDDLE, Speller, distance

MISSPELT = 0.8
FOREIGN = 0.4

Target = tuple[str, str | None]
Targets = dict[str, dict[str | None, float]]
Sides = tuple[tuple[str, ...], ...]
# The words, the piece or the sides of a keyword, what they tell, and how surely they are meant.
Keyed = tuple[str, ...] | str | Sides
Found = tuple[Keyed, Targets, float]
Findings = dict[Keyed, tuple[Targets, float]]
_Key = tuple[tuple[str, ...], str, Sides]
_Use = tuple[str, str | None, float]


@dataclass(frozen=True, slots=True)
class _Entry:
    words: tuple[str, ...]
    length: int
    targets: Targets
    languages: tuple[str, ...]


class Lexicon:
    """The team's keywords, arranged so that a message is read once."""

    def __init__(self, team: Team) -> None:
        self._small = {language: {normalize(word) for word in words} for language, words in team.ignored_words.items()}
        self._ignored: set[str] = set().union(*self._small.values())
        uses: dict[_Key, tuple[_Use, ...]] = {}
        languages: dict[_Key, tuple[str, ...]] = {}
        # Of thousands of keywords most say the same in these: kept once, they leave no holes in the memory.
        same: dict[Any, Any] = {}
        for specialist in team.specialists:
            owned: list[tuple[str | None, Keywords]] = [(None, specialist.keywords)]
            owned += [(name, intent.keywords) for name, intent in specialist.intents.items()]
            for name, keywords in owned:
                for language, listed in keywords.items():
                    for keyword in listed:
                        key = self._bare(keyword), keyword.piece, keyword.sides
                        use = specialist.id, name, keyword.weight
                        told = (*(other for other in uses.get(key, ()) if other[:2] != use[:2]), use)
                        uses[key] = same.setdefault(told, told)
                        if language not in languages.get(key, ()):
                            spoken = (*languages.get(key, ()), language)
                            languages[key] = same.setdefault(spoken, spoken)
        self._words: dict[str, list[_Entry]] = defaultdict(list)
        self._stems: dict[str, list[_Entry]] = defaultdict(list)
        self._pieces: dict[str, Targets] = {}
        self._together = _Together()
        # Thousands of keywords tell only some hundred different things.
        shared: dict[tuple[_Use, ...], Targets] = {}
        for key, used in uses.items():
            words, piece, sides = key
            targets = shared[used] = shared.get(used) or _targets(used)
            if sides:
                self._together.add(sides, targets)
            elif piece:
                self._pieces[piece] = targets
            else:
                begin = self._stems if words[0].endswith("*") else self._words
                entry = _Entry(words, len("".join(words)), targets, languages[key])
                begin[words[0].removesuffix("*")].append(entry)
        self._longest_piece = max(map(len, self._pieces), default=0)
        self._beginning = lru_cache(maxsize=8192)(self._entries_of)
        vocabulary: dict[str, set[str]] = defaultdict(set)
        for (words, piece, sides), written in languages.items():
            for language in written:
                vocabulary[language].update(part for side in sides for part in side if part.rstrip("*").isascii())
                if words or _is_hangul(piece):
                    vocabulary[language].update(words or (piece + "*",))
        common = self._common(team)
        self._spellers = {language: Speller(words, common) for language, words in vocabulary.items()}
        # Where a word belongs to a longer keyword only, it still is no misspelling of another.
        known: set[str] = set().union(*vocabulary.values())
        self._known = {word for word in known if not word.endswith("*")}
        self._known_stems = {word.removesuffix("*") for word in known if word.endswith("*")}

    def _common(self, team: Team) -> set[str]:
        lists = (*team.common_words.values(), *team.ignored_words.values())
        return {word for words in lists for text in words for word in words_of(normalize(text))}

    def find(self, sentences: list[str]) -> list[Findings]:
        """The keywords of each sentence of a text, with a factor for how surely each is meant."""
        split = [words_of(text) for text in sentences]
        language = self._language([word for words in split for word in words])
        every = []
        for words, text in zip(split, sentences, strict=True):
            read = [self._read(word, language) for word in words]
            found: Findings = {}
            here = (*self._find_words(read, language), *self._find_pieces(text), *self._together.find(read, text))
            for keyword, targets, factor in here:
                if keyword not in found or found[keyword][1] < factor:
                    found[keyword] = targets, factor
            every.append(found)
        return every

    def _bare(self, keyword: Keyword) -> tuple[str, ...]:
        """Without ignored words, unless only one would be left: "how are you" is not every "how"."""
        bare = tuple(word for word in keyword.words if word not in self._ignored)
        return bare if 1 < len(bare) < len(keyword.words) else keyword.words

    def _find_words(self, read: list[tuple[str, float]], language: str | None) -> list[Found]:
        found: list[Found] = []
        position = 0
        while position < len(read):
            best = self._longest(read, position)
            if best:
                end, entry = best
                factor = min(factor for _, factor in read[position:end])
                native = language in (None, *entry.languages)
                found.append((entry.words, entry.targets, factor if native else factor * FOREIGN))
            position = best[0] if best else position + 1
        return found

    def _language(self, text: list[str]) -> str | None:
        """The language whose small words a text has clearly more of, by which `some` is English or Portuguese."""
        votes = {name: sum(word in small for word in text) for name, small in self._small.items()}
        first, second, *_ = (*sorted(votes.values(), reverse=True), 0, 0)
        return max(votes, key=votes.__getitem__) if first > second + 1 else None

    def _read(self, word: str, language: str | None) -> tuple[str, float]:
        """The word as it was meant, and how surely."""
        if len(word) < 4 or word.isdigit() or self._is_known(word):
            return word, 1
        corrected = self._correct(word, language)
        if corrected is None:
            return word, 1
        return corrected.removesuffix("*"), MISSPELT if len(word) >= MIDDLE else MISSPELT / 2

    def _correct(self, word: str, language: str | None) -> str | None:
        spellers = [self._spellers[language]] if language in self._spellers else self._spellers.values()
        found = [entry for speller in spellers if (entry := speller.correct(word))]
        return min(found, key=lambda entry: distance(word, entry.removesuffix("*")), default=None)

    def _is_known(self, word: str) -> bool:
        return any(form in self._known for form in _forms(word)) or any(
            word[:length] in self._known_stems for length in range(2, len(word) + 1)
        )

    def _longest(self, read: list[tuple[str, float]], position: int) -> tuple[int, _Entry] | None:
        """The longest keyword that begins here, and where it ends."""
        word = read[position][0]
        best: tuple[int, _Entry] | None = None
        longest = (0, 0)
        for entry in self._beginning(word, self._following(read, position)):
            end = self._end(entry.words, read, position) if len(entry.words) > 1 else position + 1
            if end and (end, entry.length) > longest:
                longest, best = (end, entry.length), (end, entry)
        return best

    def _following(self, read: list[tuple[str, float]], position: int) -> tuple[str, ...]:
        """What the second word of a keyword may be: the next words, up to the first that is not ignored."""
        words: list[str] = []
        for word, _ in read[position + 1 :]:
            words.append(word)
            if word not in self._ignored:
                break
        return tuple(words)

    def _entries_of(self, word: str, following: tuple[str, ...]) -> tuple[_Entry, ...]:
        """The keywords that begin with a word, and may go on with one of the following."""
        some = [self._words.get(form, ()) for form in _forms(word)]
        some += [self._stems.get(word[:length], ()) for length in range(2, len(word) + 1)]
        return tuple(
            entry
            for entries in some
            for entry in entries
            if len(entry.words) == 1 or any(_matches(entry.words[1], other) for other in following)
        )

    def _end(self, words: tuple[str, ...], read: list[tuple[str, float]], position: int) -> int:
        """The position behind these words, with nothing but ignored ones between them; 0 where they do not follow."""
        position += 1
        for word in words[1:]:
            while position < len(read) and read[position][0] in self._ignored and not _matches(word, read[position][0]):
                position += 1
            if position == len(read) or not _matches(word, read[position][0]):
                return 0
            position += 1
        return position

    def _find_pieces(self, text: str) -> list[Found]:
        found: list[Found] = []
        for run in runs_of(text):
            parts = run.split()
            joined = "".join(parts)
            starts, at = set(), 0
            for part in parts:
                starts.add(at)
                at += len(part)
            covered = bytearray(len(joined))
            position = 0
            while position < len(joined):
                length = self._piece_at(joined, position, starts)
                if length:
                    piece = joined[position : position + length]
                    found.append((piece, self._pieces[piece], 1))
                    covered[position : position + length] = b"\1" * length
                position += length or 1
            if _is_hangul(joined):
                found += self._misspelt(parts, covered)
        return found

    def _piece_at(self, text: str, position: int, starts: set[int]) -> int:
        for length in range(min(self._longest_piece, len(text) - position), 0, -1):
            if text[position : position + length] not in self._pieces:
                continue
            # Two syllables over a gap between words are no word.
            if length <= 2 and any(position < start < position + length for start in starts):
                continue
            return length
        return 0

    def _misspelt(self, parts: list[str], covered: bytearray) -> list[Found]:
        found: list[Found] = []
        at = 0
        for part in parts:
            if len(part) > 1 and not any(covered[at : at + len(part)]):
                corrected = self._correct(part, None)
                piece = corrected.removesuffix("*") if corrected else ""
                if piece in self._pieces:
                    found.append((piece, self._pieces[piece], MISSPELT))
            at += len(part)
        return found


class _Together:
    """Keywords whose sides stand anywhere in one sentence."""

    def __init__(self) -> None:
        self._keywords: list[tuple[Sides, Targets]] = []
        self._whole: list[int] = []
        # Of each word, stem and piece: the keywords, by number, and the sides it belongs to, as bits.
        self._words: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._stems: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._pieces: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._longest_piece = 0
        self._of_word = lru_cache(maxsize=8192)(self._places_of_word)

    def add(self, sides: Sides, targets: Targets) -> None:
        for number, side in enumerate(sides):
            for part in side:
                if not part.rstrip("*").isascii():
                    places = self._pieces
                    self._longest_piece = max(self._longest_piece, len(part))
                else:
                    places = self._stems if part.endswith("*") else self._words
                places[part.removesuffix("*")].append((len(self._keywords), 1 << number))
        self._keywords.append((sides, targets))
        self._whole.append((1 << len(sides)) - 1)

    def find(self, read: list[tuple[str, float]], text: str) -> list[Found]:
        seen: dict[int, int] = defaultdict(int)
        for word, _ in read:
            for keyword, side in self._of_word(word):
                seen[keyword] |= side
        joined = "".join("".join(runs_of(text)).split())
        for start in range(len(joined)):
            for end in range(start + 1, min(len(joined), start + self._longest_piece) + 1):
                for keyword, side in self._pieces.get(joined[start:end], ()):
                    seen[keyword] |= side
        whole = [self._keywords[number] for number, sides in seen.items() if sides == self._whole[number]]
        return [(sides, targets, 1) for sides, targets in whole]

    def _places_of_word(self, word: str) -> tuple[tuple[int, int], ...]:
        found = [place for form in _forms(word) for place in self._words.get(form, ())]
        found += [place for length in range(2, len(word) + 1) for place in self._stems.get(word[:length], ())]
        return tuple(found)


def _targets(uses: tuple[_Use, ...]) -> Targets:
    """Weights by agent and intent; a keyword of several agents is shared among them."""
    agents = [agent for agent, _, _ in uses]
    targets: Targets = {agent: {} for agent in agents}
    for agent, intent, weight in uses:
        targets[agent][intent] = weight / agents.count(agent) / len(targets)
    return targets


def _is_hangul(piece: str) -> bool:
    return "\uac00" <= piece[:1] <= "\ud7a3"


@lru_cache(maxsize=8192)
def _forms(word: str) -> tuple[str, ...]:
    if len(word) > 4 and word.endswith("es"):
        return word, word[:-1], word[:-2]
    return (word, word[:-1]) if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else (word,)


def _matches(wanted: str, word: str) -> bool:
    return word.startswith(wanted[:-1]) if wanted.endswith("*") else wanted in _forms(word)
