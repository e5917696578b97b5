"""The command line. Each verb is one stage; results go to stdout as JSON lines, everything else goes to stderr."""

import difflib
import errno
import sys
import typing
from typing import Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from electrain import __version__
from electrain.cli import asking, preparing, training
from electrain.cli.options import options_of, refuse_unknown_options, refuse_unread_options, suggestion
from electrain.cli.quick_start import start_sooner
from electrain.foundation.errors import ElectrainError

app = App(
    name="electrain",
    help="Pretrain your own ELECTRA on text in your own language or field, and use it.",
    version=__version__,
    version_flags=["--version"],
    # Every flag is off by default, so that a negative form is never needed.
    default_parameter=Parameter(negative=()),
)
_WITHOUT_FIELDS = (preparing.tokenizer, preparing.prepare, training.report, training.fields)
_WITH_FIELDS = (training.pretrain, training.plan, training.finetune, training.demo)
for _verb in _WITHOUT_FIELDS:
    app.command(_verb)
for _verb_with_fields in _WITH_FIELDS:
    app.command(_verb_with_fields, validator=refuse_unknown_options(_verb_with_fields))
app.command(asking.evaluate, validator=refuse_unread_options(asking.EVALUATE_READERS))
app.command(asking.predict, validator=refuse_unread_options(asking.PREDICT_READERS))
VERBS = tuple(name for name in app if not name.startswith("-"))


def main(arguments: list[str] | None = None) -> None:
    """Runs one command. A user's mistake prints one line on stderr and exits with code 2, other failures with 1."""
    given = sys.argv[1:] if arguments is None else arguments
    verb = f"electrain {given[0]}" if given and given[0] in VERBS else "electrain"
    if arguments is None and given[:1] == ["predict"]:  # a process of our own, which trains nothing
        start_sooner()
    try:
        app(given, exit_on_error=False, print_error=False)
    except ElectrainError as error:
        _refuse(f"{verb}: {error}")
    except CycloptsError as error:
        line = _in_one_line(error)
        _refuse(f"{verb}: {line}{' See' if line.endswith('?') else '; see'} {verb} --help")
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
            _refuse(f"{verb}: {error.filename}: {error.strerror}; give another path")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"{error.filename}: " if error.filename else ""
        _refuse(f"{verb}: {where}the disk is full; free some space, then run the command again")
    except MemoryError as error:
        remedy = "lower --training.micro-batch-rows, or set --training.gradient-checkpointing true"
        _refuse(f"{verb}: out of memory ({error}); {remedy}")


def _refuse(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise SystemExit(2) from None


def _in_one_line(error: CycloptsError) -> str:
    """The mistake in a command, in our words: those of cyclopts name Python types."""
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        return f"there is no verb '{error.unused_tokens[0]}'{suggestion(error.unused_tokens[0], VERBS)}"
    if isinstance(error, UnknownOptionError):
        name = error.token.keyword or error.token.value
        return f"there is no option {name}{suggestion(name, _options_of(error))}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        if error.keyword or error.argument.tokens:
            return f"{name} has no value; write {name} VALUE"
        # The verbs that take --SECTION.FIELD accept any flag at first, so a misspelt option is found only here.
        flags = [word.partition("=")[0] for word in error.root_input_tokens or [] if word.startswith("--")]
        misspelt = difflib.get_close_matches(name, [flag for flag in flags if flag not in _options_of(error)], n=1)
        return f"{name} is missing" + (f" and {misspelt[0]} is no option" if misspelt else "")
    if isinstance(error, CoercionError) and error.token is not None and typing.get_origin(error.target_type) is Literal:
        choices = [str(choice) for choice in typing.get_args(error.target_type)]
        name = error.token.keyword or (error.argument.name if error.argument else "value")
        return f"{name} {error.token.value}: choose one of {', '.join(choices)}{suggestion(error.token.value, choices)}"
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword} is given more than once; give it once"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"'{error.unused_tokens[0]}' is not expected here"
    return " ".join(str(error).split()).rstrip(".")


def _options_of(error: CycloptsError) -> list[str]:
    return [] if error.target is None else options_of(error.target)


if __name__ == "__main__":
    main()
