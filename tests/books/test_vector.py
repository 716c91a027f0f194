"""What a call holds, as a whole: a stateful model of two workers that share five budgets.

Each rule is one thing that can happen; after each, every unit is where it must be. A denial is
checked against all that could have been recalled at that moment.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from books_kit import make_call, row
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lava_proxy.books.holds import CREDIT, Holds
from lava_proxy.books.leases import Hold, Leases
from lava_proxy.core.clock import ManualClock
from lava_proxy.rules.gauge import Gauge
from lava_proxy.rules.limits import LEASED, drawn
from lava_proxy.rules.settlement import Settlement
from lava_proxy.store.credit import LeaseAnswer, LeaseAsk, _size

ORDER = ("money", "requests", "open", "wallet", CREDIT)
GROWS = frozenset({"money", "wallet", CREDIT})
GROWING = Gauge("tokens", 0, 0, 10**8)
FLAT = Gauge("flat", 0, 0, 0)


@dataclass
class Running:
    """A call in the model."""

    worker: int
    holds: Holds
    used: int


class Server:
    """The accounts in a database, by the rules of store/credit.py."""

    def __init__(self) -> None:
        self.granted: Counter[str] = Counter()
        self.free: Counter[str] = Counter()
        self.spent: Counter[str] = Counter()
        self.leased: Counter[tuple[str, int]] = Counter()

    def grant(self, owner_id: str, amount: int) -> None:
        self.granted[owner_id] += amount
        self.free[owner_id] += amount

    def lease(self, worker: int, ask: LeaseAsk) -> LeaseAnswer:
        free = self.free[ask.owner_id]
        amount = _size(ask, free)
        self.free[ask.owner_id] -= amount
        self.leased[ask.owner_id, worker] += amount
        elsewhere = self.leased[ask.owner_id, 1 - worker]
        return LeaseAnswer(amount, free, elsewhere)

    def give_back(self, worker: int, owner_id: str, amount: int) -> None:
        self.leased[owner_id, worker] -= amount
        self.free[owner_id] += amount

    def book(self, worker: int, owner_id: str, charge: int) -> int:
        """Take a charge out of the worker's leases; answers how much of it they covered."""
        taken = min(charge, self.leased[owner_id, worker])
        self.leased[owner_id, worker] -= taken
        self.free[owner_id] -= charge - taken
        self.spent[owner_id] += charge
        return taken


