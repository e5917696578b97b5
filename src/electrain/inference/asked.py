"""What a model can be asked: the tasks, what each reads, and its options. Nothing here needs torch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from electrain.data.labelled.columns import Columns
from electrain.data.labelled.examples import TaskName
from electrain.data.text.cleaning import without_surrogates
from electrain.foundation.errors import ConfigurationError, DataError

# The tasks of a fine-tuned model; each reads one text, except where `KEYS` says otherwise.
TASK_OF_VERB: dict[str, TaskName] = {
    "classify": "classification",
    "regress": "regression",
    "tag": "tagging",
    "answer": "question-answering",
    "summarize": "summarization",
    "translate": "translation",
}
# The options of each task, with the type of each; the defaults are those of the functions that answer.
OPTIONS: dict[str, dict[str, tuple[type, ...]]] = {
    "fill": {"candidates": (int,), "by": (str, type(None))},
    "generate": {"tokens": (int,), "temperature": (float, int), "top_p": (float, int), "seed": (int,)},
}
# Besides "text": the keys of an input as a dict.
KEYS: dict[str, tuple[str, ...]] = {
    "classify": ("text", "pair"),
    "regress": ("text", "pair"),
    "answer": ("question", "context"),
    "tag": ("words",),
}
# The names by which the texts of a dict are read, whatever the columns of the training examples were called.
COLUMNS: dict[str, Columns] = {
    "classify": Columns("text", "pair"),
    "regress": Columns("text", "pair"),
    "answer": Columns("question", "context"),
    "tag": Columns("words"),
}
_SHOWN_CHARACTERS = 60  # of a mistaken value in a message


@dataclass(frozen=True)
class Input:
    """One input of a model."""

    given: str | Mapping[str, object]  # a text, or a JSON object
    number: int  # counted from 1
    where: str  # the place of the input, for messages


def is_listed(given: object) -> bool:
    """True for an iterable of inputs; False for one input, and for an array of numpy without axes."""
    is_one = isinstance(given, str | bytes | Mapping) or getattr(given, "shape", None) == ()
    return isinstance(given, Iterable) and not is_one


def require_no_table(name: str, given: object) -> None:
    """Raises DataError at a table of pandas, whose iteration gives the names of its columns."""
    if hasattr(given, "columns") and hasattr(given, "iterrows"):
        raise DataError(f'{name}: a table is no list of texts; give one of its columns, such as table["text"]')


def plain_options(options: Mapping[str, object]) -> dict[str, object]:
    """The options, with Python's numbers in place of numpy's."""
    return {
        name: value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
        for name, value in options.items()
    }


def inputs_of(task: str, given: Iterable[object], *, reads_pairs: bool | None = None) -> list[Input]:
    """What a program gave as the inputs of a task.

    Args:
        given: each a text, or a dict with the keys of the task.
        reads_pairs: True if the model of `classify` or `regress` reads two texts, False if it reads one, None if its
            folder does not say.
    Raises: DataError: an input is neither, or lacks what the model reads, or holds more.
    """
    require_no_table("inputs", given)
    if not is_listed(given):
        raise DataError(f"inputs: {shown(given)} is no list; give a list of texts or of dicts")
    found = []
    for number, one in enumerate(given, start=1):
        where = f"input {number}"
        content = _content(task, one, where, reads_pairs)
        found.append(Input(content, number, where))
    return found


def _content(task: str, one: object, where: str, reads_pairs: bool | None) -> str | Mapping[str, object]:
    keys = KEYS.get(task, ("text",))
    if task in ("classify", "regress"):
        keys = ("text", "pair") if reads_pairs else keys[: 1 if reads_pairs is False else 2]
    needs = keys if task == "answer" or reads_pairs else keys[:1]
    wanted = "{" + ", ".join(f'"{key}": ...' for key in needs) + "}"
    if isinstance(one, str):
        if len(needs) > 1:
            reads = "a question and its context" if task == "answer" else "pairs of texts"
            raise DataError(f"{where}: the model reads {reads}, but one text is given; give {wanted}")
        return without_surrogates(one)
    if not isinstance(one, Mapping):
        raise DataError(f"{where}: {shown(one)} is no text; give a str or {wanted}")
    filled = {key: value for key, value in one.items() if value is not None}
    if task == "tag" and set(filled) == {"text"}:
        return _text(filled["text"], "text", where)
    unknown = [str(key) for key in filled if key not in keys]
    if unknown:
        why = "the model reads one text" if unknown == ["pair"] else f'there is no key "{unknown[0]}"'
        raise DataError(f"{where}: {why}; give {wanted}")
    lacking = [key for key in needs if key not in filled]
    if lacking:
        raise DataError(f'{where}: has no "{lacking[0]}"; give {wanted}')
    if task == "tag":
        return {"words": _words(filled["words"], where)}
    if keys == ("text",) or set(filled) == {"text"}:
        return _text(filled["text"], "text", where)
    return {key: _text(value, key, where) for key, value in filled.items()}


def _text(value: object, key: str, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f'{where}: "{key}" holds {shown(value)}, not a text; give a str')
    return without_surrogates(value)


def _words(value: object, where: str) -> list[str]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(isinstance(word, str) for word in value):  # type: ignore[attr-defined]
        raise DataError(f'{where}: "words" holds {shown(value)}, no list of words; give a list of str')
    return [without_surrogates(word) for word in value]  # type: ignore[attr-defined]


def require_options(task: str, options: Mapping[str, object]) -> None:
    """Raises ConfigurationError at an option that the task does not have, or of another type."""
    known = OPTIONS.get(task, {})
    for name, value in options.items():
        if name not in known:
            has = f"only {', '.join(known)}" if known else "none"
            raise ConfigurationError(f"{task}: has no option {name}, {has}; leave it out")
        is_number = not isinstance(value, bool) and not (isinstance(value, float) and not math.isfinite(value))
        if not isinstance(value, known[name]) or not (is_number or value is None):
            kind = {int: "a whole number", float: "a finite number", str: "a name"}[known[name][0]]
            raise ConfigurationError(f"{task}: {name} = {value!r}: must be {kind}")
    seed = options.get("seed", 0)
    if isinstance(seed, int) and not 0 <= seed < 2**63:
        raise ConfigurationError(f"{task}: seed = {seed}: must be at least 0 and below 2**63")
    if options.get("by") not in (None, "generator", "correction"):
        raise ConfigurationError(f'{task}: by = "{options["by"]}": choose "generator" or "correction"')


def shown(value: object) -> str:
    """A value of any type in one line, cut where it is long."""
    line = " ".join(repr(value).split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}..."
