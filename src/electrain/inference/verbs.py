"""The verbs `pretrain`, `finetune`, `evaluate` and `push` as Python functions, with the same options and files.

Nothing here imports torch before a function is called. A signal that comes while a function trains stops the run after
its step, with a checkpoint, and is then delivered once more: Ctrl-C is a KeyboardInterrupt, in a notebook too.
"""

import inspect
import os
import re
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args

from electrain.data.labelled.examples import TaskName
from electrain.finetuning.readers import require_read
from electrain.foundation.card import MEMORY_NAME
from electrain.foundation.configuration import Tables, merge_tables
from electrain.foundation.errors import ConfigurationError, DataError, ElectrainError
from electrain.foundation.hub import require_name
from electrain.foundation.json_output import to_json
from electrain.foundation.output_folder import CONFIGURATION_NAME, write_text_durably
from electrain.foundation.progress import wording

if TYPE_CHECKING:
    from electrain.inference.evaluate.evaluation import Evaluation

P = ParamSpec("P")
R = TypeVar("R")
# Paths, or rows in memory: dicts, or a pandas DataFrame.
Rows = Path | str | Iterable[Path | str] | Iterable[Mapping[str, object]]
Configuration = Path | str | Mapping[str, Mapping[str, object]]
# What `evaluate` takes as `columns`.
_ROLES = ("text", "pair", "label", "label_separator", "references", "separator", "quoting")
# A command in backticks, which stays as it is, or a flag: --section.field or --name.
_FLAG = re.compile(r"`[^`]*`|--(?:([a-z]+)\.)?([a-z][a-z-]*[a-z])")


@dataclass(frozen=True)
class Pretrained:
    """How a pretraining run ended."""

    output: Path  # the run folder, which `electrain.load` opens
    finished: bool  # False if it was stopped, or stopped itself, before its last step
    step: int
    metrics: dict[str, Any] = field(repr=False)  # the last line of the run's journal


@dataclass(frozen=True)
class FineTuned:
    """How a fine-tuning run ended, or several with different seeds."""

    output: Path  # the run folder, which `electrain.load` opens
    task: str
    finished: bool  # False if it was stopped before its end
    scores: dict[str, float]  # of the best model on the validation examples; with several seeds, their medians
    best_step: int | None  # the step after which that model was kept; None with several seeds
    # With several seeds: median, least and greatest of each score.
    spread: dict[str, dict[str, float]] = field(default_factory=dict)


def _in_python(verb: Callable[P, R]) -> Callable[P, R]:
    """The function, whose messages name settings and arguments where those of the command line name flags."""
    arguments = inspect.signature(verb).parameters

    def named(found: re.Match[str]) -> str:
        section, name = found[1], (found[2] or "").replace("-", "_")
        if section:
            return f"{section}.{name}"
        if name in arguments:
            return f"{name}=True" if arguments[name].default is False else name
        role = name.removesuffix("_column")
        return f'columns["{role}"]' if role in _ROLES and "columns" in arguments else found[0]

    @wraps(verb)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        before = wording.set(partial(_FLAG.sub, named))
        try:
            return verb(*args, **kwargs)
        except ElectrainError as error:
            error.args = (wording.get()(str(error)),)
            raise
        finally:
            wording.reset(before)

    return call


@_in_python
def pretrain(
    config: Configuration,
    *,
    shards: Path | str,
    output: Path | str,
    overrides: Mapping[str, object] | None = None,
    resume: bool = False,
) -> Pretrained:
    """Pretrains a generator and a discriminator on token shards, as `electrain pretrain` does.

    Args:
        config: a TOML file, the name of a preset ("tiny", "small", ...), or its sections as a dict of dicts.
        shards: folder that `electrain prepare` wrote.
        output: folder to create for the run.
        overrides: fields that override the file, as {"training": {"steps": 100}} or {"training.steps": 100}.
        resume: continue from the newest intact checkpoint in the output folder.
    Raises: ElectrainError: a mistake, in one line.
    """
    from electrain.pretraining.configuration import load_configuration
    from electrain.pretraining.run import pretrain as run

    folder, stream = _path("output", output), _path("shards", shards)
    begun = folder / CONFIGURATION_NAME if resume else None
    configuration = load_configuration(_source(config), tables_of(overrides), resumed=begun)
    result = run(configuration, stream, folder, resume=resume)
    _deliver(result.stopped_by)
    return Pretrained(folder, result.is_finished and not result.is_failed, result.step, result.metrics)


