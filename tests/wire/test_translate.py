"""Translation: round trips, any split of a stream, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.core.errors import LavaError
from lava_proxy.wire.translate import anthropic, openai
from lava_proxy.wire.translate import neutral as n
from lava_proxy.wire.translate.anthropic import AnthropicWriter
from lava_proxy.wire.translate.dialects import DIALECTS, Name
from lava_proxy.wire.translate.openai import OpenAIWriter
from lava_proxy.wire.translate.translation import Translation

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.text("abcdefgh_", min_size=1, max_size=8)
texts = st.builds(n.Text, words)
images = st.builds(n.Image, st.just("image/png"), st.just("aGk="), st.just("")) | st.builds(
    n.Image, st.just(""), st.just(""), st.just("https://a.example/b.png")
)
calls = st.builds(n.ToolCall, names, names, st.sampled_from(['{"a":1}', "{}", '{"b":[null]}']))
results = st.builds(n.ToolResult, names, st.tuples(texts))
user = st.tuples(st.lists(results, max_size=2), st.lists(texts | images, min_size=1, max_size=3))
made = st.tuples(st.lists(texts, max_size=1), st.lists(calls, min_size=1, max_size=2))
turns = st.lists(st.tuples(user, made), max_size=2)


def _messages(pairs: Any, last: Any) -> tuple[n.Message, ...]:
    found = []
    for asked, answered in pairs:
        found += [n.Message("user", (*asked[0], *asked[1]))]
        found += [n.Message("assistant", (*answered[0], *answered[1]))]
    return (*found, n.Message("user", (*last[0], *last[1])))


tools = st.builds(n.Tool, names, words, st.just({"type": "object", "properties": {}}))
choices = st.sampled_from([n.Choice("auto"), n.Choice("required"), n.Choice("tool", "f"), None])
requests = st.builds(
    n.Request,
    model=names,
    messages=st.builds(_messages, turns, user),
    system=st.lists(words, max_size=2).map(tuple),
    tools=st.lists(tools, min_size=1, max_size=2).map(tuple),
    choice=choices,
    parallel=st.none(),
    temperature=st.none() | st.floats(0, 1),
    top_p=st.none() | st.floats(0, 1),
    output_cap=st.integers(1, 9000),
    stop=st.lists(words, max_size=2).map(tuple),
    stream=st.booleans(),
    wants_usage=st.just(True),
    format=st.none() | st.just(n.Format({"type": "object"})),
    user=st.none() | words,
)


@given(requests)
def test_requests_survive_both_dialects(request: n.Request) -> None:
    again = anthropic.read_request(anthropic.write_request(request, default_cap=1))
    assert again == request
    back = openai.read_request(openai.write_request(request))
    assert (back.messages, back.system, back.tools) == (
        request.messages,
        request.system,
        request.tools,
    )
    assert (back.choice, back.output_cap, back.stop) == (
        request.choice,
        request.output_cap,
        request.stop,
    )
    assert back.format == request.format


@given(st.lists(texts, max_size=1), st.lists(calls, max_size=2), st.integers(0, 99))
def test_answers_survive_both_dialects(text: Any, called: Any, count: int) -> None:
    counts = n.Counts(100, count, 40, 0, None)
    answer = n.Answer("a", "m", (*text, *called), "tool", counts)
    assert anthropic.read_answer(anthropic.write_answer(answer)) == answer
    back = openai.read_answer(openai.write_answer(answer, created=1))
    assert (back.parts, back.stop) == (answer.parts, answer.stop)
    assert (back.counts.input_tokens, back.counts.cache_read) == (100, 40)


DELTAS: list[n.Delta] = [
    n.Started("id", "m"),
    n.ThinkingDelta("hm"),
    n.TextDelta("é one"),
    n.CallStarted(0, "c0", "f"),
    n.CallDelta(0, '{"a":'),
    n.CallStarted(1, "c1", "g"),
    n.CallDelta(0, "1}"),
    n.CallDelta(1, "{}"),
    n.Finished("tool"),
    n.Used(n.Counts(9, 5, 2, 0)),
    n.Done(),
]


def _translation(client: Name, provider: Name) -> Translation:
    request = n.Request("m", (n.Message("user", (n.Text("x"),)),), stream=True, wants_usage=True)
    made = Translation(DIALECTS[client], DIALECTS[provider], request, answer_id="r", created=1)
    made.head(200, "text/event-stream")
    return made


def _wire(dialect: Name) -> bytes:
    writer: Any = AnthropicWriter("id", "m")
    if dialect == "openai":
        writer = OpenAIWriter("id", "m", created=1, wants_usage=True)
    return b"".join(writer.write(delta) for delta in DELTAS)


PAIRS: list[tuple[Name, Name]] = [("openai", "anthropic"), ("anthropic", "openai")]


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_any_split_gives_the_same_stream(client: Name, provider: Name) -> None:
    wire = _wire(provider)
    whole = _translation(client, provider)
    expected = whole.feed(wire) + whole.finish()
    assert whole.ended
    assert not whole.broken
    assert b"upstream" not in expected
    for at in range(len(wire)):
        split = _translation(client, provider)
        assert split.feed(wire[:at]) + split.feed(wire[at:]) + split.finish() == expected
    single = _translation(client, provider)
    out = b"".join(single.feed(wire[at : at + 1]) for at in range(len(wire)))
    assert out + single.finish() == expected


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_what_is_not_whole_is_broken(client: Name, provider: Name) -> None:
    short = _translation(client, provider)
    wire = _wire(provider)
    short.feed(wire[: wire.rindex(b"\n\n", 0, wire.index(b"1}")) + 2])
    assert b"ended early" in short.finish()
    assert short.broken
    unmarked = _translation(client, provider)
    expected = _translation(client, provider).feed(wire)
    marker = b"data: [DONE]" if provider == "openai" else b"event: message_stop"
    assert unmarked.feed(wire[: wire.index(marker)]) + unmarked.finish() == expected
    assert not unmarked.broken
    wrong = _translation(client, provider)
    assert b"error" in wrong.feed(b"data: {nonsense\n\n")
    assert wrong.broken


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"n": 2}, "n"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"verbosity": "low"}, "verbosity"),
        ({"temperature": "warm"}, "temperature"),
        ({"tools": [{"type": "custom"}]}, "tools.0.type"),
        ({"messages": []}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages.0.content.0.type",
        ),
    ],
)
def test_what_has_no_equivalent_is_refused_by_name(more: dict[str, Any], path: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | more
    with pytest.raises(LavaError) as caught:
        openai.read_request(json.dumps(body).encode())
    assert caught.value.status == 422
    assert isinstance(caught.value.details, list)
    assert caught.value.details[0] == {
        "path": path,
        "message": caught.value.message.partition(": ")[2],
    }
