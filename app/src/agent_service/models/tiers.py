"""Which tier a question deserves: a rule of the question's form, blind to its language."""

import re

from agent_service.core.settings import ModelTier

TIERS: tuple[ModelTier, ...] = ("economy", "standard", "strong")

# Characters of scripts that say in one what others say in about three.
_DENSE = re.compile(r"[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_QUESTION = re.compile("[?\uff1f]")
_LIST_ITEM = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s", re.MULTILINE)
_FIGURE = re.compile(r"\d[\d.,]*")

SHORT = 80
LONG = 1200


def complexity(message: str) -> int:
    """-1 for a short plain message, 1 for one that is long or asks for several things at once, else 0."""
    length = len(message) + 2 * len(_DENSE.findall(message))
    demands = (
        (length > LONG)
        + (len(_QUESTION.findall(message)) >= 3)
        + (len(_LIST_ITEM.findall(message)) >= 3)
        + (len(_FIGURE.findall(message)) >= 8)
        + ("```" in message)
    )
    if demands:
        return 1
    plain = not _FIGURE.search(message) and "\n" not in message.strip()
    return -1 if length <= SHORT and plain else 0


def suited(tier: ModelTier, message: str, minimum: ModelTier, maximum: ModelTier) -> ModelTier:
    """TIER moved by the message's complexity, at most one step and never out of the bounds."""
    low, high = TIERS.index(minimum), TIERS.index(maximum)
    wanted = TIERS.index(tier) + complexity(message)
    return TIERS[max(low, min(wanted, high))]
