"""What the options for reading tables and labelled examples are called in the verb that runs, for messages."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# The prefix of all options, and the options of `finetune` that the verb lacks.
_called: ContextVar[tuple[str, Collection[str]]] = ContextVar("called", default=("--data.", ()))


@contextmanager
def options_called(prefix: str, *, lacking: Collection[str] = ()) -> Iterator[None]:
    """While the block runs, messages name the options of another verb than `finetune`.

    Args:
        prefix: "--" where the option for the text's column is --text-column.
        lacking: those that the verb has not, without prefix; no message advises them.
    """
    before = _called.set((prefix, lacking))
    try:
        yield
    finally:
        _called.reset(before)


def option(name: str) -> str:
    """The option as the user gives it, or "" where the verb has none. Args: name: without prefix."""
    prefix, lacking = _called.get()
    return "" if name in lacking else prefix + name
