"""How far our own count is from the provider's, on recorded streams: ``python -m
benchmarks.estimates``.

For every recorded stream that ends with usage: what we would have counted had the provider said
nothing, against its final word; and, where it reports running usage, our count against that at
every event a cut could fall on. Streams are fed event by event through the gateway's own tap and
readers, with the figures of the provider table and no learned factor. Reasoning that is not shown
is left out on both sides, with its summary, and so is a stream with less than a byte of text per
token: shortened by who recorded it, or output that is not text. The table in docs/metering.md is
this one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from lava_adapters import Ask, Quirks, Reader
from lava_adapters.contract import Framing
from lava_adapters.families import BUILTIN
from lava_adapters.provider import Provider
from lava_adapters.registry import Registry
from lava_proxy.rules.estimate import LEARN_FROM_TOKENS, Profile, estimate_tokens
from lava_proxy.wire.tap import Tap

FOLDER = Path(
    os.environ.get("LAVA_RECORDINGS", Path(__file__).parents[1].parent / "shared" / "recordings")
)
ABSENT = f"no recordings at {FOLDER} (set LAVA_RECORDINGS)"

FAMILIES: Mapping[str, tuple[str, str]] = {
    "chat": ("openai_chat", "chat"),
    "completions": ("openai_chat", "completions"),
    "responses": ("openai_responses", "responses"),
    "embeddings": ("openai_embeddings", "embeddings"),
    "messages": ("anthropic_messages", "messages"),
    "generateContent": ("gemini", "gemini"),
    "chat-v1": ("cohere", "chat"),
    "chat-v2": ("cohere", "chat"),
    "generate-v1": ("cohere", "generate"),
    "embed": ("cohere", "embed"),
    "rerank": ("cohere", "rerank"),
    "converse": ("bedrock", "converse"),
    "invoke": ("bedrock", "invoke"),
    "ollama-chat": ("ollama", "chat"),
    "ollama-generate": ("ollama", "generate"),
    "listen": ("media", "transcription"),
    "transcriptions": ("media", "transcription"),
    "predictions": ("predictions", "prediction"),
    "interactions": ("interactions", "interactions"),
    "images": ("media", "images"),
}
"""How the recordings call an API -> family and kind."""
_ROWS = {
    "aws-bedrock": "bedrock",
    "aws-bedrock-mantle": "bedrock-mantle",
    "google-gemini": "google",
    "google-vertex": "vertex",
}
_FRAMINGS = {
    "sse": Framing.SSE,
    "jsonl-chunks": Framing.SSE,
    "ndjson": Framing.NDJSON,
    "aws-eventstream": Framing.EVENT_STREAM,
    "json": Framing.JSON,
}


@dataclass(frozen=True)
class Recorded:
    """One recording, and how to read it."""

    row: Mapping[str, Any]
    family: str
    kind: str

    @property
    def framing(self) -> Framing:
        return _FRAMINGS[self.row["framing"]]

    @property
    def model(self) -> str:
        return str(self.row["request"].get("request_model") or self.row["model"] or "m")

    def reader(self) -> Reader:
        ask = Ask(model=self.model, stream=self.row["stream"])
        return BUILTIN[self.family](Quirks(), self.kind).reader(ask)

    def wire(self) -> bytes:
        """As the provider sent it; bare chunks get their framing back."""
        raw = (FOLDER / self.row["file"]).read_bytes()
        if self.row["framing"] != "jsonl-chunks":
            return raw
        return b"".join(_event(line) for line in raw.splitlines() if line.strip())

    def events(self) -> list[bytes]:
        """The wire's bytes, one event each."""
        tap = Tap(self.framing, self.reader())
        return [each.raw for each in (*tap.feed(self.wire()), *tap.finish())]


def _event(line: bytes) -> bytes:
    try:
        name = json.loads(line).get("type")
    except (ValueError, AttributeError):
        name = None
    return (b"event: %b\n" % name.encode() if name else b"") + b"data: " + line + b"\n\n"


