"""Webhooks out, to a real receiver: signed both ways, tried again, and nobody waits for another."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from books_kit import NOW, Shop, fetch, make_books, open_shop, row, settings_of
from plans_kit import Club, Till
from standardwebhooks import Webhook, WebhookVerificationError

from lava_proxy.core.clock import ManualClock
from lava_proxy.core.ids import new_id, new_webhook_secret
from lava_proxy.core.vault import open_vault
from lava_proxy.net.webhook_post import WebhookPost
from lava_proxy.store import outbox, subscriptions, webhooks
from lava_proxy.store.database import Database
from lava_proxy.store.webhooks import WebhookRow
from lava_proxy.telemetry.metrics import Metrics
from lava_proxy.workers.webhooks import Sender, signed

WAITING = """SELECT 1 FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'"""
"""Somebody waits for somebody else's transaction."""


@dataclass
class Receiver:
    """Answers what it is told to, in turn; then 200."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    hang: bool = False
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                pairs = (line.partition(": ") for line in head[1:] if line)
                headers = {name.lower(): value for name, _, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
                self.got.append((headers, body))
                if self.hang:
                    await asyncio.sleep(30)
                status = self.answers.pop(0) if self.answers else 200
                location = "location: http://127.0.0.1:1/\r\n" if status == 302 else ""
                text = f"HTTP/1.1 {status} X\r\n{location}content-length: 2\r\n\r\nok"
                writer.write(text.encode())
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


@asynccontextmanager
async def receiving(**how: Any) -> AsyncIterator[Receiver]:
    made = Receiver(**how)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()


@pytest.fixture
async def shop(database: Database) -> Shop:
    return await open_shop(database)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(start=NOW)


@pytest.fixture
async def sender(database: Database, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Sender]:
    settings = settings_of(tmp_path, webhook_allow_private=True, webhook_timeout_s=0.5)
    made = Sender(settings, database, clock, Metrics([]))
    yield made
    await made.close()


async def hook(shop: Shop, sender: Sender, url: str, *events: str) -> tuple[str, str]:
    """A webhook of the shop: its id and secret."""
    webhook_id, secret = new_id("webhook"), new_webhook_secret()
    sealed = open_vault(sender._settings).seal(secret, webhook_id)
    wanted = WebhookRow(webhook_id, "h", url, events or outbox.USUAL, NOW)
    async with shop.database.transaction() as conn:
        assert await webhooks.create(conn, shop.merchant_id, wanted, sealed) is not None
    return webhook_id, secret


async def tell(shop: Shop, customer: str, name: str = outbox.BALANCE) -> None:
    async with shop.database.transaction() as conn:
        await outbox.emit(conn, [outbox.Event(shop.merchant_id, name, customer)], NOW)


async def statuses(shop: Shop) -> list[tuple[object, ...]]:
    return await fetch(
        shop.database, "SELECT status, tries, last_error FROM webhook_deliveries ORDER BY event_id"
    )


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
