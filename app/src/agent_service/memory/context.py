"""What the next turn of a conversation starts from: a summary of what is older, and the newest messages."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, takewhile
from typing import Any, Self

from agent_service.guard.size import estimate_tokens

# Of what is kept in Redis: another release's is not read.
_FORM = 1


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str
    agent: str | None
    """Who said it, where it was one of the team."""


@dataclass(frozen=True, slots=True)
class Context:
    count: int = 0
    """How many messages the conversation has; the newest has this position."""
    covered: int = 0
    """The position up to which the summary tells."""
    summary: str = ""
    messages: tuple[Message, ...] = ()
    remembered: bool = False
    """Whether the long-term memory holds anything of the user."""

    @property
    def cut(self) -> bool:
        """Whether there are messages that are neither here nor in the summary."""
        return self.count - len(self.messages) > self.covered

    def bounded(self, messages: int, size: int, measure: Callable[[str], int] = len) -> Self:
        """The newest MESSAGES of together at most SIZE; turns stay whole."""
        newest = tuple(reversed(newest_within(self.messages, messages, size, measure)))
        return replace(self, messages=newest[1:] if newest and newest[0].role == "assistant" else newest)

    def fitting(self, tokens: int) -> Self:
        """The newest messages of together at most so many tokens."""
        # No character has more than three: most conversations need no counting.
        if 3 * sum(len(message.content) + 1 for message in self.messages) <= tokens:
            return self
        return self.bounded(len(self.messages), tokens, estimate_tokens)

    def after(self, question: str, answer: str, agent: str) -> Self:
        said = (Message("user", question, None), Message("assistant", answer, agent))
        return replace(self, count=self.count + 2, messages=(*self.messages, *said))

    def to_text(self) -> str:
        messages = [[message.role, message.content, message.agent] for message in self.messages]
        return json.dumps([_FORM, self.count, self.covered, self.summary, messages], ensure_ascii=False)

    @classmethod
    def of_text(cls, text: str | None) -> Self:
        """What was kept; nothing where it cannot be read."""
        try:
            form, count, covered, summary, messages = json.loads(text or "")
            if form != _FORM:
                return cls()
            return cls(int(count), int(covered), str(summary), tuple(Message(*message) for message in messages))
        except (ValueError, TypeError):
            return cls()


def newest_within(
    messages: Sequence[Message], most: int, size: int, measure: Callable[[str], int] = len
) -> list[Message]:
    """Newest first."""
    newest = list(reversed(messages[-most:] if most else ()))
    sizes: Any = accumulate(measure(message.content) for message in newest)
    return [message for message, _ in zip(newest, takewhile(lambda total: total <= size, sizes), strict=False)]
