"""Who may read /metrics, and what several workers' files come to."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lava_proxy.core.errors import LavaError
from lava_proxy.core.settings import Settings
from lava_proxy.telemetry.exposition import check_access, render_workers, serve_private
from lava_proxy.telemetry.metrics import worker_ended

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "scrape-me-0123456789"
WORKER = """
import json, os, sys
from lava_proxy.telemetry.metrics import Metrics
metrics = Metrics(["openai"])
for _ in range(int(sys.argv[1])):
    metrics.call_ended(provider="openai", outcome="completed", input_tokens=1, output_tokens=1,
                       added_s=0.0002, first_byte_s=0.2, duration_s=0.7)
metrics.sample(held_e10=10**10, leased_e10=2 * 10**10, books_state=int(sys.argv[2]))
print(os.getpid())
"""


def scope(
    client: tuple[str, int] | None,
    *headers: tuple[bytes, bytes],
    host: bytes = b"localhost:8080",
    version: str = "1.1",
) -> dict[str, object]:
    return {"client": client, "headers": [(b"host", host), *headers], "http_version": version}


def code_of(request: dict[str, object], token: str | None, **more: object) -> str | None:
    settings = Settings(metrics_token=token, **more)  # type: ignore[arg-type]
    try:
        check_access(request, settings)
    except LavaError as error:
        return error.code
    return None


@pytest.mark.parametrize(
    ("header", "outcome"),
    [
        (f"Bearer {TOKEN}", None),
        (f"bearer  {TOKEN}", None),
        (f"Bearer {TOKEN}x", "invalid_token"),
        (f"Bearer {TOKEN[:-1]}", "invalid_token"),
        (f"Basic {TOKEN}", "invalid_token"),
        (TOKEN, "invalid_token"),
        ("Bearer", "invalid_token"),
        ("Bearer \xff", "invalid_token"),
        (None, "invalid_token"),
    ],
)
@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.9"])
def test_with_a_token_only_the_token_counts(
    header: str | None, outcome: str | None, address: str
) -> None:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]
    assert code_of(scope((address, 5), *headers), TOKEN) == outcome


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1"])
def test_without_a_token_the_machine_itself_may_read(address: str) -> None:
    assert code_of(scope((address, 5)), None) is None


NAMES = [b"x-forwarded-for", b"forwarded", b"x-real-ip", b"x-forwarded-proto", b"via"]
HERE = ("127.0.0.1", 5)


@pytest.mark.parametrize("name", NAMES)
def test_what_came_through_a_proxy_is_not_local(name: bytes) -> None:
    assert code_of(scope(HERE, (name, b"127.0.0.1")), None) == "not_found"


@pytest.mark.parametrize(
    ("host", "code"),
    [
        (b"localhost", None),
        (b"LOCALHOST:8080", None),
        (b"127.0.0.1:8080", None),
        (b"[::1]:9", None),
        (b"lava.example.com", "not_found"),
        (b"localhost.example.com", "not_found"),
        (b"127.0.0.1.nip.io", "not_found"),
        (b"", "not_found"),
    ],
)
def test_a_proxy_that_passes_the_clients_host_on_is_seen(host: bytes, code: str | None) -> None:
    assert code_of(scope(HERE, host=host), None) == code


def test_a_proxy_that_is_as_nginx_is_by_itself_is_seen() -> None:
    assert code_of(scope(HERE, version="1.0"), None) == "not_found"
    assert code_of(scope(HERE, (b"host", b"localhost")), None) == "not_found"
    bare = {"client": HERE, "headers": [], "http_version": "1.1"}
    assert code_of(bare, None) == "not_found"


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"host": "0.0.0.0"}, "not_found"),
        ({"host": "::"}, "not_found"),
        ({"host": "10.0.0.5"}, "not_found"),
        ({"host": "localhost"}, None),
        ({"host": "::1"}, None),
        ({"public_url": "https://lava.example.com"}, "not_found"),
        ({"public_url": "http://localhost:8080"}, None),
    ],
)
def test_who_serves_others_needs_a_token(settings: dict[str, object], code: str | None) -> None:
    assert code_of(scope(HERE), None, **settings) == code
    token = (b"authorization", f"Bearer {TOKEN}".encode())
    assert code_of(scope(HERE, token, host=b"lava.example.com"), TOKEN, **settings) is None


@pytest.mark.parametrize(
    "client", [("203.0.113.9", 5), ("10.0.0.1", 5), ("", 0), ("unix", 0), None]
)
def test_everybody_else_finds_nothing(client: tuple[str, int] | None) -> None:
    assert code_of(scope(client), None) == "not_found"


def run_worker(folder: Path, calls: int, state: int) -> int:
    """A worker's life; its pid."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(calls), str(state)],
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": f"{ROOT}:{ROOT}/adapters"},
        check=True,
        capture_output=True,
    )
    return int(json.loads(done.stdout))


def lines_of(folder: Path) -> set[str]:
    return set(render_workers(folder)[0].decode().splitlines())


def test_workers_add_up_and_the_dead_ones_gauges_go(tmp_path: Path) -> None:
    first, second = run_worker(tmp_path, 3, 0), run_worker(tmp_path, 4, 1)
    both = lines_of(tmp_path)
    assert 'lava_requests_total{outcome="completed",provider="openai"} 7.0' in both
    assert 'lava_request_duration_seconds_count{provider="openai"} 7.0' in both
    assert 'lava_request_duration_seconds_bucket{le="1.0",provider="openai"} 7.0' in both
    assert {"lava_held_usd 2.0", "lava_leased_usd 4.0", "lava_books_state 1.0"} <= both
    worker_ended(second, tmp_path)
    one = lines_of(tmp_path)
    assert 'lava_requests_total{outcome="completed",provider="openai"} 7.0' in one
    assert {"lava_held_usd 1.0", "lava_leased_usd 2.0", "lava_books_state 0.0"} <= one
    worker_ended(first, tmp_path)
    assert not [line for line in lines_of(tmp_path) if line.startswith("lava_held_usd")]


def test_a_file_that_goes_while_it_is_read_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_worker(tmp_path, 1, 0)
    listings = [[str(tmp_path / "counter_1.db")], [str(p) for p in tmp_path.glob("*.db")]]
    monkeypatch.setattr("prometheus_client.multiprocess.glob.glob", lambda _: listings.pop(0))
    assert b"lava_requests_total" in render_workers(tmp_path)[0]
    assert listings == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_private_listener_has_one_page(host: str) -> None:
    port, stop = serve_private(host, 0, lambda: (b"lava_open_calls 1\n", "text/plain"))
    base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    try:
        for path in ("/metrics", "/metrics?name[]=x"):
            with urllib.request.urlopen(base + path, timeout=5) as answer:
                assert answer.read() == b"lava_open_calls 1\n"
                assert answer.headers.keys() == ["Content-Type", "Content-Length"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(base + "/", timeout=5)
        refused.value.close()
        assert refused.value.code == 404
    finally:
        stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(base + "/metrics", timeout=5)
