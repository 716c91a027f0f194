"""The fold over chat and completion answers, streamed or whole.

Perplexity and Hyperbolic repeat running usage in every chunk, Groq nests it in `x_groq`, Moonshot
in the choice that ends, Grok sends it before chunks that say null again; llama.cpp reports a
failure in an `error:` line, MiniMax in `base_resp` under status 200. Perplexity's last chunk
repeats the whole answer, so a `message` counts only where no deltas came before. Pieces of Writer's
streamed completions are a `value` and nothing else: no choices, no usage, no end.
"""

from __future__ import annotations

from typing import Any

from ..contract import Ask, Usage
from ..counts import member, objects
from ..fold import Fold
from ..openai_usage import settle_usage, take_cost, take_usage


class ChatReader(Fold):
    """`contract.Reader` of the family."""

    __slots__ = ("_finished", "_plain", "_searching", "_stated")

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask)
        self._finished = 0
        self._stated = False
        self._searching = "-search-" in (ask.model or "")
        """A model that may search before it answers, which costs a fee; its citations tell."""
        self._plain = False
        """The last event had one choice with text and nothing else."""

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        choices, usage = body.get("choices"), body.get("usage")
        self._plain = False
        needed = usage is None or self._ask.stream or self.read_text or self._searching
        inner = None
        if needed and type(choices) is list and choices:
            inner = self._choices(choices)
        elif not choices and member(body, "base_resp", "status_code"):
            self.failed = True
        elif choices is None and type(value := body.get("value")) is str and value:
            self.more(value)  # Writer's completions
        if self.model is None or self.response_id is None:
            self._name(body)
        if body.get("error") is not None or name == "error":
            self.failed = True
        if usage is None:
            usage = member(body["x_groq"], "usage") if "x_groq" in body else inner
        if usage is not None:
            self._state(body, usage, data, choices)
        elif self._stated:
            self.final = self.final or self.ended
        elif (
            self._plain
            and self.text
            and not (self.failed or self.model is None or self.response_id is None)
        ):
            self._framed(data)
        if "service_tier" in body:
            self._tier(body["service_tier"])

    def _state(self, body: dict[str, Any], usage: Any, data: bytes, choices: object) -> None:
        if not take_usage(usage, self._counts):
            return
        take_cost(usage, data, self._counts)
        if "service_tier" in usage:
            self._tier(usage["service_tier"])
        self._usage = None
        self._stated = True
        extra = choices == []
        self.surplus = extra and not self.failed and body.get("prompt_filter_results") is None
        self.final = self.ended or extra or not self._ask.stream
        if not self._ask.stream and not self.failed:
            self.ended = True

    def _choices(self, choices: list[Any]) -> object:
        """Read the text; answers the usage that a choice holds, if one does."""
        seen, usage = "", None
        for choice in choices:
            if type(choice) is not dict:
                continue
            delta = choice.get("delta")
            if type(delta) is not dict:
                delta = choice.get("message") if self.deltas == 0 else None
            if type(delta) is dict:
                content = delta.get("content")
                # The usual delta holds nothing else.
                if type(content) is str and len(delta) == 1:
                    seen += content
                    plain = True
                else:
                    seen += self._delta(delta)
                    plain = not (delta.get("tool_calls") or delta.get("function_call"))
                self._plain = plain and len(choices) == 1 and choice.get("finish_reason") is None
            elif type(text := choice.get("text")) is str:
                seen += text
            if choice.get("finish_reason") is not None:
                self._finished += 1
                self.ended = self._finished >= self._ask.choices
                usage = choice.get("usage")
        if seen:
            self.more(seen)
        return usage

    def _delta(self, delta: dict[str, Any]) -> str:
        if self._searching and objects(delta.get("annotations")):
            self._counts["searches"] = 1
            self._usage = None
        content = delta.get("content")
        seen = content if type(content) is str else "".join(map(_part, objects(content)))
        seen += _thinking(delta)
        if type(refusal := delta.get("refusal")) is str:
            seen += refusal
        if type(transcript := member(delta, "audio", "transcript")) is str:
            seen += transcript
        calls = [member(call, "function") for call in objects(delta.get("tool_calls"))]
        for function in (*calls, delta.get("function_call")):
            if type(function) is dict:
                seen += self._call(function)
        return seen

    def _call(self, function: dict[str, Any]) -> str:
        seen = ""
        if type(name := function.get("name")) is str and name:
            self.tool_calls += 1
            seen = name
        arguments = function.get("arguments")
        return seen + arguments if type(arguments) is str else seen

    def _settle(self) -> Usage:
        return settle_usage(self._counts, self.model)


def _thinking(delta: dict[str, Any]) -> str:
    """Reasoning text; some send it under two names, and some in details alone."""
    text = delta.get("reasoning_content") or delta.get("reasoning")
    if not text and "reasoning_details" in delta:
        text = "".join(map(_part, objects(delta["reasoning_details"])))
    return text if type(text) is str else ""


def _part(part: dict[str, Any]) -> str:
    """A content part of Mistral's: text, or thinking that holds parts itself."""
    if type(text := part.get("text")) is str:
        return text
    thinking = part.get("thinking")
    if type(thinking) is str:
        return thinking
    texts = [inner.get("text") for inner in objects(thinking)]
    return "".join(text for text in texts if type(text) is str)
