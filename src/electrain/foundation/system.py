"""What operating systems do differently: locks, signals, memory, and files that are open.

electrain was tested on Linux. What other systems lack has a fallback here, and is asked for nowhere else: a test of
`tests/architecture` holds the code to that. The tests hide what Windows and macOS do not have.
"""

import ctypes
import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
msvcrt: ModuleType | None
resource: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:  # all but Windows
    msvcrt = None
try:
    import resource
except ImportError:  # Windows
    resource = None

IS_WINDOWS = os.name == "nt"
_HELD_ELSEWHERE = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
# Parameters of `mallopt` (man 3 mallopt), with the values that glibc has for them: the largest one, and the first one.
_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD = -1, 64 << 20
_MMAP_MAX, _USUAL_MMAP_MAX = -4, 65_536
_ALLOCATOR_VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
# Windows keeps others from reading the byte that is locked, so one far behind the content is.
_LOCKED_BYTE = 1 << 30


def open_to_lock(path: Path) -> int:
    """The descriptor of a file that is made if it is new; a link is not followed. Raises: OSError."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o644)


def lock_file(descriptor: int) -> bool | None:
    """True if this process now holds the file's lock, False if another one does; None if there are no locks here.

    The system gives the lock back when the process ends, however it ends.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif msvcrt is not None:
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            return None
    except OSError as error:
        return False if error.errno in _HELD_ELSEWHERE else None
    return True


def remove_and_close(path: Path, descriptor: int) -> None:
    """Removes a locked file and gives back its lock, so that no other process is left with a file that is gone."""
    with suppress(OSError):
        path.unlink()
    os.close(descriptor)
    if IS_WINDOWS:  # which removes no open file: not ours before, and not now if another process holds it
        with suppress(OSError):
            path.unlink()


def touch(descriptor: int, path: Path) -> None:
    """Sets the time of an open file to now. Raises: OSError."""
    os.utime(descriptor if os.utime in os.supports_fd else path)


def is_running(pid: int) -> bool | None:
    """Does a process of this number run on this machine? None if the system has no harmless way to ask."""
    if IS_WINDOWS:  # where `os.kill` ends the process, or presses Ctrl-C in its window
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def ending_signals() -> list[signal.Signals]:
    """The signals that end a process in an orderly way, but for Ctrl-C: SIGTERM, and where there is one, SIGHUP."""
    return [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def limit_memory(limit_bytes: int) -> None:
    """Lets this process take only so much memory for its data, where the system can limit it."""
    if resource is None:
        return
    with suppress(OSError, ValueError):  # what the process has already is more, as macOS counts
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Lets this process keep the memory that it frees, for what it asks for next, until the block is left.

    glibc gives large blocks back to the system at once. The system hands out new ones page by page, each filled with
    zeros first, which takes up to a quarter of a training step (docs/experiments.md, "Pages of memory"). Nothing
    changes with another C library, or if the environment tells glibc what to do.
    """
    library = None if IS_WINDOWS or any(map(os.environ.get, _ALLOCATOR_VARIABLES)) else ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or not hasattr(library, "malloc_trim"):
        yield
        return
    assert library is not None
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)  # the largest there is
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        library.mallopt(_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
        library.malloc_trim(0)


def sync_directory(directory: Path) -> None:
    """Makes the renames inside a folder survive a power cut, where a folder can be synced."""
    if IS_WINDOWS:  # where a folder cannot be opened as a file
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)
