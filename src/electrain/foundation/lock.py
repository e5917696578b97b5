"""A lock for the folder that a verb writes for long, so that two processes never mix their files in one folder.

The kernel holds the lock and gives it back however its process ends, so a killed run can be resumed at once. The file
`.electrain.lock` says who holds it. Some network file systems keep such locks to one machine, or have none. So the
holder also touches the file every few seconds, and a process on another machine watches for that before it begins.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from electrain.foundation.errors import ElectrainError, RunDirectoryError
from electrain.foundation.json_reading import as_kind, parse_json
from electrain.foundation.output_folder import LOCK_NAME
from electrain.foundation.progress import say
from electrain.foundation.system import is_running, lock_file, open_to_lock, remove_and_close, touch

TOUCHED_EVERY_SECONDS = 5.0
# Several touches, since a file server may tell of them late.
WATCHED_SECONDS = 30.0
_held: set[int] = set()  # the descriptors of the locks of this process


@dataclass(frozen=True)
class Holder:
    """The content of the file: the process that writes the folder."""

    host: str
    pid: int
    since: str  # local time


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the lock of a folder while the block runs. The folder is made if it is new, and removed if it stays empty.

    Raises: RunDirectoryError: another process writes the folder; the message names its machine and its number.
    """
    is_new = not directory.exists()
    with suppress(OSError):  # a file is there, or a folder above is read-only: what follows says so
        directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK_NAME
    descriptor = _taken(path)
    if descriptor is None:
        yield
        return
    _held.add(descriptor)
    is_over = threading.Event()
    threading.Thread(target=_touch, args=(descriptor, path, is_over), daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
        _held.discard(descriptor)
        remove_and_close(path, descriptor)
        if is_new:
            with suppress(OSError):  # it is not empty
                directory.rmdir()


def _taken(path: Path) -> int | None:
    """The descriptor of the file, now locked; None if the file cannot be made."""
    while True:
        try:
            descriptor = open_to_lock(path)
        except OSError:
            return None
        try:
            has_locks = _lock(descriptor, path)
            if not _is_same(descriptor, path):  # its holder removed it while we waited to look at it
                os.close(descriptor)
                continue
            holder = _holder(descriptor)
            if holder is not None:
                _require_ended(holder, path, has_locks=has_locks)
            own = Holder(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, json.dumps(asdict(own)).encode() + b"\n")
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise


def _lock(descriptor: int, path: Path) -> bool:
    """False if the file system has no locks. Raises: RunDirectoryError: another process has the lock."""
    is_ours = lock_file(descriptor)
    if is_ours is False:
        raise _refusal(_holder(descriptor), path)
    return bool(is_ours)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _holder(descriptor: int) -> Holder | None:
    """Who wrote the file; None if nobody did, or was killed while it did."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        return as_kind(parse_json(os.read(descriptor, 4096), ""), Holder, "")
    except ElectrainError:
        return None


def _require_ended(holder: Holder, path: Path, *, has_locks: bool) -> None:
    """Raises RunDirectoryError unless the process that left the file has ended."""
    if holder.host == socket.gethostname():
        # With locks its own is gone, and so is the process. Its number may be that of another one by now.
        runs = not has_locks and holder.pid != os.getpid() and is_running(holder.pid)
        if runs:
            raise _refusal(holder, path)
        if runs is False:
            return
    say(f"{path.parent}: process {holder.pid} on {holder.host} left its lock; looking whether it still runs")
    first, until = _touched(path), time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < until:
        time.sleep(min(1.0, WATCHED_SECONDS))
        if _touched(path) != first:
            raise _refusal(holder, path)


def _touched(path: Path) -> int:
    """When the file was touched last. Opening it makes a network file system ask its server."""
    try:
        with open(path, "rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0


def _refusal(holder: Holder | None, path: Path) -> RunDirectoryError:
    who = "another process"
    if holder is not None:
        who = f"process {holder.pid} on {holder.host} (since {holder.since})"
    return RunDirectoryError(
        f"{path.parent}: {who} is writing this folder; wait for it or stop it, or give another folder"
    )


def _touch(descriptor: int, path: Path, is_over: threading.Event) -> None:
    while not is_over.wait(TOUCHED_EVERY_SECONDS):
        with suppress(OSError):
            touch(descriptor, path)


def _forget() -> None:
    # A child that was forked shares the lock, and would hold it after its parent was killed.
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget)
