"""Reads Parquet and Arrow files in a child process, so that a damaged file costs one line. Run as a module, it serves.

The library checks little of what it reads: a flipped bit makes it read outside its memory, which ends the process, or
ask for more memory than the machine has. In a child with a limit on its memory neither does harm. What it costs:
docs/experiments.md, "Reading tables in a process of their own".
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from electrain.data.text.compression import open_seekable, uncompressed_suffix
from electrain.data.text.text_files import missing_column
from electrain.foundation.child_process import receive, send, start_child
from electrain.foundation.errors import DataError
from electrain.foundation.limits import memory_bytes
from electrain.foundation.system import limit_memory

if TYPE_CHECKING:
    import pyarrow

_BATCH_ROWS = 64  # a row may hold a whole book
# Larger messages are divided: the format that carries them ends at 2 GiB.
_MESSAGE_BYTES = 1 << 28
_LEAST_MEMORY = 1 << 31
# Children that wait for the next file, so that a folder of files does not start one for each.
_idle: list["subprocess.Popen[bytes]"] = []


class TableBatch(NamedTuple):
    """Some rows of a table."""

    schema: "pyarrow.Schema"  # of the columns that were read
    rows: list[dict[str, object]]


def table_batches(path: Path, column: str | None = None) -> Iterator[TableBatch]:
    """The rows, in order, of a Parquet file, or of an Arrow file in the file format or the stream format.

    The first batch has no rows and tells the schema.

    Args: column: must be there, and alone is read.
    Raises: DataError: damaged file, or no such column.
    """
    import pyarrow

    limit = memory_limit()
    child = _idle.pop() if _idle else start_child(__name__, ARROW_DEFAULT_MEMORY_POOL="system")
    assert child.stdin is not None
    assert child.stdout is not None
    is_done, schema = False, None
    try:
        send(child.stdin, (os.getcwd(), str(path), column, limit))
        while True:
            kind, content = _reply(child.stdout)
            if kind == "schema":
                schema = pyarrow.ipc.read_schema(pyarrow.py_buffer(content))
                yield TableBatch(schema, [])
            elif kind == "rows":
                yield TableBatch(schema, content)
            elif kind == "end":
                is_done = True
                return
            else:
                is_done = True
                raise DataError(content.decode("utf-8", "surrogatepass"))
    except (EOFError, OSError) as error:
        raise DataError(
            f"{path}: damaged (reading it ended the process that reads, with exit code {child.wait()}); copy it again"
        ) from error
    finally:
        if is_done:
            _idle.append(child)
        else:
            _end(child)


def _reply(stream: IO[bytes]) -> tuple[str, Any]:
    message = receive(stream)
    assert isinstance(message, tuple)
    return message


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        with suppress(OSError):  # what a dead child did not take
            assert pipe is not None
            pipe.close()


def memory_limit() -> int:
    """The bytes that reading a table may take: half of what this machine, or its container, has."""
    return max(_LEAST_MEMORY, memory_bytes() // 2)


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answers each request (folder, path, column or None, limit of memory) with the schema and rows, or the fault."""
    while True:
        try:
            request = receive(requests)
        except EOFError:
            return
        assert isinstance(request, tuple)
        folder, path, column, limit = request
        limit_memory(limit)
        fault = ""
        try:
            os.chdir(folder)  # a parent may have moved since the child was started
            _send_rows(replies, Path(path), column)
        except DataError as error:
            fault = str(error)
        except MemoryError:
            hint = "it is damaged, or must be written anew in smaller row groups or batches"
            fault = f"{path}: needs more than {limit / 1e9:,.1f} GB of memory to read; {hint}"
        except Exception as error:  # a damaged file makes the library raise nearly anything
            fault = f"{path}: truncated or damaged ({_line(error)}); copy it again"
        send(replies, ("fault", fault.encode("utf-8", "surrogatepass")) if fault else ("end", b""))


def _send_rows(replies: IO[bytes], path: Path, column: str | None) -> None:
    is_first, number = True, 0
    for batch in _batches(path, column):
        if is_first:
            send(replies, ("schema", batch.schema.serialize().to_pybytes()))
            is_first = False
        _require_valid(path, batch, number)
        number += batch.num_rows
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            _send_slice(replies, batch.slice(start, _BATCH_ROWS))


def _send_slice(replies: IO[bytes], batch: "pyarrow.RecordBatch") -> None:
    if batch.nbytes > _MESSAGE_BYTES and batch.num_rows > 1:
        middle = batch.num_rows // 2
        _send_slice(replies, batch.slice(0, middle))
        _send_slice(replies, batch.slice(middle))
    else:
        columns = [_values(column) for column in batch.columns]
        rows = [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
        try:
            send(replies, ("rows", rows))
        except ValueError:
            send(replies, ("rows", _plain(rows)))


def _plain(value: object) -> object:
    """The value without dates, decimal numbers and other things that no message can hold; as `{kind: text}` each."""
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    return (
        value
        if value is None or isinstance(value, bool | int | float | str | bytes)
        else {type(value).__name__: str(value)}
    )


def _values(column: "pyarrow.Array") -> list[object]:
    """The values as Python's; as texts where Python has none, as for times in nanoseconds or before the year 1."""
    import pyarrow

    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError):
        values = column.cast(pyarrow.string()).to_pylist()
    return values


def _batches(path: Path, column: str | None) -> Iterator["pyarrow.RecordBatch"]:
    import pyarrow
    import pyarrow.parquet

    with open_seekable(path) as file:
        if uncompressed_suffix(path) == ".parquet":
            # Without pre_buffer, which would hold whole row groups in memory.
            table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
            _require_column(path, column, table.schema_arrow.names)
            yield from table.iter_batches(_BATCH_ROWS, columns=None if column is None else [column], use_threads=False)
            return
        is_stream = file.read(6) != b"ARROW1"  # what `datasets` writes
        file.seek(0)
        reader = pyarrow.ipc.open_stream(file) if is_stream else pyarrow.ipc.open_file(file)
        for batch in reader if is_stream else map(reader.get_batch, range(reader.num_record_batches)):
            _require_column(path, column, batch.schema.names)
            yield batch if column is None else batch.select([column])


def _require_column(path: Path, column: str | None, names: list[str]) -> None:
    if column is not None and column not in names:
        raise missing_column(str(path), column, names)


def _require_valid(path: Path, batch: "pyarrow.RecordBatch", first: int) -> None:
    """Raises DataError if any value of the batch is not what its type says, with the first row that is not UTF-8."""
    import pyarrow

    try:
        batch.validate(full=True)
    except pyarrow.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        for number in range(batch.num_rows):
            try:
                batch.slice(number, 1).validate(full=True)
            except pyarrow.ArrowInvalid:
                place = f"{path}: row {first + number}"
                raise DataError(f"{place}: bytes that are not UTF-8; write this row anew") from error
        raise


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent closes the pipe
    # What a library prints must not come between the replies, nor what a hostile file says reach the terminal.
    to_parent = os.fdopen(os.dup(1), "wb")
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    serve(sys.stdin.buffer, to_parent)
