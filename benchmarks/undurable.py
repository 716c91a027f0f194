"""``python -m benchmarks.undurable serve ...``: the gateway without durable accounting.

No journal record is stored and no row is written: a call's charge is taken as booked when it ends.
Everything else is the same, so the difference to the gateway is what durability costs a request.
"""

from __future__ import annotations

from lava_proxy.books.segment import Segment
from lava_proxy.books.writer import Item, Writer
from lava_proxy.cli.main import app
from lava_proxy.rules.settlement import Booked


def store(self: Segment, kind: int, payload: bytes) -> bool:
    """Say that it is stored."""
    return True


def put(self: Writer, item: Item) -> None:
    """Say that it is booked."""
    call = item.settlement.call
    charge_e10 = item.estimate_e10
    booked = Booked(call.request_id, call.owner_id, charge_e10, True, leased_e10=charge_e10)
    self._on_booked([(item, booked)])


if __name__ == "__main__":
    Segment.store = store  # type: ignore[method-assign]
    Writer.put = put  # type: ignore[method-assign]
    app()
