"""Uploads, speech and pictures: passed on untouched, held by size, billed by what was said."""

from __future__ import annotations

import json

import pytest
from gateway_kit import Gate, fresh_model

from lava_proxy.net.simulated import Script

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEARD = "/openai/v1/audio/transcriptions"
FORM = {"content-type": "multipart/form-data; boundary=xyz"}
PASSED_ON = 100 * 10**12
"""A percentage meter that charges what the provider takes."""
MINUTE_E10 = 60_000_000
"""whisper-1: 0.006 USD."""


def upload(model: str, size: int = 40_000, more: bytes = b"") -> bytes:
    field = b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n'
    file = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.ogg"\r\n'
    sound = b"Content-Type: audio/ogg\r\n\r\nOggS" + b"\0\r\n--xy\xff" * (size // 8)
    return field % model.encode() + more + file + sound + b"\r\n--xyz--\r\n"


async def test_an_upload_goes_through_untouched_and_is_billed_by_its_length(gate: Gate) -> None:
    payer = await gate.payer("1.00", rate_e12=PASSED_ON, rate_type="percentage")
    usage = {"type": "duration", "seconds": 7}
    gate.sim.script["/v1/audio/transcriptions"] = Script.json({"text": "hello", "usage": usage})
    body = upload("whisper-1")
    answer = await gate.call(HEARD, body, payer, FORM)
    assert answer.json()["text"] == "hello"
    sent = gate.sim.requests[-1]
    assert (sent.body, sent.headers["content-type"]) == (body, FORM["content-type"])
    row = await gate.row(payer)
    assert (row["model"], row["input_ms"], row["usage_source"]) == ("whisper-1", 7_000, "provider")
    assert row["charge_e10"] == row["cost_e10"] == MINUTE_E10 * 7 // 60


async def test_an_upload_must_be_affordable_at_its_longest(gate: Gate) -> None:
    # 40 kB may be 40 s long, at 0.006 USD a minute: 0.004 USD.
    for amount, status in (("0.0039", 402), ("0.0041", 200)):
        payer = await gate.payer(amount, rate_e12=PASSED_ON, rate_type="percentage")
        gate.sim.script["/v1/audio/transcriptions"] = Script.json({"text": "hello"})
        before = len(gate.sim.requests)
        assert (await gate.call(HEARD, upload("whisper-1"), payer, FORM)).status == status
        assert len(gate.sim.requests) - before == (status == 200)


async def test_a_transcript_without_usage_is_charged_by_the_files_size(gate: Gate) -> None:
    text = Script.plain(b"1\n00:00 hello\n", headers=(("content-type", "text/plain"),))
    for unit, rate_type, rate, charged in (
        ("tokens_1m", "percentage", PASSED_ON, MINUTE_E10 // 6),
        ("minutes", "fixed", 10**12, 10**10 // 6),
    ):
        payer = await gate.payer("20.00", rate_e12=rate, rate_type=rate_type, unit=unit)
        gate.sim.script["/v1/audio/transcriptions"] = text
        assert (await gate.call(HEARD, upload("whisper-1"), payer, FORM)).status == 200
        row = await gate.row(payer)
        assert row["usage_source"] == "estimate"
        assert abs(row["input_ms"] - 10_000) <= 1
        assert abs(row["charge_e10"] - charged) <= charged // 5_000


async def test_a_meter_by_the_minute_has_minutes_where_the_provider_counts_tokens(
    gate: Gate,
) -> None:
    payer = await gate.payer("20.00", rate_e12=10**12, unit="minutes")
    usage = {"type": "tokens", "input_tokens": 100, "output_tokens": 9, "total_tokens": 109}
    gate.sim.script["/v1/audio/transcriptions"] = Script.json({"text": "hello", "usage": usage})
    assert (await gate.call(HEARD, upload("gpt-4o-transcribe"), payer, FORM)).status == 200
    row = await gate.row(payer)
    assert (row["input_tokens"], row["output_tokens"]) == (100, 9)
    assert (row["usage_source"], row["input_ms"] // 1000) == ("partial", 10)
    assert row["charge_e10"] > 0


async def test_a_form_that_can_be_read_in_two_ways_is_refused(gate: Gate) -> None:
    payer = await gate.payer("1.00")
    twice = upload("whisper-1").replace(b'name="file"; filename="a.ogg"', b'name="model"')
    before = len(gate.sim.requests)
    for body, headers in (
        (twice, FORM),
        (upload("whisper-1"), {"content-type": "multipart/form-data"}),
        (upload("whisper-1"), [*FORM.items(), ("content-type", "application/json")]),
    ):
        answer = await gate.call(HEARD, body, payer, headers)
        assert (answer.status, answer.error()["code"]) == (400, "invalid_request")
    assert len(gate.sim.requests) == before
    assert await gate.rows(payer) == []


async def test_a_streamed_transcript_is_metered_by_its_last_event(gate: Gate) -> None:
    payer = await gate.payer("1.00")
    usage = b'"usage":{"type":"tokens","input_tokens":30,"output_tokens":4,"total_tokens":34}'
    events = (
        b'event: transcript.text.delta\r\ndata: {"type":"transcript.text.delta","delta":"hi"}\r\n'
        b'\r\nevent: transcript.text.done\r\ndata: {"type":"transcript.text.done","text":"hi",'
        + usage
        + b"}\r\n\r\n"
    )
    stream = b'--xyz\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n'
    head = (("content-type", "text/event-stream"),)
    gate.sim.script["/v1/audio/transcriptions"] = Script.plain(events, headers=head)
    answer = await gate.call(HEARD, upload("gpt-4o-transcribe", more=stream), payer, FORM)
    assert answer.body == events
    row = await gate.row(payer)
    assert (row["stream"], row["input_tokens"], row["output_tokens"]) == (True, 30, 4)


async def test_speech_and_pictures_must_be_affordable_beforehand(gate: Gate) -> None:
    said = {"model": "tts-1", "input": "x" * 2_000, "voice": "alloy"}  # 0.03 USD
    for amount, status in (("0.0299", 402), ("0.0301", 200)):
        payer = await gate.payer(amount, rate_e12=PASSED_ON, rate_type="percentage")
        spoken = Script.plain(b"\xff\xf3sound", headers=(("content-type", "audio/mpeg"),))
        gate.sim.script["/v1/audio/speech"] = spoken
        assert (await gate.call("/openai/v1/audio/speech", said, payer)).status == status
        if status == 200:
            row = await gate.row(payer)
            assert (row["input_characters"], row["charge_e10"]) == (2_000, 300_000_000)
            assert row["flags"] == []
    payer = await gate.payer("0.25", rate_e12=PASSED_ON, rate_type="percentage")
    picture = {"model": "gpt-image-1", "prompt": "a cat", "n": 1}  # up to 0.26 USD
    path = "/openai/v1/images/generations"
    assert (await gate.call(path, picture, payer)).status == 402
    model = fresh_model()
    gate.sim.script[model] = Script.json({"data": [{"b64_json": "AAAA"}]})
    other = await gate.payer("1.00", unit="requests", rate_e12=10**11)
    assert (await gate.call(path, picture | {"model": model}, other)).status == 200
    assert (await gate.row(other))["charge_e10"] == 10**9


async def test_speech_that_is_billed_by_tokens_is_not_free(gate: Gate) -> None:
    """The answer is sound and never says how many: a minute is held as two, charged as one."""
    said = {"model": "gpt-4o-mini-tts", "input": "x" * 900, "voice": "alloy"}
    for amount, status in (("0.0299", 402), ("0.0320", 200)):
        payer = await gate.payer(amount, rate_e12=PASSED_ON, rate_type="percentage")
        spoken = Script.plain(b"\xff\xf3sound", headers=(("content-type", "audio/mpeg"),))
        gate.sim.script["/v1/audio/speech"] = spoken
        assert (await gate.call("/openai/v1/audio/speech", said, payer)).status == status
    row = await gate.row(payer)
    assert (row["output_tokens"], row["usage_source"]) == (1_260, "partial")
    assert 151_000_000 < row["cost_e10"] < 154_000_000  # 0.0151 USD, and the text's tokens

    usage = {"input_tokens": 200, "output_tokens": 900, "total_tokens": 1_100}
    done = {"type": "speech.audio.done", "usage": usage}
    stream = f"data: {json.dumps(done)}\n\n".encode()
    head = (("content-type", "text/event-stream"),)
    gate.sim.script["/v1/audio/speech"] = Script.plain(stream, headers=head)
    payer = await gate.payer("1.00", rate_e12=PASSED_ON, rate_type="percentage")
    await gate.call("/openai/v1/audio/speech", said | {"stream_format": "sse"}, payer)
    row = await gate.row(payer)
    assert (row["output_tokens"], row["usage_source"]) == (900, "provider")
    assert row["cost_e10"] == 200 * 6_000 + 900 * 120_000


async def test_deepgram_and_elevenlabs_say_what_they_bill(gate: Gate) -> None:
    """Seconds of every channel in the answer, characters in a header: which may differ from the
    text's own (ElevenLabs counts half for some models)."""
    heard = {"metadata": {"duration": 12.5, "channels": 2}, "results": {"channels": []}}
    gate.sim.script["/v1/listen"] = Script.json(heard)
    sound = (("content-type", "audio/mpeg"),)
    spoken = Script.plain(b"\xff\xf3sound", headers=(*sound, ("dg-char-count", "21")))
    gate.sim.script["/v1/speak"] = spoken
    half = Script.plain(b"\xff\xf3sound", headers=(*sound, ("character-cost", "11")))
    gate.sim.script["/v1/text-to-speech/voice/stream"] = half
    said = {"text": "x" * 21, "model_id": "eleven_flash_v2_5"}
    characters = {"unit": "characters_1m", "rate_e12": 10**12}
    for path, body, headers, meter, row_says in (
        ("/deepgram/v1/listen?model=nova-3", b"OggS" + b"x" * 9_996, {"content-type": "audio/ogg"},
         {"unit": "minutes", "rate_e12": 6 * 10**11}, ("nova-3", 0, 25_000, 25 * 10**8)),
        ("/deepgram/v1/speak?model=aura-2", said, {}, characters, ("aura-2", 21, 0, 210_000)),
        ("/elevenlabs/v1/text-to-speech/voice/stream", said, {}, characters,
         ("eleven_flash_v2_5", 11, 0, 110_000)),
    ):  # fmt: skip
        payer = await gate.payer("1.00", **meter)
        answer = await gate.call(path, body, payer, headers)
        assert answer.status == 200
        row = await gate.row(payer)
        told = (row["model"], row["input_characters"], row["input_ms"], row["charge_e10"])
        assert told == row_says
        assert row["usage_source"] == "provider"


async def test_pages_are_held_and_charged(gate: Gate) -> None:
    """4 USD per thousand pages; a document behind a URL may have a hundred."""
    asked = {"model": "mistral-ocr-latest", "document": {"type": "document_url",
             "document_url": "https://example.org/a.pdf"}}  # fmt: skip
    gate.sim.script["/v1/ocr"] = Script.json(
        {"model": "mistral-ocr-latest", "pages": [], "usage_info": {"pages_processed": 7}}
    )
    for amount, more, status in (
        ("0.3999", {}, 402),
        ("0.4001", {}, 200),
        ("0.0121", {"pages": [0, 1, 2]}, 200),
        ("0.0119", {"pages": [0, 1, 2]}, 402),
    ):
        payer = await gate.payer(amount, rate_e12=PASSED_ON, rate_type="percentage")
        assert (await gate.call("/mistral/v1/ocr", asked | more, payer)).status == status
        if status == 200:
            row = await gate.row(payer)
            assert (row["charge_e10"], row["usage_source"]) == (280_000_000, "provider")
            assert row["flags"] == []


async def test_free_endpoints_are_free_under_every_meter(gate: Gate) -> None:
    gate.sim.script["/v1/moderations"] = Script.json({"id": "modr", "results": []})
    gate.sim.script["/v1/models"] = Script.json({"data": []})
    payer = await gate.payer("0.0000000001", rate_e12=PASSED_ON, rate_type="percentage")
    asked = {"model": "omni-moderation-latest", "input": "hello"}
    assert (await gate.call("/openai/v1/moderations", asked, payer)).status == 200
    assert (await gate.call("/openai/v1/models", None, payer, method="GET")).status == 200
    assert [row["charge_e10"] for row in await gate.rows(payer)] == [0, 0]
