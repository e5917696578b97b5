"""Processes that encode batches of text side by side, with the results in the order of the batches.

Why not `ProcessPoolExecutor`: docs/decisions/0007-processes-and-compressed-files.md.
"""

import queue
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from electrain.data.shards.encoding import EncodedBatch
from electrain.foundation.child_process import receive, send, start_child
from electrain.foundation.errors import DataError

Label = TypeVar("Label")
_AHEAD = 2  # batches in flight for each process, so that none idles while the parent reads, and memory stays bounded


class EncodingPool:
    """Child processes, each with a tokenizer, and as many threads that each wait for one of them.

    A child ends when its standard input does, so it never outlives the parent, even one killed by SIGKILL.
    """

    def __init__(self, tokenizer_json: str, dtype: str, processes: int, *, with_words: bool = False) -> None:
        self._children = [_start_child() for _ in range(processes)]
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(processes)
        for child in self._children:
            self._threads.submit(self._begin, child, (tokenizer_json, dtype, with_words))

    def encode(self, batches: Iterable[tuple[list[str], Label]]) -> Iterator[tuple[EncodedBatch, Label]]:
        """Yields the tokens of each batch with the batch's label, in order, with a bounded number in memory.

        Raises: DataError: a child was killed.
        """
        started = ((self._threads.submit(self._encode_one, texts), label) for texts, label in batches)
        waiting = deque(islice(started, _AHEAD * len(self._children)))
        while waiting:
            waiting.extend(islice(started, 1))
            future, label = waiting.popleft()
            yield future.result(), label

    def close(self) -> None:
        """Ends the children; a batch still being encoded is abandoned."""
        for child in self._children:
            child.kill()
        self._threads.shutdown(cancel_futures=True)
        for child in self._children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with suppress(OSError):  # what a dead child did not take
                    pipe.close()

    def _begin(self, child: "subprocess.Popen[bytes]", first_message: tuple[str, str, bool]) -> None:
        try:
            assert child.stdin is not None
            send(child.stdin, first_message)
        finally:
            self._idle.put(child)  # a dead one too: the first batch that it gets reports it

    def _encode_one(self, texts: list[str]) -> EncodedBatch:
        child = self._idle.get()
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            send(child.stdin, texts)
            reply = receive(child.stdout)
            assert isinstance(reply, tuple)
            return EncodedBatch(*reply)
        except (EOFError, OSError) as error:
            raise DataError(
                f"a tokenising process ended early (exit code {child.wait()}; -9 is lack of memory or a kill); "
                "run again, with fewer --processes if memory is short"
            ) from error
        finally:
            self._idle.put(child)


def _start_child() -> "subprocess.Popen[bytes]":
    # Each child is one core's work, so the libraries inside must not start threads of their own.
    return start_child("electrain.data.shards.encoding", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
