"""What each part of a governed request costs, in CPU time: ``python -m benchmarks.parts``.

Every part is called in a loop in this process, on the 1 kB request of the ``n1k`` workload, with
nothing else running. Server, sockets and the database's own work are not in it; `make bench` has
the whole.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lava_adapters.contract import Framing
from lava_adapters.registry import Registry
from lava_proxy.books.codec import encode_call, encode_result
from lava_proxy.books.journal import Journal
from lava_proxy.books.leases import Leases
from lava_proxy.core.clock import SystemClock
from lava_proxy.core.ids import new_id
from lava_proxy.rules.catalog import Catalog
from lava_proxy.rules.charge import Counts, charge
from lava_proxy.rules.gauge import gauge
from lava_proxy.rules.price import cost
from lava_proxy.rules.quote import OutputLimits, quote
from lava_proxy.rules.settlement import Call, Meter, Settlement
from lava_proxy.rules.tiers import Tariff, Tier
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.wire.headers import client_headers, guard, upstream_headers
from lava_proxy.wire.metadata import read_metadata
from lava_proxy.wire.tap import Tap
from lava_proxy.wire.token import find_credential

ROUNDS = 5
LOOPS = 4000
NOW = datetime(2026, 11, 23, tzinfo=UTC)
BODY = json.dumps(
    {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x" * 900}]}
).encode()
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 160}}],
        "usage": {"prompt_tokens": 230, "completion_tokens": 160, "total_tokens": 390},
    }
).encode()
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],'
    b'"usage":null}\n\n'
)
HEADERS = [
    (b"host", b"gateway"),
    (b"authorization", b"Bearer " + b"x" * 200),
    (b"content-type", b"application/json"),
    (b"content-length", b"1000"),
    (b"user-agent", b"OpenAI/Python 3.54.0"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-runtime", b"CPython"),
    (b"accept", b"application/json"),
]
ANSWER_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"1100"),
    (b"openai-processing-ms", b"12"),
    (b"x-request-id", b"req_1"),
    (b"x-ratelimit-remaining-requests", b"100"),
]


def timed(work: Callable[[], object]) -> float:
    """Microseconds of CPU per call: the best of a few rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(LOOPS):
            work()
        best = min(best, time.process_time() - started)
    return best / LOOPS * 1e6


def parts(folder: Path) -> list[tuple[str, Callable[[], object]]]:
    """(name, one call of the part)."""
    registry = Registry.builtin()
    openai = registry.by_id("openai")
    assert openai is not None
    found = openai.route("POST", "/v1/chat/completions")
    assert found is not None
    adapter = registry.adapter(openai, found[0])
    plain = adapter.ask("POST", "/v1/chat/completions", "", "application/json", BODY)
    streamed = BODY[:-1] + b',"stream":true}'
    streaming = adapter.ask("POST", "/v1/chat/completions", "", "application/json", streamed)
    scope = {"type": "http", "method": "POST", "headers": HEADERS}
    meter = Meter("prd_1", "mer_1", "chat", Tariff("fixed", "tokens_1m", (Tier(0, 10**13),)))
    of = gauge(meter.tariff, None, text_only=True)
    assert of is not None
    limits = OutputLimits(256, 16, 8192)
    journal = Journal(folder / "hld_bench", segment_bytes=2**24)
    clock = SystemClock()
    leases = Leases(_no_trip, _no_back, clock, holder_id="hld", lease_s=300, grace_s=60, burn_s=60,
                    refusal_s=1, wait_s=2)  # fmt: skip
    account = leases.account("con_1")
    account.free_e10, account.expires_s = 10**15, clock.boot_s() + 10_000
    call = Call(
        request_id=new_id("request"), merchant_id="mer_1", holder_id="hld", owner_id="con_1",
        customer_id="con_1", meter=meter, cycle="2026-11", billable=True, provider="openai",
        provider_key_type="managed", model="gpt-4o-mini", endpoint="POST https://api.openai.com/v1",
        stream=False, created_at=NOW,
    )  # fmt: skip
    rates = Catalog().rates("openai", "gpt-4o-mini", NOW)
    assert rates is not None
    tap = Tap(Framing.JSON, adapter.reader(plain))
    tap.feed(ANSWER)
    tap.finish()
    usage = tap.reader.usage()
    row = Settlement(
        call=call, outcome="completed", usage_source="provider", counts=Counts(230, 160),
        cost=cost(rates, usage), model="gpt-4o-mini",
    )  # fmt: skip
    metrics = Metrics(["openai"])
    stream = Tap(Framing.SSE, adapter.reader(streaming))

    def hold() -> None:
        held = leases.try_hold(account, 1000, 0)
        assert held is not None
        held.release(0)

    def journaled() -> None:
        seq = journal.hold(encode_call(call))
        journal.sent(seq)
        journal.settle(seq, encode_result(row))
        journal.committed(seq)

    def read_json() -> None:
        tap = Tap(Framing.JSON, adapter.reader(plain))
        tap.feed(ANSWER)
        tap.finish()
        tap.reader.usage()

    return [
        ("guard (head checks)", lambda: guard(scope)),
        ("credential found", lambda: find_credential(HEADERS, None)),
        ("metadata (none given)", lambda: read_metadata(HEADERS, None)),
        ("ask (body read)", lambda: adapter.ask("POST", "/v1/chat/completions", "", "", BODY)),
        ("quote", lambda: quote(plain, of, "sliced", limits, body_bytes=len(BODY))),
        ("hold opened and released", hold),
        ("journal: HOLD, SENT, SETTLE", journaled),
        ("request headers", lambda: upstream_headers(HEADERS, secrets=(b"a" * 200, b"b" * 50))),
        ("answer headers", lambda: client_headers(ANSWER_HEADERS, secrets=(b"k" * 40,))),
        ("usage read from JSON", read_json),
        ("price", lambda: cost(rates, usage)),
        ("charge", lambda: charge(meter.tariff, 10_000, 390)),
        (
            "metrics",
            lambda: metrics.call_ended(
                provider="openai", outcome="completed", input_tokens=230, output_tokens=160,
                added_s=0.001, first_byte_s=0.1, duration_s=0.2,
            ),
        ),
        ("stream chunk: cut, read, counted", lambda: stream.feed(CHUNK)),
        ("stream chunk: PROGRESS", lambda: journal.progress(1, 230, 160, 0, 0)),
    ]  # fmt: skip


async def _no_trip(_: LeaseAsk) -> LeaseAnswer:
    return LeaseAnswer(0, 0, 0)


async def _no_back(_: str) -> None:
    return None


async def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        print("| part | us CPU |\n|---|---|")
        total = 0.0
        for name, work in parts(Path(folder)):
            work()
            us = timed(work)
            total += 0 if name.startswith("stream") else us
            print(f"| {name} | {us:.1f} |")
        print(f"| all of a plain request's parts | {total:.1f} |")


if __name__ == "__main__":
    asyncio.run(main())
