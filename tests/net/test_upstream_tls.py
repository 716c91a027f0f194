"""TLS to providers: who is trusted, whose name it must be, and letting go of it."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from upstream_kit import OK, drain, outcome, request_of, server, upstreams

from lava_proxy.net.simulated import Ending, Piece, Script, SimulatedProvider


def certificate(folder: Path, name: x509.GeneralName) -> Path:
    """A certificate for `name` that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = folder / "certificate.pem"
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


def serving(path: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return certificate(tmp_path, x509.IPAddress(ip_address("127.0.0.1")))


@pytest.fixture
def trust(path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(path))


async def test_many_answers_over_one_connection(path: Path, trust: ssl.SSLContext) -> None:
    async with SimulatedProvider(tls=serving(path)) as sim, upstreams(tls=trust) as client:
        sim.script["/x"] = lambda r: Script([Piece(r.body), Piece(b"!", 0.001)])
        for size in (1, 10, 100_000, 3_000_000, 1):
            seen = await outcome(client, "POST", f"{sim.url}/x", b"x" * size)
            assert (seen.body, seen.end) == (b"x" * size + b"!", "end")
        assert {request.connection for request in sim.requests} == {1}
        assert sim.requests[0].headers["host"] == f"127.0.0.1:{sim.port}"


async def test_http_1_1_is_agreed_on(path: Path, trust: ssl.SSLContext) -> None:
    agreed: list[str | None] = []

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agreed.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await request_of(reader)
        writer.write(OK + b"content-length: 0\r\n\r\n")

    async with server(tell, ssl=serving(path)) as url, upstreams(tls=trust) as client:
        assert (await outcome(client, "GET", url)).status == 200
    assert agreed == ["http/1.1"]


async def test_nobody_is_trusted_unasked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when the environment says so."""
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    async with SimulatedProvider(tls=serving(path)) as sim, upstreams() as client:
        assert (await outcome(client, "GET", f"{sim.url}/x")).end == "upstream_unreachable"
        assert sim.requests == []


async def test_the_name_must_be_the_right_one(tmp_path: Path) -> None:
    path = certificate(tmp_path, x509.DNSName("elsewhere.test"))
    trust = ssl.create_default_context(cafile=str(path))
    async with SimulatedProvider(tls=serving(path)) as sim, upstreams(tls=trust) as client:
        assert (await outcome(client, "GET", f"{sim.url}/x")).end == "upstream_unreachable"
        assert sim.requests == []


async def test_tls_and_plain_never_share_connections(path: Path, trust: ssl.SSLContext) -> None:
    async with SimulatedProvider(tls=serving(path)) as sim, upstreams(tls=trust) as client:
        sim.script["/x"] = Script.plain(b"hi")
        assert (await outcome(client, "GET", f"{sim.url}/x")).body == b"hi"
        plain = await outcome(client, "GET", f"http://127.0.0.1:{sim.port}/x")
        assert plain.end == "upstream_unreachable"
        assert len(client._pools) == 2


@pytest.mark.parametrize(
    ("ends", "length", "end"),
    [
        (Ending.CLEAN, False, "end"),
        (Ending.CLOSED, False, "end"),
        (Ending.TRUNCATED, False, "truncated"),
        (Ending.TRUNCATED, True, "truncated"),
        (Ending.RESET, False, "truncated"),
    ],
)
async def test_endings(
    path: Path, trust: ssl.SSLContext, ends: Ending, length: bool, end: str
) -> None:
    headers = (("content-length", "9"),) if length else ()
    async with SimulatedProvider(tls=serving(path)) as sim, upstreams(tls=trust) as client:
        sim.script["/x"] = Script((Piece(b"hello"),), 200, headers, ends, end_delay_s=0.05)
        seen = await outcome(client, "GET", f"{sim.url}/x")
        assert (seen.body, seen.end) == (b"hello", end)
        assert seen.delimited is (ends is not Ending.CLOSED)


async def test_cancelled_at_any_moment(path: Path, trust: ssl.SSLContext) -> None:
    """Also in the handshake: nothing stays open, and every place is free again."""
    async with SimulatedProvider(tls=serving(path)) as sim, upstreams(tls=trust) as client:
        sim.script["/x"] = Script([Piece(b"a"), Piece(b"b", 0.005)])
        for number in range(40):
            task = asyncio.create_task(outcome(client, "GET", f"{sim.url}/x"))
            await asyncio.sleep(number * 0.0003)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        (only,) = client._pools.values()
        assert only._places_taken == len(only.connections)
        seen = await outcome(client, "GET", f"{sim.url}/x")
        assert (seen.body, seen.end) == (b"ab", "end")
        await client.close()
        await sim.until(lambda: not sim.connections_open)


async def test_an_unread_answer_is_held_back(path: Path, trust: ssl.SSLContext) -> None:
    total = 100 * 1024 * 1024
    written = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await request_of(reader)
        writer.write(OK + b"content-length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(b"x" * 65536)
            written += 65536
            await writer.drain()

    async with server(endless, ssl=serving(path)) as url, upstreams(tls=trust) as client:
        answer = await client.send("GET", url, [], b"")
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.1)
        assert written < total
        assert answer._unread_bytes < 200_000
        body, end = await drain(answer)
        assert (len(body), end) == (total, "end")
