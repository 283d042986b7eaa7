"""Rules: who of the team a message is for, by the words in it. Pure and fast; what it cannot tell it says.

Each keyword speaks for its intent, the less the more intents share it. What the message asks for counts more than what
it tells around that: in a long one, other fields are mentioned in passing. The sums become shares as in a vote
(softmax), with a head start for the general assistant and for whoever answered last. The winner's share is the
confidence: it is high when there is much evidence and little of it for others, and low when there is none.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from agent_service.team.definition import GENERAL, Team
from agent_service.team.keywords import normalize
from agent_service.team.lexicon import Findings, Lexicon, Target, Targets

# What a message is about stands in its first thousands of characters, and a longer one must not cost more.
CHARACTERS = 4000
HEAD_START = 0.4
LAST_ANSWERED = 1.2
SURE = 0.6
# How fast what is only told loses weight with the evidence in what is asked.
ASIDE = 0.8

_SENTENCE = re.compile(r"(?<=[.!?;])\s+|(?<=[\u3002?!])|\n+")
_REQUEST = re.compile(
    r"\?|\b(?:please|(?:can|could|would|will) (?:you|we|i)|help (?:me|us)|how (?:do|can|should|would|much|many|to)"
    r"|what|which|should (?:i|we)|(?:i|we)(?: only)? (?:need|want)|(?:i'd|we'd|would) like|write|draft|prepare"
    r"|suggest|propose|explain|recommend|(?:give|show|tell) (?:me|us)|my (?:own )?(?:question|worry|problem)"
    r"|the (?:problem|question|trouble|only thing)|(?:bothers|worries|keeps) me"
    r"|^(?:but|still|however|only|even so|yet|now)"
    r"|ajud[ae]|por favor|como (?:eu |a gente )?(?:fac|pod|poss|dev)\w+|quero|queria|quer[ei]mos|gostaria"
    r"|precis[oa]\w*|(?:me )?(?:escrev|mont|sugir|prepar|expli|indi)\w+|qual|quais|quanto\w*|o problema|a questao"
    r"|minha duvida|me preocupa|^(?:mas|so que|porem|agora|mesmo assim))\b"
    r"|请|帮|怎么|怎样|如何|想知道|想要|需要|能不能|可不可以|给我|问题是|什么|多少|^(?:但|不过|可是|只是)"
    r"|주세요|[해써]\s?줘|싶|궁금|어떻게|까요|부탁|필요|문제는|알려|추천|^(?:하지만|그런데|그래도|다만)"
)


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
        self._lexicon = Lexicon(team)

    def route(self, message: str, last: str | None = None) -> Verdict:
        sentences = _sentences(normalize(message[:CHARACTERS]))
        found = self._lexicon.find(sentences)
        asked, told = _asked_and_told(sentences, found)
        votes = _Votes(self._agents)
        votes.count(asked.values(), 1)
        votes.count(told.values(), 1 / (1 + ASIDE * max(votes.agents.values())))
        agents = votes.agents
        agents[GENERAL] += HEAD_START
        if last in agents and last != GENERAL:
            agents[last] += LAST_ANSWERED
        agent = max(agents, key=agents.__getitem__)
        confidence = _share(agents, agent)
        chosen = {intent: weight for (owner, intent), weight in votes.intents.items() if owner == agent and intent}
        route = Route(agent, max(chosen, key=chosen.__getitem__) if chosen else None, round(confidence, 3))
        known = any(found)
        return Verdict(route, sure=known and confidence >= SURE, known=known)


class _Votes:
    def __init__(self, agents: list[str]) -> None:
        self.agents = dict.fromkeys(agents, 0.0)
        self.intents: dict[Target, float] = defaultdict(float)

    def count(self, found: Iterable[tuple[Targets, float]], weight: float) -> None:
        for targets, factor in found:
            # Agents share a word first, then the intents of each: two intents of one agent make it no weaker.
            for agent, weights in targets.items():
                self.agents[agent] += weight * factor * sum(weights.values())
                for intent, own in weights.items():
                    self.intents[agent, intent] += weight * factor * own


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]


def _asked_and_told(sentences: list[str], found: list[Findings]) -> tuple[Findings, Findings]:
    """What stands in the sentences that ask for something (the last, where none does), and what in the others only."""
    asking = [bool(_REQUEST.search(sentence)) for sentence in sentences]
    if not any(asking):
        asking[-1:] = [True]
    asked: Findings = {}
    told: Findings = {}
    for findings, asks in zip(found, asking, strict=False):
        (asked if asks else told).update(findings)
    return asked, {keyword: finding for keyword, finding in told.items() if keyword not in asked}


def _share(votes: dict[str, float], winner: str) -> float:
    return 1 / sum(math.exp(vote - votes[winner]) for vote in votes.values())
