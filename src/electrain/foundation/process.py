"""The process that runs a command: its standard streams, and the signals that end it."""

import io
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

from electrain.foundation.errors import DataError
from electrain.foundation.system import ending_signals

# A shell reports 128 + the signal's number for a process that a signal ended; so does this one.
SIGNAL_OFFSET = 128


def exit_code(*, is_finished: bool, is_failed: bool, stopped_by: int) -> int:
    """The exit code of a run: 0 if it finished, 1 if it failed, 128 and the number of the signal that stopped it."""
    return 0 if is_finished else 1 if is_failed else SIGNAL_OFFSET + (stopped_by or signal.SIGTERM)


def fill_closed_streams() -> None:
    """Opens the null device in the place of standard streams that were closed.

    Otherwise the next file that is opened would take the number of a closed one, and whatever a library prints would go
    into that file. `sys.stdin`, `sys.stdout` and `sys.stderr` stay None, which tells that they were closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one


def write_utf8() -> None:
    """Lets standard output take any character: JSON is UTF-8, whatever the terminal's language or the system."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")


def require_standard_output() -> None:
    """Raises DataError if standard output is closed. Call it before the work whose result it will take."""
    if sys.stdout is None:
        raise DataError(f"standard output is closed; send it to a file with > FILE, or to > {os.devnull}")


def end_cleanly_on_signals() -> None:
    """Lets SIGTERM and a closed terminal end the process as an exception, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers there only
        return
    for number in ending_signals():
        if signal.getsignal(number) == signal.SIG_DFL:  # not where `nohup` or a caller has its own way
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(SIGNAL_OFFSET + number)
