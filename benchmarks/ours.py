"""How the benchmarks start the gateway and what they set up in it: the two hooks to keep in step.

The set-up is the usual one: one merchant, one customer with credit, one fixed meter, a price for
the model, a forward token that names both. So every request measured is authenticated, held for,
metered, journaled, priced, charged and written to the ledger.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

CLI = "lava_proxy"
MODULES = {"ours": CLI, "undurable": "benchmarks.undurable"}
"""The gateway, and the same without journal and writer: what is left is the price of durability."""
TARGET = "https%3A%2F%2Fapi.openai.com%2Fv1%2Fchat%2Fcompletions"
CREDIT_USD = "100000.00"
PRICE: dict[str, object] = {
    "provider": "openai",
    "match": "prefix",
    "model": "sim-",
    "rates": {"input_1m": "0.15", "output_1m": "0.60"},
}
READY_TIMEOUT_S = 120.0


def installed() -> bool:
    """The gateway can be imported."""
    return importlib.util.find_spec(CLI) is not None


def ours_command(
    port: int, upstream_url: str, module: str = CLI
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the gateway; the harness adds ``LAVA_DATA_DIR``."""
    command = [sys.executable, "-m", module, "serve", "--host", "127.0.0.1", "--port", str(port)]
    env = {
        "LAVA_UPSTREAM_OVERRIDES": json.dumps({"api.openai.com": upstream_url}),
        "LAVA_PROVIDER_KEY_OPENAI": "sk-benchmark",
        "LAVA_LOG_LEVEL": "warning",
        # As a plain installation has it: the extra [tokens] is in the development environment.
        "LAVA_EXACT_TOKENS": "0",
    }
    return command, env


def seed(port: int, env: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Make what a governed request needs; returns its path and headers."""
    _wait_ready(port)
    create = [sys.executable, "-m", CLI, "keys", "create", "--name", "benchmark", "--json"]
    made = subprocess.run(
        create, env={**os.environ, **env}, check=True, capture_output=True, timeout=120
    )
    secret_key = json.loads(made.stdout)["secret_key"]
    tier = {"start": "0", "rate": "1.00"}
    meter: dict[str, object] = {
        "name": "Benchmark",
        "meter_slug": "benchmark",
        "rate_type": "fixed",
        "tier_type": "tokens_1m",
        "tiers": [tier],
    }
    _post(port, "/v1/meters", secret_key, meter)
    # Without a price each row would also be noted as one that waits for it.
    _post(port, "/v1/prices", secret_key, PRICE)
    customer = _post(port, "/v1/customers", secret_key, {"reference_id": "benchmark"})
    customer_id = customer["customer_id"]
    _post(port, f"/v1/customers/{customer_id}/credit", secret_key, {"amount": CREDIT_USD})
    token = {"secret_key": secret_key, "customer_id": customer_id, "meter_slug": "benchmark"}
    bearer = base64.b64encode(json.dumps(token).encode()).decode()
    return f"/v1/forward?u={TARGET}", {"authorization": f"Bearer {bearer}"}


def _wait_ready(port: int) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _post(port: int, path: str, secret_key: str, body: dict[str, object]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {secret_key}", "content-type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        document: dict[str, Any] = json.load(answer)
        return document
