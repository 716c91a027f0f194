"""The neutral form that every dialect is read into and written from.

JSON that nobody here looks into (a tool's schema) is kept as it was parsed. Tool arguments are JSON
text, because they arrive in pieces. `Counts.input_tokens` is the whole input, cached included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Role = Literal["user", "assistant"]
Stop = Literal["end", "length", "stop_sequence", "tool", "filter"]
Effort = Literal["minimal", "low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: either `data` (base64) of a `media_type`, or a `url`."""

    media_type: str = ""
    data: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """A PDF: `data` (base64), and a name to call it by."""

    data: str
    name: str = "document"


PDF = "application/pdf"
Shown = Text | Image | File
"""What a user shows, and what a tool answers with."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model wants a tool run; `arguments` is the text of a JSON object."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool said."""

    call_id: str
    parts: tuple[Shown, ...]
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Thinking:
    """Reasoning that is shown; only the dialect that made it can check its signature."""

    text: str
    signature: str = ""


Part = Text | Image | File | ToolCall | ToolResult | Thinking


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Neighbours never have the same role: see `merged`."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str
    schema: object


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tool must be called; `name` with mode "tool" only."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """The answer must be JSON of this schema."""

    schema: object
    name: str = "answer"


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation to be continued. None is "not said"."""

    model: str
    messages: tuple[Message, ...]
    system: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    choice: Choice | None = None
    parallel: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    output_cap: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    wants_usage: bool = False
    """The client asked for usage in its stream."""
    format: Format | None = None
    effort: Effort | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Usage. None is "not said"."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None

    def over(self, older: Counts) -> Counts:
        """Per field the later word that is not None."""
        return Counts(
            older.input_tokens if self.input_tokens is None else self.input_tokens,
            older.output_tokens if self.output_tokens is None else self.output_tokens,
            older.cache_read if self.cache_read is None else self.cache_read,
            older.cache_write if self.cache_write is None else self.cache_write,
            older.reasoning if self.reasoning is None else self.reasoning,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    answer_id: str
    model: str
    parts: tuple[Text | ToolCall | Thinking, ...]
    stop: Stop
    counts: Counts = Counts()
    stop_text: str | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The stream begins."""

    answer_id: str
    model: str
    counts: Counts = Counts()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More words."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More reasoning, or the signature that ends it."""

    text: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class CallStarted:
    """Tool call number `index` (from 0) begins."""

    index: int
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of the arguments of call number `index`."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The model stopped; usage may still follow."""

    stop: Stop
    stop_text: str | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """Usage so far."""

    counts: Counts


@dataclass(frozen=True, slots=True)
class Failed:
    """An error: of a whole answer, or inside a stream. `status` 0 is "not said"."""

    status: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """The stream's own end marker."""


Delta = (
    Started | TextDelta | ThinkingDelta | CallStarted | CallDelta | Finished | Used | Failed | Done
)


def merged(messages: list[Message]) -> tuple[Message, ...]:
    """Neighbours of one role become one message; empty texts and empty messages go."""
    found: list[Message] = []
    for message in messages:
        parts = tuple(_full(p) for p in message.parts if not _empty(p))
        if not parts:
            continue
        if found and found[-1].role == message.role:
            parts = found.pop().parts + parts
        found.append(Message(message.role, parts))
    return tuple(found)


def _empty(part: Part) -> bool:
    return isinstance(part, Text) and not part.text


def _full(part: Part) -> Part:
    """A tool's result without empty texts; a tool may say nothing."""
    if not isinstance(part, ToolResult):
        return part
    return replace(part, parts=tuple(p for p in part.parts if not _empty(p)))


def deltas_of(answer: Answer) -> list[Delta]:
    """A whole answer as a stream: for a client that asked for one and a provider that sent none."""
    deltas: list[Delta] = [Started(answer.answer_id, answer.model)]
    calls = 0
    for part in answer.parts:
        if isinstance(part, Text):
            deltas.append(TextDelta(part.text))
        elif isinstance(part, Thinking):
            deltas.append(ThinkingDelta(part.text, part.signature))
        else:
            deltas += [
                CallStarted(calls, part.call_id, part.name),
                CallDelta(calls, part.arguments),
            ]
            calls += 1
    return [*deltas, Finished(answer.stop, answer.stop_text), Used(answer.counts), Done()]
