"""What can go wrong with PostgreSQL, by what the caller should do; foreign errors end here.

====================  =====================================================  ==================
`StoreDown`           no connection, a deadline, no resources, shutting down  try again later
`StoreConflict`       deadlock, serialisation, lock wait, stale plan          try again now
`StorePoison`         a value or a constraint                                 this row never works
`StoreBroken`         anything else                                           stop and look
====================  =====================================================  ==================

After `StoreDown` a commit may or may not have happened: repeat with the same ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from lava_proxy.core.money import MoneyError


class StoreError(Exception):
    """Root of all. `sqlstate` and `constraint` are PostgreSQL's, where it said so."""

    def __init__(
        self, message: str, *, sqlstate: str | None = None, constraint: str | None = None
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint


class StoreDown(StoreError):
    """PostgreSQL cannot be reached or does not answer in time."""


class StoreConflict(StoreError):
    """Somebody else was in the way; the same statement may work now."""


class StorePoison(StoreError):
    """PostgreSQL refuses these values, now and always."""


class StoreBroken(StoreError):
    """A defect: of a statement, of the schema, of rights, or one that we do not know."""


POISON = (StorePoison, MoneyError, OverflowError)
"""What a row can be refused with: by PostgreSQL, or on the way to it."""


_BY_STATE: dict[str, type[StoreError]] = {
    "0A000": StoreBroken,
    "25006": StoreDown,  # Read-only: a failover left us on a standby.
    "25P03": StoreDown,  # Idle in a transaction for too long: the session was ended.
    "40001": StoreConflict,
    "40P01": StoreConflict,
    "55P03": StoreConflict,
    "57014": StoreDown,  # statement_timeout
    "57P01": StoreDown,
    "57P02": StoreDown,
    "57P03": StoreDown,
    "57P04": StoreDown,  # dropped, as a restore does
    "57P05": StoreDown,
}
_BY_CLASS: dict[str, type[StoreError]] = {
    "08": StoreDown,
    "22": StorePoison,
    "23": StorePoison,
    "53": StoreDown,
    "58": StoreDown,  # Its machine: an I/O error, a file that is gone.
    "54": StorePoison,  # Too large for a row, an index entry, a string.
}
_STALE_PLAN = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)


@contextmanager
def mapped() -> Iterator[None]:
    """Raise a `StoreError` for whatever the driver or the operating system raises inside."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise fault_of(error) from error
    except (OSError, TimeoutError) as error:
        raise StoreDown(f"PostgreSQL: {str(error) or type(error).__name__}") from error


def fault_of(error: Exception) -> StoreError:
    """The fault that an error of asyncpg means."""
    message = f"PostgreSQL: {error}"
    if isinstance(error, _STALE_PLAN):
        return StoreConflict(message)
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        kind = _BY_STATE.get(state) or _BY_CLASS.get(state[:2], StoreBroken)
        return kind(message, sqlstate=state or None, constraint=error.constraint_name)
    if isinstance(error, asyncpg.InternalClientError):
        # The driver lost track of a connection that is dying; a new one will do.
        return StoreDown(message)
    # The driver has no class of its own for "the connection is closed".
    gone = any(word in str(error) for word in ("closed", "closing", "released"))
    return (StoreDown if gone else StoreBroken)(message)
