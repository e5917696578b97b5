"""Imports libraries in a process of its own, and asks torch about the machine. Run as a module, it serves.

A library that was built for another processor, or is half installed, can end the process that imports it.
"""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import IO

from electrain.foundation.child_process import receive, send, start_child
from electrain.foundation.errors import first_line
from electrain.foundation.progress import Progress

_MOST_SECONDS = 180.0
TORCH = "torch"


def probe(modules: Iterable[str]) -> tuple[dict[str, str], dict[str, object]]:
    """Why modules cannot be imported, by name, "" where they can; and what torch says of the machine, if it works."""
    faults: dict[str, str] = {}
    facts: dict[str, object] = {}
    left = list(modules)
    with Progress("doctor", "libraries", len(left)) as progress:
        while left:
            trying, code = _one_process(left, faults, facts, progress)
            if trying:  # it ended there
                faults[trying] = f"importing it and using it ends the process ({_ending(code)})"
            left = [name for name in left if name not in faults]
    return faults, facts


def _one_process(
    modules: list[str], faults: dict[str, str], facts: dict[str, object], progress: Progress
) -> tuple[str, int]:
    """Asks one process, and adds what it tells. Returns: what it tried when it ended, "" if it was done; exit code."""
    child = start_child(__name__)
    timer = threading.Timer(_MOST_SECONDS, child.kill)
    timer.start()
    assert child.stdin is not None
    assert child.stdout is not None
    trying = modules[0]
    with child.stdin, child.stdout, suppress(EOFError):
        send(child.stdin, modules)
        while True:
            message = receive(child.stdout)
            assert isinstance(message, tuple)
            kind, trying, content = message
            progress.update(len(faults), f"trying {trying}")
            if kind == "imported":
                faults[trying] = content
            elif kind == "facts":
                facts.update(content)
    code = child.wait()
    timer.cancel()
    return trying, code


def _ending(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def torch_facts() -> dict[str, object]:
    """The device and the precision that electrain takes here, with the reasons."""
    import torch

    from electrain.foundation.errors import ElectrainError
    from electrain.training.arithmetic import LEAST_SPEEDUP, choose_arithmetic, half_precision_of
    from electrain.training.runtime import DEVICE_VARIABLE, device_of

    facts: dict[str, object] = {
        "version": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda or "",
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
    }
    try:
        device = device_of()
    except ElectrainError as error:
        return facts | {"fault": str(error)}
    arithmetic = choose_arithmetic("auto", device)
    half = str(half_precision_of(device)).removeprefix("torch.")
    reasons = {
        "cuda": "the first GPU that torch sees",
        "mps": "this Mac's GPU, which has the gradients that the CPU has",
        "cpu": f"{DEVICE_VARIABLE}=cpu" if os.environ.get(DEVICE_VARIABLE) else "torch sees no GPU",
    }
    why = f"{half} products are {arithmetic.speedup:.2f} times as fast as float32; from {LEAST_SPEEDUP} on it is taken"
    return facts | {
        "device": str(device),
        "device_reason": reasons[device.type],
        "precision": arithmetic.precision,
        "precision_reason": why if arithmetic.speedup else "no format of two bytes that training can rely on here",
    }


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answers a list of modules with ("trying", name, "") and ("imported", name, fault) for each, and torch's facts."""
    modules = receive(requests)
    assert isinstance(modules, list)
    for name in modules:
        send(replies, ("trying", name, ""))
        fault = ""
        try:
            importlib.import_module(name)
        except BaseException as error:
            fault = f"{type(error).__name__}: {first_line(error)}"[:300]
        send(replies, ("imported", name, fault))
        if name == TORCH and not fault:
            try:
                send(replies, ("facts", name, torch_facts()))
            except Exception as error:
                send(replies, ("facts", name, {"fault": f"{type(error).__name__}: {first_line(error)}"[:300]}))
    send(replies, ("done", "", ""))


if __name__ == "__main__":
    # What a library prints must not come between the replies.
    to_parent = os.fdopen(os.dup(1), "wb")
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    serve(sys.stdin.buffer, to_parent)
