"""One writer a folder: a kernel lock that dies with its process.

The lock is `flock` on FOLDER/.lock, in which the holder writes who it is. The file goes when the holder
leaves in good order; whoever then gets the lock of the removed file notices and takes the new one.

Why not the package filelock: it takes the same kernel lock and keeps nothing about who holds it, so it cannot
name the process, host and start of the holder; it neither notices a lock file that was removed under it nor
tells a file system without locks from a failure.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import socket
import time
import uuid
import weakref
from pathlib import Path
from typing import Any

from pseudolabel import console
from pseudolabel.errors import MachineError
from pseudolabel.runs import fault_plan
from pseudolabel.runs.disk import machine_error
from pseudolabel.runs.layout import LOCK

PAUSE = 0.1  # seconds between two looks while waiting
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class Lock:
    """A held lock.

    Raises:
        MachineError: another process holds it (its process, host and start are named), or the
            folder cannot be written to.
    """

    def __init__(self, folder: Path, wait: bool) -> None:
        self.folder = folder
        self.token = uuid.uuid4().hex
        self._kernel = True  # whether the file system has locks
        try:
            self._descriptor = self._take(wait)
            self._sign()
        except OSError as error:
            raise machine_error(folder / LOCK, error) from error
        _held.add(self)

    def check(self) -> None:
        """See that no other process took the folder, as may happen where the file system has no locks.

        Raises:
            MachineError: the token in the lock file is another's.
        """
        holder = _holder(self.folder)
        if not holder and self._kernel:
            return  # somebody removed the file; the lock holds
        if holder.get("token") != self.token:
            raise MachineError(
                f"{self.folder}: another process has written here meanwhile; start again in a new folder"
            )

    def release(self) -> None:
        """Remove the lock file and free the lock; nothing in a forked child, which has forgotten it."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._is_current(self._descriptor, self.folder / LOCK):
                os.unlink(self.folder / LOCK)  # while held: see `_take`
        self.forget()
        _held.discard(self)

    def forget(self) -> None:
        """Close without freeing; for a forked child, whose copy would keep a dead parent's lock."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _take(self, wait: bool) -> int | None:
        path = self.folder / LOCK
        announced = False
        while True:
            fault_plan.trip("write", path)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                if not wait:
                    raise MachineError(
                        f"{self.folder}: in use by {_who(self.folder)}; wait for it (--wait) "
                        "or choose another folder"
                    ) from None
                if not announced:
                    console.say(f"{self.folder}: in use by {_who(self.folder)}; waiting")
                    announced = True
                time.sleep(PAUSE)
                continue
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    os.close(descriptor)
                    raise
                self._kernel = False
                console.say(f"{self.folder}: this file system has no locks; let one process write here")
            if self._is_current(descriptor, path):
                return descriptor
            os.close(descriptor)

    @staticmethod
    def _is_current(descriptor: int, path: Path) -> bool:
        """Whether the locked file still has the name: its holder may have removed or moved it."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def _sign(self) -> None:
        assert self._descriptor is not None
        start = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        who = {"pid": os.getpid(), "host": socket.gethostname(), "start": start, "token": self.token}
        data = json.dumps(who).encode()
        try:
            fault_plan.trip("write", self.folder / LOCK)
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)
        except OSError:
            os.close(self._descriptor)
            raise


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)


def _holder(folder: Path) -> dict[str, Any]:
    """What the holder wrote; empty while it has not yet."""
    try:
        holder = json.loads((folder / LOCK).read_bytes())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _who(folder: Path) -> str:
    for _ in range(20):  # the winner signs within a moment
        holder = _holder(folder)
        if "pid" in holder:
            return f"process {holder['pid']} on {holder['host']} since {holder['start']}"
        time.sleep(0.01)
    return "another process"
