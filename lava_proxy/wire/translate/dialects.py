"""What every dialect can do, in one table: requests, answers, errors and streams, both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from lava_adapters.contract import Framing

from . import anthropic, bedrock, google, openai
from . import neutral as n

Name = Literal["openai", "anthropic", "google", "bedrock"]


class Reader(Protocol):
    """A provider's stream as deltas."""

    def event(self, name: str, data: bytes) -> list[n.Delta]:
        """The deltas in one whole event; raises `members.Unreadable`."""


class Writer(Protocol):
    """Deltas as a client's stream."""

    def write(self, delta: n.Delta) -> bytes:
        """The events that a delta makes."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a request's URL says, where the dialect has that there and not in the body."""

    model: str | None = None
    stream: bool = False
    array: bool = False
    """The stream is one JSON array (Google's without ``alt=sse``)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a request to a provider depends on beside the request."""

    default_cap: int
    """Output tokens where the client set no cap and the dialect needs one."""
    cap_member: str = "max_completion_tokens"
    usage_opt_in: bool = True


@dataclass(frozen=True, slots=True)
class Start:
    """What an answer says of itself until the provider does."""

    answer_id: str
    model: str
    created: int
    wants_usage: bool
    array: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """One format."""

    name: Name
    read_request: Callable[[bytes, Named], n.Request]
    write_request: Callable[[n.Request, Facts], bytes]
    read_answer: Callable[[bytes], n.Answer]
    write_answer: Callable[[n.Answer, int], bytes]
    read_error: Callable[[int, bytes], n.Failed]
    write_error: Callable[[n.Failed], bytes]
    reader: Callable[[], Reader]
    writer: Callable[[Start], Writer]
    framing: Framing = Framing.SSE
    """Of its streams."""


OPENAI = Dialect(
    "openai",
    lambda body, _: openai.read_request(body),
    lambda request, facts: openai.write_request(
        request, cap_member=facts.cap_member, usage_opt_in=facts.usage_opt_in
    ),
    openai.read_answer,
    lambda answer, created: openai.write_answer(answer, created=created),
    openai.read_error,
    openai.write_error,
    openai.OpenAIReader,
    lambda start: openai.OpenAIWriter(
        start.answer_id, start.model, created=start.created, wants_usage=start.wants_usage
    ),
)
ANTHROPIC = Dialect(
    "anthropic",
    lambda body, _: anthropic.read_request(body),
    lambda request, facts: anthropic.write_request(request, default_cap=facts.default_cap),
    anthropic.read_answer,
    lambda answer, _: anthropic.write_answer(answer),
    anthropic.read_error,
    anthropic.write_error,
    anthropic.AnthropicReader,
    lambda start: anthropic.AnthropicWriter(start.answer_id, start.model),
)
GOOGLE = Dialect(
    "google",
    lambda body, named: google.read_request(body, model=named.model, stream=named.stream),
    lambda request, _: google.write_request(request),
    google.read_answer,
    lambda answer, _: google.write_answer(answer),
    google.read_error,
    google.write_error,
    google.GoogleReader,
    lambda start: google.GoogleWriter(start.answer_id, start.model, array=start.array),
)
BEDROCK = Dialect(
    "bedrock",
    lambda body, named: bedrock.read_request(body, model=named.model, stream=named.stream),
    lambda request, _: bedrock.write_request(request),
    bedrock.read_answer,
    lambda answer, _: bedrock.write_answer(answer),
    bedrock.read_error,
    bedrock.write_error,
    bedrock.BedrockReader,
    lambda start: bedrock.BedrockWriter(start.answer_id, start.model),
    Framing.EVENT_STREAM,
)
DIALECTS: Mapping[Name, Dialect] = {
    each.name: each for each in (OPENAI, ANTHROPIC, GOOGLE, BEDROCK)
}
