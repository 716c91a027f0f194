"""Ids are ULIDs behind a prefix: the library reads what we write."""

from __future__ import annotations

import os
import time

import pytest
from ulid import ULID

from lava_proxy.core.ids import DRAWN, new_id


def test_an_id_is_a_ulid_of_now() -> None:
    before_ms = time.time_ns() // 1_000_000
    read = ULID.from_str(new_id("request").removeprefix("req_"))
    assert before_ms <= read.milliseconds <= time.time_ns() // 1_000_000


def test_ids_sort_by_the_time_of_making() -> None:
    ids = []
    for _ in range(20):
        ids.append(new_id("request"))
        time.sleep(0.002)
    assert ids == sorted(ids)


def test_random_bits_are_all_in_use() -> None:
    """16 digits of 5 bits: every digit of the alphabet turns up everywhere, none repeats an id."""
    made = [new_id("lease")[-16:] for _ in range(3000)]
    assert len(set(made)) == len(made)
    for place in range(16):
        assert {text[place] for text in made} == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_forks_shares_no_ids() -> None:
    new_id("request")
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writes, "".join(new_id("request")[-16:] for _ in range(DRAWN)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reads, 2**16).decode()
    os.close(reads)
    os.close(writes)
    assert len(theirs) == 16 * DRAWN
    ours = {new_id("request")[-16:] for _ in range(DRAWN)}
    assert ours.isdisjoint(theirs[at : at + 16] for at in range(0, len(theirs), 16))


def test_test_mode_shows() -> None:
    assert new_id("secret_key", test=True).startswith("sk_test_")
