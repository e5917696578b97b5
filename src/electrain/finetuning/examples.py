"""What a fine-tuning run reads: examples, and the task set up for them."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np

from electrain.data.labelled import checks
from electrain.data.labelled.checks import (
    TagForm,
    in_scheme,
    require_whole_chunks,
    scheme_of_examples,
    tag_form_of_further,
)
from electrain.data.labelled.columns import Columns, MissingColumnError
from electrain.data.labelled.examples import QuestionExample, TaggedExample, TaskName
from electrain.data.labelled.label_spelling import lookalikes
from electrain.data.labelled.labels import NO_SEPARATOR, in_spelling_of
from electrain.data.labelled.reading import Clean, read_examples
from electrain.data.labelled.tag_schemes import ALIASES, OUTSIDE, PLAIN, SchemeName, every_tag, is_chunk_tag
from electrain.data.shards.row_hashes import permuted
from electrain.data.text.cleaning import clean_text
from electrain.finetuning.configuration import WRITING_TASKS, ExamplesConfig, FinetuneConfig
from electrain.finetuning.tasks.settings import TaskSettings
from electrain.foundation.errors import ConfigurationError, DataError
from electrain.foundation.progress import counted, say

E = TypeVar("E")
_WHOLE_NUMBER = re.compile("-?[0-9]+")


@dataclass(frozen=True)
class Examples:
    """The examples of a run; only the drawn ones where a number of examples is configured."""

    train: list[Any]
    validation: list[Any]
    labels: tuple[str, ...]  # of all training examples, drawn or not, in the order of the logits; empty without labels
    has_many: bool  # True where a training example, drawn or not, has several labels or none, or may have them
    columns: Columns  # that were read
    tag_scheme: Literal["", SchemeName] = ""  # of the tags in both sets; "" for other tasks
    has_unanswered: bool = False  # True where the context of a training question, drawn or not, has no answer


def read_all(
    task: TaskName,
    data: ExamplesConfig,
    train: Sequence[str],
    validation: Sequence[str],
    seed: int,
    *,
    clean: Clean = clean_text,
) -> Examples:
    """Reads and checks both sets, and draws from them.

    Raises: DataError: a row that cannot be used, with its file and line. ConfigurationError: see `drawn`.
    """
    quoting = "" if data.quoting == "auto" else data.quoting
    named = (data.text_column, data.pair_column, data.label_column)
    wanted = Columns(*named, label_separator=data.label_separator, separator=data.separator, quoting=quoting)
    read = read_examples(task, train, wanted, skip_broken=data.skip_broken, clean=clean)
    read.say_rivals()
    labels: tuple[str, ...] = ()
    # Only scoring needs further references, so training files may lack them.
    same = dataclasses.replace(
        read.columns,
        references=data.references_column,
        label_separator=read.columns.label_separator or NO_SEPARATOR,
    )
    try:
        held_out = read_examples(task, validation, same, skip_broken=data.skip_broken, clean=clean)
    except MissingColumnError as error:
        if error.role == "references":
            raise
        raise DataError(f"{error.against_training}; rename the column as in the training data") from error
    kept, known, has_many = read.examples, held_out.examples, False
    form = TagForm(PLAIN, PLAIN)
    if task == "tagging":
        form = _tag_form(data, kept)
        kept = in_scheme(require_whole_chunks(kept, form.files, skip_broken=data.skip_broken), form)
        _say_tag_form(data, form, read.examples)
        _say_lookalikes(kept)
        own = tag_form_of_further(known, form)
        known = in_scheme(require_whole_chunks(known, own.files, skip_broken=data.skip_broken), own)
    if task in ("classification", "tagging"):
        checks.require_several_labels(kept)
        labels = _ordered(label for example in kept for label in checks.labels_of(example))
    if task == "classification":
        is_joined = read.columns.label_separator not in ("", NO_SEPARATOR)
        has_many = is_joined or read.has_label_columns or any(len(example.labels) != 1 for example in kept)
        if not has_many:
            checks.require_single_labels(known)
        known = in_spelling_of(known, labels, "validation")
    if task in ("classification", "tagging"):
        if form.files != form.model and data.train_tag_scheme != "as-read":
            # The training data may lack a tag that the conversion makes of a validation tag.
            labels = _ordered(every_tag({label[2:] for label in labels if label != OUTSIDE}, form.model))
        checks.require_known_labels(known, labels)
    has_unanswered = task == "question-answering" and not all(example.answers for example in kept)
    if task == "question-answering":
        known = _questions_to_score(kept, known)
    # Drawn last: a small part of a data set may lack some labels, or have one label each where the whole has several.
    kept = drawn(kept, data.train_examples, seed, "training")
    known = drawn(known, data.validation_examples, 0, "validation")
    scheme: Literal["", SchemeName] = form.model if task == "tagging" else ""
    return Examples(kept, known, labels, has_many, read.columns, scheme, has_unanswered)


def _questions_to_score(kept: Sequence[QuestionExample], known: list[QuestionExample]) -> list[QuestionExample]:
    """The validation questions: without those that have no answer if every training question has one.

    Says what becomes of questions without an answer.

    Raises: DataError: no training question has an answer, or no validation question that may have none.
    """
    unanswered = sum(not example.answers for example in kept)
    if not unanswered:
        return checks.answered(known, "validation", "every training question has one")
    if unanswered == len(kept):
        raise DataError(f"{kept[0].source}: no training question has an answer; give some that have")
    have = "has" if unanswered == 1 else "have"
    of_all = f"{unanswered:,} of {counted(len(kept), 'training question')}"
    say(f"{of_all} {have} no answer: the model learns to give none")
    if all(example.answers for example in known) or not any(example.answers for example in known):
        say(
            "the threshold for giving no answer is chosen on the validation questions, which are all of one kind; give "
            "some with an answer and some without"
        )
    return known


def _tag_form(data: ExamplesConfig, train: Sequence[TaggedExample]) -> TagForm:
    """The scheme of the tags in the files, and that to train on.

    Raises: ConfigurationError: tags that mark no chunks cannot be converted. DataError: they mark some in an odd way.
    """
    named, wanted = (ALIASES.get(name, name) for name in (data.tag_scheme, data.train_tag_scheme))
    files = scheme_of_examples(train) if named == "auto" else cast(SchemeName, named)
    if files == PLAIN and named == "auto":
        checks.require_no_odd_spelling(train)
    if wanted == "as-read":
        model: SchemeName = "bio" if files == "iob1" and named == "auto" else files
    elif files == PLAIN:
        raise ConfigurationError(f"--data.train-tag-scheme {wanted}: the tags mark no chunks; leave it out")
    else:
        model = cast(SchemeName, wanted)
    return TagForm(files, model)


def _say_tag_form(data: ExamplesConfig, form: TagForm, train: Sequence[TaggedExample]) -> None:
    """Says which scheme was found out, unless it is BIO."""
    if data.tag_scheme != "auto":
        return
    where, files = train[0].source.rpartition(":")[0], form.files
    if all(map(_WHOLE_NUMBER.fullmatch, {tag for one in train for tag in one.tags})):
        say(f"{where}: the tags are numbers, so words are scored, not entities; give tags as names, such as B-PER")
    elif files == PLAIN and any(is_chunk_tag(tag) for one in train for tag in one.tags):
        say(f"{where}: most tags are of no scheme such as BIO, so words are scored, not entities")
    elif files not in ("bio", PLAIN):
        does = "their entities are scored" if files == form.model else f"are read as {form.model.upper()}"
        say(f"{where}: the tags are {files.upper()} and {does}")


def _say_lookalikes(train: Sequence[TaggedExample]) -> None:
    """Names tags, or kinds of chunks, that differ only in capitals or the like."""
    counts = Counter(tag[2:] if is_chunk_tag(tag) else tag for one in train for tag in one.tags)
    if alike := lookalikes(counts):
        say(f"{train[0].source.rpartition(':')[0]}: tags that look alike stay different: {alike}")


def drawn(examples: list[E], count: int, seed: int, what: str) -> list[E]:
    """`count` of the examples, chosen by the seed and kept in their order; all of them for 0.

    Raises: ConfigurationError: there are fewer.
    """
    if not count:
        return examples
    if count > len(examples):
        raise ConfigurationError(
            f"--data.{what.removesuffix('ing')}-examples {count:,}: the data has only "
            f"{counted(len(examples), f'{what} example')}; ask for fewer"
        )
    chosen = permuted(seed, "examples", np.arange(count), len(examples))
    return [examples[number] for number in sorted(chosen.tolist())]


def _ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Each label once: sorted by value where all are whole numbers, otherwise by name with O first."""
    different = set(labels)
    if all(_WHOLE_NUMBER.fullmatch(label) for label in different):
        return tuple(sorted(different, key=int))
    return tuple(sorted(different, key=lambda label: (label != "O", label)))


