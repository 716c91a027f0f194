"""Webhooks out, to a real receiver: signed both ways, tried again, and nobody waits for another."""

from __future__ import annotations

import asyncio
import hmac
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from books_kit import NOW, Shop, fetch, make_books, open_shop, row
from plans_kit import Club, Till
from standardwebhooks import Webhook, WebhookVerificationError
from webhook_kit import hook, receiving, statuses, tell

from lava_proxy.core.clock import ManualClock
from lava_proxy.core.ids import new_webhook_secret
from lava_proxy.core.vault import open_vault
from lava_proxy.net.webhook_post import WebhookPost
from lava_proxy.store import outbox, subscriptions, webhooks
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.webhooks import Sender, signed


async def test_it_is_signed_both_ways_and_tells_of_the_customer(shop: Shop, sender: Sender) -> None:
    async with receiving() as receiver:
        _, secret = await hook(shop, sender, receiver.url)
        customer = await shop.customer(100_000)
        await tell(shop, customer)
        assert await sender.run_once() == 1
        assert await sender.run_once() == 0
    [(headers, body)] = receiver.got
    wanted = hmac.new(secret.encode(), body, sha256).hexdigest()
    assert headers["x-webhook-signature"] == wanted
    # The library judges the time by its own clock, and this one is the test's: shift it.
    checked = dict(headers)
    stamp = int(headers["webhook-timestamp"])
    assert stamp == int(NOW.timestamp())
    ours = Webhook(secret).sign(headers["webhook-id"], NOW, body.decode())
    assert checked["webhook-signature"] == ours
    told = json.loads(body)
    assert set(told) == {"event", "event_id", "created_at", "data"}
    assert (told["event"], told["event_id"]) == (outbox.BALANCE, headers["webhook-id"])
    assert told["data"]["customer_id"] == told["data"]["customer"]["customer_id"] == customer
    assert told["data"]["credits"]["total_remaining"] == "0.0000100000"
    assert await statuses(shop) == [("delivered", 1, None)]


async def test_it_tells_of_the_subscription_too(
    shop: Shop, sender: Sender, clock: ManualClock, tmp_path: Path
) -> None:
    club = Club(shop, make_books(shop.database, clock, tmp_path), clock, Till())
    async with receiving() as receiver:
        await hook(shop, sender, receiver.url)

        async def told() -> dict[str, Any] | None:
            """The subscription in the one event that there is."""
            seen = len(receiver.got)
            await sender.run_once()
            [body] = receiver.bodies()[seen:]
            assert body["event"] == outbox.BALANCE
            found: dict[str, Any] | None = body["data"]["subscription"]
            assert body["data"]["customer"]["subscription"] == found
            return found

        free, paid = await club.plan(0), await club.plan(20)
        customer, subscription = await club.member(free)
        on = await told()
        assert on is not None
        assert (on["subscription_id"], on["plan_id"]) == (subscription, free.plan_id)
        assert (on["status"], on["plan"]["billing_interval"]) == ("active", "month")
        payment = await club.pay(customer, "subscription", 20, plan_id=paid.plan_id)
        await club.paid(payment)
        on = await told()
        assert on is not None
        assert on["plan_id"] == paid.plan_id
        assert on["credits"]["cycle_remaining"] == "20.0000000000"
        async with shop.database.transaction() as conn:
            assert await subscriptions.cancel(
                conn,
                subscription_id=subscription,
                merchant_id=shop.merchant_id,
                now=clock.now(),
            )
        on = await told()
        assert on is not None
        assert on["pending_change"] == {
            "type": "cancellation",
            "effective_at": on["cycle_end_at"],
        }
        club.later(days=40)
        await club.renew()
        assert await told() is None


async def test_the_library_of_receivers_accepts_it() -> None:
    secret = new_webhook_secret()
    old = new_webhook_secret()
    headers = signed([secret, old], "evt_1", b'{"a":1}', datetime.now(UTC))
    for known in (secret, old):
        assert Webhook(known).verify(b'{"a":1}', headers) == {"a": 1}
    with pytest.raises(WebhookVerificationError):
        Webhook(new_webhook_secret()).verify(b'{"a":1}', headers)


async def test_while_secrets_overlap_a_delivery_is_signed_with_both(
    shop: Shop, sender: Sender, clock: ManualClock
) -> None:
    vault = open_vault(sender._settings)
    async with receiving(answers=[500]) as receiver:
        webhook_id, old = await hook(shop, sender, receiver.url)
        await tell(shop, await shop.customer())
        await sender.run_once()  # fails, and is signed anew when it is tried again
        new = new_webhook_secret()
        async with shop.database.transaction() as conn:
            await webhooks.rotate(
                conn,
                shop.merchant_id,
                webhook_id,
                lambda: vault.seal(new, webhook_id),
                overlap=timedelta(hours=1),
                now=clock.now(),
            )
        clock.advance(60)
        await sender.run_once()
        clock.advance(3600)
        await tell(shop, await shop.customer())
        await sender.run_once()
        await sender._tidy()
        assert await fetch(shop.database, "SELECT 1 FROM webhook_old_secrets") == []
    keys = [[old], [new, old], [new]]
    assert len(receiver.got) == len(keys)
    for (headers, body), secrets in zip(receiver.got, keys, strict=True):
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        both = [Webhook(key).sign(headers["webhook-id"], at, body.decode()) for key in secrets]
        assert headers["webhook-signature"] == " ".join(both)
        wanted = hmac.new(secrets[0].encode(), body, sha256).hexdigest()
        assert headers["x-webhook-signature"] == wanted  # the newest alone: it has one place