def recordings(*, streamed: bool) -> Iterator[Recorded]:
    """The recordings of a family of ours; none where the folder is absent."""
    index = FOLDER / "index.jsonl"
    if not index.is_file():
        return
    for line in index.read_text("utf-8").splitlines():
        row = json.loads(line)
        found = FAMILIES.get(row["api"])
        if row["api"] == "chat-v1" and row["provider"] != "cohere":  # Writer's
            found = ("openai_chat", "chat")
        wanted = row["status"] == 200 and row["stream"] is streamed
        if found and wanted and row["framing"] in _FRAMINGS:
            yield Recorded(row, *found)


@dataclass
class Errors:
    """One provider's streams: (ours, theirs) at the end, and at cuts."""

    whole: list[tuple[int, int]] = field(default_factory=list)
    cuts: list[tuple[int, int]] = field(default_factory=list)


def measure() -> dict[str, Errors]:
    """By provider."""
    registry = Registry.builtin()
    found: dict[str, Errors] = {}
    for recorded in recordings(streamed=True):
        expected = recorded.row["expected"] or {}
        truth = expected.get("output_tokens")
        if not truth or "iterations" in expected:
            continue
        name = recorded.row["provider"]
        row = registry.by_id(_ROWS.get(name, name))
        hidden = row is not None and row.hides(recorded.model)
        truth -= expected.get("reasoning_tokens", 0) if hidden else 0
        if truth >= LEARN_FROM_TOKENS:
            _one(recorded, row, hidden, truth, found.setdefault(name, Errors()))
    return {name: errors for name, errors in found.items() if errors.whole}


def _one(recorded: Recorded, row: Provider | None, hidden: bool, truth: int, into: Errors) -> None:
    profile = Profile(row.one_token_events, row.bytes_per_token_e3) if row else Profile()
    tap = Tap(recorded.framing, recorded.reader())
    cuts = []
    for event in recorded.events():
        tap.feed(event)
        usage = tap.reader.usage()
        stated = usage.output_tokens or 0
        stated -= (usage.reasoning_tokens or 0) if hidden else 0
        if not tap.reader.final and stated >= LEARN_FROM_TOKENS:
            cuts.append((_count(tap.reader, profile, hidden), stated))
    tap.finish()
    made = _count(tap.reader, profile, hidden)
    if tap.reader.delta_bytes >= truth or tap.reader.tool_calls:
        into.whole.append((made, truth))
        into.cuts += cuts


def _count(reader: Reader, profile: Profile, hidden: bool) -> int:
    deltas, size = reader.deltas, reader.delta_bytes
    if hidden:
        deltas, size = deltas - reader.thoughts, size - reader.thought_bytes
    return estimate_tokens(deltas, size, reader.tool_calls, profile)


HEAD = (
    "Provider",
    "Streams",
    "Tokens",
    "All together",
    "Median",
    "Worst",
    "Cuts",
    "Median at cuts",
    "Worst at cuts",
)


def rows() -> list[tuple[str, ...]]:
    """The table; empty where there are no recordings."""
    made = []
    for name, errors in sorted(measure().items()):
        ours, theirs = (sum(side) for side in zip(*errors.whole, strict=True))
        made.append(
            (
                name,
                str(len(errors.whole)),
                str(theirs),
                _percent(ours, theirs),
                *_spread(errors.whole),
                str(len(errors.cuts) or ""),
                *(_spread(errors.cuts) if errors.cuts else ("", "")),
            )
        )
    return made


def _spread(pairs: list[tuple[int, int]]) -> tuple[str, str]:
    """The median of the errors' sizes, and the worst with its sign."""
    sizes = [abs(ours - theirs) * 1000 // theirs for ours, theirs in pairs]
    ours, theirs = max(pairs, key=lambda pair: abs(pair[0] - pair[1]) / pair[1])
    return f"{int(median(sizes)) / 10:.1f}%", _percent(ours, theirs)


def _percent(ours: int, theirs: int) -> str:
    return f"{(ours - theirs) * 100 / theirs:+.1f}%"


def main() -> None:
    """Print the table."""
    found = rows()
    if not found:
        raise SystemExit(ABSENT)
    for line in (HEAD, ("---",) * len(HEAD), *found):
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
