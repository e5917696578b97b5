"""The score of a fine-tuned model on labelled examples."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from electrain.data.labelled.checks import (
    TagForm,
    answered,
    in_scheme,
    require_known_labels,
    require_single_labels,
    require_whole_chunks,
    tag_form_of_further,
)
from electrain.data.labelled.columns import Columns, MissingColumnError
from electrain.data.labelled.examples import TaskName
from electrain.data.labelled.labels import NO_SEPARATOR, in_spelling_of
from electrain.data.labelled.reading import Example, fitting, read_examples
from electrain.data.text.options import options_called
from electrain.data.tokenizer.plain_text import cleaner_for
from electrain.finetuning.tasks.long_texts import cut_notice
from electrain.finetuning.tasks.question_answering import QuestionAnswering
from electrain.finetuning.tasks.settings import FineTuned, score_settings
from electrain.finetuning.tasks.tagging import Tagging
from electrain.finetuning.tasks.task import Answer
from electrain.finetuning.tasks.task_folder import load_fine_tuned
from electrain.foundation.errors import DataError
from electrain.foundation.progress import Progress, say
from electrain.inference.evaluate.breakdown import broken_down, truth_of
from electrain.inference.evaluate.evaluation import Evaluation
from electrain.inference.evaluate.threshold import folder_to_tune, tune_thresholds
from electrain.inference.model import Source

EXAMPLES_PER_ROUND = 512  # answered between two updates of the progress


def evaluate_task(
    task: TaskName,
    model: Source,
    data: Sequence[str],
    *,
    columns: dict[str, str] | None = None,
    skip_broken: bool = False,
    tune_threshold: bool = False,
) -> Evaluation:
    """The scores of a model with the settings that produced them, what they are made of, and the model's answers.

    Args:
        model: a fine-tuning run, a model folder, or a hub id.
        data: files, folders, globs or hub data sets.
        columns: text, pair, label, references, separator, quoting (see `Columns`). A missing one is as in training, or
            else a column has one of the usual names.
        skip_broken: leave invalid rows out and count them; sentences with broken chunks of tags are scored as they are.
        tune_threshold: choose the threshold of a classifier on these data and keep it in the model's folder, see
            `tune_thresholds`; the scores are those of the new decisions.
    Raises: DataError, CheckpointError, TokenizerError, ConfigurationError: with one line.
    """
    with folder_to_tune(model) if tune_threshold else nullcontext():
        tuned = load_fine_tuned(model, (task,))
        given = {name: column for name, column in (columns or {}).items() if column}
        examples, chosen = _examples(tuned, data, given, skip_broken)
        answers, cut = _answers(tuned, examples)
        before: dict[str, float] = {}
        if tune_threshold:
            better = tune_thresholds(tuned, examples, answers)
            tuned, answers, before = better.model, better.answers, better.scores_before
    settings = {"model": tuned.source, "data": list(data), "precision": "float32"}
    settings |= score_settings(tuned.task, tuned.settings, examples) | {"columns": chosen}
    main_score, scores = tuned.task.main_score, tuned.task.score(examples, answers)
    breakdown, interval = broken_down(tuned.task, examples, answers)
    return Evaluation(
        task,
        settings,
        {"examples": len(examples), "cut_examples": cut},
        scores,
        main_score,
        {main_score: interval} if len(examples) > 1 else {},
        breakdown,
        [answer | {"gold": truth_of(tuned.task, one)} for one, answer in zip(examples, answers, strict=True)],
        before,
    )


def _answers(tuned: FineTuned, examples: Sequence[Example]) -> tuple[list[Answer], int]:
    """The answers to the examples, and how many of these are cut, which is said."""
    answers: list[Answer] = []
    cut = 0
    with Progress(f"evaluate {tuned.settings.task}", "examples", len(examples)) as progress:
        for start in range(0, len(examples), EXAMPLES_PER_ROUND):
            part = examples[start : start + EXAMPLES_PER_ROUND]
            answers += tuned.task.answer(tuned.model, part)
            cut += len({row.example for row in tuned.task.rows(part) if row.is_cut})
            progress.advance(len(part))
    if cut:
        _say_cut(cut, len(examples), tuned)
    return answers, cut


def _say_cut(cut: int, examples: int, tuned: FineTuned) -> None:
    if isinstance(tuned.task, QuestionAnswering):
        say(cut_notice(cut, examples, tuned.task.longest_question_tokens, what="questions"))
    else:
        say(cut_notice(cut, examples, tuned.settings.longest_tokens, tuned.settings.cut))


def _examples(
    tuned: FineTuned, data: Sequence[str], given: dict[str, str], skip_broken: bool
) -> tuple[list[Example], dict[str, str]]:
    """The examples, and the columns that they were read from."""
    task = tuned.settings.task
    own = {name: column for name, column in tuned.settings.columns.items() if column and name != "references"}
    trained = Columns(**({"label_separator": NO_SEPARATOR} | own))
    clean = cleaner_for(tuned.task.tokenizer)
    try:
        with options_called("--"):
            if "separator" not in given and task not in ("tagging", "question-answering"):
                trained = fitting(trained, data)
            columns = replace(trained, **given)
            read = read_examples(task, data, columns, skip_broken=skip_broken, clean=clean, of_other_files=True)
    except MissingColumnError as error:
        if error.role in given:
            raise
        way_out = f"rename the column, or name it with --{error.role}-column"
        raise DataError(f"{error.against_training}; {way_out}") from error
    examples = read.examples
    if isinstance(tuned.task, Tagging):
        scheme = tuned.task.scheme
        form = tag_form_of_further(examples, TagForm(scheme, scheme))
        # With skip_broken, sentences with broken chunks stay: the scorer reads them as published scores do.
        if not skip_broken:
            examples = require_whole_chunks(examples, form.files)
        examples = in_scheme(examples, form)
    if task == "question-answering" and tuned.settings.null_threshold is None:
        examples = answered(examples, "evaluation", "the model gives an answer to every question")
    if task == "classification":
        examples = in_spelling_of(examples, tuned.settings.labels, "evaluation")
        if not tuned.settings.has_many:
            require_single_labels(examples)
    if tuned.settings.labels:
        require_known_labels(examples, tuned.settings.labels, what="evaluation")
    return examples, {name: column for name, column in vars(read.columns).items() if column not in ("", NO_SEPARATOR)}
