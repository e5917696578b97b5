"""What a GPU did during some steps, from the trace of PyTorch's profiler."""

import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
HOST_CALLS = ("cuda_runtime", "cuda_driver")
LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cuGraphLaunch")
WAITS = ("Synchronize",)
SHOWN_KERNELS = 12
LONGEST_NAME = 90


class Profiler:
    """Records what the GPU does between `start` and `stop`; the CPU's operators are left out, which would slow it."""

    def __init__(self) -> None:
        self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])

    def start(self) -> None:
        """Begins to record."""
        torch.cuda.synchronize()
        self.profile.start()

    def stop(self, steps: int, kept: Path | None = None) -> dict[str, Any]:
        """Ends the recording of so many steps, and returns `summary_of` its trace.

        Args: kept: a file for the trace itself, compressed.
        """
        torch.cuda.synchronize()
        self.profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            self.profile.export_chrome_trace(str(path))
            if kept is not None:
                kept.write_bytes(gzip.compress(path.read_bytes()))
            return summary_of(json.loads(path.read_text())["traceEvents"], steps)


def summary_of(events: Iterable[dict[str, Any]], steps: int) -> dict[str, Any]:
    """Per step: milliseconds in which the GPU works, kernels, launches, host calls that wait, and the dearest kernels.

    Args: events: of a Chrome trace; times in microseconds.
    """
    complete = [event for event in events if event.get("ph") == "X" and "dur" in event]
    work = [event for event in complete if event.get("cat") in DEVICE_WORK]
    calls = Counter(event["name"] for event in complete if event.get("cat") in HOST_CALLS)
    busy = _covered([(event["ts"], event["ts"] + event["dur"]) for event in work])
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for event in work:
        times[event["name"][:LONGEST_NAME]] += event["dur"]
        counts[event["name"][:LONGEST_NAME]] += 1
    return {
        "gpu_milliseconds_per_step": round(busy / steps / 1e3, 4),
        "kernels_per_step": round(sum(event["cat"] == "kernel" for event in work) / steps, 1),
        "copies_per_step": round(sum(event["cat"] == "gpu_memcpy" for event in work) / steps, 1),
        "launches_per_step": round(sum(n for name, n in calls.items() if name.startswith(LAUNCHES)) / steps, 1),
        # The profiler itself waits once or twice in a recording.
        "waits_per_step": round(sum(n for name, n in calls.items() if any(w in name for w in WAITS)) / steps, 1),
        "host_calls_per_step": {name: round(n / steps, 1) for name, n in calls.most_common(SHOWN_KERNELS)},
        "dearest_kernels": [
            {
                "name": name,
                "milliseconds_per_step": round(time / steps / 1e3, 4),
                "count": round(counts[name] / steps, 1),
            }
            for name, time in times.most_common(SHOWN_KERNELS)
        ],
    }


def _covered(intervals: list[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, end = 0.0, float("-inf")
    for begin, finish in sorted(intervals):
        total += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    return total


@dataclass(frozen=True)
class Memory:
    """The most memory that a process held, in bytes."""

    allocated: int  # on the GPU by tensors, or on the CPU by the whole process
    reserved: int  # on the GPU by PyTorch's allocator; 0 on the CPU


def peak_memory(device: torch.device) -> Memory:
    """The peak so far. On the CPU: VmHWM of the process, the interpreter and libraries included."""
    if device.type == "cuda":
        return Memory(torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return Memory(int(line.split()[1]) * 1024, 0)
    return Memory(0, 0)


def reset_peak_memory(device: torch.device) -> None:
    """Lets `peak_memory` begin anew. The CPU's cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
