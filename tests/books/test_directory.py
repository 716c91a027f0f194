"""Keys, customers and meters in memory: warm without a query, never older than they may be."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from books_kit import Shop, insert_meter, meter, open_shop, until

from lava_proxy.books.directory import Directory
from lava_proxy.books.shelf import MISS_S
from lava_proxy.core.clock import ManualClock
from lava_proxy.core.errors import LavaError
from lava_proxy.core.ids import new_id
from lava_proxy.store.database import Connection, Database, StoreDown

STALE_S = 300.0


class Counted:
    """A database that counts, can be away, and can be held up after it has read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.outage = database.outage
        self.queries = 0
        self.away = False
        self.read = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        self.queries += 1
        if self.away:
            raise StoreDown("away")
        async with self._database.connection() as conn:
            yield conn
        self.read.set()
        await self.go_on.wait()

    @asynccontextmanager
    async def held_up(self) -> AsyncIterator[None]:
        """Inside, what was read does not arrive."""
        self.read.clear()
        self.go_on.clear()
        try:
            yield
        finally:
            self.go_on.set()


def hash_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


@pytest.fixture
async def shop(database: Database) -> Shop:
    shop = await open_shop(database)
    await add_key(shop, "key")
    return shop


@pytest.fixture
def counted(database: Database) -> Counted:
    return Counted(database)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def directory(counted: Counted, clock: ManualClock) -> Directory:
    return Directory(counted, clock, entries=16, stale_s=STALE_S, wait_s=10)  # type: ignore[arg-type]


async def add_key(shop: Shop, name: str) -> str:
    key_id = new_id("secret_key")
    await run(
        shop,
        "INSERT INTO secret_keys (secret_key_id, merchant_id, name, key_hash, hint) "
        "VALUES ($1, $2, $3, $4, 'h')",
        key_id,
        shop.merchant_id,
        name,
        hash_of(name),
    )
    return key_id


async def run(shop: Shop, statement: str, *args: object) -> None:
    async with shop.database.connection() as conn:
        await conn.execute(statement, *args)


async def revoke(shop: Shop, name: str) -> None:
    await run(shop, "UPDATE secret_keys SET revoked_at = now() WHERE key_hash = $1", hash_of(name))


async def test_the_warm_path_asks_nothing(
    shop: Shop, directory: Directory, counted: Counted
) -> None:
    owner = await shop.customer()
    await run(shop, "UPDATE customers SET reference_id = 'ref' WHERE customer_id = $1", owner)
    await insert_meter(shop.database, shop, meter(meter_id="prd_m"))

    async def look() -> None:
        principal = await directory.principal(hash_of("key"))
        assert principal is not None
        assert principal.merchant.merchant_id == shop.merchant_id
        for name in (owner, "ref"):
            customer = await directory.customer(shop.merchant_id, name)
            assert customer is not None
            assert (customer.customer_id, customer.reference_id) == (owner, "ref")
        found = await directory.meter(shop.merchant_id, "prd_m")
        assert found is not None
        assert found.tariff == meter().tariff

    await look()
    cold = counted.queries
    assert cold == 4
    for _ in range(10):
        await look()
    assert counted.queries == cold


async def test_others_customers_and_meters_are_not_found(shop: Shop, directory: Directory) -> None:
    other = await open_shop(shop.database)
    owner = await shop.customer()
    await insert_meter(shop.database, shop, meter(meter_id="prd_m"))
    assert await directory.customer(other.merchant_id, owner) is None
    assert await directory.meter(other.merchant_id, "prd_m") is None
    assert await directory.customer(shop.merchant_id, owner) is not None


async def test_a_miss_is_remembered_for_a_moment(
    shop: Shop, directory: Directory, counted: Counted, clock: ManualClock
) -> None:
    for _ in range(5):
        assert await directory.principal(hash_of("no such key")) is None
    assert counted.queries == 1
    clock.advance(MISS_S + 0.1)
    assert await directory.principal(hash_of("no such key")) is None
    assert counted.queries == 2


