"""What a fine-tuned model says of texts: labels, numbers, tags, answers, summaries, translations; and vectors."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from electrain.data.cleaning import clean_text
from electrain.data.compression import uncompressed_suffix
from electrain.errors import DataError
from electrain.fine_tuned import FineTuned, load_fine_tuned
from electrain.finetune_model import open_pretrained
from electrain.loading import one_line
from electrain.predict_windows import chunks_of
from electrain.tasks.examples import Columns, read_examples
from electrain.tasks.task import (
    PairedExample,
    QuestionExample,
    Row,
    TaggedExample,
    TaskName,
    TextExample,
    encoder_inputs,
    inference_batches,
    was_cut,
)
from electrain.tasks.task_folder import takes_token_types
from electrain.training.journal import say

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


def predict_task(
    verb: str, model: Path | str | FineTuned, inputs: Iterable[str | dict[str, Any]], *, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """For each input, in order, what the model says of it.

    Args:
        verb: a key of `TASK_OF_VERB`.
        inputs: texts, with a tab between the two of a pair or between question and context; or JSON objects with the
            fields text and pair, question and context, or words.
    Yields: see the `answer` methods of the tasks.
    Raises: DataError: an input that is not what the task takes. CheckpointError: see `load_fine_tuned`.
    """
    task = TASK_OF_VERB[verb]
    tuned = model if isinstance(model, FineTuned) else load_fine_tuned(model, (task,), device=device)
    number = 0
    for chunk in chunks_of(inputs):
        examples = []
        for one in chunk:
            number += 1
            examples.append(_example(task, one, number, tuned))
        _say_what_is_cut(tuned, examples)
        yield from tuned.task.answer(tuned.model, examples)


def predict_examples(
    verb: str, model: Path | str, sources: Sequence[str], *, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """The same for a file of examples (.tsv, .csv, .parquet, CoNLL, SQuAD), read as in fine-tuning, without labels."""
    task = TASK_OF_VERB[verb]
    tuned = load_fine_tuned(model, (task,), device=device)
    own = {name: column for name, column in tuned.settings.columns.items() if name in ("text", "pair")}
    for examples in chunks_of(read_examples(task, sources, Columns(**own), with_targets=False).examples):
        _say_what_is_cut(tuned, examples)
        yield from tuned.task.answer(tuned.model, examples)


def holds_examples(path: Path | None) -> bool:
    """Whether an input file is a table rather than lines of text or JSON."""
    return path is not None and uncompressed_suffix(path) in _TABLES


def _example(task: TaskName, given: str | dict[str, Any], number: int, tuned: FineTuned) -> Any:
    where = f"input {number}"
    if task == "question-answering":
        question, context = _two(given, ("question", "context"), where, needs_both=True)
        return QuestionExample(str(number), clean_text(question), context, source=where)
    if task == "tagging":
        if isinstance(given, dict) and "words" in given:
            return TaggedExample(tuple(map(str, given["words"])), source=where)
        return TaggedExample(tuple(split_words(_two(given, ("text", "pair"), where)[0])), source=where)
    own = tuned.settings.columns
    names = (own.get("text") or "text", own.get("pair") or "pair")
    if isinstance(given, dict) and names[0] not in given:
        names = ("text", "pair")
    takes_pair = bool(own.get("pair"))
    first, second = _two(given, names, where, needs_both=takes_pair)
    if task in ("summarization", "translation"):
        return PairedExample(clean_text(first), source=where)
    return TextExample(clean_text(first), clean_text(second) if takes_pair or second else None, source=where)


def _two(
    given: str | dict[str, Any], names: tuple[str, str], where: str, *, needs_both: bool = False
) -> tuple[str, str]:
    """The two texts of an input; the second may be empty unless both are needed."""
    if isinstance(given, dict):
        missing = next((name for name in names[: 1 + needs_both] if not isinstance(given.get(name), str)), None)
        if missing is not None:
            raise DataError(f'{where}: has no field "{missing}" with a text; it has {", ".join(given) or "nothing"}')
        return given[names[0]], given.get(names[1]) or ""
    first, tab, second = given.partition("\t")
    if needs_both and not tab:
        raise DataError(f"{where} ('{given[:40]}'): needs {names[0]} and {names[1]}; write a tab between them")
    return (first, second) if needs_both else (given, "")


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
    is_cut = [was_cut(row) for row in tuned.task.rows(examples)]
    if any(is_cut):
        longest = tuned.settings.longest_tokens
        say(f"{sum(is_cut)} of {len(is_cut)} texts are longer than {longest} tokens: only their beginnings were read")


def read_inputs(lines: Iterable[str], path: Path | None) -> Iterator[str | dict[str, Any]]:
    """The lines of an input; those of a .jsonl file as objects. Raises: DataError: a line is no JSON object."""
    if path is None or uncompressed_suffix(path) != ".jsonl":
        yield from lines
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise DataError(f"{path}:{number}: not a JSON object ({error}); mend or remove this line") from error
        yield record


@torch.inference_mode()
def predict_embed(
    model: Path | str, texts: Iterable[str], *, longest_tokens: int = 512, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """For each text, in order, the mean of the encoder's last states over its tokens, special ones left out.

    Yields: {"text", "embedding": [hidden_size numbers]}; zeros for a text without a token.
    Raises: CheckpointError: not an encoder.
    """
    from transformers import AutoModel

    opened = open_pretrained(model)
    with one_line(opened.source, "its weights cannot be used"):
        network = AutoModel.from_pretrained(opened.source, use_safetensors=True, dtype=torch.float32).eval()
    network = network.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    answer = _embedder(network, opened.tokenizer, min(longest_tokens, opened.longest_row))
    for chunk in chunks_of(texts):
        for text, vector in zip(chunk, answer(chunk), strict=True):
            yield {"text": text, "embedding": vector}


def _embedder(network: Any, tokenizer: Any, longest: int) -> Callable[[Sequence[str]], list[list[float]]]:
    def embed(texts: Sequence[str]) -> list[list[float]]:
        encoded = tokenizer([clean_text(text) for text in texts], truncation=True, max_length=longest)
        rows = [Row(number, ids, [0] * len(ids)) for number, ids in enumerate(encoded["input_ids"])]
        vectors: list[list[float]] = [[] for _ in texts]
        special = torch.tensor(tokenizer.all_special_ids, device=network.device)
        for batch in inference_batches(rows, _BATCH_TOKENS):
            inputs = encoder_inputs(batch, tokenizer.pad_token_id, with_token_types=takes_token_types(network))
            inputs = {name: None if value is None else value.to(network.device) for name, value in inputs.items()}
            states = network(**inputs)[0].float()
            is_word = ~torch.isin(inputs["input_ids"], special)
            means = (states * is_word.unsqueeze(-1)).sum(1) / is_word.sum(1, keepdim=True).clamp(min=1)
            for row, vector in zip(batch, means.tolist(), strict=True):
                vectors[row.example] = vector
        return vectors

    return embed
