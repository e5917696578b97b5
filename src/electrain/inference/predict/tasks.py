"""Applies a fine-tuned model to texts, and turns texts into vectors."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from electrain.data.labelled.columns import (
    Columns,
    MissingColumnError,
    say_unread,
    second_texts,
)
from electrain.data.labelled.conll import COLUMN_FORMATS
from electrain.data.labelled.examples import (
    PairedExample,
    QuestionExample,
    TaggedExample,
    TaskName,
    TextExample,
    is_blank,
)
from electrain.data.labelled.reading import Example, ReadExamples, fitting, read_examples
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.options import options_called
from electrain.data.text.text_files import shown_value
from electrain.data.text.words import split_words
from electrain.data.tokenizer.plain_text import cleaner_for, encode_plain
from electrain.data.tokenizer.tokenizer import frame_ids, is_of_sequences
from electrain.data.tokenizer.unknown import unknown_id
from electrain.data.tokenizer.windows import chunks_of
from electrain.finetuning.tasks.long_texts import Cut, cut_notice
from electrain.finetuning.tasks.settings import FineTuned
from electrain.finetuning.tasks.task import BATCH_TOKENS, Row, encoder_arrays, inference_batches
from electrain.finetuning.tasks.task import Answer as Record
from electrain.foundation.errors import DataError
from electrain.foundation.progress import say
from electrain.inference.answers import Answer, Embedding, answer_of
from electrain.inference.asked import TASK_OF_VERB, Input
from electrain.inference.network import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# What may stand before a question in a line of fields, and is none: a number, or an identifier with a digit.
_IDENTIFIER = re.compile(r"[\w.:#-]*\d[\w.:#-]*", re.ASCII)
NO_COLUMNS = Columns()


def predict_task(tuned: FineTuned, inputs: Iterable[Input], given: Columns = NO_COLUMNS) -> Iterator[Answer]:
    """For each input, in order, the model's answer.

    Args:
        inputs: texts, in which a tab separates the two texts of a pair and a question from its context; or JSON
            objects with the columns of the training examples, or with text and pair, question and context, or words.
        given: the columns of JSON objects that the user named. Without them, the first object decides: only where it
            lacks the columns of the training examples, the others are read, and stderr says so.
    Yields: what the task's `answer` method returns, typed; a blank answer for a blank line or an empty text.
    Raises: DataError: an input lacks what the task reads.
    """
    yield from _answers(tuned, _examples_of(tuned, inputs, given))


def _examples_of(tuned: FineTuned, inputs: Iterable[Input], given: Columns) -> Iterator[list[Example]]:
    """The inputs as examples, in chunks, as `predict_task` reads them."""
    task, own = tuned.settings.task, _columns_of(tuned)
    trained = fields = (given.text or own.text, given.pair or own.pair)
    are_known = bool(given.text)
    for chunk in chunks_of(inputs):
        # The first object decides for all, so that one that lacks a field is not answered from another.
        first = None if are_known else next((one for one in chunk if not isinstance(one.given, str)), None)
        if first is not None:
            fields, are_known = _fields(task, first, trained), True
        for one in chunk:
            if given.text and not isinstance(one.given, str) and given.text not in one.given:
                has = ", ".join(one.given) or "nothing"
                raise DataError(f'{one.where}: there is no field "{given.text}" for --text-column; it has {has}')
        examples = [_example(task, one, tuned, fields) for one in chunk]
        if first is not None and trained[0] and fields != trained:
            found = f"there is no {trained[0]}, which the model was trained on; {fields[0]} is read instead"
            say(f"{first.where}: {found}")
        if first is not None and isinstance(examples[0], TextExample) and own.text and not own.pair:
            say_unread(first.where, fields[0], second_texts(name for name in first.given if name != fields[0]))
        yield examples


def predict_examples(tuned: FineTuned, sources: Sequence[str], given: Columns = NO_COLUMNS) -> Iterator[Answer]:
    """For each example of files of labelled examples, in order, the model's answer; labels are not read.

    Args: given: the columns that the user named. Without them, those of the training examples are read; only where
        these do not exist, the columns with the usual names, and stderr says so.
    Yields: as `predict_task`; a blank answer where a cell that the model reads is empty.
    Raises: DataError: a file cannot be read; it has one text where the model reads pairs, or two where it reads one.
    """
    with options_called("--"):
        read = _read(tuned.settings.task, sources, tuned, given)
    yield from _answers(tuned, chunks_of(read.examples))


def _read(task: TaskName, sources: Sequence[str], tuned: FineTuned, given: Columns) -> ReadExamples:
    own, where, are_own = _columns_of(tuned), ", ".join(sources), True
    if not given.separator and task not in ("tagging", "question-answering"):
        own = fitting(own, sources)
    clean = cleaner_for(tuned.task.tokenizer)
    # The column of the tags tells whether a file in numbered columns has the shape of the training files.
    label = "" if given.text else tuned.settings.columns.get("label", "")
    wanted = replace(own, label=label, **{name: value for name, value in vars(given).items() if value})
    try:
        read = read_examples(task, sources, wanted, with_targets=False, clean=clean)
    except MissingColumnError as error:
        if (given.text or given.pair) and not getattr(given, error.role):
            raise DataError(f"{error.against_training}; name it with --{error.role}-column") from error
        if given.text or given.pair:
            raise
        read = read_examples(task, sources, replace(wanted, text="", pair=""), with_targets=False, clean=clean)
        are_own = False
    if isinstance(read.examples[0], TextExample) and own.text:
        if own.pair and not read.columns.pair:
            raise DataError(
                f"{where}: the model reads pairs ({own.text} and {own.pair}), and only the texts in "
                f"{read.columns.text} are given; name both with --text-column and --pair-column"
            )
        if read.columns.pair and not own.pair:
            found = f"{read.columns.text} or {read.columns.pair}"
            raise DataError(f"{where}: the model reads one text; choose {found} with --text-column")
    # Columns of words and SQuAD's JSON have no names of their own to be surprised by.
    has_names = any(uncompressed_suffix(Path(source)) not in (*COLUMN_FORMATS, ".json") for source in sources)
    if has_names and not are_own:
        trained, found = (" and ".join(filter(None, (one.text, one.pair))) for one in (own, read.columns))
        say(f"{where}: there is no {trained}, which the model was trained on; {found} is read instead")
    return read


def _columns_of(tuned: FineTuned) -> Columns:
    """The columns of the texts that the model was trained on; none where its folder does not say."""
    kept = ("text", "pair", "separator", "quoting")
    return Columns(**{name: column for name, column in tuned.settings.columns.items() if name in kept})


def _answers(tuned: FineTuned, chunks: Iterable[Sequence[Example]]) -> Iterator[Answer]:
    """The answers to chunks of examples."""
    verb = next(verb for verb, task in TASK_OF_VERB.items() if task == tuned.settings.task)
    with _saying_what_is_lost(tuned.settings.longest_tokens, tuned.settings.cut) as lost:
        for examples in chunks:
            answers = _answers_to_texts(tuned, [example for example in examples if not is_blank(example)], lost)
            for example in examples:
                yield answer_of(verb, {"text": ""} if is_blank(example) else next(answers))


def _answers_to_texts(tuned: FineTuned, examples: Sequence[Example], lost: Counter[str]) -> Iterator[Record]:
    """The answers to some examples, after counting the texts that are too long to be read whole, or have no word."""
    # Taggers and question answering read all of a text in windows; the other tasks read its beginning.
    if examples and tuned.settings.task not in ("tagging", "question-answering"):
        _count(lost, tuned.tokenizer, ((row.example, row.input_ids, row.is_cut) for row in tuned.task.rows(examples)))
    yield from tuned.task.answer(tuned.model, examples) if examples else []


def _count(
    lost: Counter[str], tokenizer: "PreTrainedTokenizerFast", rows: Iterable[tuple[int, Sequence[int], bool]]
) -> None:
    """Counts texts, those that are cut, and those of which every word is [UNK].

    Args: rows: for each row the number of its text, its token ids, and whether the text is cut.
    """
    own = unknown_id(tokenizer)
    silent = {own, *frame_ids(tokenizer)}
    cut: dict[int, bool] = {}
    unknown: dict[int, bool] = {}
    for number, ids, is_cut in rows:
        cut[number] = is_cut
        unknown[number] = unknown.get(number, own is not None) and own in ids and silent.issuperset(ids)
    lost.update(texts=len(cut), cut=sum(cut.values()), unknown=sum(unknown.values()))


def _fields(task: TaskName, first: Input, trained: tuple[str, str]) -> tuple[str, str]:
    """The fields of the two texts in JSON objects that begin with `first`, for a model trained on these columns."""
    usual = ("question", "context") if task == "question-answering" else ("text", "pair")
    is_trained = trained[0] in first.given or (trained[0] and usual[0] not in first.given)
    return trained if is_trained or task == "tagging" else usual


def _example(task: TaskName, one: Input, tuned: FineTuned, fields: tuple[str, str]) -> Example:
    own, clean = _columns_of(tuned), cleaner_for(tuned.task.tokenizer)
    if isinstance(one.given, str) and not one.given.strip():
        return TextExample("", source=one.where)
    if task == "tagging":
        return TaggedExample(tuple(_words(one, fields[0] or "words", tuned.task.tokenizer)), source=one.where)
    if task == "question-answering":
        question, context = _two(one, fields, needs_both=True)
        if isinstance(one.given, str) and "\t" in context and _IDENTIFIER.fullmatch(question.strip()):
            message = f"'{question[:40]}' stands before the first tab, where the question is read; leave it out"
            raise DataError(f"{one.where}: {message}")
        identifier = None if isinstance(one.given, str) else one.given.get("id")
        return QuestionExample(str(identifier or one.number), clean(question), context, source=one.where)
    # A folder that electrain did not write does not say whether the model was trained on pairs.
    takes_pair, may_take_pair = bool(own.pair), not own.text
    first, second = _two(one, fields, needs_both=takes_pair)
    if takes_pair and isinstance(one.given, str) and "\t" in second.rstrip():
        count = len(one.given.rstrip().split("\t"))
        raise DataError(f"{one.where}: {count} fields, but the model reads pairs; write one tab, between the two texts")
    if task in ("summarization", "translation"):
        return PairedExample(clean(first), source=one.where)
    has_pair = takes_pair or (may_take_pair and bool(second))
    return TextExample(clean(first), clean(second) if has_pair else None, source=one.where)


def _words(one: Input, column: str, tokenizer: "PreTrainedTokenizerFast") -> list[str]:
    if isinstance(one.given, str):
        return _words_for(tokenizer, one.given)
    words, text = one.given.get(column, one.given.get("words")), one.given.get("text")
    if isinstance(words, list) and (words or not isinstance(text, str)):
        return [str(word) for word in words]
    if isinstance(text, str):
        return _words_for(tokenizer, text)
    found = next((name for name in (column, "words", "text") if name in one.given), None)
    if found is not None:
        what = "no list of words" if found != "text" else "no text"
        way_out = 'write a list into "words", or a text into "text"'
        raise DataError(f'{one.where}: "{found}" holds {shown_value(one.given[found])}, {what}; {way_out}')
    has = ", ".join(one.given) or "nothing"
    raise DataError(f'{one.where}: has no list "{column}" and no text; it has {has}; name a list with --text-column')


def _two(one: Input, fields: tuple[str, str], *, needs_both: bool) -> tuple[str, str]:
    """The two texts of an input; the second is empty where only one is needed."""
    given = one.given
    if isinstance(given, str):
        first, tab, second = given.partition("\t")
        if needs_both and not tab:
            shown = " and ".join(filter(None, fields)) or "two texts"
            raise DataError(f"{one.where} ('{given[:40]}'): the model reads pairs ({shown}); write a tab between them")
        return (first, second) if needs_both else (given, "")
    text_name, pair_name = fields
    text, pair = given.get(text_name), given.get(pair_name)
    for name, value in ((text_name, text), (pair_name, pair)) if needs_both else ((text_name, text),):
        if name in given and not isinstance(value, str | None):
            raise DataError(f'{one.where}: "{name}" holds {shown_value(value)}, not a text; fix or remove this line')
        if name not in given:
            reads = f'the model reads pairs, but there is no field "{name}"' if needs_both else f'has no field "{name}"'
            raise DataError(f"{one.where}: {reads} with a text; it has {', '.join(given) or 'nothing'}")
    return str(text or ""), pair if isinstance(pair, str) else ""


def _words_for(tokenizer: "PreTrainedTokenizerFast", text: str) -> list[str]:
    """The words of a text; for a tokenizer of characters or k-mers, these are its words."""
    backend = tokenizer.backend_tokenizer
    if not is_of_sequences(backend):
        return split_words(text)
    pieces = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))
    return [piece for piece, _ in pieces]


@contextmanager
def _saying_what_is_lost(longest: int, cut: Cut = "beginning") -> Iterator[Counter[str]]:
    """Counts texts as `_count` does; in the end, stderr has one line for each kind of loss, however many it met."""
    lost: Counter[str] = Counter()
    try:
        yield lost
    finally:
        if lost["cut"]:
            say(cut_notice(lost["cut"], lost["texts"], longest, cut))
        if lost["unknown"]:
            say(
                f"warning: {lost['unknown']:,} of {lost['texts']:,} texts hold no word of the model's vocabulary, only "
                "[UNK]; their answers say nothing of them"
            )


def predict_embed(encoder: TextEncoder, texts: Iterable[str], batch_tokens: int = BATCH_TOKENS) -> Iterator[Embedding]:
    """For each text, in order, the mean of the encoder's last hidden states over its tokens.

    [CLS] and [SEP] count as tokens and padding does not, as in the mean pooling of sentence-transformers, so that
    both give the same vectors. A text longer than the model's rows is cut, and stderr says so.
    """
    with _saying_what_is_lost(encoder.longest_row) as lost:
        for chunk in chunks_of(texts):
            filled = [text for text in chunk if text.strip()]
            vectors = iter(mean_states(encoder, filled, lost, batch_tokens) if filled else [])
            for text in chunk:
                yield Embedding(text, tuple(next(vectors))) if text.strip() else Embedding("")


def mean_states(
    encoder: TextEncoder, texts: Sequence[str], lost: Counter[str], batch_tokens: int = BATCH_TOKENS
) -> list[list[float]]:
    """For each text the mean of the last hidden states over its tokens, as in `predict_embed`.

    Args: lost: counts texts that are longer than a row, or hold no word, as `_count` does.
    """
    tokenizer, longest = encoder.tokenizer, encoder.longest_row
    encoded = encode_plain(tokenizer, list(map(cleaner_for(tokenizer), texts)), truncation=True, max_length=longest)
    rows = [Row(number, ids, [0] * len(ids)) for number, ids in enumerate(encoded["input_ids"])]
    cut = [bool(encoding.overflowing) for encoding in encoded.encodings or []]
    _count(lost, tokenizer, ((row.example, row.input_ids, one) for row, one in zip(rows, cut, strict=True)))
    vectors: list[list[float]] = [[] for _ in texts]
    for batch in inference_batches(rows, batch_tokens):
        inputs = encoder_arrays(batch, tokenizer.pad_token_id, with_token_types=encoder.with_token_types)
        means = encoder.means(inputs)
        for row, vector in zip(batch, means.tolist(), strict=True):
            vectors[row.example] = vector
    return vectors
