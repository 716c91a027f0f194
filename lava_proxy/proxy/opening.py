"""The answer's head is here: how its body will be cut, read and counted."""

from __future__ import annotations

from lava_adapters.contract import Framing
from lava_proxy.core.errors import HTTP_ERROR
from lava_proxy.net.upstream import Answer
from lava_proxy.proxy import background
from lava_proxy.proxy.gateway import Gateway
from lava_proxy.proxy.run import Run
from lava_proxy.proxy.running import Running
from lava_proxy.rules.gauge import FREE
from lava_proxy.wire.sieve import sieves
from lava_proxy.wire.tap import Tap

_EMPTY_BODIES = frozenset({204, 304})
_INFLATED = 3
"""Bytes of text in a byte of a compressed answer, by assumption."""


def open_tap(gateway: Gateway, run: Run, answer: Answer, *, asked_usage: bool) -> None:
    """Set up the counting of an answer, by its head."""
    adapter, ask, provider, call = run.adapter, run.ask, run.provider, run.call
    if adapter is None or ask is None or provider is None or call is None:
        raise TypeError("a call is answered after it was admitted")
    framing = adapter.framing(ask, answer.content_type)
    if encoded(answer):
        run.flags.add("encoded_answer")
        framing = Framing.OPAQUE
    reader = adapter.reader(ask)
    if reader.reads_headers:
        reader.headers(
            answer.status,
            {n.decode("latin-1"): v.decode("latin-1") for n, v in answer.headers},
        )
    reads = run.reads_object
    by_character = call.meter is not None and call.meter.tariff.unit == "characters_1m"
    count = len if by_character else gateway.count
    reader.read_text = by_character
    tap = Tap(framing, reader, sieved=sieves(ask, injected=asked_usage), count=count)
    money = run.holds.money if run.holds is not None else []
    first = money[0] if money else (None, FREE)
    running = Running(
        tap,
        ask,
        inputs=call.input_tokens,
        hold=first[0],
        gauge=first[1],
        beside=money[1:],
        profile=gateway.profiles[provider.id],
        learned_e3=gateway.books.learned.factor_e3(provider.id, ask.model or ""),
        hidden_rate=provider.hidden_tokens_per_s if ask.stream and provider.hides(ask.model) else 0,
        slice_tokens=gateway.settings.output_slice_tokens,
        reads=reads,
        cuttable=ask.stream and not ask.background and answer.status < HTTP_ERROR,
        token_factor_e3=None if by_character or count is None else provider.token_factor_e3,
    )
    if reads:
        background.name(gateway, run, ask.object_ids[0] if ask.object_ids else None)
    elif framing is Framing.JSON:
        running.packed = 1
    elif "encoded_answer" in run.flags:
        running.packed = _INFLATED
    tap.gate = background.gate(gateway, run, tap, running.gate)
    if run.managed:
        tap.on_failed = run.conceal
    run.tap, run.running, run.framing = tap, running, framing


def encoded(answer: Answer) -> bool:
    """Whether the body is compressed, although we asked for it as it is."""
    if answer.status in _EMPTY_BODIES:
        return False
    for name, value in answer.headers:  # no generator: asked for every answer
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            return True
    return False
