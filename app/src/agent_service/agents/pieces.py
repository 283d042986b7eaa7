"""The pieces of an answer out of all that models stream for it."""

from collections.abc import Awaitable, Callable

from langchain_core.messages import AIMessageChunk

from agent_service.core.text import storable

# What a model says before it calls a tool is shorter than this, and an answer seldom is.
HELD_CHARACTERS = 160


class Restart:
    """Among the pieces of an answer: what was sent so far is void, the answer begins again."""


RESTART = Restart()


class Pieces:
    """Hands on what the model answers, and not what it says before it calls a tool.

    Which of the two a text is shows only at its end. So where there are tools, the first characters of each of the
    model's messages are held back; what has been handed on stays part of the answer.
    """

    def __init__(self, emit: Callable[[str | Restart], Awaitable[None]], calls_tools: bool) -> None:
        self._emit = emit
        self._hold = HELD_CHARACTERS if calls_tools else 0
        self._held: list[str] = []
        self._said = ""
        self._calls_tool = False
        self.before = ""
        """What was handed on of messages that turned out to call a tool."""

    def begin(self) -> None:
        """What comes next is another message."""
        self._held, self._said, self._calls_tool = [], "", False

    async def add(self, chunk: AIMessageChunk) -> None:
        if chunk.tool_call_chunks and not self._calls_tool:
            self._calls_tool = True
            self.before += self._said
        if self._calls_tool or not chunk.text:
            return
        if self._said:
            await self._hand_on(chunk.text)
            return
        self._held.append(chunk.text)
        if sum(map(len, self._held)) >= self._hold:
            await self.finish()

    async def say(self, text: str) -> None:
        """Hand on a whole message, which no model streams."""
        self.begin()
        self._held = [text]
        await self.finish()

    async def restart(self) -> None:
        """Begin again: what was handed on is void, and what is held is never told."""
        if self.before or self._said:
            await self._emit(RESTART)
        self.begin()
        self.before = ""

    async def finish(self) -> None:
        """Hand on what is held: nothing comes that could show it to be something else."""
        if not self._held or self._calls_tool:
            return
        if self.before:
            self.before += "\n\n"
            await self._emit("\n\n")
        for text in self._held:
            await self._hand_on(text)
        self._held = []

    async def _hand_on(self, text: str) -> None:
        text = storable(text)
        self._said += text
        await self._emit(text)
