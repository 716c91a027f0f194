"""Recorded answers, translated: text, tool calls, stop reason and usage stay, however the bytes are
split. Both sides are read by the tests' own reader (essence.py)."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import essence
import pytest

from lava_adapters.awsframe import encode
from lava_proxy.wire.translate import neutral as n
from lava_proxy.wire.translate.dialects import DIALECTS, Name
from lava_proxy.wire.translate.translation import AWS_STREAM, Translation

FOLDER = Path(
    os.environ.get("LAVA_RECORDINGS", Path(__file__).parents[2].parent / "shared" / "recordings")
)
SPLITS = 3
CLIENTS: tuple[Name, ...] = ("openai", "anthropic", "google", "bedrock")
APIS: dict[str, Name] = {
    "chat": "openai",
    "messages": "anthropic",
    "generateContent": "google",
    "converse": "bedrock",
}


def _rows() -> list[dict[str, Any]]:
    index = FOLDER / "index.jsonl"
    if not index.is_file():
        return []
    rows = [json.loads(line) for line in index.read_text("utf-8").splitlines()]
    return [
        row
        for row in rows
        if row["api"] in APIS
        and row["framing"] in ("json", "sse", "jsonl-chunks", "aws-eventstream")
        and row.get("status", 200) in (None, 200)
        and not row["info"].get("error")
    ]


ROWS = _rows()
each = pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
if not ROWS:
    reason = f"no recordings at {FOLDER} (set LAVA_RECORDINGS)"
    each = pytest.mark.parametrize("row", [pytest.param(None, marks=pytest.mark.skip(reason))])


def _wire(row: dict[str, Any]) -> bytes:
    raw = (FOLDER / row["file"]).read_bytes()
    if row["framing"] != "jsonl-chunks":
        return raw
    if row["api"] == "converse":
        return b"".join(_frame(json.loads(line)) for line in raw.splitlines() if line.strip())
    return b"".join(b"data: " + line + b"\n\n" for line in raw.splitlines() if line.strip())


def _frame(event: dict[str, Any]) -> bytes:
    ((name, value),) = event.items()
    return encode({":event-type": name, ":message-type": "event"}, json.dumps(value).encode())


def _translation(client: Name, provider: Name, *, stream: bool) -> Translation:
    asked = n.Request("m", (n.Message("user", (n.Text("x"),)),), stream=stream, wants_usage=True)
    return Translation(DIALECTS[client], DIALECTS[provider], asked, answer_id="r", created=1)


def _translated(client: Name, provider: Name, pieces: list[bytes], *, stream: bool) -> Any:
    made = _translation(client, provider, stream=stream)
    streams = AWS_STREAM if provider == "bedrock" else "text/event-stream; charset=utf-8"
    made.head(200, streams if stream else "application/json")
    out = b"".join(made.feed(piece) for piece in pieces)
    return made, out + made.finish()


def _cut(wire: bytes, dice: random.Random) -> list[bytes]:
    marks = sorted(dice.sample(range(len(wire) + 1), min(20, len(wire))))
    return [wire[a:b] for a, b in zip([0, *marks], [*marks, len(wire)], strict=True)]


def _said(dialect: Name, wire: bytes, *, stream: bool) -> Any:
    if stream and dialect == "bedrock":
        return essence.bedrock_stream(wire)
    if stream:
        return getattr(essence, f"{dialect}_stream")(essence.events(wire))
    return getattr(essence, f"{dialect}_whole")(json.loads(wire))


@each
@pytest.mark.parametrize("client", CLIENTS)
def test_a_recorded_answer_says_the_same(row: dict[str, Any], client: Name) -> None:
    provider, stream, wire = APIS[row["api"]], row["framing"] != "json", _wire(row)
    made, out = _translated(client, provider, [wire], stream=stream)
    ids = "google" not in (provider, client)  # most of Google's calls have none
    said = _said(provider, wire, stream=stream).said(ids=ids)
    assert not made.broken, out[-200:]
    assert _said(client, out, stream=stream).said(ids=ids) == said
    if stream:
        dice = random.Random(row["file"])
        for _ in range(SPLITS):
            assert _translated(client, provider, _cut(wire, dice), stream=True)[1] == out
    else:  # the client asked for a stream all the same
        asked = _translation(client, provider, stream=True)
        asked.head(200, "application/json")
        streamed = asked.feed(wire) + asked.finish()
        assert not asked.broken
        assert _said(client, streamed, stream=True).said(ids=ids) == said
