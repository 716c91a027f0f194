"""Keys and merchants as the store makes them, for the command line."""

from __future__ import annotations

import asyncio

from lava_proxy.core.ids import hash_secret, hint_of
from lava_proxy.store import directory, keys
from lava_proxy.store.database import Database
from lava_proxy.store.keys import CreatedKey
from lava_proxy.store.place import TOP, Place


async def made(database: Database, name: str = "n", merchant: str = "default") -> CreatedKey:
    async with database.transaction() as conn:
        return await keys.create_key(conn, name=name, test=False, merchant_name=merchant)


async def test_the_first_key_makes_the_merchant(database: Database) -> None:
    first, second = await made(database), await made(database)
    assert first.merchant_id == second.merchant_id
    assert first.secret_key != second.secret_key
    assert first.secret_key not in repr(first)
    async with database.connection() as conn:
        principal = await directory.find_key(conn, hash_secret(first.secret_key))
        debt = await conn.fetchval(
            "SELECT debt_e10 FROM accounts WHERE owner_id = $1", first.merchant_id
        )
    assert principal is not None
    assert principal.secret_key_id == first.secret_key_id
    assert (principal.merchant.name, principal.test, debt) == ("default", False, 0)


async def test_merchants_by_name(database: Database) -> None:
    """The usual name stands for whoever came first; any other is found or made."""
    acme = await made(database, merchant="Acme")
    assert (await made(database)).merchant_id == acme.merchant_id
    other = await made(database, merchant="Other")
    assert other.merchant_id != acme.merchant_id
    assert (await made(database, merchant="Other")).merchant_id == other.merchant_id
    assert (await made(database)).merchant_id == acme.merchant_id


async def test_many_first_keys_at_once_make_one_merchant(database: Database) -> None:
    found = await asyncio.gather(*(made(database) for _ in range(4)))
    assert len({key.merchant_id for key in found}) == 1


async def test_keys_are_listed_and_revoked(database: Database) -> None:
    created = [await made(database, name=f"k{n}") for n in range(3)]
    merchant_id = created[0].merchant_id
    async with database.transaction() as conn:
        first = await keys.page(conn, merchant_id, TOP, 2)
        rest = await keys.page(
            conn, merchant_id, Place(first[-1].created_at, first[-1].secret_key_id), 2
        )
    assert [row.name for row in first + rest] == ["k2", "k1", "k0"]
    assert first[0].hint == f"aks_live_****{created[2].secret_key[-4:]}"
    async with database.transaction() as conn:
        assert await keys.revoke(conn, merchant_id, created[1].secret_key_id)
        assert not await keys.revoke(conn, merchant_id, created[1].secret_key_id)
        assert not await keys.revoke(conn, "mer_other", created[0].secret_key_id)
        assert [row.name for row in await keys.page(conn, merchant_id, TOP, 9)] == ["k2", "k0"]
        assert await directory.find_key(conn, hash_secret(created[1].secret_key)) is None


def test_a_hint_gives_nothing_away() -> None:
    """The random part may hold underscores itself."""
    for prefix in ("aks_live_", "aks_test_", "lava_sk_", "lava_ft_", "whsec_"):
        for random in ("abcdefghij_klmnop_WXYZ", "_abc_defghijkl_WXYZ", "abcdefghijklWXYZ"):
            assert hint_of(prefix + random) == f"{prefix}****WXYZ"
