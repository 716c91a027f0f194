"""Routes whose answers we do not read: audio, images, files. Only per-request meters bill them."""

from __future__ import annotations

from collections.abc import Mapping

from ..contract import Ask, Framing, Intake, Reader
from ..fold import Unread
from ..passing import RawIntake
from ..quirks import Quirks
from ..replies import openai_refusal


class Opaque:
    """kind "free" for what costs nothing, anything else for what does."""

    family = "opaque"

    def __init__(self, quirks: Quirks, kind: str = "opaque") -> None:
        self._free = kind == "free"

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        return self._of(len(body))

    def intake(self, method: str, path: str, query: str, content_type: str) -> Intake | None:
        """Files pass through."""
        return RawIntake(lambda head, size: self._of(size))

    def _of(self, size: int) -> Ask:
        return Ask(input_bytes=size, text_bytes=size, makes_output=False, free=self._free)

    def edit(self, ask: Ask, body: bytes, *, usage: bool, output_cap: int | None) -> bytes:
        return body

    def framing(self, ask: Ask, content_type: str) -> Framing:
        return Framing.OPAQUE

    def reader(self, ask: Ask) -> Reader:
        return Unread(ask)

    def cut(
        self, framing: Framing, message: str, facts: Mapping[str, object], events: int
    ) -> bytes:
        return b""

    def refusal(
        self, ask: Ask | None, status: int, code: str, message: str, facts: Mapping[str, object]
    ) -> bytes:
        return openai_refusal(status, code, message, facts)
