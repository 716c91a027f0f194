"""A journal's folder: whose it is, and what becomes of it.

It belongs to whoever has the lock on its ``lock`` file, which the kernel gives back when the
process ends, however it ends. Whoever finds it without one may take it, replay it and remove it.
Several may try at once, so a lock counts only while its file is still the one in the folder, and
the segments go before the lock does: nobody reads half a folder that somebody else removes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from lava_proxy.books.segment import JournalError

DAMAGED = "journals-damaged"
"""Beside ``journals``: folders of which a part could not be read."""

_LOCK = "lock"


def lock_folder(folder: Path) -> int:
    """Take a journal folder, which is made where it is missing; a descriptor that is the lock.
    Raises `JournalError` when it belongs to a living process."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = claim_folder(folder)
    if fd is None:
        raise JournalError(f"journal {folder.name} belongs to a living process")
    return fd


def claim_folder(folder: Path) -> int | None:
    """The lock of a folder that somebody left behind; None when another process has it, or had it
    and removed the folder."""
    path = folder / _LOCK
    try:
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def abandoned(journals_dir: Path) -> list[Path]:
    """Folders that may be claimed. One without a segment holds nothing, and its process may be
    about to lock it."""
    return sorted({path.parent for path in journals_dir.glob("*/*.journal")})


def remove_folder(folder: Path) -> None:
    """Delete a journal folder whose records are all committed; one that is gone is fine."""
    for path in folder.glob("*.journal"):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def keep_folder(folder: Path) -> Path:
    """Put a damaged folder aside, where nobody replays it again; answers where it is now."""
    aside = folder.parent.with_name(DAMAGED)
    aside.mkdir(mode=0o700, exist_ok=True)
    kept, number = aside / folder.name, 0
    while kept.exists():  # the same folder again, from a backup
        number += 1
        kept = aside / f"{folder.name}.{number}"
    folder.rename(kept)
    return kept
