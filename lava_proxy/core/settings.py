"""Every setting, once: name, default, unit and sentence. Read at start, passed in, never imported.

`Settings` reads ``LAVA_*`` from the environment; docs/configuration.md is checked against this
table by a test. How they are read, and what an unknown name does: `environment.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from lava_proxy.core.guard_settings import GuardSettings
from lava_proxy.core.money import parse_e10

PREFIX = "LAVA_"
FOREIGN = frozenset({"LAVA_SECRET_KEY", "LAVA_RECORDINGS"})
"""Names with our prefix that belong to clients and to our own tests."""


class ConfigurationError(Exception):
    """The configuration is wrong; the message says which name and what to do."""


class Settings(GuardSettings):
    """The gateway's settings. Keyword arguments win over the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    # Where things are
    data_dir: Path = Field(Path("lava-data"), description="Journals, embedded PostgreSQL, metrics.")
    database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL 15 or later. Absent: an embedded server in the data directory.",
    )
    database_direct_url: SecretStr | None = Field(
        None, description="The same database past a transaction pooler, for LISTEN."
    )
    database_pool_size: int = Field(
        4, ge=2, le=64, description="Connections per process; one more listens."
    )
    database_statement_cache: int = Field(
        200, ge=0, description="Prepared statements per connection; 0 behind a transaction pooler."
    )
    master_key: SecretStr | None = Field(
        None,
        description="32 bytes, base64 or hex: seals secrets at rest. Several, comma separated: the "
        "first seals, all open. Absent: a key file in the data directory, with the embedded "
        "database only.",
    )
    host: str = Field("127.0.0.1", description="Address that serve listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port that serve listens on.")
    workers: int = Field(1, ge=1, le=64, description="Serving processes.")
    log_level: str = Field("info", description="debug, info, warning or error.")

    # Providers
    upstream_overrides: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="JSON object: provider host (or *.suffix) to the base URL to call instead.",
    )
    providers_file: Path | None = Field(
        None, description="TOML of more providers and hosts, in the form of providers.toml."
    )
    allow_insecure_upstreams: bool = Field(
        False, description="Allow http to overrides that are not on the loopback."
    )
    adapters: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Names of third-party adapters (entry points) to load, comma separated."
    )
    connect_timeout_s: float = Field(5.0, gt=0, description="TCP and TLS to the provider.")
    first_byte_timeout_s: float = Field(
        600.0, gt=0, description="From the request sent to the provider's answer head."
    )
    idle_timeout_s: float = Field(60.0, gt=0, description="Between two pieces of an answer.")
    stream_max_s: float = Field(3600.0, gt=0, description="Longest answer.")
    upstream_connections_per_host: int = Field(
        2000, ge=1, description="Open connections to one provider host, per process."
    )
    pool_timeout_s: float = Field(
        5.0, gt=0, description="Longest wait for a free connection to a provider, then 503."
    )

    # Request limits
    body_limit_bytes: int = Field(32 * 2**20, ge=1024, description="Largest request body.")
    body_timeout_s: float = Field(60.0, gt=0, description="Longest time a request body may take.")
    upload_limit_bytes: int = Field(
        512 * 2**20,
        ge=1024,
        description="Largest upload (recording, picture, file) that passes through: its body is "
        "not kept.",
    )
    upload_least_bytes_s: int = Field(
        32 * 2**10,
        ge=1,
        description="An upload may take the body's time, and a second for so many bytes of it.",
    )
    uploads_max: int = Field(
        256, ge=1, description="Uploads under way at once, per process; then 503."
    )
    header_limit_bytes: int = Field(64 * 2**10, ge=1024, description="Request headers in all.")
    client_stall_s: float = Field(
        60.0, gt=0, description="A reader that takes nothing for so long is treated as gone."
    )

    # Money
    output_slice_tokens: int = Field(
        256, ge=1, description="Output that a sliced hold covers at first, and per extension."
    )
    output_floor_tokens: int = Field(
        16, ge=1, description="A cap lowered below this is refused instead (402)."
    )
    output_default_tokens: int = Field(
        32_768,
        ge=1,
        description="Output that a call without a cap of its own holds where it cannot be cut and "
        "the model's longest answer is not known; in a strict meter it is set as the cap.",
    )
    tool_uses: int = Field(
        10,
        ge=0,
        description="Uses of each paid tool of the provider's (web search ...) that a call holds, "
        "where it sets no limit.",
    )
    rewrite_output_tokens: int = Field(
        4096,
        ge=1,
        description="max_tokens of a rewritten request to a format that needs one, where the "
        "caller says none.",
    )
    extension_wait_s: float = Field(
        0.5, ge=0, description="Longest pause of a stream while its hold is extended."
    )
    lag_allowance_ms: int = Field(
        0,
        ge=0,
        description="When the client leaves: output at the stream's own pace for so long is added.",
    )
    client_drain_providers: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Provider ids, comma separated, beside those whose rows say so: when the "
        "client leaves, the answer is read to its end and billed by the provider's own usage, "
        "instead of being cancelled.",
    )
    client_drain_max_s: float = Field(
        60.0, gt=0, description="Longest time an answer is read on without its client."
    )
    client_drain_tokens: int = Field(
        4096, ge=0, description="Output (tokens or characters) that it may still make meanwhile."
    )
    client_drains_max: int = Field(
        100, ge=0, description="Such answers at once, per process; further ones are cancelled."
    )
    exact_tokens: bool = Field(
        True, description="Count streamed tokens with rs-bpe where the extra [tokens] is installed."
    )
    refusal_cache_s: float = Field(
        1.0, ge=0, description="A confirmed refusal is answered from memory for so long."
    )
    record_refusals: bool = Field(False, description="Keep a request for 402, 403 and 429 too.")
    upgrade_url: str | None = Field(None, description="Shown in 402 answers of every merchant.")

    # Leases
    lease_s: float = Field(300.0, gt=1, description="How long a worker may use leased credit.")
    lease_burn_s: float = Field(60.0, gt=0, description="A lease covers this much recent burn.")
    lease_grace_s: float = Field(
        60.0, ge=0, description="After expiry running streams may use what they hold for so long."
    )
    lease_reclaim_s: float = Field(
        30.0, ge=0, description="The database takes an expired lease back after grace and this."
    )
    background_hold_s: float = Field(
        3600.0,
        ge=0,
        description=(
            "The ceiling of a response in the background stays held until its usage is read, and "
            "no longer than this; 0 = only while the call that makes it runs."
        ),
    )
    recall_wait_s: float = Field(
        0.2, ge=0, description="Wait for other workers to give idle credit back before a 402."
    )
    account_entries: int = Field(
        50_000, ge=1, description="Customers with leased credit kept in a worker's memory."
    )

    # Journal and writer
    journal_segment_bytes: int = Field(16 * 2**20, ge=2**16, description="Size of a segment.")
    journal_fsync_ms: int = Field(
        1000, ge=0, description="Group fsync interval, for power loss; 0 leaves it to the kernel."
    )
    journal_limit_bytes: int = Field(
        4 * 2**30,
        ge=2**18,
        description="Journal of calls that are not committed: over 80 % nothing prepaid is admitted"
        ", at this size nothing at all.",
    )
    writer_interval_ms: int = Field(
        100, ge=1, description="Longest wait before a batch is written; a report never waits."
    )
    writer_batch_rows: int = Field(200, ge=1, le=2000, description="Rows in one transaction.")
    writer_queue_rows: int = Field(100_000, ge=1, description="Settled rows waiting at most.")
    writer_catch_up_rows_s: int = Field(
        2000, ge=1, description="After an outage rows are booked at this rate, per process."
    )
    database_timeout_s: float = Field(2.0, gt=0, description="Deadline of one statement.")
    database_wait_s: float = Field(
        1.0, gt=0, description="Longest that a call waits for one answer of the database, then 503."
    )
    audit_interval_s: float = Field(
        300.0,
        ge=0,
        description="How often what is new in the books is checked; 0: never.",
    )
    retention_months: int = Field(
        0,
        ge=0,
        description="Whole months of requests and ledger rows that are kept, beside the current "
        "one; 0: for ever. Roll-ups and request ids stay.",
    )

    rerate_interval_s: float = Field(
        60.0,
        ge=0,
        description="How often requests without a price are looked at again; 0: only when asked.",
    )
    rerate_after_s: float = Field(
        600.0,
        ge=0,
        description="So old a price must be for that: time to take back a mistake.",
    )

    # Directory (keys, customers, meters in memory)
    directory_poll_s: float = Field(
        2.0, gt=0, description="Net below LISTEN/NOTIFY: how often changes are looked for."
    )
    directory_entries: int = Field(100_000, ge=16, description="Entries of each kind in memory.")
    auth_stale_s: float = Field(
        300.0, gt=0, description="With PostgreSQL away, known keys are honoured for so long."
    )

    # Operation
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Private listener for /metrics (on LAVA_METRICS_HOST)."
    )
    customer_concurrency: int = Field(
        0, ge=0, description="Most calls of one customer that run at once; 0: no limit."
    )
    wallet_enforced: bool = Field(
        False,
        description="Managed-key calls must be covered by the merchant's wallet (402 else).",
    )
    manage_rate_per_minute: int = Field(
        60_000,
        ge=0,
        description="Most management calls of a merchant, per process, reports apart; 0: no limit.",
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the private metrics listener.")
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token for /metrics on the public listener."
    )
    drain_timeout_s: float = Field(60.0, ge=0, description="Longest drain after SIGTERM.")
    provider_keys: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Managed keys by provider id; from LAVA_PROVIDER_KEY_<PROVIDER>.",
    )

    @field_validator("upstream_overrides", mode="before")
    @classmethod
    def _overrides(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        import json

        parsed = json.loads(value)
        if not isinstance(parsed, dict) or not all(isinstance(v, str) for v in parsed.values()):
            raise ValueError("expected a JSON object of host to base URL")
        return parsed

    @field_validator("adapters", "client_drain_providers", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value

    @field_validator("webhook_credit_low")
    @classmethod
    def _money(cls, value: str) -> str:
        if parse_e10(value) < 0:
            raise ValueError("must not be negative")
        return value

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value.lower() not in {"debug", "info", "warning", "error"}:
            raise ValueError("one of debug, info, warning, error")
        return value.lower()