async def test_a_new_key_works_at_once(shop: Shop, directory: Directory) -> None:
    assert await directory.principal(hash_of("new")) is None
    key_id = await add_key(shop, "new")
    directory.heard(f"secret_keys {key_id}")
    assert await directory.principal(hash_of("new")) is not None


@pytest.mark.parametrize("way", ["notify", "poll"])
async def test_a_revoked_key_is_forgotten(shop: Shop, directory: Directory, way: str) -> None:
    assert await directory.principal(hash_of("key")) is not None
    if way == "poll":
        await directory.poll()
        await revoke(shop, "key")
        await directory.poll()
    else:
        heard = asyncio.Event()

        def listen(payload: str | None) -> None:
            directory.heard(payload)
            heard.set()

        listening = asyncio.create_task(shop.database.listen({"lava_changes": listen}))
        await asyncio.wait_for(heard.wait(), 10)  # None: it listens now
        assert await directory.principal(hash_of("key")) is not None
        heard.clear()
        await revoke(shop, "key")
        await asyncio.wait_for(heard.wait(), 10)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
    assert await directory.principal(hash_of("key")) is None


async def test_each_change_forgets_what_hangs_on_it(shop: Shop, directory: Directory) -> None:
    owner = await shop.customer()
    await insert_meter(shop.database, shop, meter(meter_id="prd_m"))
    prices: list[int] = []
    directory.on_prices_changed = lambda: prices.append(1)
    await directory.poll()
    for _ in range(2):  # what was polled once is not new the next time
        await directory.poll()

    await directory.customer(shop.merchant_id, owner)
    await run(shop, "UPDATE customers SET deleted_at = now() WHERE customer_id = $1", owner)
    await directory.meter(shop.merchant_id, "prd_m")
    await run(shop, "UPDATE meters SET tiers = '[[0, 7]]' WHERE meter_id = 'prd_m'")
    await directory.principal(hash_of("key"))
    await run(
        shop, "UPDATE merchants SET upgrade_url = 'u' WHERE merchant_id = $1", shop.merchant_id
    )
    await run(
        shop,
        "INSERT INTO price_overrides (override_id, provider, match, rates) "
        "VALUES ('o', 'openai', 'default', '{}')",
    )
    await directory.poll()
    assert await directory.customer(shop.merchant_id, owner) is None
    changed = await directory.meter(shop.merchant_id, "prd_m")
    assert changed is not None
    assert changed.tariff.tiers[0].rate_e12 == 7
    principal = await directory.principal(hash_of("key"))
    assert principal is not None
    assert principal.merchant.upgrade_url == "u"
    assert prices == [1]


async def test_both_names_of_a_customer_are_forgotten(shop: Shop, directory: Directory) -> None:
    owner, heir = await shop.customer(), await shop.customer()
    rename = "UPDATE customers SET reference_id = $2 WHERE customer_id = $1"
    await run(shop, rename, owner, "ref")
    for name in (owner, "ref"):
        assert await directory.customer(shop.merchant_id, name) is not None
    await run(shop, rename, owner, "other")
    await run(shop, rename, heir, "ref")
    directory.changed("customers", owner)
    found = await directory.customer(shop.merchant_id, "ref")
    assert found is not None
    assert found.customer_id == heir


async def test_a_change_while_it_is_read_is_not_lost(
    shop: Shop, directory: Directory, counted: Counted
) -> None:
    """The row was read, then the key was revoked and we heard of it, then the row arrived."""
    async with counted.held_up():
        reading = asyncio.create_task(directory.principal(hash_of("key")))
        await counted.read.wait()
        await revoke(shop, "key")
        await directory_change(directory)
    assert await reading is not None  # it began before
    assert await directory.principal(hash_of("key")) is None


