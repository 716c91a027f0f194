"""Recorded provider payloads, read in place: their rows and their wire bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lava_adapters.awsframe import encode

FOLDER = Path(
    os.environ.get("LAVA_RECORDINGS", Path(__file__).parents[2].parent / "shared" / "recordings")
)
ABSENT = f"no recordings at {FOLDER} (set LAVA_RECORDINGS)"


def rows() -> list[dict[str, Any]]:
    """The index; empty where the folder is absent."""
    index = FOLDER / "index.jsonl"
    if not index.is_file():
        return []
    return [json.loads(line) for line in index.read_text("utf-8").splitlines()]


def wire(row: dict[str, Any]) -> bytes:
    """The body as the provider sent it; bare chunks get their framing back."""
    raw = (FOLDER / row["file"]).read_bytes()
    if row["framing"] != "jsonl-chunks":
        return raw
    if row["provider"] == "aws-bedrock":
        return b"".join(_frame(line) for line in raw.splitlines() if line.strip())
    end = b"\r\n" if row["api"] == "generateContent" else b"\n"
    out = []
    for line in raw.splitlines():
        if line.strip():
            name = _event_name(line) if row["api"] in ("messages", "responses") else ""
            event = b"event: %b%b" % (name.encode(), end) if name else b""
            out.append(event + b"data: " + line + end + end)
    return b"".join(out)


def _frame(line: bytes) -> bytes:
    """``{"contentBlockDelta": {...}}`` as AWS sends it."""
    name, payload = json.loads(line).popitem()
    headers = {":message-type": "event", ":event-type": name}
    return encode(headers, json.dumps(payload).encode())


def _event_name(line: bytes) -> str:
    try:
        return str(json.loads(line).get("type") or "")
    except (ValueError, AttributeError):
        return ""
