"""The cores and the memory that this process may use, on any system, and in a container that has less than its machine.

A container's limits are those of its control group (Linux; `man 7 cgroups`), in the files of its version 1 or 2.
"""

import ctypes
import math
import os
from contextlib import suppress
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
# Version 1 says "no limit" by the largest multiple of a page in 63 bits.
_NO_LIMIT = 1 << 60


def available_cores() -> int:
    """Cores that this process may use: those that it may run on, or fewer where its container is given less time."""
    cores = allowed_cores()
    quota = core_quota()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def allowed_cores() -> int:
    """Cores that the system lets this process run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def core_quota() -> float | None:
    """The processor time that this process's container is given, in cores; None without such a limit."""
    found = []
    for folder in _groups("cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            if (folder / "cpu.max").is_file():
                given, period = (folder / "cpu.max").read_text("ascii").split()
            else:
                given, period = (
                    (folder / f"cpu.cfs_{name}_us").read_text("ascii").strip() for name in ("quota", "period")
                )
            if given != "max" and int(given) > 0:
                found.append(int(given) / int(period))
    return min(found, default=None)


def memory_bytes() -> int:
    """The memory of this machine, or of this process's container if that is less; 0 if the system does not say."""
    total, limit = machine_memory_bytes(), container_memory_bytes()
    return total if limit is None else min(total or limit, limit)


def machine_memory_bytes() -> int:
    """The memory of this machine; 0 if the system does not say."""
    with suppress(AttributeError, OSError, ValueError):  # Windows has no `sysconf`, others may lack a name
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(AttributeError, OSError):
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):  # type: ignore[attr-defined, unused-ignore]
            return int(status.total)
    return 0


def container_memory_bytes() -> int | None:
    """The memory that this process's container may use; None without such a limit."""
    found = []
    for folder in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of versions 2 and 1
            with suppress(OSError, ValueError):  # no such file, or "max"
                found.append(int((folder / name).read_text("ascii")))
    return min((limit for limit in found if limit < _NO_LIMIT), default=None)


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of Windows' sysinfoapi.h."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        ("total", ctypes.c_uint64),
        *(
            (name, ctypes.c_uint64)
            for name in ("free", "page_total", "page_free", "virtual", "virtual_free", "extended")
        ),
    )


def _groups(controller: str) -> list[Path]:
    """The folders of this process's control group and of all above it; none where there are no such groups."""
    try:
        lines = _OWN_GROUPS.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, _, rest = line.partition(":")
        names, _, own = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        root = _GROUPS / controller if names else _GROUPS
        # In a container the path may be that of the machine outside, which is not there; then the root is ours.
        folder = root / own.lstrip("/")
        found += [folder, *(above for above in folder.parents if above.is_relative_to(root))]
    return list(dict.fromkeys(found))
