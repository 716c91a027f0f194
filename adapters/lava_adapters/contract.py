"""What an adapter is: pure functions over bytes that know one provider family's wire format.

An adapter answers five questions and holds no state of its own:

* `ask`: what does this request want (model, stream, output cap, ...)?
* `edit`: the smallest change of the body that asks for usage or lowers the output cap.
* `framing`: how is the answer cut into events?
* `reader`: a fold over those events that reads usage. Any split of the stream into reads gives the
  same answer, because framing (ours, in lava_proxy.wire) hands over whole events only.
* `cut` / `refusal`: which bytes make this family's SDKs raise their own typed error.

Conventions of every count: input is the whole input, cached and cache-write tokens included;
output is the whole output, reasoning included; sub-counts lie beside them and are clamped to their
total. None means "not stated": absent is not zero. Counts repeat cumulatively, so the last value
that is not null wins; nothing is ever summed over chunks.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol, runtime_checkable

from .values import dataclass

Headers = Sequence[tuple[bytes, bytes]]
"""Header pairs as on the wire, names in lower case."""


class Framing(enum.Enum):
    """How an answer's body is cut into events."""

    __hash__ = object.__hash__  # each is one object; the library's own asks for its name first

    SSE = "sse"
    JSON_ARRAY = "json_array"
    """A JSON array sent piecemeal; every element is an event (Gemini without alt=sse)."""
    NDJSON = "ndjson"
    EVENT_STREAM = "event_stream"
    """AWS binary frames; an event's name is its ``:event-type``, or says ``exception:`` or
    ``error:`` and which."""
    JSON = "json"
    """One JSON document: the whole body is one event."""
    OPAQUE = "opaque"
    """Bytes with nothing to read in them; the reader sees only headers."""


