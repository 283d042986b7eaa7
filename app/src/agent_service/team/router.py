"""Rules: who of the team a message is for, by the words in it. Pure and fast; what it cannot tell it says.

Each keyword speaks for its intent, the less the more intents share it. The sums become shares as in a vote (softmax),
with a head start for the general assistant and for whoever answered last. The winner's share is the confidence: it is high
when there is much evidence and little of it for others, and low when there is none.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

from agent_service.team.definition import GENERAL, Keywords, Team
from agent_service.team.keywords import Keyword, normalize, parse, runs_of, words_of
from agent_service.team.spelling import MIDDLE, Speller

# What a message is about stands in its first thousands of characters, and a longer one must not cost more.
CHARACTERS = 4000
HEAD_START = 1.0
LAST_ANSWERED = 2.0
MISSPELT = 0.8
SURE = 0.55

Target = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Route:
    agent: str
    intent: str | None
    confidence: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say: whom, whether they are sure, and whether they knew anything of the message at all."""

    route: Route
    sure: bool
    known: bool


class Router:
    def __init__(self, team: Team) -> None:
        self._agents = [specialist.id for specialist in team.specialists]
        self._lexicon = _Lexicon(team)

    def route(self, message: str, last: str | None = None) -> Verdict:
        found = self._lexicon.find(normalize(message[:CHARACTERS]))
        agents = dict.fromkeys(self._agents, 0.0)
        intents: dict[Target, float] = defaultdict(float)
        for targets, factor in found:
            # Agents share a word first, then the intents of each: two intents of one agent make it no weaker.
            for agent, weights in targets.items():
                agents[agent] += factor * sum(weights.values())
                for intent, weight in weights.items():
                    intents[agent, intent] += factor * weight
        agents[GENERAL] += HEAD_START
        if last in agents:
            agents[last] += LAST_ANSWERED
        agent = max(agents, key=agents.__getitem__)
        confidence = _share(agents, agent)
        chosen = {intent: weight for (owner, intent), weight in intents.items() if owner == agent and intent}
        route = Route(agent, max(chosen, key=chosen.__getitem__) if chosen else None, round(confidence, 3))
        return Verdict(route, sure=bool(found) and confidence >= SURE, known=bool(found))


def _share(votes: dict[str, float], winner: str) -> float:
    return 1 / sum(math.exp(vote - votes[winner]) for vote in votes.values())


Targets = dict[str, dict[str | None, float]]


