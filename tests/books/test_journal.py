"""The journal: what was written is read back, and damage yields a prefix, never a wrong record."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lava_proxy.books.folder import lock_folder, remove_folder
from lava_proxy.books.journal import (
    ROOM_AFTER_BYTES,
    Journal,
    JournalError,
    read_folder,
)
from lava_proxy.books.segment import (
    FRAME,
    HEADER,
    HOLD,
    PROGRESS,
    SENT,
    SEQ,
    SETTLE,
    Record,
    read_segment,
)

SEGMENT = 4096


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "hld_1", segment_bytes=SEGMENT)
    yield made
    if made._segments:
        made.close()


def _one_call(journal: Journal, number: int = 0) -> int:
    seq = journal.hold(b'["hold",%d]' % number)
    journal.sent(seq)
    journal.progress(seq, 7, number, 2**40, 0)
    journal.settle(seq, b'["settle",%d]' % number)
    return seq


def _small_file(tmp_path: Path, calls: int = 3) -> tuple[bytes, list[Record]]:
    journal = Journal(tmp_path / "hld_small", segment_bytes=SEGMENT)
    for number in range(calls):
        _one_call(journal, number)
    data = (journal.folder / "00000001.journal").read_bytes()
    records = list(read_segment(data))
    end = journal._segments[-1].size
    journal.close()
    assert len(records) == 4 * calls
    return data[: end + 64], records  # with some of the preallocated tail


def test_what_was_written_is_read_back(journal: Journal) -> None:
    seq = _one_call(journal, 5)
    assert list(read_folder(journal.folder)) == [
        Record(HOLD, seq, b'["hold",5]'),
        Record(SENT, seq),
        Record(PROGRESS, seq, counts=(7, 5, 2**40, 0)),
        Record(SETTLE, seq, b'["settle",5]'),
    ]


@given(st.lists(st.tuples(st.sampled_from([HOLD, SENT, PROGRESS, SETTLE]), st.binary(min_size=1))))
def test_any_records_come_back_in_order(acts: list[tuple[int, bytes]]) -> None:
    written: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder, "hld_1"), segment_bytes=4096)
        for kind, facts in acts:
            if kind == HOLD:
                written.append(Record(HOLD, journal.hold(facts), facts))
            elif kind == SENT:
                journal.sent(len(facts))
                written.append(Record(SENT, len(facts)))
            elif kind == PROGRESS:
                journal.progress(1, *range(4))
                written.append(Record(PROGRESS, 1, counts=(0, 1, 2, 3)))
            else:
                journal.settle(3, facts)
                written.append(Record(SETTLE, 3, facts))
        assert list(read_folder(journal.folder)) == written
        journal.close()


# Damage ----------------------------------------------------------------------------------------


def test_cut_at_every_byte(tmp_path: Path) -> None:
    data, records = _small_file(tmp_path)
    lengths = set()
    for end in range(len(data)):
        for torn in (data[:end], data[:end] + bytes(len(data) - end)):
            found = list(read_segment(torn))
            assert found == records[: len(found)]
            lengths.add(len(found))
    assert lengths == set(range(len(records) + 1))


def test_every_bit_flipped(tmp_path: Path) -> None:
    """Damage in the header is an unknown version; behind it, all records before the damage and
    none after it."""
    data, records = _small_file(tmp_path)
    for at in range(len(data)):
        for bit in range(8):
            rotten = bytearray(data)
            rotten[at] ^= 1 << bit
            if at < len(HEADER):
                with pytest.raises(JournalError, match="version"):
                    list(read_segment(bytes(rotten)))
                continue
            found = list(read_segment(bytes(rotten)))
            assert found == records[: len(found)]


def test_damage_is_told_from_a_torn_end(tmp_path: Path) -> None:
    """A kill in the middle of a store tears the last record and leaves nothing behind it; where a
    whole record still follows, something was lost that had been promised."""
    data, records = _small_file(tmp_path, calls=2)
    last = len(data.rstrip(b"\0")) - FRAME.size - SEQ.size - len(b'["settle",1]')
    for end in range(len(HEADER), len(data)):
        assert not _damaged(data[:end] + bytes(len(data) - end))
    for at in range(len(HEADER), last):
        rotten = bytearray(data)
        rotten[at] ^= 16
        follows = len(_read(bytes(rotten))) < len(records) - 1
        assert _damaged(bytes(rotten)) == follows, at
    assert _damaged(data[:60] + bytes(20) + data[80:]), "a page that was never written"
    backwards = bytearray(data)
    backwards[last : last + FRAME.size] = bytes(FRAME.size)
    assert not _damaged(bytes(backwards)), "the end of a record may be stored before its head"


def _read(data: bytes) -> list[Record]:
    return list(read_segment(data))


def _damaged(data: bytes) -> bool:
    records = read_segment(data)
    while True:
        try:
            next(records)
        except StopIteration as end:
            return bool(end.value)


@given(st.data())
def test_rubbish_never_becomes_a_record(data: st.DataObject) -> None:
    rubbish = data.draw(st.binary(max_size=200))
    assert list(read_segment(HEADER + rubbish)) == []


def test_a_record_of_an_unknown_kind_ends_the_segment(journal: Journal) -> None:
    seq = _one_call(journal)
    journal._append(9, b"from the future")
    _one_call(journal)
    assert len(list(read_folder(journal.folder))) == 4
    assert {record.seq for record in read_folder(journal.folder)} == {seq}


@pytest.mark.parametrize("head", [b"LAVAJ002", b"LAVAJ00\n", b"\0AVAJ001", b"PK\3\4abcd"])
def test_an_unknown_version_is_refused(head: bytes) -> None:
    with pytest.raises(JournalError, match="version"):
        list(read_segment(head + b"\0" * 100))


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"LAVA", b"LAVAJ00" + b"\0" * 99])
def test_a_crash_at_creation_promised_nothing(data: bytes) -> None:
    assert list(read_segment(data)) == []


def test_damage_in_one_segment_leaves_the_others(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "hld_1", segment_bytes=64)
    for number in range(3):
        _one_call(journal, number)
    first, second, third = sorted(journal.folder.glob("*.journal"))
    rotten = bytearray(second.read_bytes())
    rotten[len(HEADER) + 4] ^= 1
    second.write_bytes(rotten)
    assert [r.seq for r in read_folder(journal.folder)] == [1] * 4 + [3] * 4
    assert third.stat().st_size > first.stat().st_size - 4096
    journal.close()


# Segments --------------------------------------------------------------------------------------


def test_segments_are_preallocated_with_zeros(journal: Journal) -> None:
    path = journal.folder / "00000001.journal"
    assert path.stat().st_size == SEGMENT + ROOM_AFTER_BYTES
    assert path.stat().st_blocks * 512 >= SEGMENT + ROOM_AFTER_BYTES
    _one_call(journal)
    assert path.stat().st_size == SEGMENT + ROOM_AFTER_BYTES
    assert path.read_bytes().strip(b"\0").startswith(HEADER)


def test_a_segment_goes_once_all_its_calls_are_committed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "hld_1", segment_bytes=200)
    seqs = [_one_call(journal, number) for number in range(6)]

    def segments() -> list[str]:
        return sorted(path.name[:8].lstrip("0") for path in journal.folder.glob("*.journal"))

    assert segments() == ["1", "2", "3"]
    journal.committed(seqs[0])
    journal.committed(seqs[2])
    journal.committed(seqs[3])
    assert segments() == ["1", "2", "3"]  # the first holds a call that is not committed
    journal.committed(seqs[1])
    assert segments() == ["3"]  # and the second went with it
    journal.committed(seqs[1])  # heard twice: nothing
    journal.committed(999)
    assert journal.open_calls == 2
    journal.committed(seqs[4])
    journal.committed(seqs[5])
    assert segments() == ["3"]  # the last one is written to
    journal.close()
    assert not journal.folder.exists()


def test_a_long_call_keeps_its_segment_and_all_behind_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "hld_1", segment_bytes=100)
    long = journal.hold(b"long")
    for number in range(10):
        journal.committed(_one_call(journal, number))
    journal.progress(long, 1, 2, 3, 4)
    kept = [r for r in read_folder(journal.folder) if r.seq == long]
    assert [r.kind for r in kept] == [HOLD, PROGRESS]
    journal.close()
    assert [r.seq for r in read_folder(journal.folder) if r.seq == long] == [long, long]


def test_close_keeps_what_is_not_committed(journal: Journal) -> None:
    _one_call(journal)
    journal.close()
    assert len(list(read_folder(journal.folder))) == 4


# The lock --------------------------------------------------------------------------------------


def test_a_folder_has_one_owner(journal: Journal) -> None:
    with pytest.raises(JournalError, match="living process"):
        Journal(journal.folder, segment_bytes=SEGMENT)
    with pytest.raises(JournalError, match="living process"):
        lock_folder(journal.folder)
    journal.hold(b"x")
    journal.close()
    os.close(lock_folder(journal.folder))


def test_another_process_cannot_have_it_and_death_gives_it_back(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from lava_proxy.books.journal import Journal\n"
        "j = Journal(Path(sys.argv[1]), segment_bytes=4096); j.hold(b'x')\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    folder = tmp_path / "hld_child"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(JournalError, match="living process"):
            lock_folder(folder)
        child.kill()
    os.close(lock_folder(folder))
    assert [record.kind for record in read_folder(folder)] == [HOLD]


def test_a_folder_that_is_gone_is_removed_already(tmp_path: Path) -> None:
    remove_folder(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


# Faults ----------------------------------------------------------------------------------------


def _failing(call: Callable[..., int], code: int) -> Callable[..., int]:
    def fail(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_full_disk_at_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "hld_1", segment_bytes=100)
    seq = _one_call(journal)
    monkeypatch.setattr(os, "posix_fallocate", _failing(os.posix_fallocate, errno.ENOSPC))
    with pytest.raises(JournalError, match="No space left"):
        journal.hold(b"next")
    assert journal.closed
    journal.progress(seq, 1, 2, 3, 4)  # a call that is under way still has room
    assert [p.name for p in journal.folder.glob("*.journal")] == ["00000001.journal"]
    assert len(list(read_folder(journal.folder))) == 5
    monkeypatch.undo()
    journal.close()


def test_a_journal_that_cannot_start_frees_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", _failing(os.posix_fallocate, errno.ENOSPC))
    with pytest.raises(JournalError):
        Journal(tmp_path / "hld_1", segment_bytes=100)
    os.close(lock_folder(tmp_path / "hld_1"))


def test_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no final word: once there is room, calls may start again."""
    journal = Journal(tmp_path / "hld_1", segment_bytes=100)
    _one_call(journal)
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", _failing(os.posix_fallocate, errno.ENOSPC))
        journal.tend()
        assert journal.closed is not None  # seen before a call runs into it
        with pytest.raises(JournalError):
            journal.hold(b"next")
        journal.tend()
        assert journal.closed is not None
    journal.tend()
    assert journal.closed is None
    _one_call(journal)
    assert len(list(read_folder(journal.folder))) == 8
    journal.close()


