"""What a process has used, by the kernel's own books: CPU time and resident memory.

CPU is the on-CPU time of every thread (``/proc/PID/task/*/schedstat``, nanoseconds), summed over
the process tree. When a thread has ended between two looks its time is gone from there, and then
the difference of user and system time (10 ms steps) is taken instead. PostgreSQL's processes are
kept apart: the embedded server is not the gateway.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """One look at a group of processes."""

    thread_ns: dict[tuple[int, str], int]
    """On-CPU time by (pid, thread); empty where the kernel does not tell."""
    cpu_s: float
    """User and system time."""
    rss_bytes: int

    def cpu_since(self, before: Usage) -> float:
        """CPU seconds used since an earlier look."""
        if self.thread_ns and before.thread_ns.keys() <= self.thread_ns.keys():
            spent = sum(ns - before.thread_ns.get(key, 0) for key, ns in self.thread_ns.items())
            return spent / 1e9
        return self.cpu_s - before.cpu_s


@dataclass(frozen=True, slots=True)
class Group:
    """The processes of one candidate, the database's apart."""

    own: tuple[int, ...]
    database: tuple[int, ...]


def group_of(pid: int, data_dir: Path | None = None) -> Group:
    """The tree below `pid`, and the PostgreSQL processes that belong to it or to `data_dir`."""
    root = psutil.Process(pid)
    tree = [root, *root.children(recursive=True)]
    database = {process.pid for process in tree if _is_postgres(process)}
    if data_dir is not None:
        for process in psutil.process_iter():
            if _is_postgres(process) and _works_in(process, data_dir):
                database.add(process.pid)
                database.update(child.pid for child in process.children(recursive=True))
    own = tuple(process.pid for process in tree if process.pid not in database)
    return Group(own, tuple(sorted(database)))


def usage_of(pids: Iterable[int]) -> Usage:
    """Look at `pids`; those that are gone count nothing."""
    threads: dict[tuple[int, str], int] = {}
    cpu_s, rss_bytes = 0.0, 0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            times = process.cpu_times()
            rss_bytes += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        cpu_s += times.user + times.system
        threads.update(_threads(pid))
    return Usage(threads, cpu_s, rss_bytes)


def _threads(pid: int) -> dict[tuple[int, str], int]:
    found: dict[tuple[int, str], int] = {}
    for entry in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            found[pid, entry.parent.name] = int(entry.read_text().split()[0])
        except (OSError, IndexError, ValueError):
            continue
    return found


def _is_postgres(process: psutil.Process) -> bool:
    try:
        return str(process.name()).startswith("postgres")
    except psutil.Error:
        return False


def _works_in(process: psutil.Process, data_dir: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(data_dir)
    except psutil.Error:
        return False
