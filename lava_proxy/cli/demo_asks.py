"""What the demo asks of the models, in the words of two providers, and how it reads their answers.

Each request carries a control word where these dialects have room for a user's name; the simulated
provider reads it as how many tokens to send, and how far apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson

from lava_adapters.weigh import weigh
from lava_proxy.cli.demo_client import Json
from lava_proxy.rules.estimate import input_tokens_estimate

OPENAI_HOST = "api.openai.com"
ANTHROPIC_HOST = "api.anthropic.com"

TOKENS_MAX = 4096


@dataclass(frozen=True, slots=True)
class Heard:
    """What one event says; None where it says nothing of the kind."""

    text: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for a streamed answer."""

    model: str
    url: str
    headers: Mapping[str, str]
    body: Json
    prompt_tokens: int
    """The gateway's guess, until the provider says."""
    hear: Callable[[Json], Heard]


def openai(prompt: str, control: str) -> Ask:
    """A chat completion."""
    body = {
        "model": "gpt-4o-mini",
        "stream": True,
        "user": control,
        "messages": [{"role": "user", "content": prompt}],
    }
    return _ask(f"https://{OPENAI_HOST}/v1/chat/completions", {}, body, _hear_openai)


def anthropic(prompt: str, control: str) -> Ask:
    """A message."""
    body = {
        "model": "claude-sonnet-4-5",
        "stream": True,
        "max_tokens": TOKENS_MAX,
        "metadata": {"user_id": control},
        "messages": [{"role": "user", "content": prompt}],
    }
    headers = {"anthropic-version": "2023-06-01"}
    return _ask(f"https://{ANTHROPIC_HOST}/v1/messages", headers, body, _hear_anthropic)


def control_word(tokens: int, pace_ms: int) -> str:
    """For the simulated provider: so many tokens, so far apart."""
    return f"sim-{tokens}-{pace_ms}"


def _ask(
    url: str, headers: Mapping[str, str], body: dict[str, object], hear: Callable[[Json], Heard]
) -> Ask:
    text_bytes = weigh(orjson.dumps(body), body).text_bytes
    return Ask(str(body["model"]), url, headers, body, input_tokens_estimate(text_bytes), hear)


def _hear_openai(event: Json) -> Heard:
    if "error" in event:
        return Heard(error=str(event["error"]["code"]))
    choices = event.get("choices") or [{}]
    return Heard(text=choices[0].get("delta", {}).get("content") or "")


def _hear_anthropic(event: Json) -> Heard:
    match event["type"]:
        case "error":
            return Heard(error=str(event["error"].get("code", event["error"]["type"])))
        case "message_start":
            return Heard(input_tokens=event["message"]["usage"]["input_tokens"])
        case "content_block_delta":
            return Heard(text=event["delta"]["text"])
        case "message_delta":
            usage = event["usage"]
            return Heard(input_tokens=usage["input_tokens"], output_tokens=usage["output_tokens"])
    return Heard()