def settings_for(task: TaskName, config: FinetuneConfig, examples: Examples, longest_row: int) -> TaskSettings:
    """The task's settings, from the configuration and from the examples; says so when rows must be shorter.

    Args: longest_row: the most tokens that the model takes.
    """
    longest = min(config.data.longest_tokens, longest_row)
    if longest < config.data.longest_tokens:
        say(f"rows have at most {longest} tokens, as many as the model takes")
    writes = task in WRITING_TASKS
    return TaskSettings(
        task,
        examples.labels,
        examples.has_many,
        columns=dataclasses.asdict(examples.columns),
        longest_tokens=longest,
        cut=config.data.cut if task in ("classification", "regression") else "beginning",
        longest_answer_tokens=config.data.longest_answer_tokens,
        window_overlap_tokens=min(config.data.window_overlap_tokens, longest // 3),
        generation=dataclasses.asdict(config.generation) if writes else {},
        label_smoothing=config.training.label_smoothing if writes else 0.0,
        null_threshold=0.0 if examples.has_unanswered else None,  # until the first validation
        class_weights=_class_weights(task, config, examples),
        tag_scheme=examples.tag_scheme,
    )


def _class_weights(task: TaskName, config: FinetuneConfig, examples: Examples) -> tuple[float, ...]:
    """The weight of each label in the loss; () where all weigh 1, and for tasks without labels.

    Balanced weights have the mean 1 over the training examples, so that the learning rate keeps its meaning. A label
    that none of the drawn examples has weighs 0.

    Raises: ConfigurationError: a text may have several labels.
    Source: King and Zeng 2001, as scikit-learn's compute_class_weight has it.
    """
    if config.training.class_weights == "none" or task not in ("classification", "tagging"):
        return ()
    if examples.has_many:
        raise ConfigurationError(
            '[training] class_weights = "balanced": is for one label each, and these texts have several or none; '
            "leave it out"
        )
    counts = Counter(label for example in examples.train for label in checks.labels_of(example))
    return tuple(counts.total() / (len(counts) * counts[label]) if counts[label] else 0.0 for label in examples.labels)
