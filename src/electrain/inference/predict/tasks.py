"""What a fine-tuned model says of texts: labels, numbers, tags, answers, summaries, translations; and vectors."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from electrain.data.labelled.columns import Columns
from electrain.data.labelled.examples import PairedExample, QuestionExample, TaggedExample, TaskName, TextExample
from electrain.data.labelled.reading import read_examples
from electrain.data.text.cleaning import clean_text
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.text_files import parse_object
from electrain.data.tokenizer.plain_text import encode_plain
from electrain.data.tokenizer.windows import chunks_of
from electrain.finetune.model import open_pretrained
from electrain.finetune.tasks.task import Row, encoder_inputs, inference_batches
from electrain.finetune.tasks.task_folder import FineTuned, load_fine_tuned, takes_token_types
from electrain.foundation.errors import DataError
from electrain.foundation.progress import say
from electrain.models.folders import is_of_a_pooler, weights_of
from electrain.pretrain.run_folder import RunFolder, open_run_folder
from electrain.training.runtime import device_of

TASK_OF_VERB: dict[str, TaskName] = {
    "classify": "classification",
    "regress": "regression",
    "tag": "tagging",
    "answer": "question-answering",
    "summarize": "summarization",
    "translate": "translation",
}
# Files that hold examples rather than lines of text.
_TABLES = (".tsv", ".csv", ".parquet", ".arrow", ".conll", ".bio", ".iob", ".json")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?|\S")
_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Input:
    """One thing to ask about.

    Attributes:
        given: a text, or a JSON object.
        number: from 1.
        where: for messages.
    """

    given: str | dict[str, Any]
    number: int
    where: str


def predict_task(
    verb: str, model: Path | str | FineTuned, inputs: Iterable[Input], *, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """For each input, in order, what the model says of it.

    Args:
        verb: a key of `TASK_OF_VERB`.
        inputs: with what was given: texts, with a tab between the two of a pair or between question and context; or
            JSON objects with the columns of the training examples, or text and pair, question and context, words.
    Yields: see the `answer` methods of the tasks; of a blank line {"text": ""} alone.
    Raises: DataError: an input that is not what the task takes. CheckpointError: see `load_fine_tuned`.
    """
    task = TASK_OF_VERB[verb]
    tuned = model if isinstance(model, FineTuned) else load_fine_tuned(model, (task,), device=device)
    for chunk in chunks_of(inputs):
        is_blank = [isinstance(one.given, str) and not one.given.strip() for one in chunk]
        examples = [_example(task, one, tuned) for one, blank in zip(chunk, is_blank, strict=True) if not blank]
        _say_what_is_cut(tuned, examples)
        answers = iter(tuned.task.answer(tuned.model, examples) if examples else [])
        for blank in is_blank:
            yield {"text": ""} if blank else next(answers)


def predict_examples(
    verb: str, model: Path | str, sources: Sequence[str], *, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """The same for a file of examples (.tsv, .csv, .parquet, CoNLL, SQuAD), read as in fine-tuning, without labels.

    Where it lacks the columns of the training examples, those of the usual names are read.
    """
    task = TASK_OF_VERB[verb]
    tuned = load_fine_tuned(model, (task,), device=device)
    own = Columns(tuned.settings.columns.get("text", ""), tuned.settings.columns.get("pair", ""))
    try:
        read = read_examples(task, sources, own, with_targets=False)
    except DataError:
        if own == Columns():
            raise
        read = read_examples(task, sources, Columns(), with_targets=False)
    for examples in chunks_of(read.examples):
        _say_what_is_cut(tuned, examples)
        yield from tuned.task.answer(tuned.model, examples)


def holds_examples(path: Path | None) -> bool:
    """Whether an input file is a table rather than lines of text or JSON."""
    return path is not None and uncompressed_suffix(path) in _TABLES


def _example(task: TaskName, one: Input, tuned: FineTuned) -> Any:
    own = tuned.settings.columns
    if task == "tagging":
        return TaggedExample(tuple(_words(one, own.get("text") or "words")), source=one.where)
    if task == "question-answering":
        question, context = _two(one, [(own.get("text"), own.get("pair")), ("question", "context")], needs_both=True)
        identifier = one.given.get("id") if isinstance(one.given, dict) else None
        return QuestionExample(str(identifier or one.number), clean_text(question), context, source=one.where)
    # A folder that electrain did not make does not say whether it takes pairs.
    takes_pair, may_take_pair = bool(own.get("pair")), not own
    first, second = _two(one, [(own.get("text"), own.get("pair")), ("text", "pair")], needs_both=takes_pair)
    if task in ("summarization", "translation"):
        return PairedExample(clean_text(first), source=one.where)
    has_pair = takes_pair or (may_take_pair and bool(second))
    return TextExample(clean_text(first), clean_text(second) if has_pair else None, source=one.where)


def _words(one: Input, column: str) -> list[str]:
    if isinstance(one.given, str):
        return split_words(one.given)
    words = one.given.get(column, one.given.get("words"))
    if isinstance(words, list) and words:
        return [str(word) for word in words]
    if isinstance(one.given.get("text"), str):
        return split_words(one.given["text"])
    raise DataError(f'{one.where}: has no list "{column}" and no text; it has {", ".join(one.given) or "nothing"}')


def _two(one: Input, names: Sequence[tuple[str | None, str | None]], *, needs_both: bool) -> tuple[str, str]:
    """The two texts of an input; the second may be empty unless both are needed.

    Args: names: pairs of fields; the first pair whose first field is there is read.
    """
    given = one.given
    if isinstance(given, str):
        first, tab, second = given.partition("\t")
        if needs_both and not tab:
            shown = " and ".join(str(name) for name in next(pair for pair in names if pair[0]))
            raise DataError(f"{one.where} ('{given[:40]}'): needs {shown}; write a tab between them")
        return (first, second) if needs_both else (given, "")
    text_name, pair_name = next((pair for pair in names if pair[0] in given), names[-1])
    for name in (text_name, pair_name) if needs_both else (text_name,):
        if not isinstance(given.get(str(name)), str):
            raise DataError(f'{one.where}: has no field "{name}" with a text; it has {", ".join(given) or "nothing"}')
    pair = given.get(str(pair_name))
    return given[str(text_name)], pair if isinstance(pair, str) else ""


def split_words(text: str) -> list[str]:
    """Words and marks as tagged corpora have them: punctuation apart, each Chinese character apart."""
    words: list[str] = []
    for found in _WORD.findall(clean_text(text)):
        characters = list(found)
        if any(_is_ideograph(character) for character in characters):
            words += re.findall(r"[\u2e80-\u9fff\uf900-\ufaff]|[^\u2e80-\u9fff\uf900-\ufaff]+", found)
        else:
            words.append(found)
    return words


def _is_ideograph(character: str) -> bool:
    return "CJK" in unicodedata.name(character, "")


def _say_what_is_cut(tuned: FineTuned, examples: Sequence[Any]) -> None:
    """Classification, regression, summaries and translations read a text's beginning; the others take windows."""
    if tuned.settings.task in ("tagging", "question-answering"):
        return
    _say_cut([row.is_cut for row in tuned.task.rows(examples)], tuned.settings.longest_tokens)


