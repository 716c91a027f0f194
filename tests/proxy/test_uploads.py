"""Uploads pass through: nothing is kept, nothing is held until their end, and they are billed as
those that are read whole."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc

import pytest
from gateway_kit import Gate
from upload_kit import END, FILE, FORM, HEARD, PIECE, Sender, field_of, form, provider_at

from lava_proxy.net.simulated import Script
from lava_proxy.proxy.uploading import FROM_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {
    "body_timeout_s": 0.4,
    "upload_least_bytes_s": 2**20,
    "uploads_max": 3,
    "first_byte_timeout_s": 2.0,
}
MODEL = field_of("model", "whisper-1")
PASSED_ON = 100 * 10**12
"""A percentage meter that charges what the provider takes."""
SEVEN_SECONDS_E10 = 60_000_000 * 7 // 60
MIB = 2**20
UNSIZED = {"content-length": ""}


async def _upload(gate: Gate, pieces: list[bytes], amount: str = "20.00", **more: str) -> Sender:
    payer = await gate.payer(amount, rate_e12=PASSED_ON, rate_type="percentage")
    sender = Sender(gate, payer, pieces, **more)
    await sender.run()
    return sender


@pytest.mark.parametrize(
    "pieces", [form(MIB, before=MODEL), form(MIB, behind=MODEL)], ids=["before", "behind"]
)
async def test_it_passes_untouched_and_is_billed_by_its_model(
    gate: Gate, pieces: list[bytes]
) -> None:
    """Wherever in the form the model stands."""
    async with provider_at(gate) as provider:
        sender = await _upload(gate, pieces)
    assert (sender.status, sender.finished) == (200, True)
    (got,) = provider.requests
    assert got.digest.digest() == hashlib.sha256(b"".join(pieces)).digest()
    assert b"multipart/form-data; boundary=xyz" in got.head
    row = await gate.row(gate.payers[-1])
    assert (row["model"], row["input_ms"], row["usage_source"]) == ("whisper-1", 7_000, "provider")
    assert row["charge_e10"] == row["cost_e10"] == SEVEN_SECONDS_E10


@pytest.mark.parametrize("more", [{}, UNSIZED], ids=["stated", "in chunks"])
async def test_a_hundred_megabytes_take_a_quarter_of_one(gate: Gate, more: dict[str, str]) -> None:
    pieces = form(100 * MIB, before=MODEL)
    async with provider_at(gate) as provider:
        await _upload(gate, form(MIB, before=MODEL))  # what is made once is made
        payer = await gate.payer("100.00", rate_e12=PASSED_ON, rate_type="percentage")
        sender = Sender(gate, payer, pieces, **more)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await sender.run()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert sender.status == 200
    assert provider.requests[-1].size == sum(map(len, pieces))
    assert most - before < 512 * 1024  # with the provider's part, and all that a call needs


@pytest.mark.parametrize("size", [0, 1_000, MIB])
@pytest.mark.parametrize("behind", [True, False])
async def test_a_length_that_is_not_stated(gate: Gate, size: int, behind: bool) -> None:
    """It goes on in chunks, as it came, or with its length where that is known by then."""
    pieces = form(size, behind=MODEL) if behind else form(size, before=MODEL)
    async with provider_at(gate) as provider:
        sender = await _upload(gate, pieces, **UNSIZED)
    assert (sender.status, sender.finished) == (200, True)
    (got,) = provider.requests
    assert got.chunked is (size == MIB)
    assert got.digest.digest() == hashlib.sha256(b"".join(pieces)).digest()
    row = await gate.row(gate.payers[-1])
    assert (row["model"], row["charge_e10"]) == ("whisper-1", SEVEN_SECONDS_E10)


async def test_an_end_in_chunks_waits_until_it_is_paid(gate: Gate) -> None:
    for pieces in (form(MIB, before=MODEL), form(MIB, behind=MODEL)):
        async with provider_at(gate) as provider:
            sender = await _upload(gate, pieces, "0.1040", **UNSIZED)
            assert sender.status == 402
            await provider.until(lambda: provider.requests[0].lost)
            (got,) = provider.requests
            assert END not in got.tail
            assert not got.ended
        assert await gate.rows(gate.payers[-1]) == []


async def test_a_length_that_is_not_stated_has_the_same_limit(gate: Gate) -> None:
    limit = gate.gateway.settings.upload_limit_bytes
    few = [PIECE] * 20
    raw = {"content-type": "audio/ogg"} | UNSIZED
    payer = await gate.payer("100.00", unit="minutes", rate_e12=10**12)
    object.__setattr__(gate.gateway.settings, "upload_limit_bytes", 10 * len(PIECE))
    try:
        async with provider_at(gate, "api.deepgram.com") as provider:
            sender = Sender(gate, payer, few, "/deepgram/v1/listen?model=nova-3", **raw)
            await sender.run()
            assert (sender.status, sender.taken) == (413, 11)
            await provider.until(lambda: provider.requests[0].lost)
            assert not provider.requests[0].ended
    finally:
        object.__setattr__(gate.gateway.settings, "upload_limit_bytes", limit)
    assert await gate.rows(payer) == []


async def test_the_client_is_read_only_as_the_provider_takes(gate: Gate) -> None:
    pieces = form(40 * MIB, before=MODEL)
    async with provider_at(gate) as provider:
        provider.stops_at = MIB
        payer = await gate.payer("40.00", rate_e12=PASSED_ON, rate_type="percentage")
        sender = Sender(gate, payer, pieces)
        running = asyncio.create_task(sender.run())
        await provider.until(lambda: bool(provider.requests and provider.requests[0].size >= MIB))
        await asyncio.sleep(0.5)  # longer than the client's own time
        taken = sender.taken
        assert taken * len(PIECE) < 12 * MIB  # what the kernel's buffers hold
        await asyncio.sleep(0.1)
        assert sender.taken == taken
        provider.stops_at = None
        provider.sinks[0].go_on()
        await running
    assert sender.status == 200


async def test_the_end_waits_until_it_is_paid(gate: Gate) -> None:
    """The model behind the file is known at the end only."""
    pieces = form(MIB, behind=MODEL)  # up to 1,049 s at 0.006 USD a minute: 0.1049 USD
    for amount, status in (("0.1040", 402), ("0.1055", 200)):
        async with provider_at(gate) as provider:
            sender = await _upload(gate, pieces, amount)
            assert sender.status == status
            (got,) = provider.requests
            if status == 402:
                await provider.until(lambda: provider.requests[0].lost)
                assert END not in got.tail
                assert got.size < got.stated
                assert await gate.rows(gate.payers[-1]) == []


@pytest.mark.parametrize(
    ("amount", "before"), [("0.0000", b""), ("0.0000", MODEL), ("0.1000", MODEL)]
)
async def test_who_cannot_pay_is_refused_before_the_provider_hears(
    gate: Gate, amount: str, before: bytes
) -> None:
    async with provider_at(gate) as provider:
        sender = await _upload(
            gate, form(MIB, before=before, behind=b"" if before else MODEL), amount
        )
        assert sender.status == 402
        assert sender.taken < 4
        assert provider.sinks == []
    assert await gate.rows(gate.payers[-1]) == []


@pytest.mark.parametrize("at", [1, 2, 9])
@pytest.mark.parametrize("leaves", [True, False])
async def test_an_upload_that_ends_early_costs_nothing(gate: Gate, at: int, leaves: bool) -> None:
    async with provider_at(gate) as provider:
        payer = await gate.payer("20.00")
        sender = Sender(gate, payer, form(2 * MIB, before=MODEL))
        sender.leaves_at, sender.stalls_at = (at, 99) if leaves else (99, at)
        await sender.run()
        assert sender.status == (0 if leaves else 408)
        assert [sink.got is None or END not in sink.got.tail for sink in provider.sinks] == [
            True
        ] * len(provider.sinks)
        await provider.until(lambda: all(got.lost for got in provider.requests))
    assert await gate.rows(payer) == []
    assert gate.gateway.open_runs.uploads == 0


async def test_a_form_that_turns_out_wrong_never_becomes_a_request(gate: Gate) -> None:
    wrong = [
        form(MIB, before=MODEL, behind=field_of("model", "other")),
        [MODEL + FILE, *[PIECE] * 9, b"\n--xyz\r\n" + field_of("model", "other")[5:], END],
        [MODEL + FILE, *[PIECE] * 9, b"\r\n"],
        [MODEL + FILE, *[PIECE] * 9, b"\r\n" + END, b"more"],
    ]
    for pieces in wrong:
        async with provider_at(gate) as provider:
            sender = await _upload(gate, pieces)
            assert sender.status == 400
            assert b"invalid_request" in sender.body
            await provider.until(lambda: all(got.lost for got in provider.requests))
            assert all(got.size < got.stated for got in provider.requests)
            assert all(END not in got.tail for got in provider.requests)
        assert await gate.rows(gate.payers[-1]) == []


@pytest.mark.parametrize("status", [413, 401, 200])
async def test_a_provider_that_answers_early(gate: Gate, status: int) -> None:
    """A refusal goes to the client; a success cannot be one."""
    body = b'{"error":{"message":"no"}}'
    async with provider_at(gate) as provider:
        provider.early = (
            b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )
        sender = await _upload(gate, form(40 * MIB, before=MODEL), "40.00")
        assert sender.status == (413 if status == 413 else 502)
        assert (sender.body == body) is (status == 413)
        assert sender.taken < 500
        assert provider.requests[0].size < provider.requests[0].stated
        await provider.until(lambda: provider.requests[0].lost)
    row = await gate.row(gate.payers[-1])
    assert row["charge_e10"] == 0
    assert row["outcome"] == ("void" if status == 200 else "upstream_error")


@pytest.mark.parametrize("stands_still", [True, False])
async def test_a_provider_that_fails_while_it_reads(gate: Gate, stands_still: bool) -> None:
    async with provider_at(gate) as provider:
        provider.stops_at = MIB
        payer = await gate.payer("40.00", rate_e12=PASSED_ON, rate_type="percentage")
        sender = Sender(gate, payer, form(40 * MIB, before=MODEL))
        running = asyncio.create_task(sender.run())
        await provider.until(lambda: bool(provider.requests and provider.requests[0].size >= MIB))
        if not stands_still:
            provider.sinks[0].abort()
        await running
        assert sender.status == (504 if stands_still else 502)
    row = await gate.row(payer)
    assert (row["outcome"], row["charge_e10"]) == ("void", 0)


async def test_limits(gate: Gate) -> None:
    payer = await gate.payer("20.00")
    huge = Sender(gate, payer, form(MIB, before=MODEL), **{"content-length": str(2**30)})
    await huge.run()
    assert (huge.status, huge.taken) == (413, 0)
    async with provider_at(gate):
        senders = [Sender(gate, payer, form(MIB, before=MODEL)) for _ in range(4)]
        for sender in senders:
            sender.stalls_at = 3
        await asyncio.gather(*(sender.run() for sender in senders))
    assert sorted(sender.status for sender in senders) == [408, 408, 408, 503]


async def test_a_recording_by_itself_passes_through(gate: Gate) -> None:
    raw = {"content-type": "audio/ogg"}
    path = "/deepgram/v1/listen?model=nova-3"
    async with provider_at(gate, "api.deepgram.com") as provider:
        payer = await gate.payer("40.00", unit="minutes", rate_e12=10**12)
        sender = Sender(gate, payer, [PIECE] * 20, path, **raw)
        await sender.run()
        assert sender.status == 200
        assert provider.requests[0].size == 20 * len(PIECE)
    row = await gate.row(payer)
    assert (row["model"], row["input_ms"]) == ("nova-3", 7_000)


async def test_a_file_with_the_callers_own_key(gate: Gate) -> None:
    async with provider_at(gate) as provider:
        payer = await gate.payer("20.00")
        token = payer.token(provider_key="own-key-of-the-caller")
        sender = Sender(gate, payer, form(MIB), "/openai/v1/files", token=token)
        await sender.run()
        assert sender.status == 200
        assert provider.requests[0].size == provider.requests[0].stated


async def test_through_a_real_server(gate: Gate) -> None:
    """The whole way, and as before where the body is short or does not say how long it is."""
    payer = await gate.payer("20.00", rate_e12=PASSED_ON, rate_type="percentage")
    usage = {"type": "duration", "seconds": 7}
    gate.sim.script["/v1/audio/transcriptions"] = Script.json({"text": "hello", "usage": usage})
    for size in (1_000, FROM_BYTES, MIB):
        body = b"".join(form(size, before=MODEL))
        answer = await gate.call(HEARD, body, payer, FORM)
        assert answer.json()["text"] == "hello"
        assert gate.sim.requests[-1].body == body
    assert [row["charge_e10"] for row in await gate.rows(payer)] == [SEVEN_SECONDS_E10] * 3


async def test_a_crash_behind_the_end_is_charged_by_the_files_size(gate: Gate) -> None:
    """What HOLD says is the true request, not what was guessed at its beginning."""
    payer = await gate.payer("20.00", unit="minutes", rate_e12=10**12)
    async with provider_at(gate):
        sender = Sender(gate, payer, form(MIB, behind=MODEL))
        seen = []
        admit = gate.gateway.books.admit
        gate.gateway.books.admit = lambda call: seen.append(call) or admit(call)  # type: ignore
        try:
            await sender.run()
        finally:
            del gate.gateway.books.admit
    (call,) = seen
    assert (call.model, call.input_ms) == ("whisper-1", MIB * 1000 // 4000)


async def test_only_posts_pass_through(gate: Gate) -> None:
    """The answer to HEAD has no body to wait for."""
    payer = await gate.payer("20.00")
    token = payer.token(provider_key="own-key-of-the-caller")
    gate.sim.script["/v1/files"] = Script.json({"data": []})
    for method in ("GET", "HEAD"):
        sender = Sender(gate, payer, [PIECE] * 9, "/openai/v1/files", token=token)
        sender.scope["method"] = method
        await sender.run()
        assert gate.gateway.open_runs.uploads == 0
        assert sender.status in (200, 400)
