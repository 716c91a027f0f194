"""Where the workers of one supervisor run keep their metrics: fresh for each run, so that figures
of an earlier one never mix in. A run locks its folder while it lives; unlocked ones are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

_LOCK = "lock"


class RunFolder:
    """``with RunFolder(data_dir) as folder``: the folder of this run, removed at the end."""

    def __init__(self, data_dir: Path) -> None:
        self._base = data_dir.absolute() / "metrics"

    def __enter__(self) -> Path:
        self._base.mkdir(parents=True, exist_ok=True)
        with _Locked(self._base / _LOCK, wait=True):
            self._remove_abandoned()
            self._path = Path(tempfile.mkdtemp(prefix="run-", dir=self._base))
            self._lock = _Locked(self._path / _LOCK)
        return self._path

    def __exit__(self, *_: object) -> None:
        self._lock.close()
        shutil.rmtree(self._path, ignore_errors=True)

    def _remove_abandoned(self) -> None:
        for path in self._base.glob("run-*"):
            try:
                lock = _Locked(path / _LOCK)
            except BlockingIOError:  # its supervisor lives
                continue
            lock.close()
            shutil.rmtree(path, ignore_errors=True)


class _Locked:
    """An exclusive lock on a file, for as long as it is open."""

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(self._file)
            raise

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