@_in_python
def finetune(
    task: TaskName,
    *,
    model: Path | str,
    train: Rows,
    validation: Rows,
    output: Path | str,
    config: Configuration | None = None,
    overrides: Mapping[str, object] | None = None,
    decoder: str | None = None,
    seeds: int | None = None,
    allow_unknown: bool = False,
    resume: bool = False,
) -> FineTuned:
    """Fine-tunes a pretrained encoder on labelled examples, as `electrain finetune` does.

    Args:
        task: "classification", "regression", "tagging", "question-answering", "summarization" or "translation".
        model: run folder, model folder or hub id of a pretrained encoder.
        train: training examples: files, folders, globs or hub data sets; or rows, as dicts or a pandas DataFrame.
        validation: validation examples, likewise. The model with the best validation score is kept.
        output: folder to create for the run.
        config: a TOML file, the name of a recipe ("sst2", "squad", ...), or its sections as a dict of dicts.
        overrides: fields that override it, as {"training": {"epochs": 3}} or {"training.epochs": 3}.
        decoder: of summarization and translation: "generator", "encoder", "fresh", or the folder of a language model.
        seeds: number of runs with different seeds, each in output/seed-N; the best model is kept in output/model.
        allow_unknown: go on where more than a fifth of the tokens of the training texts are [UNK].
        resume: continue from the newest intact checkpoint in the output folder.
    Raises: ElectrainError: a mistake, in one line.
    """
    from electrain.finetuning.readers import finetune_configuration
    from electrain.finetuning.run import finetune as run
    from electrain.finetuning.seeds import finetune_each

    folder = _path("output", output)
    require_task(task)
    configuration = finetune_configuration(
        task, None if config is None else _source(config), tables_of(overrides), decoder, allow_unknown=allow_unknown
    )
    with _files("train", train) as (training, _), _files("validation", validation) as (held_out, _):
        result, summary = finetune_each(
            lambda own, place: run(task, own, model, training, held_out, place, resume=resume),
            configuration,
            folder,
            seeds=seeds,
            resume=resume,
        )
    _deliver(result.stopped_by)
    if summary is None:
        return FineTuned(folder, task, result.is_finished, result.scores, result.best_step)
    spread = summary.get("scores", {})
    medians = {name: values["median"] for name, values in spread.items()}
    return FineTuned(folder, task, summary["finished"], medians, None, spread)


@_in_python
def evaluate(
    task: str,
    *,
    model: Path | str,
    data: Rows,
    generator: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    skip_broken: bool = False,
    rows: int = 512,
    seed: int = 0,
    document_separator: str | None = None,
    limit_pairs_per_set: int | None = None,
    tune_threshold: bool = False,
) -> "Evaluation":
    """Scores a model, as `electrain evaluate` does.

    Args:
        task: "detection" or "blimp" for a pretrained model; the task of a fine-tuned one.
        model: run folder, model folder or hub id.
        data: files; or rows, as dicts or a pandas DataFrame. For detection, shards or held-out text.
        generator: detection, blimp: of another run. By default, the generator of the run.
        columns: names of columns by their roles, as the options of the verb without "_column": "text", "pair",
            "label", "label_separator", "references", "separator", "quoting". By default, those of training.
        skip_broken: fine-tuned tasks: leave invalid rows out and count them.
        rows: detection: largest number of rows to score.
        seed: detection: of the masks and of the sampled replacements.
        document_separator: detection: text between the documents of a .txt file. By default, each file is one document.
        limit_pairs_per_set: blimp: number of pairs to score in each set. By default, all pairs.
        tune_threshold: classification with two labels, or several for a text: choose the probability from which on a
            label is given by the best F1 on these data, which must be validation data; it is kept in task.json.
    Raises: ElectrainError: a mistake, in one line.
    """
    from electrain.data.text.corpus import CorpusFormat
    from electrain.inference.evaluate.blimp import evaluate_blimp
    from electrain.inference.evaluate.detection import evaluate_detection
    from electrain.inference.evaluate.evaluation import pretrained_evaluation
    from electrain.inference.evaluate.tasks import evaluate_task

    given = dict(columns or {})
    if unknown := [name for name in given if name not in _ROLES]:
        raise ConfigurationError(f'columns: there is no role "{unknown[0]}", only {", ".join(_ROLES)}')
    if tune_threshold:
        require_read("tune_threshold", ("classification",), task)
    if document_separator is not None:
        require_read("document_separator", ("detection",), task)
    with _files("data", data) as (sources, is_file):
        if task == "detection":
            form = CorpusFormat(given.get("text", "text"), document_separator)
            found = evaluate_detection(model, sources, generator=generator, rows=rows, seed=seed, corpus_format=form)
            evaluation = pretrained_evaluation(found)
        elif task == "blimp":
            if len(sources) != 1:
                raise ConfigurationError(f"data: blimp reads one file or folder, not {len(sources)}; give one")
            pairs = evaluate_blimp(model, sources[0], generator=generator, limit_pairs_per_set=limit_pairs_per_set)
            evaluation = pretrained_evaluation(dict(pairs))
        else:
            known = require_task(task, "detection", "blimp")
            evaluation = evaluate_task(
                known, model, sources, columns=given, skip_broken=skip_broken, tune_threshold=tune_threshold
            )
    if is_file:
        return evaluation
    return replace(evaluation, settings={**evaluation.settings, "data": ["rows in memory"]})