def test_the_next_segment_is_made_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "hld_1", segment_bytes=400)
    journal.tend()
    assert len(list(journal.folder.glob("*.journal"))) == 1  # nothing is needed yet
    _one_call(journal)
    journal.tend()
    assert len(list(journal.folder.glob("*.journal"))) == 2
    monkeypatch.setattr(os, "posix_fallocate", _failing(os.posix_fallocate, errno.ENOSPC))
    seqs = [_one_call(journal, number) for number in range(3)]  # no file is made on the way
    assert [r.seq for r in read_folder(journal.folder)][::4] == [1, *seqs]
    monkeypatch.undo()
    journal.close()


def test_a_segment_made_too_late_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop needed one while the thread was at it: numbers must keep the order."""
    journal = Journal(tmp_path / "hld_1", segment_bytes=100)
    _one_call(journal)
    inside, go_on = threading.Event(), threading.Event()
    whole = os.posix_fallocate

    def slow(fd: int, start: int, size: int) -> None:
        if threading.current_thread() is thread:
            inside.set()
            assert go_on.wait(10)
        whole(fd, start, size)

    monkeypatch.setattr(os, "posix_fallocate", slow)
    thread = threading.Thread(target=journal.tend)
    thread.start()
    assert inside.wait(10)
    _one_call(journal, 1)
    go_on.set()
    thread.join(10)
    assert [path.name for path in sorted(journal.folder.glob("*.journal"))] == [
        "00000001.journal",
        "00000003.journal",
    ]
    assert [r.seq for r in read_folder(journal.folder)] == [1] * 4 + [2] * 4
    journal.close()


def test_a_store_meets_pages_that_are_there(tmp_path: Path) -> None:
    """Where a file is only allocated, the store that makes a page may wait milliseconds for it."""
    journal = Journal(tmp_path / "hld_1", segment_bytes=3 << 20)
    (path,) = journal.folder.glob("*.journal")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        assert size > 3 << 20
        assert os.lseek(descriptor, 0, os.SEEK_DATA) == 0
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) == size
    finally:
        os.close(descriptor)
        journal.close()


def test_what_was_stored_does_not_stay_in_memory(tmp_path: Path) -> None:
    """A long stream keeps its segments for hours: they must not count as memory of ours."""

    def mapped_kb(name: str) -> int:
        """Resident pages of the mapped files with this name."""
        found, total = False, 0
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if "-" in line.split(" ")[0]:
                found = line.endswith(name)
            elif found and line.startswith("Rss:"):
                total += int(line.split()[1])
        return total

    journal = Journal(tmp_path / "hld_1", segment_bytes=1 << 20)
    seq = journal.hold(b"long")
    for number in range(15_000):
        journal.progress(seq, number, 2, 3, 4)
    assert mapped_kb("00000001.journal") > 500
    journal.tend()
    assert mapped_kb("00000001.journal") <= 8
    for number in range(30_000):
        journal.progress(seq, number, 2, 3, 4)
    assert mapped_kb("00000001.journal") == 0  # a later segment is stored to now
    records = [record.counts[0] for record in read_folder(journal.folder) if record.counts[0]]
    assert records == [*range(1, 15_000), *range(1, 30_000)]
    journal.close()


def test_long_calls_go_on_in_the_next_segment(tmp_path: Path) -> None:
    """Without a new call nothing rotates, until the room behind the size is used up."""
    journal = Journal(tmp_path / "hld_1", segment_bytes=100)
    seq = journal.hold(b"long")
    for number in range(ROOM_AFTER_BYTES // 40):
        journal.progress(seq, number, 2, 3, 4)
    assert len(list(journal.folder.glob("*.journal"))) == 2
    *_, last = read_folder(journal.folder)
    assert last.counts[0] == ROOM_AFTER_BYTES // 40 - 1
    with pytest.raises(JournalError, match="too long"):
        journal.settle(seq, bytes(2 * ROOM_AFTER_BYTES))
    journal.close()


def test_after_an_io_error_nothing_starts(journal: Journal) -> None:
    journal.failed = "journal fsync: Input/output error"
    journal.tend()
    with pytest.raises(JournalError, match="Input/output"):
        journal.hold(b"x")
    assert journal.closed == journal.failed
    assert list(read_folder(journal.folder)) == []


def test_what_was_stored_survives_the_process(tmp_path: Path) -> None:
    """The pages are the kernel's: SIGKILL takes nothing back."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from lava_proxy.books.journal import Journal\n"
        "j = Journal(Path(sys.argv[1]), segment_bytes=1 << 20)\n"
        "for n in range(10000): j.progress(j.hold(b'[1]') , n, n, n, n)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    folder = tmp_path / "hld_child"
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, str(folder)], env=env).returncode == -9
    records = list(read_folder(folder))
    assert [r.counts[0] for r in records if r.kind == PROGRESS] == list(range(10000))


