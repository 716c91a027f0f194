"""Webhooks out: bodies are made, signed and sent, and what fails is tried again for three days.

A tenant's dead or slow endpoint never delays another's: each round takes few deliveries of each
endpoint, an endpoint that failed is left alone for a while, and all of them share a bounded number
of connections. Any number of processes send at once; each takes other deliveries.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256

import orjson
import stamina
from standardwebhooks import Webhook

from lava_proxy.core.clock import Clock, time_text
from lava_proxy.core.ids import new_id
from lava_proxy.core.money import format_e10, parse_e10
from lava_proxy.core.settings import ConfigurationError, Settings
from lava_proxy.core.vault import Vault, open_vault
from lava_proxy.net.webhook_post import Posted, WebhookPost
from lava_proxy.store import outbox, webhooks
from lava_proxy.store.database import Connection, Database, StoreConflict
from lava_proxy.store.outbox import BALANCE, EXHAUSTED, LOW, Delivery, Event, Outcome, Told, Waiting
from lava_proxy.store.subscription_view import view
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.webhook_health import jittered, judged

log = logging.getLogger(__name__)

EVENTS_AT_A_TIME = 200
FAILING_SHARE = 4
"""At most one part in this many of what is under way goes to endpoints that failed last time."""
FIRST_RETRY_S = 10.0
RETRY_FACTOR = 3
LAST_RETRY_S = 43_200.0
"""10 s, 30 s, 90 s ... then every 12 h: about 13 tries in three days."""
CLAIM_SLACK_S = 30.0
"""How much longer a delivery is ours than it may take."""
NOTES_MAX = 10
"""How often an end is written down while others are in the way: else it would be sent again."""
TIDY_EVERY = 600
TIDY_MOST = 5000


class Sender:
    """One process's share of the work."""

    def __init__(
        self, settings: Settings, database: Database, clock: Clock, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._metrics = metrics
        self._low_e10 = parse_e10(settings.webhook_credit_low)
        self._vault: Vault | None = None
        self._rounds = 0
        # Endpoints are called side by side, the database in turn: leases need its connections.
        self._turn = asyncio.Lock()
        self._out = WebhookPost(
            timeout_s=settings.webhook_timeout_s,
            allow_private=settings.webhook_allow_private,
            per_host=settings.webhook_sends_max,
        )

    async def run_once(self) -> int:
        """Make what waits ready, send what is due; how many were sent."""
        if self._database.outage.away:
            return 0
        self._rounds += 1
        while await self._dispatch() == EVENTS_AT_A_TIME:
            continue
        sent = 0
        while batch := await self._claim():
            sending = [self._deliver(delivery) for delivery in batch]
            for failure in await asyncio.gather(*sending, return_exceptions=True):
                if failure is not None:
                    raise failure
            sent += len(batch)
        async with self._database.connection() as conn:
            age_s = await outbox.queue_age_s(conn, self._clock.now())
        self._metrics.webhook_queue_age(age_s)
        if self._rounds % TIDY_EVERY == 0:
            await self._tidy()
        return sent

    async def close(self) -> None:
        await self._out.close()

    async def _dispatch(self) -> int:
        async with self._database.transaction() as conn:
            return await outbox.dispatch(conn, self._bodies, EVENTS_AT_A_TIME, self._clock.now())

    async def _claim(self) -> list[Delivery]:
        settings = self._settings
        async with self._database.transaction() as conn:
            return await outbox.claim(
                conn,
                busy=(),
                per_webhook=settings.webhook_sends_per_endpoint,
                failing_most=max(1, settings.webhook_sends_max // FAILING_SHARE),
                most=settings.webhook_sends_max,
                claim_s=settings.webhook_timeout_s + CLAIM_SLACK_S,
                now=self._clock.now(),
            )

    async def _deliver(self, delivery: Delivery) -> None:
        posted = await self._post(delivery)
        retries = stamina.retry_context(on=StoreConflict, attempts=NOTES_MAX, wait_max=1.0)
        async for attempt in retries:
            with attempt:
                async with self._turn, self._database.transaction() as conn:
                    outcome, disabled = await self._note(conn, delivery, posted)
        self._metrics.webhook_sent("failed" if outcome.status == "pending" else outcome.status)
        if disabled:
            self._metrics.webhook_disabled()
            log.warning("webhook %s is disabled: it only failed", delivery.webhook_id)

    async def _note(
        self, conn: Connection, delivery: Delivery, posted: Posted
    ) -> tuple[Outcome, bool]:
        """Write down how a try ended; and whether its endpoint is disabled by it."""
        before = await webhooks.lock_health(conn, delivery.webhook_id)
        now = self._clock.now()
        outcome = self._outcome(delivery, posted, now)
        if before is None or not await outbox.end_try(conn, delivery, outcome, now):
            return outcome, False
        disable_s = self._settings.webhook_disable_s
        after = judged(before, posted, outcome.next_at, now, disable_s)
        if after.failures or before.failures:
            await webhooks.save_health(conn, delivery.webhook_id, after)
        return outcome, after.disabled_at is not None and before.disabled_at is None

    async def _post(self, delivery: Delivery) -> Posted:
        try:
            self._vault = self._vault or open_vault(self._settings)
            secrets = [self._vault.unseal(delivery.secret_sealed, delivery.webhook_id)]
        except ConfigurationError as error:
            log.error("webhook %s cannot be signed: %s", delivery.webhook_id, error)
            return Posted(None, "its secret cannot be opened", ours=True)
        for old in delivery.old_sealed:
            with suppress(ConfigurationError):  # its master key is gone; the new one signs
                secrets.append(self._vault.unseal(old, delivery.webhook_id))
        headers = signed(secrets, delivery.event_id, delivery.body, self._clock.now())
        return await self._out.post(delivery.url, delivery.body, headers)

    def _outcome(self, delivery: Delivery, posted: Posted, now: datetime) -> Outcome:
        if posted.delivered:
            return Outcome("delivered", now, posted.status, None)
        age_s = (now - delivery.created_at).total_seconds()
        dead = age_s >= self._settings.webhook_retry_s
        next_s = jittered(min(FIRST_RETRY_S * RETRY_FACTOR ** (delivery.tries - 1), LAST_RETRY_S))
        return Outcome(
            "dead" if dead else "pending",
            now + timedelta(seconds=next_s),
            posted.status,
            posted.error,
        )

    def _bodies(
        self, waiting: Sequence[Waiting], told: Mapping[str, Told]
    ) -> list[tuple[Waiting, bytes, str]]:
        """The bodies of events, and of those that a change of balance brings with it."""
        levels = {customer: told[customer].level for customer in told}
        made = []
        for one in waiting:
            customer = told.get(one.event.customer_id)
            level = levels.get(one.event.customer_id, "fine")
            if customer is not None and one.event.name == BALANCE:
                level = self._level(customer)
                name = _crossed(levels[customer.customer_id], level)
                levels[customer.customer_id] = level
                if name is not None:
                    event = Event(
                        one.event.merchant_id,
                        name,
                        customer.customer_id,
                        event_id=new_id("event"),
                    )
                    extra = replace(one, event=event)
                    made.append((extra, body_of(extra, customer), level))
            made.append((one, body_of(one, customer), level))
        return made

    def _level(self, customer: Told) -> str:
        left_e10 = customer.available_e10 + customer.held_e10
        if left_e10 <= 0:
            return "exhausted"
        return "low" if left_e10 < self._low_e10 else "fine"

    async def _tidy(self) -> None:
        now, settings = self._clock.now(), self._settings
        async with self._database.transaction() as conn:
            await outbox.tidy(
                conn,
                dead_before=now - timedelta(seconds=settings.webhook_retry_s),
                old_before=now - timedelta(seconds=settings.webhook_keep_s),
                now=now,
                most=TIDY_MOST,
            )


def signed(secrets: Sequence[str], event_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The headers of a delivery: the public service's signature, and Standard Webhooks' beside it.
    The first is over the body alone, the second over id and time too, so it cannot be replayed.
    `secrets` begins with the newest: the first signature has a place for one only."""
    text = body.decode()
    signatures = [Webhook(secret).sign(event_id, now, text) for secret in secrets]
    return {
        "content-type": "application/json",
        "user-agent": "lava_proxy",
        "x-webhook-signature": hmac.new(secrets[0].encode(), body, sha256).hexdigest(),
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def body_of(waiting: Waiting, customer: Told | None) -> bytes:
    """What is sent. The customer's fields stand in `data`, and once more in `data.customer`."""
    event = waiting.event
    shown = {"customer_id": event.customer_id} if customer is None else _shown(customer)
    data = {**shown, "customer": shown}
    if event.request_id is not None:
        data["request_id"] = event.request_id
    return orjson.dumps(
        {
            "event": event.name,
            "event_id": event.event_id,
            "created_at": time_text(waiting.created_at),
            "data": data,
        }
    )


def _shown(customer: Told) -> dict[str, object]:
    total_e10 = customer.available_e10 + customer.held_e10
    return {
        "customer_id": customer.customer_id,
        "reference_id": customer.reference_id,
        "contact": {
            "phone": customer.phone,
            "email": customer.email,
            "first_name": customer.first_name,
            "last_name": customer.last_name,
        },
        "subscription": None if customer.subscription is None else view(customer.subscription),
        "credits": {
            "total_remaining": format_e10(total_e10),
            "cycle_remaining": format_e10(customer.cycle_e10),
            "bundle_remaining": format_e10(customer.bundle_e10),
        },
        "metadata": None if customer.metadata is None else orjson.Fragment(customer.metadata),
        "created_at": time_text(customer.created_at),
    }


def _crossed(before: str, after: str) -> str | None:
    """The event of a level that was crossed downwards."""
    if after == "exhausted" and before != after:
        return EXHAUSTED
    return LOW if (before, after) == ("fine", "low") else None
