"""When a spend key was used last: the newest time of all workers, written in batches."""

from __future__ import annotations

from datetime import timedelta

import pytest
from books_kit import NOW, Shop, fetch, open_shop

from lava_proxy.books.key_uses import KeyUses
from lava_proxy.core.ids import hash_secret, new_id
from lava_proxy.store import spend_keys as store
from lava_proxy.store.database import Database, StoreDown
from lava_proxy.store.spend_keys import Rules, SpendKeyRow


async def _key(shop: Shop) -> str:
    spend_key_id = new_id("spend_key")
    async with shop.database.transaction() as conn:
        rules = Rules("k", "active", "openai")
        made = SpendKeyRow(spend_key_id, shop.merchant_id, "wal_1", "p", NOW, rules)
        await store.create(conn, made, hash_secret(spend_key_id))
    return spend_key_id


async def test_the_newest_of_all_workers_stays(database: Database) -> None:
    shop = await open_shop(database)
    key, other = await _key(shop), await _key(shop)
    first, second = KeyUses(database), KeyUses(database)
    second.note(key, NOW + timedelta(seconds=5))
    first.note(key, NOW)
    first.note(other, NOW + timedelta(seconds=1))
    first.note(other, NOW + timedelta(seconds=2))
    first.note("spk_that_is_gone", NOW)
    await second.flush()
    await first.flush()
    rows = await fetch(database, "SELECT spend_key_id, last_used_at FROM spend_key_uses")
    wanted = {key: NOW + timedelta(seconds=5), other: NOW + timedelta(seconds=2)}
    assert dict(rows) == wanted  # type: ignore[arg-type]
    before = await fetch(database, "SELECT count(*) FROM changes WHERE kind = 'spend_keys'")
    first.note(key, NOW + timedelta(seconds=9))
    await first.flush()
    after = await fetch(database, "SELECT count(*) FROM changes WHERE kind = 'spend_keys'")
    assert before == after == [(2,)]  # using a key is no change that workers must hear of


async def test_what_could_not_be_written_is_kept(database: Database) -> None:
    shop = await open_shop(database)
    key = await _key(shop)
    uses = KeyUses(database)
    uses.note(key, NOW)
    await database.close()
    with pytest.raises(StoreDown):
        await uses.flush()
    await database.open()
    await uses.flush()
    assert len(await fetch(database, "SELECT FROM spend_key_uses")) == 1
