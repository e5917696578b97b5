"""Code that several verbs share: types of options, checks of options, and printing a result."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from electrain.finetuning.readers import require_read
from electrain.foundation.configuration import MOST_INTEGER
from electrain.foundation.errors import ConfigurationError
from electrain.foundation.json_output import to_json


def _number(kind: type[int] | type[float], least: float = -math.inf) -> Callable[[Any, Sequence[Token]], float]:
    """A strict converter: cyclopts alone rounds `--steps 1.5` to 2, and accepts nan."""
    limit, what = (MOST_INTEGER, "a whole number") if kind is int else (math.inf, "a finite number")
    what += "" if least == -math.inf else f", at least {least}"

    def convert(_: Any, tokens: Sequence[Token]) -> float:
        try:
            value: float = kind(tokens[0].value)
        except ValueError:
            value = math.nan
        if not abs(value) < limit or value < least:
            raise ConfigurationError(f"{tokens[0].keyword or 'value'} {tokens[0].value}: must be {what}")
        return value

    return convert


Whole = Annotated[int, Parameter(converter=_number(int))]
Seed = Annotated[int, Parameter(converter=_number(int, least=0))]
Number = Annotated[float, Parameter(converter=_number(float))]
Files = Annotated[list[str], Parameter(consume_multiple=True)]
Overrides = Annotated[str, Parameter(allow_leading_hyphen=True)]
TaskChoice = Literal["classification", "regression", "tagging", "question-answering", "summarization", "translation"]


def print_json(result: Any) -> None:
    """Prints one line of JSON to standard output."""
    print(to_json(result), flush=True)


def options_of(verb: Callable[..., None]) -> list[str]:
    """The flags that a verb declares, for example ["--config", "--shards"]."""
    parameters = inspect.signature(verb).parameters.values()
    return [f"--{each.name.replace('_', '-')}" for each in parameters if each.kind is each.KEYWORD_ONLY]


def suggestion(word: str, known: Iterable[str]) -> str:
    """The end of a message, which suggests the known word nearest to a misspelt one; "" if none is near."""
    nearest = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


# cyclopts calls a verb's validator with the arguments of the command line only, without the defaults.
def refuse_unknown_options(verb: Callable[..., None]) -> Callable[..., None]:
    """A validator for verbs that take --SECTION.FIELD VALUE, for which cyclopts accepts every flag.

    Returns: a function that raises ConfigurationError at the first flag without a section.
    """

    def refuse(**given: Any) -> None:
        for word in given.get("overrides", ()):
            flag = word.partition("=")[0]
            if flag.startswith("--") and "." not in flag:
                nearest = suggestion(flag, options_of(verb)) or "; a field is set by --SECTION.FIELD VALUE"
                raise ConfigurationError(f"there is no option {flag}{nearest}")

    return refuse


def refuse_unread_options(readers: dict[str, tuple[str, ...]]) -> Callable[..., None]:
    """A validator for verbs whose first argument is a task, each of which reads only some of the options.

    Args:
        readers: the tasks that read each option. An option that is not listed is read by every task.
    Returns: a function that raises ConfigurationError at the first option that the task does not read.
    """

    def refuse(**given: Any) -> None:
        for option, tasks in readers.items():
            if option in given:
                require_read(f"--{option.replace('_', '-')}", tasks, given["task"])

    return refuse
