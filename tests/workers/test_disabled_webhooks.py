"""An endpoint that does nothing but fail is disabled, once, and enabled again."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from books_kit import Shop, fetch
from webhook_kit import hook, receiving, statuses, tell

from lava_proxy.core.clock import ManualClock
from lava_proxy.store import outbox, webhooks
from lava_proxy.store.webhooks import WebhookRow
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.webhooks import Sender

WAITING = """SELECT 1 FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'"""
"""Somebody waits for somebody else's transaction."""


async def state_of(shop: Shop, webhook_id: str, clock: ManualClock) -> WebhookRow:
    async with shop.database.connection() as conn:
        found = await webhooks.find(conn, shop.merchant_id, webhook_id, clock.now())
    assert found is not None
    return found


async def failing_for(shop: Shop, sender: Sender, clock: ManualClock, **time: float) -> None:
    """Time goes by, an event every twelve hours, and every try fails."""
    until = clock.now() + timedelta(**time)
    while clock.now() < until:
        await tell(shop, await shop.customer(), outbox.CREATED)
        await sender.run_once()
        clock.advance(12 * 3600)


def disabled_count(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("lava_webhook_disabled_total")


async def test_an_endpoint_that_only_fails_is_disabled_until_somebody_enables_it(
    shop: Shop, sender: Sender, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiving(answers=[500] * 1000) as receiver:
        webhook_id, _ = await hook(shop, sender, receiver.url, outbox.CREATED)
        await failing_for(shop, sender, clock, days=5)
        assert (await state_of(shop, webhook_id, clock)).disabled_at is None
        await sender.run_once()
        disabled = await state_of(shop, webhook_id, clock)
        assert disabled.disabled_at == clock.now()
        assert webhook_id in caplog.text
        assert disabled_count(sender._metrics) == 1
        asked = len(receiver.got)
        await failing_for(shop, sender, clock, days=4)
        assert len(receiver.got) == asked  # nothing is sent, and what happens is kept
        await sender._tidy()
        kept = {(str(status), str(error)) for status, _, error in await statuses(shop)}
        assert ("dead", "no try before its time was over") in kept
        assert ("pending", "None") in kept
        receiver.answers.clear()
        async with shop.database.transaction() as conn:
            enabled = await webhooks.update(
                conn, shop.merchant_id, webhook_id, enable=True, now=clock.now()
            )
        assert enabled is not None
        assert enabled.disabled_at is None
        waiting = [status for status, *_ in await statuses(shop)].count("pending")
        assert waiting == await sender.run_once()  # at once, however far their next tries were
    assert waiting >= 6
    assert disabled_count(sender._metrics) == 1


async def test_one_success_and_failures_with_days_between_disable_nothing(
    shop: Shop, sender: Sender, clock: ManualClock
) -> None:
    async with receiving(answers=[500] * 1000) as receiver:
        webhook_id, _ = await hook(shop, sender, receiver.url, outbox.CREATED)
        await failing_for(shop, sender, clock, days=4)
        receiver.answers[:1] = [200]
        await failing_for(shop, sender, clock, days=4.5)
        assert (await state_of(shop, webhook_id, clock)).disabled_at is None
        receiver.answers[:] = [500] * 1000
        clock.advance(48 * 3600)
        for _ in range(4):  # an event every four days: its tries end after three
            await tell(shop, await shop.customer(), outbox.CREATED)
            for _ in range(14):
                await sender.run_once()
                clock.advance(6 * 3600)
            clock.advance(32 * 3600)
        assert (await state_of(shop, webhook_id, clock)).disabled_at is None


async def test_it_is_not_the_endpoints_fault_that_we_cannot_sign(
    shop: Shop, sender: Sender, clock: ManualClock
) -> None:
    async with receiving() as receiver:
        webhook_id, _ = await hook(shop, sender, receiver.url, outbox.CREATED)
        async with shop.database.transaction() as conn:
            await conn.execute("UPDATE webhooks SET secret_sealed = 'x'")
        await failing_for(shop, sender, clock, days=7)
        assert receiver.got == []
    assert (await state_of(shop, webhook_id, clock)).disabled_at is None
    assert {error for *_, error in await statuses(shop) if error} == {"its secret cannot be opened"}


@pytest.mark.parametrize("first", [500, 200])
async def test_a_success_beside_the_last_failure_keeps_it_enabled(
    shop: Shop, sender: Sender, clock: ManualClock, first: int
) -> None:
    """Two workers end their tries at once; whoever is first, the endpoint is known to work."""
    second = Sender(sender._settings, shop.database, clock, Metrics([]))
    async with receiving(answers=[first, 700 - first]) as receiver:
        webhook_id, _ = await hook(shop, sender, receiver.url, outbox.CREATED)
        for _ in range(2):
            await tell(shop, await shop.customer(), outbox.CREATED)
        await sender._dispatch()
        taken = await sender._claim()
        async with shop.database.transaction() as conn:
            await conn.execute(
                "UPDATE webhooks SET failures = 9, failing_since = $1, failed_at = $2",
                clock.now() - timedelta(days=6),
                clock.now() - timedelta(hours=1),
            )
            workers = zip((sender, second), taken, strict=True)
            ends = [asyncio.create_task(worker._deliver(one)) for worker, one in workers]
            while len(await fetch(shop.database, WAITING)) < len(ends):
                await asyncio.sleep(0.01)
        await asyncio.gather(*ends)
    await second.close()
    assert len(receiver.got) == 2
    assert (await state_of(shop, webhook_id, clock)).disabled_at is None


async def test_two_workers_disable_it_once(shop: Shop, sender: Sender, clock: ManualClock) -> None:
    second = Sender(sender._settings, shop.database, clock, Metrics([]))
    async with receiving(answers=[500] * 1000) as receiver:
        webhook_id, _ = await hook(shop, sender, receiver.url, outbox.CREATED)
        await failing_for(shop, sender, clock, days=5)
        for _ in range(6):
            await tell(shop, await shop.customer(), outbox.CREATED)
        await asyncio.gather(*[one.run_once() for one in (sender, second) * 2])
    await second.close()
    assert (await state_of(shop, webhook_id, clock)).disabled_at == clock.now()
    told = [disabled_count(one._metrics) or 0 for one in (sender, second)]
    assert sum(told) == 1