def _say_cut(is_cut: Sequence[bool], longest: int) -> None:
    if any(is_cut):
        say(f"{sum(is_cut)} of {len(is_cut)} texts are longer than {longest} tokens: only their beginnings were read")


def read_inputs(lines: Iterable[str], path: Path | None) -> Iterator[Input]:
    """The lines of an input; those of a .jsonl file as objects. Raises: DataError: a line is no JSON object."""
    is_jsonl = path is not None and uncompressed_suffix(path) == ".jsonl"
    for number, line in enumerate(lines, start=1):
        where = f"input {number}" if path is None else f"{path}:{number}"
        yield Input(parse_object(line, where, "text") if is_jsonl and line.strip() else line, number, where)


@torch.inference_mode()
def predict_embed(
    model: Path | str | RunFolder, texts: Iterable[str], *, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """For each text, in order, the mean of the encoder's last hidden states over its tokens.

    [CLS] and [SEP] count as tokens and padding does not, as in the mean pooling of sentence-transformers, so that
    both give the same vectors. A text longer than the tokenizer allows is cut, and stderr says so.

    Yields: {"text", "embedding": [hidden_size numbers]}.
    Raises: CheckpointError: not an encoder.
    """
    from transformers import AutoModel

    run = open_run_folder(model)
    opened = open_pretrained(run)
    network = weights_of(
        opened.source, AutoModel, "encoder", configuration=opened.configuration, may_be_new=is_of_a_pooler
    ).eval()
    network = network.to(device or device_of())
    # Older runs have a tokenizer that allows more than was trained.
    lengths = (opened.longest_row, opened.tokenizer.model_max_length, run.trained_length or opened.longest_row)
    answer = _embedder(network, opened.tokenizer, min(lengths))
    for chunk in chunks_of(texts):
        for text, vector in zip(chunk, answer(chunk), strict=True):
            yield {"text": text, "embedding": vector}


def _embedder(network: Any, tokenizer: Any, longest: int) -> Callable[[Sequence[str]], list[list[float]]]:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        encoded = encode_plain(tokenizer, list(map(clean_text, texts)), truncation=True, max_length=longest)
        _say_cut([bool(encoding.overflowing) for encoding in encoded.encodings], longest)
        rows = [Row(number, ids, [0] * len(ids)) for number, ids in enumerate(encoded["input_ids"])]
        vectors: list[list[float]] = [[] for _ in texts]
        for batch in inference_batches(rows, _BATCH_TOKENS):
            inputs = encoder_inputs(batch, tokenizer.pad_token_id, with_token_types=takes_token_types(network))
            inputs = {name: None if value is None else value.to(network.device) for name, value in inputs.items()}
            states = network(**inputs)[0].float()
            lengths = torch.tensor([[len(row.input_ids)] for row in batch], device=states.device)
            is_real = torch.arange(states.shape[1], device=states.device) < lengths
            means = (states * is_real.unsqueeze(-1)).sum(1) / lengths
            for row, vector in zip(batch, means.tolist(), strict=True):
                vectors[row.example] = vector
        return vectors

    return embed
