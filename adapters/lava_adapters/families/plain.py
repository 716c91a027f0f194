"""What families share that have no cap to lower and no usage to ask for: JSON in, JSON out."""

from __future__ import annotations

from collections.abc import Mapping

from ..contract import Ask, Framing
from ..framings import json_or_sse
from ..replies import openai_refusal


class Plain:
    """The part of `contract.Adapter` that changes nothing and cuts by closing."""

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        return body

    def framing(self, ask: Ask, content_type: str) -> Framing:
        return json_or_sse(ask, content_type)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        return b""

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return openai_refusal(status, code, message, facts)
