"""The account that the embedded PostgreSQL runs as: ours, or, since it refuses root, its own.

As root we run it as the owner of an existing cluster, else as the system user ``pgserver`` (made
when missing). That user must pass through every directory above the cluster and above the
program, such as a /root with mode 0700. Widening those modes for everybody would be the easy way;
instead the one user gets the right to pass by an access control list entry. Only where the file
system has no such lists the directory gets ``o+x`` (pass, not read), and a log line says so.
"""

from __future__ import annotations

import errno
import logging
import os
import pwd
import stat
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lava_proxy.core.settings import ConfigurationError

USER_NAME = "pgserver"
ADVICE = "or set LAVA_DATABASE_URL to a PostgreSQL 15 or later"

_USERADD: tuple[tuple[str, ...], ...] = (
    ("useradd", "--system", "--no-create-home", "--shell", "/bin/false", USER_NAME),
    ("adduser", "-S", "-D", "-H", "-s", "/bin/false", USER_NAME),
)
_COMMAND_TIMEOUT_S = 20.0

# The kernel's format of "system.posix_acl_access" (linux/posix_acl_xattr.h).
_ACL_NAME = "system.posix_acl_access"
_ACL_HEADER = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_VERSION = 2
_ACL_OWNER, _ACL_USER, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_ACL_NO_ID = 0xFFFFFFFF
_ACL_PASS = 0x1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerUser:
    """An account; `switch` says that we are root and must change to it."""

    uid: int
    gid: int
    switch: bool

    def run(
        self, command: list[str], environ: dict[str, str], output: int, timeout_s: float
    ) -> int:
        """Run a program as this user, output to the file descriptor `output`; its exit status."""
        done = subprocess.run(  # noqa: S603
            command,
            cwd="/",  # Our own working directory may be closed to this user.
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=timeout_s,
            check=False,
            user=self.uid if self.switch else None,
            group=self.gid if self.switch else None,
            extra_groups=() if self.switch else None,
        )
        return done.returncode


def server_user(cluster: Path) -> ServerUser:
    """Who runs the server of `cluster` (which need not exist). Raises `ConfigurationError`."""
    owner = cluster.stat().st_uid if cluster.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise ConfigurationError(
                f"{cluster} belongs to user id {owner}: run as that user, "
                f"choose another LAVA_DATA_DIR, {ADVICE}"
            )
        return ServerUser(os.geteuid(), os.getegid(), switch=False)
    entry = _entry_of(owner) if owner else None
    entry = entry or _named_entry() or _new_entry()
    return ServerUser(entry.pw_uid, entry.pw_gid, switch=True)


def own(user: ServerUser, tree: Path) -> None:
    """Give the whole of `tree` to `user`: a folder restored by root belongs to root."""
    if not user.switch or tree.stat().st_uid == user.uid:
        return
    for folder, _, files in os.walk(tree):
        os.chown(folder, user.uid, user.gid)
        for name in files:
            os.chown(os.path.join(folder, name), user.uid, user.gid, follow_symlinks=False)


def let_pass(user: ServerUser, path: Path) -> None:
    """Let `user` reach `path`. Raises `ConfigurationError` naming the directory that is closed."""
    if not user.switch or _reaches(user, path):
        return
    for folder in [*reversed(path.parents), path]:
        if not folder.is_dir() or _reaches(user, folder):
            continue
        try:
            _add_passage(folder, user.uid)
        except OSError:
            _log.warning("%s gets mode o+x, so that user id %d can pass", folder, user.uid)
            _open_to_all(folder)
        if not _reaches(user, folder):
            raise _closed(folder)
    if not _reaches(user, path):
        raise _closed(path)


def let_read(user: ServerUser, program: Path) -> None:
    """Make the bundled PostgreSQL under `program` readable: a root with umask 077 installs it
    closed. It is public software, so reading is opened to everybody."""
    if not user.switch or (program / "bin").stat().st_mode & stat.S_IXOTH:
        return
    for folder, _, files in os.walk(program):
        for path in [Path(folder), *(Path(folder, name) for name in files)]:
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & stat.S_IXUSR else 0o044))


def _entry_of(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def _named_entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(USER_NAME)
    except KeyError:
        return None


def _new_entry() -> pwd.struct_passwd:
    for command in _USERADD:
        try:
            subprocess.run(  # noqa: S603
                command, check=False, capture_output=True, timeout=_COMMAND_TIMEOUT_S
            )
        except OSError:
            continue
        # Whatever the exit status: another process may have made the user at the same time.
        entry = _named_entry()
        if entry is not None:
            return entry
    raise ConfigurationError(
        f"PostgreSQL refuses to run as root, and the system user {USER_NAME} cannot be made "
        f"(useradd and adduser failed): run as another user, {ADVICE}"
    )


def _reaches(user: ServerUser, path: Path) -> bool:
    test = 'if [ -d "$0" ]; then [ -x "$0" ]; else [ -e "$0" ]; fi'
    with open(os.devnull, "wb") as nowhere:
        environ = {"PATH": os.defpath}
        command = ["/bin/sh", "-c", test, str(path)]
        return user.run(command, environ, nowhere.fileno(), _COMMAND_TIMEOUT_S) == 0


def _add_passage(folder: Path, uid: int) -> None:
    if sys.platform != "linux":
        raise OSError(errno.ENOTSUP, "no access control lists here")
    entries = _acl_of(folder)
    group_limit = entries.get((_ACL_MASK, _ACL_NO_ID), entries[(_ACL_GROUP, _ACL_NO_ID)])
    entries[(_ACL_MASK, _ACL_NO_ID)] = group_limit | _ACL_PASS
    entries[(_ACL_USER, uid)] = _ACL_PASS
    packed = b"".join(
        _ACL_ENTRY.pack(tag, perm, who) for (tag, who), perm in sorted(entries.items())
    )
    os.setxattr(folder, _ACL_NAME, _ACL_HEADER.pack(_ACL_VERSION) + packed)


def _acl_of(folder: Path) -> dict[tuple[int, int], int]:
    """(tag, id) -> permissions, from the list of `folder` or, where it has none, from its mode."""
    if sys.platform != "linux":
        return {}
    try:
        packed = os.getxattr(folder, _ACL_NAME)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        mode = folder.stat().st_mode
        shifts = ((_ACL_OWNER, 6), (_ACL_GROUP, 3), (_ACL_OTHER, 0))
        return {(tag, _ACL_NO_ID): mode >> shift & 0o7 for tag, shift in shifts}
    entries = _ACL_ENTRY.iter_unpack(packed[_ACL_HEADER.size :])
    return {(tag, who): perm for tag, perm, who in entries}


def _open_to_all(folder: Path) -> None:
    try:
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | stat.S_IXOTH)
    except OSError:
        raise _closed(folder) from None


def _closed(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"PostgreSQL refuses to run as root, and its user cannot enter {path}: "
        f"choose another LAVA_DATA_DIR, `chmod o+x {path}`, {ADVICE}"
    )
