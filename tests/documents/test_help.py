"""The command line explains itself: every option in the help of every verb, and one line for every misuse."""

import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
from docstring_parser import parse

from command_line import refuse
from electrain.cli import asking
from electrain.cli.app import VERBS, app, main
from electrain.finetuning.configuration import TASKS, FinetuneConfig
from electrain.finetuning.readers import READERS


def function(verb: str) -> Callable[..., None]:
    found = app[verb].default_command
    assert found is not None
    return found


def without_annotations(hint: typing.Any) -> typing.Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def help_of(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    # The library keeps the console of the first help of the process, and with it that help's width.
    app._fallback_console = None
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert not ended.value.code
    return capsys.readouterr().out


def squeezed(text: str) -> str:
    """Without white space, borders and code marks, so that it does not matter where lines are broken."""
    return re.sub(r"[\s│╭╮╰╯─`]", "", text)


OPTIONS = [(verb, name) for verb in VERBS for name in inspect.signature(function(verb)).parameters]


def test_the_verbs_are_there() -> None:
    assert {"tokenizer", "prepare", "pretrain", "plan", "report", "finetune", "evaluate", "predict"} <= set(VERBS)
    assert len(OPTIONS) > 60


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("verb", VERBS)
def test_help_describes_every_option(
    verb: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = help_of(verb, capsys)
    assert max(map(len, shown.splitlines())) <= width
    documented = parse(inspect.getdoc(function(verb)) or "").params
    written = {each.arg_name: " ".join((each.description or "").split()) for each in documented}
    for name, parameter in inspect.signature(function(verb)).parameters.items():
        description = written.get(name, "")
        assert len(description.split()) >= 3, f"{verb} {name} has no description"
        assert description.endswith("."), f"{verb} {name} is not described in whole sentences"
        expected = description
        kind = without_annotations(parameter.annotation)
        literals = [each for each in [kind, *typing.get_args(kind)] if typing.get_origin(each) is typing.Literal]
        if literals:
            expected += f"[choices: {', '.join(typing.get_args(literals[0]))}]"
        if parameter.kind is not parameter.VAR_POSITIONAL:
            if parameter.default is parameter.empty:
                expected += "[required]"
            elif parameter.default is None:
                assert "by default" in description.lower(), f"{verb} {name} does not say what happens without it"
            else:
                expected += f"[default: {parameter.default}]"
        assert squeezed(expected) in squeezed(shown), f"{verb} --help lacks: {expected}"
        shown_name = f"--{name.replace('_', '-')} " if parameter.kind is parameter.KEYWORD_ONLY else name.upper()
        assert shown_name in shown


def test_help_of_the_program_has_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = squeezed(capsys.readouterr().out)
    for verb in VERBS:
        summary = (inspect.getdoc(function(verb)) or "").partition("\n\n")[0]
        assert summary.endswith(".")
        assert squeezed(verb + summary) in shown


MISUSES = [
    (["pretrain", "--config", "tiny"], "electrain pretrain: --shards is missing; see electrain pretrain --help"),
    (
        ["pretrain", "--config", "tiny", "--shard=x", "--output", "y"],
        "electrain pretrain: --shards is missing and --shard is no option; see electrain pretrain --help",
    ),
    (
        ["pretrain", "--config", "tiny", "--shards", "x", "--output", "y", "--resme"],
        "electrain pretrain: there is no option --resme; did you mean --resume?",
    ),
    (
        ["demo", "--steps", "5"],
        "electrain demo: there is no option --steps; a field is set by --SECTION.FIELD VALUE",
    ),
    (["tokenizer", "--output", "x"], "electrain tokenizer: CORPUS is missing; see electrain tokenizer --help"),
    (
        ["tokenizer", "x", "--output", "y", "--vocab-size"],
        "electrain tokenizer: --vocab-size has no value; write --vocab-size VALUE; see electrain tokenizer --help",
    ),
    (
        ["tokenizer", "x", "--output", "y", "--vocab-size", "1.5"],
        "electrain tokenizer: --vocab-size 1.5: must be a whole number",
    ),
    (
        ["tokenizer", "x", "--output", "y", "--vocab-sise", "5"],
        "electrain tokenizer: there is no option --vocab-sise; did you mean --vocab-size? See electrain tokenizer --h",
    ),
    (
        ["predict", "fill", "x", "--model", "y", "--by", "both"],
        "electrain predict: --by both: choose one of generator, correction; see electrain predict --help",
    ),
    (
        ["evaluate", "tagged", "--model", "x", "--data", "y"],
        "electrain evaluate: TASK tagged: choose one of detection, blimp, classification, regression, tagging, "
        "question-answering, summarization, translation; did you mean tagging? See electrain evaluate --help",
    ),
    (
        ["predict", "generate", "x", "--model", "y", "--temperature", "hot"],
        "electrain predict: --temperature hot: must be a finite number",
    ),
    (["report", "--run", "a", "--run", "b"], "electrain report: --run is given more than once; give it once; see "),
    (["fields", "finetune", "x"], "electrain fields: 'x' is not expected here; see electrain fields --help"),
    (["tokeniser"], "electrain: there is no verb 'tokeniser'; did you mean tokenizer? See electrain --help"),
    (["predict", "generate", "x", "--model", "y", "--top-p", "-inf"], "electrain predict: --top-p -inf: must be a fin"),
    (
        ["tokenizer", "x", "--output", "y", "--character-coverage", "1e999"],
        "electrain tokenizer: --character-coverage 1e999: must be a finite number",
    ),
    (["plan", "--config", "tiny", "--devices", "²"], "electrain plan: --devices ²: must be a whole number"),
    (["plan", "--config", "tiny", "--devices", "9" * 5000], f"electrain plan: --devices {'9' * 5000}: must be a whole"),
    (
        ["plan", "--config", "tiny", "--hardware", "h100", "--price-per-hour", "nan"],
        "electrain plan: --price-per-hour nan: must be a finite number",
    ),
    (["plan", "--config", "tiny", "--price-per-hour", "2"], "electrain plan: --price-per-hour: is read only with "),
]


@pytest.mark.parametrize(("arguments", "line"), MISUSES, ids=[" ".join(arguments) for arguments, _ in MISUSES])
def test_one_clear_line_for_a_misused_option(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refuse(arguments, capsys).startswith(line)


VALUES = {
    "by": "generator",
    "skip_broken": None,
    "tune_threshold": None,
    "text_column": "c",
    "pair_column": "c",
    "label_column": "c",
    "quoting": "csv",
}
ASKED = [
    (verb, task, option)
    for verb, readers in (("evaluate", asking.EVALUATE_READERS), ("predict", asking.PREDICT_READERS))
    for task in typing.get_args(without_annotations(inspect.signature(function(verb)).parameters["task"].annotation))
    for option in readers
]


@pytest.mark.parametrize(("verb", "task", "option"), ASKED)
def test_options_that_a_task_does_not_read_are_refused(
    verb: str, task: str, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task that reads the option gets as far as the model folder, which does not exist."""
    readers = {"evaluate": asking.EVALUATE_READERS, "predict": asking.PREDICT_READERS}[verb][option]
    flag = f"--{option.replace('_', '-')}"
    value = VALUES.get(option, "1")
    arguments = [verb, task, *(["text"] if verb == "predict" else ["--data", str(tmp_path / "data.tsv")])]
    arguments += ["--model", str(tmp_path / "absent"), flag, *([value] if value else [])]
    (tmp_path / "data.tsv").write_text("text\tlabel\na\t1\n")
    line = refuse(arguments, capsys)
    refusal = f"electrain {verb}: {flag}: {task} does not read it, only {', '.join(readers)}; leave it out\n"
    assert (line == refusal) == (task not in readers), line


FINETUNE_FIELDS = [
    f"{section}.{field}"
    for section, part in typing.get_type_hints(FinetuneConfig).items()
    for field in part.__dataclass_fields__
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", FINETUNE_FIELDS)
def test_fields_that_a_task_does_not_read_are_refused(
    name: str, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flag = f"--{name}".replace("_", "-")
    arguments = ["finetune", task, "--model", "x", "--train", "y", "--validation", "y", "--output", "z"]
    tasks = READERS.get(name, READERS.get(name.partition(".")[0], TASKS))
    line = refuse([*arguments, flag, "absurd", "--training.seed", "absurd"], capsys)
    refusal = f"electrain finetune: {flag}: {task} does not read it, only {', '.join(tasks)}; leave it out\n"
    assert (line == refusal) == (task not in tasks), line


def test_every_option_of_a_task_is_in_the_table() -> None:
    """What no table names is read by every task, so a new option cannot be forgotten."""
    for verb, readers in (("evaluate", asking.EVALUATE_READERS), ("predict", asking.PREDICT_READERS)):
        by_all = {
            "evaluate": {"task", "model", "data", "output", "report"},
            "predict": {"task", "texts", "model", "input", "output", "text_column"},
        }
        assert set(inspect.signature(function(verb)).parameters) == by_all[verb] | set(readers)
