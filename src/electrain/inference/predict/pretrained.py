"""Asking a pretrained pair: which words of a text look replaced, and which words would fit at each [MASK]."""

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from electrain.data.text.compression import open_stream, uncompressed_suffix
from electrain.data.tokenizer.windows import (
    TokenizedText,
    Window,
    batches_by_length,
    chunks_of,
    tokenize_texts,
    windows_of,
)
from electrain.foundation.errors import CheckpointError, DataError
from electrain.inference.model import (
    LoadedModel,
    load_detector,
    load_head,
    load_language_model,
    masked_word_logits,
    replaced_logits,
    rows_of,
)
from electrain.pretrain.run_folder import RunFolder, open_run_folder

STANDARD_INPUT = "-"


def predict_detect(
    model: Path | str | LoadedModel, texts: Iterable[str], *, batch_tokens: int = 8192, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """For each text, in order, its tokens with the probability that each was replaced.

    Args:
        model: a run folder, a discriminator's folder, its name on the hub, or one already loaded.
        texts: of any length; one longer than the model is judged in overlapping windows.
    Yields: {"text", "tokens": [{"token", "start", "end", "probability_replaced"}]}; start and end count the characters
        of the text as given. A text without a word has no tokens.
    Raises: CheckpointError, TokenizerError: see `load_detector`.
    """
    detector = model if isinstance(model, LoadedModel) else load_detector(model, device=device)
    for chunk in chunks_of(texts):
        tokenized = tokenize_texts(detector.tokenizer, chunk)
        probabilities = _replaced_probabilities(detector, tokenized, batch_tokens)
        for text, of_text in zip(tokenized, probabilities, strict=True):
            tokens = detector.tokenizer.convert_ids_to_tokens(text.token_ids)
            yield {
                "text": text.text,
                "tokens": [
                    {"token": token, "start": start, "end": end, "probability_replaced": probability}
                    for token, (start, end), probability in zip(tokens, text.spans, of_text, strict=True)
                ],
            }


@torch.inference_mode()
def _replaced_probabilities(
    detector: LoadedModel, texts: Sequence[TokenizedText], batch_tokens: int
) -> list[list[float]]:
    result = [[0.0] * len(text.token_ids) for text in texts]
    for windows in batches_by_length(_all_windows(detector, texts), batch_tokens):
        ids, is_real = rows_of(detector, windows, texts)
        probabilities = torch.sigmoid(replaced_logits(detector, ids, is_real)).tolist()
        for window, row in zip(windows, probabilities, strict=True):
            offset = 1 - window.start  # [CLS] stands before the window's first token
            answers = row[window.answers_from + offset : window.answers_to + offset]
            result[window.text][window.answers_from : window.answers_to] = answers
    return result


def predict_fill(
    model: Path | str | LoadedModel,
    texts: Iterable[str],
    *,
    by: str | None = None,
    top_k: int = 5,
    batch_tokens: int = 8192,
    device: str | None = None,
) -> Iterator[dict[str, Any]]:
    """For each text, in order, the words most likely to stand at each [MASK].

    Args:
        model: a run folder (its generator fills; its correction head where there is no masked generator; the model
            itself in a run of masked language modelling), a masked language model's folder, its name on the hub, or one
            already loaded.
        by: generator or correction: which of them fills; None: as said.
        top_k: candidates for each [MASK]; special tokens are none.
    Yields: {"text", "model", "masks": [{"start", "end", "candidates": [{"token", "probability"}]}]}; `model` is what
        filled; start and end count the characters of the text as given.
    Raises: DataError: a text holds no [MASK]. CheckpointError, TokenizerError: see `load_language_model`.
    """
    language_model = model if isinstance(model, LoadedModel) else _filler(model, by, device)
    if top_k < 1:
        raise DataError(f"--candidates {top_k}: must be at least 1")
    mask = language_model.tokenizer.mask_token
    number = 0
    for chunk in chunks_of(texts):
        tokenized = tokenize_texts(language_model.tokenizer, chunk, reads_masks=True)
        for text in tokenized:
            number += 1
            if text.text.strip() and language_model.tokenizer.mask_token_id not in text.token_ids:
                raise DataError(f"text {number} ('{text.text.strip()[:40]}'): holds no {mask}; write one for each gap")
        filled = _candidates(language_model, tokenized, top_k, batch_tokens)
        for text, masks in zip(tokenized, filled, strict=True):
            yield {
                "text": text.text,
                "model": language_model.source,
                "masks": [masks[place] for place in sorted(masks)],
            }


def _filler(model: Path | str | RunFolder, by: str | None, device: str | None) -> LoadedModel:
    """The network that fills gaps: the one that `by` names, or the first that sees both sides of a gap."""
    run = open_run_folder(model)
    if by == "correction":
        return load_head(run, "correction", device=device)
    if by == "generator" and run.heads and run.generator is None:
        raise CheckpointError(f"{run}: has no generator that fills gaps; leave --by out, or give another run")
    found = load_language_model(run, device=device)
    if found.kind == "causal-language-model":
        if by is None and "correction" in run.heads:
            return load_head(run, "correction", device=device)
        raise CheckpointError(
            f"{found.source}: is a causal generator, which sees only what stands before a gap; "
            "let it write on by predict generate"
        )
    return found


@torch.inference_mode()
def _candidates(
    language_model: LoadedModel, texts: Sequence[TokenizedText], top_k: int, batch_tokens: int
) -> list[dict[int, dict[str, Any]]]:
    """For each text, by token number, what the output says of each [MASK]."""
    mask_id = language_model.tokenizer.mask_token_id
    result: list[dict[int, dict[str, Any]]] = [{} for _ in texts]
    windows = [
        window
        for window in _all_windows(language_model, texts)
        if mask_id in texts[window.text].token_ids[window.answers_from : window.answers_to]
    ]
    for batch in batches_by_length(windows, batch_tokens):
        ids, is_real = rows_of(language_model, batch, texts)
        is_asked = torch.zeros_like(ids, dtype=torch.bool)
        for row, window in enumerate(batch):
            is_asked[row, window.answers_from - window.start + 1 : window.answers_to - window.start + 1] = True
        is_asked &= ids == mask_id
        logits = masked_word_logits(language_model, ids, is_real, is_asked)
        answers = _likeliest_words(language_model, logits, top_k)
        for (row, place), candidates in zip(is_asked.nonzero().tolist(), answers, strict=True):
            token = batch[row].start + place - 1
            start, end = texts[batch[row].text].spans[token]
            result[batch[row].text][token] = {"start": start, "end": end, "candidates": candidates}
    return result


def _likeliest_words(language_model: LoadedModel, logits: Tensor, top_k: int) -> list[list[dict[str, Any]]]:
    """For each row of (asked, vocabulary) logits the likeliest tokens, special ones left out of the list."""
    tokenizer = language_model.tokenizer
    probabilities = logits.softmax(-1)
    probabilities[:, tokenizer.all_special_ids] = -1
    probabilities[:, len(tokenizer) :] = -1
    allowed = len(tokenizer) - len(tokenizer.all_special_ids)
    values, ids = probabilities.topk(min(top_k, allowed), dim=-1)
    return [
        [
            {"token": token, "probability": value}
            for token, value in zip(tokenizer.convert_ids_to_tokens(row_ids), row_values, strict=True)
        ]
        for row_ids, row_values in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def _all_windows(model: LoadedModel, texts: Sequence[TokenizedText]) -> list[Window]:
    room = model.longest_row - 2  # for [CLS] and [SEP]
    return [window for number, text in enumerate(texts) for window in windows_of(number, len(text.token_ids), room)]


def read_texts(
    texts: Sequence[str], input_path: Path | str | None = None, *, keeps_json: bool = False
) -> Iterator[str]:
    """The texts given; or the lines of a file, or the field "text" of a .jsonl file; or the lines of standard input.

    Args:
        keeps_json: give the lines of a .jsonl file as they are.
        input_path: may be compressed; "-", or None where no texts are given, is standard input.
    Yields: one text per line, blank ones too, so that output lines answer input lines.
    Raises: DataError: both are given, or neither; a file cannot be read; a line is not UTF-8, or not such JSON.
    """
    if texts and input_path is not None:
        raise DataError(f"{input_path}: texts are given as well; give them, or --input, not both")
    if texts:
        yield from texts
    elif input_path is None or str(input_path) == STANDARD_INPUT:
        if input_path is None and sys.stdin.isatty():
            raise DataError("no text; give it as an argument, as a file by --input, or through a pipe")
        yield from _read_lines(sys.stdin.buffer, "standard input", is_jsonl=False)
    else:
        path = Path(input_path)
        with open_stream(path) as file:
            yield from _read_lines(file, str(path), is_jsonl=not keeps_json and uncompressed_suffix(path) == ".jsonl")


def _read_lines(file: IO[bytes], name: str, *, is_jsonl: bool) -> Iterator[str]:
    for number, content in enumerate(file, start=1):
        try:
            line = content.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}:{number}: not UTF-8 ({error.reason}); convert the file") from error
        yield _text_field(line, f"{name}:{number}") if is_jsonl and line.strip() else line


def _text_field(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{where}: not a JSON object with the field "text"; fix or remove this line') from error
    if not isinstance(text, str):
        raise DataError(f'{where}: the field "text" is not a text; fix or remove this line')
    return text


def require_writable(output: Path | None) -> None:
    """Raises DataError when a file cannot be written there, before any work is done for it."""
    if output is None:
        return
    if output.is_dir() or not output.parent.is_dir():
        reason = "is a folder" if output.is_dir() else f"there is no folder {output.parent}"
        raise DataError(f"{output}: {reason}; give the path of a file in a folder that exists")


def write_json_lines(records: Iterable[dict[str, Any]], output: Path | None = None) -> None:
    """Writes each record, as soon as it is there, as a line of JSON to standard output or into a file.

    A file stands under a temporary name until the last record is there: what it held before is kept when something
    fails, and it may be the file that the records are made from.
    """
    require_writable(output)
    partial = None if output is None else output.with_name(f".{output.name}.writing")
    try:
        with contextlib.nullcontext(sys.stdout) if partial is None else open(partial, "w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
        if partial is not None and output is not None:
            partial.replace(output)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise DataError(f"{output or 'standard output'}: cannot be written ({error.strerror}); give another") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)
