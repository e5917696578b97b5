"""Child processes that serve this one over their standard streams, and the messages that pass between them."""

import marshal
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO

PACKAGE_ROOT = Path(__file__).parents[2]


def start_child(module: str, **environment: str) -> "subprocess.Popen[bytes]":
    """Starts `python -m module`, with pipes to its standard input and output.

    A fresh interpreter instead of a fork: the threads of the Rust tokenizers and of torch do not survive a fork.
    """
    search_path = os.pathsep.join([str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | environment | {"PYTHONPATH": search_path},
    )


def send(stream: IO[bytes], message: object) -> None:
    """Writes one message to a pipe: its length as 8 bytes, then its content.

    Messages are plain values in Python's marshal format, which unlike pickle cannot run code, and is faster. Its format
    may change between versions of Python, but both ends of the pipe are the same interpreter.

    Raises: ValueError: the message holds something else than numbers, texts, bytes, None, and lists and dicts of them.
    """
    content = marshal.dumps(message)  # type: ignore[arg-type]
    stream.write(struct.pack("<Q", len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> object:
    """Reads one message from a pipe. Raises: EOFError: the other side is gone."""
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError("the other process ended")
    (size,) = struct.unpack("<Q", header)
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("the other process ended")
    return marshal.loads(content)