async def test_only_who_wants_an_event_is_told(shop: Shop, sender: Sender) -> None:
    async with receiving() as receiver:
        await hook(shop, sender, receiver.url, outbox.CUT_OFF)
        customer = await shop.customer(1000)
        await tell(shop, customer, outbox.CREATED)
        await tell(shop, customer)
        assert await sender.run_once() == 0
        assert await fetch(shop.database, "SELECT 1 FROM webhook_events") == []
        await shop.settle(row(customer, 5, shop=shop, outcome="cut_off", request_id="req_1"))
        assert await sender.run_once() == 1
    [told] = receiver.bodies()
    assert (told["event"], told["data"]["request_id"]) == (outbox.CUT_OFF, "req_1")


async def test_many_changes_of_a_balance_are_one_event(shop: Shop, sender: Sender) -> None:
    async with receiving() as receiver:
        await hook(shop, sender, receiver.url)
        one, other = await shop.customer(10_000), await shop.customer(10_000)
        for _ in range(5):
            await shop.settle(*[row(owner, 7, shop=shop) for owner in (one, other, one)])
        assert await sender.run_once() == 2
        await shop.settle(row(one, 7, shop=shop))
        assert await sender.run_once() == 1
    left = {told["data"]["customer_id"]: told["data"]["credits"] for told in receiver.bodies()}
    assert left[one]["total_remaining"] == "0.0000009923"
    assert left[other]["total_remaining"] == "0.0000009965"


async def test_credit_that_runs_low_and_out_is_told_once_each(shop: Shop, sender: Sender) -> None:
    async with receiving() as receiver:
        await hook(shop, sender, receiver.url, outbox.LOW, outbox.EXHAUSTED)
        customer = await shop.customer(10**10 + 10)
        for tokens in (5, 6, 1, 10**10, 5):
            await shop.settle(row(customer, tokens, shop=shop))
            await sender.run_once()
        await shop.grant(customer, 3 * 10**10)
        await tell(shop, customer)
        await sender.run_once()
        await shop.settle(row(customer, 25 * 10**9, shop=shop))
        await sender.run_once()
    assert [told["event"] for told in receiver.bodies()] == [
        outbox.LOW,
        outbox.EXHAUSTED,
        outbox.LOW,
    ]


async def test_a_change_that_is_rolled_back_tells_nobody(shop: Shop, sender: Sender) -> None:
    async with receiving() as receiver:
        await hook(shop, sender, receiver.url)
        customer = await shop.customer()
        with pytest.raises(ZeroDivisionError):
            await _changed_and_failed(shop, customer)
        assert await sender.run_once() == 0
    assert receiver.got == []


async def _changed_and_failed(shop: Shop, customer: str) -> None:
    async with shop.database.transaction() as conn:
        news = outbox.Event(shop.merchant_id, outbox.CREATED, customer)
        await outbox.emit(conn, [news], NOW)
        _ = 1 // 0


async def test_what_fails_is_tried_again_with_longer_pauses(
    shop: Shop, sender: Sender, clock: ManualClock
) -> None:
    async with receiving(answers=[500, 302, 404]) as receiver:
        await hook(shop, sender, receiver.url)
        await tell(shop, await shop.customer())
        pauses = []
        for wanted in ("status 500", "status 302", "status 404"):
            assert await sender.run_once() == 1
            [(status, _, error)] = await statuses(shop)
            assert (status, error) == ("pending", wanted)
            assert await sender.run_once() == 0
            [(next_at,)] = await fetch(shop.database, "SELECT next_at FROM webhook_deliveries")
            pauses.append((next_at - clock.now()).total_seconds())  # type: ignore[operator]
            clock.advance(pauses[-1] + 1)
        assert await sender.run_once() == 1
    assert 5 <= pauses[0] <= 10
    assert 15 <= pauses[1] <= 30
    assert 45 <= pauses[2] <= 90
    assert [status for status, *_ in await statuses(shop)] == ["delivered"]
    bodies = {body for _, body in receiver.got}
    assert (len(receiver.got), len(bodies)) == (4, 1)  # the body never changes