# fsync -----------------------------------------------------------------------------------------


def _watch_fsync(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    synced: list[str] = []
    whole = os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        whole(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return synced


def test_sync_covers_segments_from_before_a_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "hld_1", segment_bytes=100)
    _one_call(journal)
    _one_call(journal)
    synced = _watch_fsync(monkeypatch)
    journal.sync()
    assert synced == ["00000001.journal", "00000002.journal"]
    journal.sync()
    assert len(synced) == 2  # nothing new, nothing to do
    journal.sent(2)
    journal.sync()
    assert synced[2:] == ["00000002.journal"]
    journal.close()


def test_a_failed_fsync_fails_the_journal(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    _one_call(journal)
    monkeypatch.setattr(os, "fsync", _failing(lambda fd: 0, errno.EIO))
    journal.sync()
    assert journal.failed == "journal fsync: [Errno 5] Input/output error"
    monkeypatch.undo()


@pytest.mark.parametrize("ending", ["close", "committed"])
def test_sync_may_run_while_segments_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """fsync can take seconds on a slow disk; the event loop neither waits for it nor closes the
    file that it works on."""
    journal = Journal(tmp_path / "hld_1", segment_bytes=100)
    seqs = [_one_call(journal) for _ in range(3)]
    inside, go_on = threading.Event(), threading.Event()
    whole = os.fsync

    def slow(fd: int) -> None:
        inside.set()
        assert go_on.wait(10)
        whole(fd)

    monkeypatch.setattr(os, "fsync", slow)
    thread = threading.Thread(target=journal.sync)
    thread.start()
    assert inside.wait(10)
    if ending == "close":
        journal.close()
    else:
        for seq in seqs:
            journal.committed(seq)
        journal.progress(9, 1, 1, 1, 1)
        assert len(list(journal.folder.glob("*.journal"))) == 1
    strangers = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]  # would reuse closed numbers
    go_on.set()
    thread.join(10)
    for fd in strangers:
        os.close(fd)
    assert journal.failed is None
    monkeypatch.undo()
    if ending == "committed":
        journal.close()