async def test_who_asks_after_a_change_does_not_get_what_was_read_before(
    shop: Shop, directory: Directory, counted: Counted
) -> None:
    async with counted.held_up():
        old = asyncio.create_task(directory.principal(hash_of("new")))
        await counted.read.wait()
        key_id = await add_key(shop, "new")
        directory.changed("secret_keys", key_id)
        new = asyncio.create_task(directory.principal(hash_of("new")))
        await until(lambda: counted.queries == 2)
    assert await old is None
    assert await new is not None
    assert await directory.principal(hash_of("new")) is not None


async def directory_change(directory: Directory) -> None:
    directory.changed("secret_keys", "sk_any")


async def test_callers_share_a_read_and_survive_its_first_caller(
    shop: Shop, directory: Directory, counted: Counted
) -> None:
    async with counted.held_up():
        asking = [asyncio.create_task(directory.principal(hash_of("key"))) for _ in range(5)]
        await counted.read.wait()
        asking[0].cancel()
        await asyncio.gather(asking[0], return_exceptions=True)
    found = await asyncio.gather(*asking[1:])
    assert all(found)
    assert counted.queries == 1


async def test_an_error_is_told_to_all_and_remembered_by_nobody(
    shop: Shop, directory: Directory, counted: Counted
) -> None:
    counted.away = True
    asking = [directory.principal(hash_of("key")) for _ in range(3)]
    for result in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(result, LavaError)
        assert (result.status, result.headers) == (503, {"retry-after": "1"})
    counted.away = False
    assert await directory.principal(hash_of("key")) is not None


async def test_memory_is_bounded(shop: Shop, counted: Counted, clock: ManualClock) -> None:
    small = Directory(counted, clock, entries=3, stale_s=STALE_S, wait_s=10)  # type: ignore[arg-type]
    names = [f"key {n}" for n in range(6)]
    for name in names:
        await add_key(shop, name)
        assert await small.principal(hash_of(name)) is not None
        assert await small.principal(hash_of(f"no {name}")) is None
    shelf = small._keys
    assert len(shelf.found) == 3
    assert len(shelf._missing) <= 3
    assert len(shelf._keys_of) == 3
    queries = counted.queries
    for name in names[3:]:
        assert await small.principal(hash_of(name)) is not None
    assert counted.queries == queries
    assert await small.principal(hash_of(names[0])) is not None
    assert counted.queries == queries + 1


async def test_known_keys_are_trusted_for_so_long_and_then_again(
    shop: Shop, directory: Directory, counted: Counted, clock: ManualClock
) -> None:
    assert await directory.principal(hash_of("key")) is not None
    counted.away = True
    with pytest.raises(StoreDown):
        await directory.poll()
    clock.advance(STALE_S)
    assert await directory.principal(hash_of("key")) is not None
    clock.advance(1)
    for name in ("key", "unknown"):
        with pytest.raises(LavaError) as refused:
            await directory.principal(hash_of(name))
        assert refused.value.status == 503
    counted.away = False
    await revoke(shop, "key")
    with pytest.raises(LavaError):  # the database is back, but nobody looked for changes yet
        await directory.principal(hash_of("key"))
    await directory.poll()
    assert await directory.principal(hash_of("key")) is None


async def test_a_long_outage_is_read_from_its_beginning(
    shop: Shop, directory: Directory, clock: ManualClock
) -> None:
    assert await directory.principal(hash_of("key")) is not None
    await directory.poll()
    await revoke(shop, "key")
    await run(shop, "UPDATE changes SET changed_at = changed_at - interval '200 seconds'")
    clock.advance(210)
    await directory.poll()
    assert await directory.principal(hash_of("key")) is None


async def test_who_made_an_object(shop: Shop, directory: Directory, counted: Counted) -> None:
    await run(
        shop, "INSERT INTO provider_objects VALUES ('openai', 'resp_1', $1, 'c')", shop.merchant_id
    )
    assert await directory.object_owner("openai", "resp_1") == (shop.merchant_id, "c")
    assert await directory.object_owner("openai", "resp_2") is None
    counted.away = True
    with pytest.raises(LavaError, match="unavailable"):
        await directory.object_owner("openai", "resp_1")
