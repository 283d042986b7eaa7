"""Rules: who of the team a message is for, by the words in it. Pure and fast; what it cannot tell it says.

Each keyword speaks for its intent, the less the more intents share it. The sums become shares as in a vote (softmax),
with a head start for the general assistant and for whoever answered last. The winner's share is the confidence: it is
high when there is much evidence and little of it for others, and low when there is none.
"""

import math
from collections import defaultdict
from dataclasses import dataclass

from agent_service.team.definition import GENERAL, Team
from agent_service.team.keywords import normalize
from agent_service.team.lexicon import Lexicon, Target

# What a message is about stands in its first thousands of characters, and a longer one must not cost more.
CHARACTERS = 4000
HEAD_START = 0.4
LAST_ANSWERED = 1.2
SURE = 0.55


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
        if last in agents and last != GENERAL:
            agents[last] += LAST_ANSWERED
        agent = max(agents, key=agents.__getitem__)
        confidence = _share(agents, agent)
        chosen = {intent: weight for (owner, intent), weight in intents.items() if owner == agent and intent}
        route = Route(agent, max(chosen, key=chosen.__getitem__) if chosen else None, round(confidence, 3))
        return Verdict(route, sure=bool(found) and confidence >= SURE, known=bool(found))


def _share(votes: dict[str, float], winner: str) -> float:
    return 1 / sum(math.exp(vote - votes[winner]) for vote in votes.values())
