"""When each spend key was used last: noted in memory by every call, written down in batches."""

from __future__ import annotations

from datetime import datetime

from lava_proxy.store.database import Database
from lava_proxy.store.spend_keys import note_uses

KEYS_MAX = 100_000
"""Keys whose use is not written down yet; with PostgreSQL away, more are not noted."""


class KeyUses:
    """This worker's part of it. A crash forgets the last seconds: no money hangs on them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._used: dict[str, datetime] = {}

    def note(self, spend_key_id: str, at: datetime) -> None:
        """A call with this key was admitted. No await."""
        if spend_key_id in self._used or len(self._used) < KEYS_MAX:
            self._used[spend_key_id] = at

    async def flush(self) -> None:
        """Write down what was noted."""
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            async with self._database.transaction() as conn:
                await note_uses(conn, used)
        except BaseException:
            self._used = used | self._used
            raise