class AskError(ValueError):
    """The body is wrong in a way that matters to the bill (duplicate priced key, bad count, not
    JSON). The message says what and what to do; `path` names the member."""

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True, slots=True)
class Usage:
    """One answer's counts. Tokens and characters are whole numbers, times are milliseconds,
    `cost_e10` is the provider's own cost figure in 10^-10 USD."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    tool_prompt_tokens: int | None = None
    input_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    cached_audio_tokens: int | None = None
    """Of the cached tokens; None: as few of them as there can be."""
    cached_image_tokens: int | None = None
    reasoning_tokens: int | None = None
    output_audio_tokens: int | None = None
    output_image_tokens: int | None = None
    input_characters: int | None = None
    output_characters: int | None = None
    input_ms: int | None = None
    output_ms: int | None = None
    total_reported: int | None = None
    citation_tokens: int | None = None
    """Beside the output (Perplexity's deep research)."""
    web_searches: int | None = None
    file_searches: int | None = None
    containers: int | None = None
    """Sandboxes for code that the provider opened for this answer; a large one counts as many."""
    guardrail_filters: int | None = None
    """Text units that a guardrail's content filters and denied topics looked at, each of them."""
    guardrail_checks: int | None = None
    """The same of its checks for sensitive information and grounding."""
    guardrail_others: int | None = None
    """Units of its further policies; 1 where it looked, and nobody says at how much."""
    images: int | None = None
    pages: int | None = None
    search_units: int | None = None
    cost_e10: int | None = None
    model: str | None = None
    """The model that made these counts, where the answer names one."""
    parts: tuple[Usage, ...] = ()
    """Sub-calls priced apart, each with its own model (Anthropic iterations). Where present they
    add up to the counts above and replace them for pricing."""

    def with_model(self, model: str | None) -> Usage:
        return replace(self, model=model)


NO_USAGE = Usage()


ToolFee = Literal["web_search", "file_search", "container", "search_unit", "picture"]
"""What a provider charges beside the tokens of an answer."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request asks for, known before anything is sent."""

    model: str | None = None
    stream: bool = False
    output_cap: int | None = None
    """The output limit the caller set, in tokens."""
    choices: int = 1
    """Answers asked for at once (n, best_of, candidateCount); each may be as long as the cap."""
    input_bytes: int = 0
    """UTF-8 bytes of everything that becomes prompt tokens: an upper bound for byte-level
    tokenizers. For sound, the tokens that it may have beyond `media_tokens`."""
    text_bytes: int = 0
    """UTF-8 bytes of the text in it, names and punctuation of the JSON left aside: what an estimate
    starts from."""
    media_tokens: int = 0
    """Tokens that images, audio and files in the body may cost, by per-item constants."""
    hidden_input: bool = False
    """The prompt holds more than the body shows (previous_response_id, file ids, URLs, server-side
    tools)."""
    wants_usage: bool = False
    """The caller asked for the usage chunk itself, so it must reach the caller."""
    capable_of_cap: bool = False
    """`edit` can lower or inject an output cap for this endpoint."""
    capable_of_usage: bool = False
    """`edit` can ask for the usage chunk on this request (streamed chat or completions)."""
    free: bool = False
    """The provider does not charge for this endpoint (count_tokens, models, moderations)."""
    background: bool = False
    """Runs on at the provider after the answer: cannot be cut off."""
    makes_output: bool = True
    """False for embeddings, rerank and the like: no output tokens to hold for."""
    object_ids: tuple[str, ...] = ()
    """Provider-side objects this request names (previous_response_id, conversation, the id in the
    path): they must belong to the same customer."""
    input_characters: int | None = None
    """Characters to be spoken, where the provider bills those."""
    spoken_tokens: int = 0
    """Tokens that speaking those characters probably makes, where the answer never says."""
    input_ms: int | None = None
    """How long the recording probably is, where the provider bills that."""
    input_ms_most: int = 0
    """It is not longer than this."""
    images: int = 0
    """Pictures asked for."""
    pages: int = 0
    """Pages that may have to be read, where the provider bills those."""
    guarded: bool = False
    """A guardrail of the provider's looks at input and answer, and is paid for it."""
    service_tier: str | None = None
    """The tier or speed that the request names, as the answer would; None leaves it to the
    provider."""
    tool_fees: tuple[tuple[ToolFee, int | None], ...] = ()
    """Fees that the answer may bring beside its tokens, and how many of each at most; None: the
    request sets no bound."""
    rounds: int | None = 1
    """How often the provider may read the prompt for this one answer: again after each use of its
    own tools. None: the request sets no bound."""
    as_array: bool = False
    """The answer, and so a refusal, is one JSON array (Gemini's stream without alt=sse)."""


class Reader(Protocol):
    """A fold over the events of one answer. Attributes may be read after every event.

    `event` never raises: whatever a provider sends gives usage or nothing.
    """

    reads_headers: bool
    """Whether `headers` wants to be called: some families state counts there."""
    read_text: bool
    """Set it to have text read where usage would make that unnecessary (to count characters)."""
    deltas: int
    """Content-carrying events so far."""
    delta_bytes: int
    """UTF-8 bytes of visible text, reasoning text, refusals, tool names and arguments so far."""
    thoughts: int
    """Of those events: such as showed a summary of reasoning, which is shorter than what it sums
    up. Where the reasoning itself is shown it is text like any other."""
    thought_bytes: int
    """Of those bytes, the same."""
    tool_calls: int
    """Tool calls started so far (each costs about 10 tokens of framing)."""
    text: str
    """Countable text of the last event, for an exact tokenizer ("" when it had none)."""
    frame: tuple[bytes, bytes] | None
    """What stood before and after `text` in the last event's data, where an event that differs in
    its text alone would change nothing but `deltas`, `delta_bytes` and `text`; None where there is
    no such promise. Most events of a stream are like that, and need not be parsed: see `more`."""
    ended: bool
    """The format's own end marker was seen ([DONE], message_stop, a finish reason, ...)."""
    failed: bool
    """An in-stream error of the provider was seen."""
    surplus: bool
    """The last event is the extra usage chunk that an injected include_usage brings: nothing else
    is in it."""
    final: bool
    """`usage()` is the provider's final word rather than a running figure."""
    model: str | None
    response_id: str | None
    service_tier: str | None

    def event(self, name: str, data: bytes) -> None:
        """Take one whole event: `name` is the SSE event name ("" when none), `data` its payload."""

    def more(self, text: str) -> None:
        """Take an event that has `frame` around another text, which is not empty. Times, sequence
        numbers and padding in it may be others."""

    def headers(self, status: int, headers: Mapping[str, str]) -> None:
        """Take the answer's head (lower-case names): some counts live there."""

    @property
    def made(self) -> tuple[str, ...]:
        """Objects beside `response_id` that the provider made for this answer and that a later
        request can name: containers. They belong to the customer who asked."""

    def usage(self) -> Usage:
        """The counts so far: the provider's last word on each field, per-field maximum where it
        reports running figures. NO_USAGE when it said nothing."""


class Intake(Protocol):
    """A request's body that is read while it passes to the provider."""

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes; what may go on by now. The end never is among that, so what has gone
        is no whole request. Raises `AskError`."""

    def finish(self) -> bytes:
        """The body is complete: the rest of it. Raises `AskError`."""

    def ask(self, left: int = 0) -> Ask:
        """What the request asks for, should `left` more bytes come of what is being read."""


@runtime_checkable
class PassesOn(Protocol):
    """An adapter that can read some requests while they pass. Optional: without it bodies are kept
    whole, up to a limit."""

    def intake(self, method: str, path: str, query: str, content_type: str) -> Intake | None:
        """None where this request must be read as a whole, as by `Adapter.ask`. Such a request is
        never edited. Raises `AskError`."""


class Adapter(Protocol):
    """One wire format family."""

    family: str

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        """Read a request. Raises `AskError`."""

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        """`body` with the usage chunk asked for and the output cap set to `output_cap` (None = as
        it is). Everything else stays byte for byte."""

    def framing(self, ask: Ask, content_type: str) -> Framing:
        """How the answer with this content type is cut."""

    def reader(self, ask: Ask) -> Reader:
        """A fresh fold."""

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        """The error event that ends a running answer (code ``budget_exhausted``); ``b""`` where
        only closing the connection helps. `facts` are extra JSON members of the error object.
        `events` = events sent so far."""

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        """The JSON body of an error answer in this family's own shape (content-type
        application/json)."""
