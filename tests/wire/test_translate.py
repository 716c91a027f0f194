"""Translation: round trips, any split of a stream, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lava_adapters.awsframe import encode
from lava_proxy.core.errors import LavaError
from lava_proxy.wire.eventstream import EventStreamFramer
from lava_proxy.wire.sse import SseFramer
from lava_proxy.wire.translate import anthropic, bedrock, google, openai
from lava_proxy.wire.translate import neutral as n
from lava_proxy.wire.translate.dialects import DIALECTS, Name, Start
from lava_proxy.wire.translate.translation import AWS_STREAM, Translation

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.text("abcdefgh_", min_size=1, max_size=8)
texts = st.builds(n.Text, words)
images = st.builds(n.Image, st.just("image/png"), st.just("aGk="), st.just("")) | st.builds(
    n.Image, st.just(""), st.just(""), st.just("https://a.example/b.png")
)
calls = st.builds(n.ToolCall, names, names, st.sampled_from(['{"a":1}', "{}", '{"b":[null]}']))
files = st.builds(n.File, st.just("aGk="), st.sampled_from(["document", "report (2)"]))
results = st.builds(n.ToolResult, names, st.tuples(texts))
user = st.tuples(
    st.lists(results, max_size=2), st.lists(texts | images | files, min_size=1, max_size=3)
)
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


@given(requests)
def test_requests_survive_googles_dialect(request: n.Request) -> None:
    again = google.read_request(google.write_request(request), model=request.model, stream=False)
    assert (again.system, again.tools, again.choice) == (
        request.system,
        request.tools,
        request.choice,
    )
    assert (again.output_cap, again.stop, again.temperature) == (
        request.output_cap,
        request.stop,
        request.temperature,
    )
    assert (again.format is None) == (request.format is None)
    assert [_nameless(m) for m in again.messages] == [_nameless(m) for m in request.messages]


def _nameless(message: n.Message) -> Any:
    """Google's calls have no ids, and its files no names."""
    return message.role, [
        replace(part, call_id="")
        if isinstance(part, n.ToolCall | n.ToolResult)
        else replace(part, name="")
        if isinstance(part, n.File)
        else part
        for part in message.parts
    ]


@given(requests)
def test_requests_survive_bedrocks_dialect(request: n.Request) -> None:
    held = [p for m in request.messages for p in m.parts]
    linked = any(isinstance(part, n.Image) and part.url for part in held)
    if request.format is not None or linked:
        with pytest.raises(LavaError):
            bedrock.write_request(request)
        return
    again = bedrock.read_request(bedrock.write_request(request), model=request.model, stream=False)
    expected = replace(request, stream=False, user=None)
    described = tuple(replace(t, description=t.description or t.name) for t in request.tools)
    assert again == replace(expected, tools=described)


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
    made.head(200, AWS_STREAM if provider == "bedrock" else "text/event-stream; charset=utf-8")
    return made


def _wire(dialect: Name, deltas: list[n.Delta]) -> bytes:
    writer = DIALECTS[dialect].writer(Start("id", "m", 1, wants_usage=True))
    return b"".join(writer.write(delta) for delta in deltas)


PAIRS: list[tuple[Name, Name]] = [(a, b) for a in DIALECTS for b in DIALECTS if a != b]


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_any_split_gives_the_same_stream(client: Name, provider: Name) -> None:
    wire = _wire(provider, DELTAS)
    whole = _translation(client, provider)
    expected = whole.feed(wire) + whole.finish()
    assert whole.ended
    assert not whole.broken
    assert b"upstream" not in expected
    for at in range(0, len(wire), 3):
        split = _translation(client, provider)
        assert split.feed(wire[:at]) + split.feed(wire[at:]) + split.finish() == expected
    single = _translation(client, provider)
    out = b"".join(single.feed(wire[at : at + 1]) for at in range(len(wire)))
    assert out + single.finish() == expected


spoken = words.map(n.TextDelta) | words.map(n.ThinkingDelta)
called = st.builds(n.ToolCall, names, names, st.sampled_from(['{"a":[1,"é"]}', "{}", ""]))


