"""Replicate's predictions: which answer is billed, and by what."""

from __future__ import annotations

import json

import pytest

from lava_adapters import Ask, AskError, Quirks, Reader
from lava_adapters.families import BUILTIN

VERSION = "ac732df83cea7fff18b8472768c88ad041fa750ff7682a21affe81863cbe77e4"


def _ask(kind: str, method: str, path: str, body: bytes = b"{}") -> Ask:
    return BUILTIN["predictions"](Quirks(), kind).ask(method, path, "", "application/json", body)


def _read(kind: str = "retrieve", **members: object) -> Reader:
    adapter = BUILTIN["predictions"](Quirks(), kind)
    reader = adapter.reader(Ask(model="given", background=kind == "prediction"))
    answer = {"id": "p1", "model": "stability-ai/sdxl", "error": None} | members
    reader.event("", json.dumps(answer).encode())
    return reader


def test_a_job_is_billed_once_it_is_over() -> None:
    for status in ("starting", "processing"):
        reader = _read(status=status, metrics={"predict_time": 1.5})
        assert (reader.final, reader.ended, reader.response_id) == (False, False, "p1")
        assert reader.usage().output_ms is None
    for status in ("succeeded", "canceled", "failed"):
        reader = _read(status=status, metrics={"predict_time": 2.811363})
        assert (reader.final, reader.ended, reader.failed) == (True, True, status == "failed")
        assert reader.usage().output_ms == 2811
        assert reader.usage().model == "stability-ai/sdxl"
    assert not _read(status="aborted").final


def test_tokens_and_pictures_where_they_are_stated() -> None:
    metrics = {"predict_time": 1, "input_token_count": 5, "output_token_count": 7, "image_count": 2}
    usage = _read(status="succeeded", metrics=metrics).usage()
    assert (usage.input_tokens, usage.output_tokens, usage.images) == (5, 7, 2)
    assert usage.output_ms == 1000


@pytest.mark.parametrize("metrics", [None, [], {"predict_time": "1"}, {"predict_time": -1},
                                     {"predict_time": True}, {"predict_time": 1e30}])  # fmt: skip
def test_metrics_that_are_none(metrics: object) -> None:
    reader = _read(status="succeeded", metrics=metrics)
    assert (reader.ended, reader.final) == (True, False)


def test_which_model_and_which_job() -> None:
    body = json.dumps({"version": VERSION, "input": {"prompt": "x" * 50}}).encode()
    ask = _ask("prediction", "POST", "/v1/predictions", body)
    assert (ask.model, ask.background, ask.makes_output) == (VERSION, True, False)
    assert ask.text_bytes > 50
    path = "/v1/models/stability-ai/sdxl/predictions"
    assert _ask("prediction", "POST", path).model == "stability-ai/sdxl"
    assert _ask("retrieve", "GET", "/v1/predictions/p1").object_ids == ("p1",)
    assert _ask("cancel", "POST", "/v1/predictions/p1/cancel", b"").object_ids == ("p1",)
    with pytest.raises(AskError):
        _ask("prediction", "POST", "/v1/predictions", b'{"version":"a","version":"b"}')