@_in_python
def push(source: Path | str, to: str, *, public: bool = False) -> str:
    """Puts a model into a repository of the Hugging Face hub, as `electrain push` does.

    Args:
        source: folder of a run, a model or an export.
        to: name of the repository, OWNER/NAME; it is made if there is none, and is private unless `public` is True.
    Returns: the address of the repository.
    Raises: HubError: the folder holds no model, or the hub does not take it; in one line.
    """
    from electrain.foundation.publishing import push_folder

    require_name(source)
    return push_folder(Path(source), to, public=public)


def tables_of(overrides: Mapping[str, object] | None) -> Tables:
    """Fields by section, given as {"section": {"field": value}} or as {"section.field": value}.

    Raises: ConfigurationError: a key is neither.
    """
    tables: Tables = {}
    for name, value in (overrides or {}).items():
        section, dot, field_name = str(name).partition(".")
        if dot:
            tables = merge_tables(tables, {section: {field_name: _plain(value)}})
        elif isinstance(value, Mapping):
            tables = merge_tables(tables, {section: {str(key): _plain(inner) for key, inner in value.items()}})
        else:
            raise ConfigurationError(f'overrides: "{name}" is no section; write {{"{name}": {{"field": value}}}}')
    return tables


def _source(config: Configuration) -> str | Tables:
    return tables_of(config) if isinstance(config, Mapping) else str(config)


def _plain(value: object) -> Any:
    """A value as a TOML file could hold it: numbers of numpy, paths and tuples as their plain kinds."""
    if isinstance(value, tuple | list):
        return list(map(_plain, value))
    if isinstance(value, Path):
        return str(value)
    return value.item() if callable(getattr(value, "item", None)) else value  # type: ignore[attr-defined]


def require_task(task: str, *others: str) -> TaskName:
    """The name of a fine-tuning task. Raises: ConfigurationError: it is none; the message also names the others."""
    known: tuple[TaskName, ...] = get_args(TaskName)
    if task not in known:
        raise ConfigurationError(f"{task}: is no task; choose one of {', '.join((*others, *known))}")
    return task


@contextmanager
def _files(name: str, given: Rows) -> Iterator[tuple[list[str], bool]]:
    """The files of some examples, and True; rows in memory are written into a temporary one, and False.

    Raises: DataError: neither paths nor rows.
    """
    if isinstance(given, str | Path):
        _path(name, given)
        yield [str(given)], True
        return
    rows: list[Any] = _records(name, given)
    if not rows:
        raise DataError(f"{name}: no rows; give at least one")
    if all(isinstance(row, str | Path) for row in rows):
        for row in rows:
            _path(name, row)
        yield list(map(str, rows)), True
        return
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}: row {number} is no dict; give rows as dicts, or paths of files")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MEMORY_NAME
        try:
            lines = [to_json(_json_row(row)) + "\n" for row in rows]
        except TypeError as error:
            raise DataError(f"{name}: holds what JSON cannot ({error}); give texts, numbers and lists") from error
        write_text_durably(path, "".join(lines))
        try:
            yield [str(path)], False
        except ElectrainError as error:
            # A line of the file is a row, which is all that the caller knows.
            line = re.sub(rf"{re.escape(str(path))}:(\d+)", rf"{name}, row \1", str(error))
            error.args = (line.replace(str(path), name),)
            raise


def _path(name: str, given: object) -> Path:
    """The path that an argument names. Raises: ConfigurationError: it names none."""
    if not isinstance(given, str | os.PathLike) or not str(given).strip():
        shown = " ".join(repr(given).split())[:60]
        raise ConfigurationError(f"{name}: {shown} is no name; give a path")
    return Path(given)


def _records(name: str, given: object) -> list[Any]:
    """The rows of a list, a pandas DataFrame or a data set of Hugging Face; paths as they are."""
    if hasattr(given, "columns") and callable(getattr(given, "to_dict", None)):
        return list(given.to_dict("records"))  # type: ignore[attr-defined]
    if not isinstance(given, Iterable) or isinstance(given, Mapping):
        raise DataError(f"{name}: is neither a path nor a list; give files, or rows as dicts")
    return list(given)


def _json_row(row: Mapping[object, object]) -> dict[str, object]:
    return {str(name): _json_value(value) for name, value in row.items()}


def _json_value(value: object) -> object:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return _json_row(value)
    if isinstance(value, Sequence):
        return list(map(_json_value, value))
    if callable(getattr(value, "tolist", None)):  # numbers and arrays of numpy
        return _json_value(value.tolist())  # type: ignore[attr-defined]
    return value


def _deliver(number: int) -> None:
    """Raises the signal that stopped a run, if one did, now that its checkpoint is there and the caller handles it."""
    if number and threading.current_thread() is threading.main_thread():
        signal.raise_signal(number)
