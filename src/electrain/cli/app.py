"""The command line. Each verb is one stage; results go to stdout as JSON lines, everything else goes to stderr."""

import difflib
import itertools
import re
import signal
import sys
import typing
from collections.abc import Sequence
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
from electrain.cli import (
    asking,
    checking,
    completing,
    converting,
    doctoring,
    exporting,
    preparing,
    serving,
    sharing,
    training,
)
from electrain.cli.options import options_of, refuse_unknown_options, refuse_unread_options, suggestion
from electrain.cli.quick_start import start_sooner
from electrain.foundation.errors import DataError, ElectrainError, first_line
from electrain.foundation.output_folder import is_disk_full
from electrain.foundation.process import (
    SIGNAL_OFFSET,
    end_cleanly_on_signals,
    fill_closed_streams,
    require_standard_output,
    write_utf8,
)
from electrain.foundation.progress import say

app = App(
    name="electrain",
    help="Pretrain your own ELECTRA on text in your own language or field, and use it.",
    version=__version__,
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # `main` says it
    # Every flag is off by default, so that a negative form is never needed.
    default_parameter=Parameter(negative=()),
)
_WITHOUT_FIELDS = (preparing.tokenizer, preparing.prepare, converting.convert, training.report, training.fields)
_WITH_FIELDS = (training.pretrain, training.plan, training.finetune, training.demo)
for _verb in (*_WITHOUT_FIELDS, checking.check, doctoring.doctor, exporting.export, serving.serve, sharing.push):
    app.command(_verb)
for _verb_with_fields in _WITH_FIELDS:
    app.command(_verb_with_fields, validator=refuse_unknown_options(_verb_with_fields))
app.command(asking.evaluate, validator=refuse_unread_options(asking.EVALUATE_READERS))
app.command(asking.predict, validator=refuse_unread_options(asking.PREDICT_READERS))
app.command(completing.install_completion, name="--install-completion")
_SURROGATE = re.compile("[\ud800-\udfff]")  # stands for a byte of the command line that is not UTF-8
# What PyTorch says where Python would raise a MemoryError.
_NO_MEMORY = re.compile("can't allocate memory|size calculation overflowed")
VERBS = tuple(name for name in app if not name.startswith("-"))


def main(arguments: list[str] | None = None) -> None:
    """Runs one command.

    A user's mistake prints one line on stderr and exits with code 2, other failures with 1. What a signal stopped exits
    with 128 and the signal's number.
    """
    given = sys.argv[1:] if arguments is None else arguments
    verb = f"electrain {given[0]}" if given and given[0] in VERBS else "electrain"
    if arguments is None:  # a process of our own
        fill_closed_streams()
        end_cleanly_on_signals()
        write_utf8()
        if given[:1] == ["predict"]:  # which trains nothing
            start_sooner()
    try:
        _require_readable(given)
        if given[:1] != ["predict"]:  # which may have an --output
            require_standard_output()
        app(given, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except ElectrainError as error:
        _refuse(f"{verb}: {error}")
    except CycloptsError as error:
        line = _in_one_line(error)
        _refuse(f"{verb}: {line}{' See' if line.endswith('?') else '; see'} {verb} --help")
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        sys.stderr = None  # type: ignore[assignment]  # Python would complain once more when it ends
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        say(f"{verb}: interrupted")
        raise SystemExit(SIGNAL_OFFSET + signal.SIGINT) from None
    except MemoryError as error:
        _refuse(f"{verb}: out of memory ({error}); {_less_memory(verb)}")
    except Exception as error:
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        if is_disk_full(error):
            _refuse(f"{verb}: {where}the disk is full; free some space, then run the command again")
        if _NO_MEMORY.search(str(error)):
            _refuse(f"{verb}: out of memory ({first_line(error)[:200]}); {_less_memory(verb)}")
        if isinstance(error, OSError) and error.errno is not None:
            _refuse(f"{verb}: {where}{error.strerror}; give another path")
        raise


def _less_memory(verb: str) -> str:
    if verb.split()[-1] in ("pretrain", "finetune", "demo"):
        return "lower --training.micro-batch-rows, or set --training.gradient-checkpointing true"
    return "close other programs, or use a smaller model"


def _require_readable(given: Sequence[str]) -> None:
    """Raises DataError at an option that is not UTF-8: manifests and reports, written last, could not hold the name."""
    for before, word in itertools.pairwise(["", *given]):
        is_text = given[:1] == ["predict"] and not before.startswith("--") and not word.startswith("--")
        if _SURROGATE.search(word) and not is_text:
            raise DataError(f"{word}: is not UTF-8; rename the file or folder")


def _refuse(line: str) -> NoReturn:
    say(line)
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