class TwoWorkers(RuleBasedStateMachine):
    """Calls begin, grow, end and are booked at both; credit comes; idle leases go back."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.server = Server()
        self.workers = [self._leases(0), self._leases(1)]
        self.running: list[Running] = []
        self.ended: list[tuple[int, Settlement, int]] = []
        self.used: Counter[str] = Counter()

    def _leases(self, worker: int) -> Leases:
        async def trip(ask: LeaseAsk) -> LeaseAnswer:
            await asyncio.sleep(0)
            return self.server.lease(worker, ask)

        async def back(owner_id: str) -> None:
            self.server.give_back(worker, owner_id, self.server.leased[owner_id, worker])

        async def recall(owner_id: str) -> None:
            other = 1 - worker
            amount = self.workers[other].take_free(owner_id)
            self.server.give_back(other, owner_id, amount)

        return Leases(
            trip, back, self.clock, holder_id=f"hld_{worker}", lease_s=1e9, grace_s=60.0,
            burn_s=60.0, refusal_s=1.0, wait_s=5.0, recall=recall,
        )  # fmt: skip

    def _run(self, going: Coroutine[Any, Any, Any]) -> Any:
        async def to_the_end() -> Any:
            try:
                return await going
            finally:
                for worker in self.workers:
                    await worker.close()
                await asyncio.sleep(0)

        return self.loop.run_until_complete(to_the_end())

    @initialize(sizes=st.lists(st.integers(0, 60), min_size=5, max_size=5))
    def sizes(self, sizes: list[int]) -> None:
        for kind, size in zip(ORDER, sizes, strict=True):
            self.server.grant(kind, size)

    @rule(
        worker=st.integers(0, 1), amount=st.integers(1, 25), kinds=st.sets(st.sampled_from(ORDER))
    )
    def begin(self, worker: int, amount: int, kinds: set[str]) -> None:
        """Leaf to root; who refuses must have been right, and then nothing stays held."""
        self.clock.advance(2.0)  # no refusal is answered from memory
        holds, leases = Holds(), self.workers[worker]
        before = self._held(worker)
        for kind in (k for k in ORDER if k in kinds):
            need = amount if kind in GROWS else 1
            held = self._run(leases.hold(leases.account(kind), need, need, 0))
            if not isinstance(held, Hold):
                assert self._reachable(worker, kind) < need
                holds.give_back()
                assert self._held(worker) == before
                return
            holds.add(kind, held, GROWING if kind in GROWS else FLAT)
        self.running.append(Running(worker, holds, amount))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), more=st.integers(1, 20))
    def grow(self, data: st.DataObject, more: int) -> None:
        """An event needs more of each that grows: all give it, or the call is cut off here."""
        call = data.draw(st.sampled_from(self.running))
        if not self._run(self._grow(call, more)):
            self._end(call, call.used, "cut_off")
            return
        call.used += more

    async def _grow(self, call: Running, more: int) -> bool:
        for hold, _ in call.holds.money:
            lacking = call.used + more - hold.amount_e10
            if lacking <= 0 or hold.extend(lacking):
                continue
            if not await hold.extend_soon(lacking, lacking + 5, 1.0):
                return False
        return True

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(("completed", "void", "client_gone")))
    def end(self, data: st.DataObject, outcome: str) -> None:
        call = data.draw(st.sampled_from(self.running))
        used = 0 if outcome == "void" else data.draw(st.integers(0, call.used))
        self._end(call, used, outcome)

    def _end(self, call: Running, used: int, outcome: str) -> None:
        self.running.remove(call)
        kinds = [part.kind for part in call.holds.parts]
        done = row(CREDIT, shop="mer_1", outcome=outcome, cost_e10=used)
        budgets = tuple((kind, kind) for kind in kinds if kind in LEASED)
        done = replace(done, call=replace(make_call(CREDIT, shop="mer_1"), budgets=budgets))
        charge = used if CREDIT in kinds else 0
        call.holds.release(done, charge)
        self.ended.append((call.worker, done, charge))

    @precondition(lambda self: self.ended)
    @rule()
    def book(self) -> None:
        """The writer commits the oldest."""
        worker, done, charge = self.ended.pop(0)
        uses = {owner: drawn(kind, done) for kind, owner in done.call.budgets}
        for owner_id, used in {CREDIT: charge, **uses}.items():
            leased = self.server.book(worker, owner_id, used)
            self.workers[worker].booked(owner_id, used, leased)
            self.used[owner_id] += used

    @rule(kind=st.sampled_from(ORDER), amount=st.integers(1, 40))
    def more_credit(self, kind: str, amount: int) -> None:
        self.server.grant(kind, amount)
        for worker in self.workers:
            worker.credit_changed(kind)

    @rule(worker=st.integers(0, 1))
    def idle(self, worker: int) -> None:
        leases = self.workers[worker]
        for account in leases.idle_accounts(-1.0):
            self._run(leases.give_back(account))

    @invariant()
    def every_unit_is_somewhere(self) -> None:
        server = self.server
        for kind in ORDER:
            leased = sum(server.leased[kind, worker] for worker in (0, 1))
            assert server.free[kind] + leased + server.spent[kind] == server.granted[kind]
            assert server.free[kind] >= 0
        for number, worker in enumerate(self.workers):
            for kind, account in worker.accounts.items():
                mine = account.free_e10 + account.held_e10 + account.pending_e10
                assert mine == server.leased[kind, number]
                assert account.free_e10 >= 0 <= account.pending_e10
                held = self._held(number)[kind]
                assert account.held_e10 == held

    def _held(self, worker: int) -> Counter[str]:
        held: Counter[str] = Counter()
        for call in self.running:
            if call.worker == worker:
                held.update({part.kind: part.hold.amount_e10 for part in call.holds.parts})
        return held

    def _reachable(self, worker: int, kind: str) -> int:
        """All that could be had here: nobody's, ours, and what lies idle at the other."""
        accounts = [w.accounts[kind].free_e10 for w in self.workers if kind in w.accounts]
        return self.server.free[kind] + sum(accounts)

    def teardown(self) -> None:
        """When all has ended, what is left and what was used is what there was."""
        for call in list(self.running):
            self._end(call, call.used, "completed")
        while self.ended:
            self.book()
        for worker in (0, 1):
            self.idle(worker)
        for kind in ORDER:
            assert self.server.spent[kind] == self.used[kind]
            assert self.server.free[kind] == self.server.granted[kind] - self.used[kind]
        self.loop.close()


TestTwoWorkers = TwoWorkers.TestCase
TestTwoWorkers.settings = settings(max_examples=60, stateful_step_count=40)