class _Lexicon:
    """The team's keywords, arranged so that a message is read once."""

    def __init__(self, team: Team) -> None:
        self._ignored = {word for words in team.ignored_words.values() for word in map(normalize, words)}
        uses: dict[tuple[tuple[str, ...], str], dict[Target, float]] = defaultdict(dict)
        for specialist in team.specialists:
            owned: list[tuple[str | None, Keywords]] = [(None, specialist.keywords)]
            owned += [(name, intent.keywords) for name, intent in specialist.intents.items()]
            for name, keywords in owned:
                for text in (text for texts in keywords.values() for text in texts):
                    keyword = parse(text)
                    key = self._bare(keyword), keyword.piece
                    uses[key][specialist.id, name] = keyword.weight
        self._words: dict[str, list[tuple[tuple[str, ...], Targets]]] = defaultdict(list)
        self._stems: dict[str, list[tuple[tuple[str, ...], Targets]]] = defaultdict(list)
        self._pieces: dict[str, Targets] = {}
        for (words, piece), weights in uses.items():
            targets = _targets(weights)
            if piece:
                self._pieces[piece] = targets
            else:
                begin = self._stems if words[0].endswith("*") else self._words
                begin[words[0].removesuffix("*")].append((words, targets))
        for entries in (*self._words.values(), *self._stems.values()):
            entries.sort(key=lambda entry: (-len(entry[0]), -len("".join(entry[0]))))
        self._longest_piece = max(map(len, self._pieces), default=0)
        vocabulary = {word for words, _ in uses for word in words}
        common = {word for words in team.common_words.values() for text in words for word in words_of(normalize(text))}
        hangul = {piece + "*" for piece in self._pieces if "\uac00" <= piece[0] <= "\ud7a3"}
        # Where a word belongs to a longer keyword only, it still is no misspelling of another.
        self._vocabulary = {word for word in vocabulary if not word.endswith("*")}
        self._vocabulary_stems = {word.removesuffix("*") for word in vocabulary if word.endswith("*")}
        self._speller = Speller(vocabulary, common | self._ignored)
        self._korean = Speller(hangul, ())

    def find(self, text: str) -> list[tuple[Targets, float]]:
        """Each keyword of a text once, with a factor for how surely it is meant."""
        found: dict[int, tuple[Targets, float]] = {}
        for targets, factor in (*self._find_words(words_of(text)), *self._find_pieces(text)):
            if id(targets) not in found or found[id(targets)][1] < factor:
                found[id(targets)] = targets, factor
        return list(found.values())

    def _bare(self, keyword: Keyword) -> tuple[str, ...]:
        return tuple(word for word in keyword.words if word not in self._ignored) or keyword.words

    def _find_words(self, text: list[str]) -> list[tuple[Targets, float]]:
        found = []
        read = [self._read(word) for word in text if word not in self._ignored]
        position = 0
        while position < len(read):
            best = self._longest(read, position)
            if best:
                words, targets = best
                factor = min(read[at][1] for at in range(position, position + len(words)))
                found.append((targets, factor))
            position += len(best[0]) if best else 1
        return found

    def _read(self, word: str) -> tuple[str, float]:
        """The word as it was meant, and how surely."""
        if len(word) < 4 or word.isdigit() or self._is_known(word):
            return word, 1
        corrected = self._speller.correct(word)
        if corrected is None:
            return word, 1
        return corrected.removesuffix("*"), MISSPELT if len(word) >= MIDDLE else MISSPELT / 2

    def _is_known(self, word: str) -> bool:
        return any(form in self._vocabulary for form in _forms(word)) or any(
            word[:length] in self._vocabulary_stems for length in range(2, len(word) + 1)
        )

    def _longest(self, read: list[tuple[str, float]], position: int) -> tuple[tuple[str, ...], Targets] | None:
        word = read[position][0]
        best: tuple[tuple[str, ...], Targets] | None = None
        for form in _forms(word):
            for entry in self._words.get(form, ()):
                if _follows(entry[0], read, position) and _better(entry, best):
                    best = entry
        for length in range(2, len(word) + 1):
            for entry in self._stems.get(word[:length], ()):
                if _follows(entry[0], read, position) and _better(entry, best):
                    best = entry
        return best

    def _find_pieces(self, text: str) -> list[tuple[Targets, float]]:
        found: list[tuple[Targets, float]] = []
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
                    found.append((self._pieces[joined[position : position + length]], 1))
                    covered[position : position + length] = b"\1" * length
                position += length or 1
            if "\uac00" <= joined[0] <= "\ud7a3":
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

    def _misspelt(self, parts: list[str], covered: bytearray) -> list[tuple[Targets, float]]:
        found: list[tuple[Targets, float]] = []
        at = 0
        for part in parts:
            if len(part) > 1 and not any(covered[at : at + len(part)]):
                corrected = self._korean.correct(part)
                if corrected:
                    found.append((self._pieces[corrected.removesuffix("*")], MISSPELT))
            at += len(part)
        return found


def _targets(weights: dict[Target, float]) -> Targets:
    """Weights by agent and intent; a keyword of several agents is shared among them."""
    agents = {agent for agent, _ in weights}
    targets: Targets = defaultdict(dict)
    for (agent, intent), weight in weights.items():
        own = sum(1 for other, _ in weights if other == agent)
        targets[agent][intent] = weight / own / len(agents)
    return dict(targets)


def _forms(word: str) -> tuple[str, ...]:
    if len(word) > 4 and word.endswith("es"):
        return word, word[:-1], word[:-2]
    return (word, word[:-1]) if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else (word,)


def _follows(words: tuple[str, ...], read: list[tuple[str, float]], position: int) -> bool:
    if position + len(words) > len(read):
        return False
    for offset, word in enumerate(words[1:], 1):
        text = read[position + offset][0]
        if word.endswith("*"):
            if not text.startswith(word[:-1]):
                return False
        elif word not in _forms(text):
            return False
    return True


def _better(
    entry: tuple[tuple[str, ...], Targets], best: tuple[tuple[str, ...], Targets] | None
) -> bool:
    def size(words: tuple[str, ...]) -> tuple[int, int]:
        return len(words), len("".join(words))

    return best is None or size(entry[0]) > size(best[0])