async def test_after_three_days_it_is_dead_until_somebody_resends_it(
    shop: Shop, sender: Sender, clock: ManualClock
) -> None:
    async with receiving(answers=[500, 500]) as receiver:
        webhook_id, _ = await hook(shop, sender, receiver.url)
        await tell(shop, await shop.customer())
        await sender.run_once()
        clock.advance(timedelta(days=3, seconds=1).total_seconds())
        assert await sender.run_once() == 1
        [(status, tries, _)] = await statuses(shop)
        assert (status, tries) == ("dead", 2)
        assert await sender.run_once() == 0
        async with shop.database.transaction() as conn:
            now = clock.now()
            assert await outbox.resend(conn, event_id=None, webhook_id=webhook_id, now=now) == 1
        assert await sender.run_once() == 1
    assert [status for status, *_ in await statuses(shop)] == ["delivered"]


async def test_an_old_secret_that_cannot_be_opened_any_more_stops_nothing(
    shop: Shop, sender: Sender, clock: ManualClock
) -> None:
    async with receiving() as receiver:
        webhook_id, _ = await hook(shop, sender, receiver.url)
        new = new_webhook_secret()
        sealed = open_vault(sender._settings).seal(new, webhook_id)
        async with shop.database.transaction() as conn:
            await webhooks.rotate(
                conn, None, webhook_id, lambda: sealed, overlap=timedelta(days=1), now=clock.now()
            )
            await conn.execute("UPDATE webhook_old_secrets SET secret_sealed = 'x'")
        await tell(shop, await shop.customer())
        assert await sender.run_once() == 1
    [(headers, body)] = receiver.got
    ours = Webhook(new).sign(headers["webhook-id"], NOW, body.decode())
    assert headers["webhook-signature"] == ours


async def test_a_dead_endpoint_delays_nobody_else(shop: Shop, sender: Sender) -> None:
    other = await open_shop(shop.database)
    async with receiving(hang=True) as dead, receiving() as fine:
        await hook(shop, sender, dead.url, outbox.CREATED)
        await hook(other, sender, fine.url, outbox.CREATED)
        for _ in range(30):
            await tell(shop, await shop.customer(), outbox.CREATED)
        for _ in range(5):
            await tell(other, await other.customer(), outbox.CREATED)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await sender.run_once()
        assert loop.time() - began_s < 4  # not thirty times the time-out
    assert len(fine.got) == 5
    assert len(dead.got) <= 3  # after the first failures it is left alone


async def test_a_process_that_dies_while_sending_is_followed_by_another(
    shop: Shop, sender: Sender, clock: ManualClock
) -> None:
    async with receiving() as receiver:
        await hook(shop, sender, receiver.url)
        await tell(shop, await shop.customer())
        await sender._dispatch()
        [taken] = await sender._claim()  # and then nothing more is heard of it
        assert (taken.tries, await sender.run_once()) == (1, 0)
        clock.advance(300)
        assert await sender.run_once() == 1
        # The first one comes back late: what the second wrote stands.
        late = outbox.Outcome("pending", NOW, None, "late")
        async with shop.database.transaction() as conn:
            assert not await outbox.end_try(conn, taken, late, clock.now())
    assert [status for status, *_ in await statuses(shop)] == ["delivered"]


async def test_a_webhook_that_is_being_changed_delays_nobody_and_is_told_once(
    shop: Shop, sender: Sender
) -> None:
    other = await open_shop(shop.database)
    async with receiving() as busy, receiving() as fine:
        webhook_id, _ = await hook(shop, sender, busy.url, outbox.CREATED)
        await hook(other, sender, fine.url, outbox.CREATED)
        for one in (shop, other):
            await tell(one, await one.customer(), outbox.CREATED)
        async with shop.database.transaction() as conn:
            await webhooks.lock_health(conn, webhook_id)
            sending = asyncio.create_task(sender.run_once())
            while not (busy.got and fine.got):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.6)  # longer than anybody waits for a lock
        assert await sending == 2
        assert await sender.run_once() == 0
    assert (len(busy.got), len(fine.got)) == (1, 1)
    assert [status for status, *_ in await statuses(shop)] == ["delivered"] * 2


async def test_two_processes_send_once(
    shop: Shop, sender: Sender, clock: ManualClock, tmp_path: Path
) -> None:
    second = Sender(sender._settings, shop.database, clock, Metrics([]))
    async with receiving() as receiver:
        await hook(shop, sender, receiver.url, outbox.CREATED)
        for _ in range(20):
            await tell(shop, await shop.customer(), outbox.CREATED)
        await asyncio.gather(sender.run_once(), second.run_once())
        await sender.run_once()
    await second.close()
    events = [told["event_id"] for told in receiver.bodies()]
    assert len(events) == len(set(events)) == 20


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fd00::1]/",
        "https://0.0.0.0/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://100.64.0.1/",
        "http://example.com/",
    ],
)
async def test_private_addresses_are_never_called(url: str) -> None:
    out = WebhookPost(timeout_s=2, allow_private=False, per_host=1)
    posted = await out.post(url, b"{}", {})
    await out.close()
    assert posted.status is None
    assert posted.error
