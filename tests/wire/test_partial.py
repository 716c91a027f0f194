"""Text in JSON that broke off."""

from __future__ import annotations

import json

import pytest

from lava_proxy.wire.partial import text_bytes


@pytest.mark.parametrize(
    "text", ["plain", "", 'quo"te\\', "né\n\t", "\u4f60\u597d", '"text":"not a member"', "\\u0041"]
)
def test_the_text_of_a_whole_document_is_counted_as_it_is(text: str) -> None:
    body = {"id": "x", "instructions": "do", "choices": [{"message": {"content": text}}]}
    raw = json.dumps(body, ensure_ascii=False).encode()
    assert text_bytes(raw) == len(text.encode())


def test_escapes_cost_what_they_stand_for_at_most() -> None:
    assert text_bytes(rb'{"text":"\u4f60\n\\u"') == 6


@pytest.mark.parametrize("end", range(1, 60))
def test_wherever_it_broke_off(end: int) -> None:
    raw = rb'{"id":"x","output":[{"text":"one \"two\" \\ three"},{"arguments":"{}"}]}'[:end]
    assert 0 <= text_bytes(raw) <= 20
