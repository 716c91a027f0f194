"""Reading documents (Mistral's OCR): billed by the page, which the answer counts."""

from __future__ import annotations

from typing import Any

from ..contract import Ask, Reader, Usage
from ..counts import count, member
from ..fold import Fold
from ..quirks import Quirks
from ..strict import parse, text
from ..weigh import weigh
from .plain import Plain

_PRICED = frozenset(("model", "document"))


class Documents(Plain):
    """kind "pages"."""

    family = "documents"

    def __init__(self, quirks: Quirks, kind: str = "pages") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        return Ask(
            model=text(request, "model"),
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=True,
            makes_output=False,
            object_ids=tuple(weight.object_ids),
        )

    def reader(self, ask: Ask) -> Reader:
        return DocumentsReader(ask)


class DocumentsReader(Fold):
    """``usage_info.pages_processed`` of the one answer."""

    __slots__ = ()

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        self._name(body)
        pages = count(member(body, "usage_info", "pages_processed"))
        if pages is not None:
            self._counts["pages"] = pages
            self._usage = None
            self.final = self.ended = True
        self.failed = self.failed or body.get("error") is not None

    def _settle(self) -> Usage:
        return Usage(pages=self._counts.get("pages"), model=self.model or self._ask.model)
