"""Replicate's predictions: jobs that run on after their answer, billed by time or by tokens.

An answer states `metrics` once the job is over: that may be the first, or any later GET of it. A
job that failed or was cancelled has used its time too.
"""

from __future__ import annotations

from typing import Any

from ..contract import Ask, Reader, Usage
from ..counts import exact, member, milliseconds, take
from ..fold import Fold
from ..paths import ids_behind
from ..quirks import Quirks
from ..strict import parse, text
from ..weigh import weigh
from .plain import Plain

_PRICED = frozenset(("version", "input"))
_COUNTS = {
    "input_token_count": "input",
    "output_token_count": "output",
    "token_input_count": "input",
    "token_output_count": "output",
    "character_input_count": "characters",
    "image_count": "images",
    "image_output_count": "images",
}
_OVER = ("succeeded", "failed", "canceled", "aborted")


class Predictions(Plain):
    """kind "prediction" makes one; "retrieve" and "cancel" read one."""

    family = "predictions"

    def __init__(self, quirks: Quirks, kind: str = "prediction") -> None:
        self._kind = kind

    def ask(self, method: str, path: str, query: str, content_type: str, body: bytes) -> Ask:
        if self._kind != "prediction" or method != "POST":
            return Ask(makes_output=False, object_ids=ids_behind(path, "predictions"))
        request = parse(body, _PRICED)
        weight = weigh(body, request)
        return Ask(
            model=_in_path(path) or text(request, "version"),
            input_bytes=weight.input_bytes,
            text_bytes=weight.text_bytes,
            media_tokens=weight.media_tokens,
            hidden_input=weight.hidden,
            background=True,
            makes_output=False,
        )

    def reader(self, ask: Ask) -> Reader:
        return PredictionReader(ask)


class PredictionReader(Fold):
    """Reads the prediction object."""

    __slots__ = ()

    def _fold(self, name: str, body: dict[str, Any], data: bytes) -> None:
        self._name(body)
        status = body.get("status")
        self.failed = self.failed or status == "failed" or body.get("error") is not None
        if status not in _OVER:
            return
        take(body.get("metrics"), _COUNTS, self._counts)
        ms = milliseconds(member(exact(data), "metrics", "predict_time"))
        if ms is not None:
            self._counts["ms"] = ms
        self._usage = None
        self.ended = True
        self.final = bool(self._counts)

    def _settle(self) -> Usage:
        counts = self._counts
        return Usage(
            input_tokens=counts.get("input"),
            output_tokens=counts.get("output"),
            output_ms=counts.get("ms"),
            input_characters=counts.get("characters"),
            images=counts.get("images"),
            model=self.model or self._ask.model,
        )


def _in_path(path: str) -> str | None:
    """``/v1/models/stability-ai/sdxl/predictions`` -> ``stability-ai/sdxl``."""
    parts = path.split("/")
    return "/".join(parts[3:5]) if len(parts) == 6 and parts[2] == "models" else None