@st.composite
def streams(draw: st.DrawFn) -> list[n.Delta]:
    """What a model may say: words, thoughts, calls in fragments, a reason, usage."""
    deltas: list[n.Delta] = [n.Started("id", "m"), *draw(st.lists(spoken, max_size=5))]
    for number, call in enumerate(draw(st.lists(called, max_size=3))):
        deltas.append(n.CallStarted(number, call.call_id, call.name))
        at = draw(st.integers(0, len(call.arguments)))
        pieces = (call.arguments[:at], call.arguments[at:])
        deltas += [n.CallDelta(number, piece) for piece in pieces if piece]
    stop: n.Stop = draw(st.sampled_from(["end", "length", "filter", "tool"]))
    counts = n.Counts(draw(st.integers(9, 99)), draw(st.integers(0, 99)), draw(st.integers(0, 9)))
    return [*deltas, n.Finished(stop), n.Used(counts), n.Done()]


def _heard(dialect: Name, wire: bytes) -> tuple[Any, ...]:
    """What a reader of the dialect hears, without what dialects cut or name differently."""
    read = DIALECTS[dialect].reader()
    framer = EventStreamFramer() if dialect == "bedrock" else SseFramer()
    deltas = [d for e in framer.feed(wire) if e.data for d in read.event(e.name, e.data)]
    said = "".join(d.text for d in deltas if isinstance(d, n.TextDelta))
    thought = "".join(d.text for d in deltas if isinstance(d, n.ThinkingDelta))
    made: dict[int, list[str]] = {}
    for delta in deltas:
        if isinstance(delta, n.CallStarted):
            made[delta.index] = [delta.name, ""]
        elif isinstance(delta, n.CallDelta):
            made[delta.index][1] += delta.arguments
    found = [(name, json.loads(arguments or "{}")) for name, arguments in made.values()]
    stop = next(d.stop for d in deltas if isinstance(d, n.Finished))
    counts = n.Counts()
    for delta in deltas:
        if isinstance(delta, n.Used | n.Started):
            counts = delta.counts.over(counts)
    if stop in ("end", "tool") and "google" in dialect:
        stop = "end"
    return said, thought, found, stop, (counts.input_tokens, counts.output_tokens)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
@settings(max_examples=25)
@given(deltas=streams(), data=st.data())
def test_any_stream_says_the_same_however_it_is_split(
    client: Name, provider: Name, deltas: list[n.Delta], data: st.DataObject
) -> None:
    wire = _wire(provider, deltas)
    marks = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    made = _translation(client, provider)
    bounds = zip([0, *marks], [*marks, len(wire)], strict=True)
    out = b"".join([made.feed(wire[start:end]) for start, end in bounds]) + made.finish()
    whole = _translation(client, provider)
    assert out == whole.feed(wire) + whole.finish()
    assert not made.broken
    heard, told = _heard(client, out), _heard(provider, wire)
    if "google" in (client, provider):  # which has one word for these two
        ends = {"tool": "end"}
        heard, told = ((*s[:3], ends.get(s[3], s[3]), s[4]) for s in (heard, told))
    assert heard == told


@pytest.mark.parametrize(("client", "provider"), PAIRS)
def test_what_is_not_whole_is_broken(client: Name, provider: Name) -> None:
    begun = _wire(provider, DELTAS[:3])
    short = _translation(client, provider)
    short.feed(begun)
    assert b"ended early" in short.finish()
    assert short.broken
    wrong = _translation(client, provider)
    frame = encode({":event-type": "messageStart", ":message-type": "event"}, b"{nonsense")
    assert b"not JSON" in wrong.feed(frame if provider == "bedrock" else b"data: {nonsense\n\n")
    assert wrong.broken
    assert wrong.feed(begun) + wrong.finish() == b""
    if provider == "bedrock":
        torn = _translation(client, provider)
        assert b"no frame" in torn.feed(b"no frame at all, but long enough")
        assert torn.broken


@pytest.mark.parametrize(
    ("provider", "marker"),
    [("openai", b"data: [DONE]"), ("anthropic", b"event: message_stop"), ("bedrock", b"")],
)
def test_an_end_marker_that_is_missing_is_no_error(provider: Name, marker: bytes) -> None:
    wire = _wire(provider, DELTAS)
    metadata = wire.rindex(b"\x0b:event-type\x07\x00\x08metadata") - 12 if not marker else 0
    unmarked = _translation("google", provider)
    out = unmarked.feed(wire[: metadata or wire.index(marker)]) + unmarked.finish()
    assert b'"finishReason":"STOP"' in out
    assert unmarked.ended
    assert not unmarked.broken


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
