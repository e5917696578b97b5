"""Finds replaced words and fills gaps with a pretrained model; reads the texts and writes the answers of `predict`."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from electrain.data.text.cleaning import without_surrogates
from electrain.data.text.compression import open_stream, uncompressed_suffix
from electrain.data.text.encodings import conversion, likely_encoding
from electrain.data.text.text_files import JSON_LINES, PROBE_BYTES, lines_of, parse_object, refuse_binary, shown_value
from electrain.data.tokenizer.windows import (
    TokenizedText,
    Window,
    batches_by_length,
    chunks_of,
    tokenize_texts,
    windows_of,
)
from electrain.finetuning.tasks.probabilities import sigmoid, softmax
from electrain.finetuning.tasks.task import BATCH_TOKENS, padded
from electrain.foundation.errors import DataError
from electrain.foundation.json_output import to_json
from electrain.foundation.json_reading import parse_json
from electrain.foundation.output_file import written_output
from electrain.inference.answers import Answer, Candidate, DetectedText, FilledMask, FilledText, JudgedToken
from electrain.inference.network import Chances, Detector, Filler, Ids, Read

STANDARD_INPUT = "-"
_LOOKED_AT_LINES = 20  # of which the first three with a text tell JSON from texts


def predict_detect(
    detector: Detector, texts: Iterable[str], batch_tokens: int = BATCH_TOKENS
) -> Iterator[DetectedText]:
    """For each text, in order, its tokens with the probability that each was replaced.

    Args:
        detector: see `load_detector`.
        texts: of any length; one longer than the model's rows is judged in overlapping windows.
        batch_tokens: maximum number of tokens in a forward pass, padding counted.
    """
    for chunk in chunks_of(texts):
        tokenized = tokenize_texts(detector.tokenizer, chunk)
        judged = _replaced_probabilities(detector, tokenized, batch_tokens)
        for text, probabilities in zip(tokenized, judged, strict=True):
            if not text.text.strip():
                yield DetectedText("")
                continue
            tokens = detector.tokenizer.convert_ids_to_tokens(text.token_ids)
            parts = zip(tokens, text.spans, probabilities, strict=True)
            yield DetectedText(text.text, tuple(JudgedToken(token, *span, chance) for token, span, chance in parts))


def _replaced_probabilities(detector: Detector, texts: Sequence[TokenizedText], batch_tokens: int) -> list[list[float]]:
    result = [[0.0] * len(text.token_ids) for text in texts]
    for windows in batches_by_length(_all_windows(detector, texts), batch_tokens):
        probabilities = sigmoid(detector.replaced(*_rows_of(detector, windows, texts))).tolist()
        for window, row in zip(windows, probabilities, strict=True):
            # Windows overlap. Each token is answered by the window in which it has more context on its shorter side.
            offset = 1 - window.start  # [CLS] stands before the window's first token
            answers = row[window.answers_from + offset : window.answers_to + offset]
            result[window.text][window.answers_from : window.answers_to] = answers
    return result


def predict_fill(
    filler: Filler, texts: Iterable[str], *, candidates: int = 5, batch_tokens: int = BATCH_TOKENS
) -> Iterator[FilledText]:
    """For each text, in order, the words most likely to stand at each [MASK].

    Args:
        filler: see `load_filler`.
        candidates: number of candidates for each [MASK]; special tokens are never candidates.
        batch_tokens: maximum number of tokens in a forward pass, padding counted.
    Raises: DataError: a text holds no [MASK].
    """
    if candidates < 1:
        raise DataError(f"candidates {candidates}: must be at least 1")
    tokenizer, number = filler.tokenizer, 0
    for chunk in chunks_of(texts):
        tokenized = tokenize_texts(tokenizer, chunk, reads_masks=True)
        for text in tokenized:
            number += 1
            if text.text.strip() and tokenizer.mask_token_id not in text.token_ids:
                shown = f"text {number} ('{text.text.strip()[:40]}')"
                raise DataError(f"{shown}: holds no {tokenizer.mask_token}; write one for each gap")
        filled = _filled_masks(filler, tokenized, candidates, batch_tokens)
        for text, masks in zip(tokenized, filled, strict=True):
            in_order = tuple(masks[place] for place in sorted(masks))
            yield FilledText(text.text, filler.source, in_order) if text.text.strip() else FilledText("")


def _filled_masks(
    language_model: Filler, texts: Sequence[TokenizedText], top_k: int, batch_tokens: int
) -> list[dict[int, FilledMask]]:
    """For each text, its filled gaps by token number."""
    mask_id = language_model.tokenizer.mask_token_id
    result: list[dict[int, FilledMask]] = [{} for _ in texts]
    windows = [
        window
        for window in _all_windows(language_model, texts)
        if mask_id in texts[window.text].token_ids[window.answers_from : window.answers_to]
    ]
    for batch in batches_by_length(windows, batch_tokens):
        ids, is_real = _rows_of(language_model, batch, texts)
        # A gap in the overlap of two windows is filled once, from the window that answers for it.
        is_gap = np.zeros_like(ids, np.bool_)
        for row, window in enumerate(batch):
            is_gap[row, window.answers_from - window.start + 1 : window.answers_to - window.start + 1] = True
        is_gap &= ids == mask_id
        answers = _likeliest_words(language_model, language_model.words(ids, is_real, is_gap), top_k)
        for (row, place), candidates in zip(np.argwhere(is_gap).tolist(), answers, strict=True):
            token = batch[row].start + place - 1
            start, end = texts[batch[row].text].spans[token]
            result[batch[row].text][token] = FilledMask(start, end, candidates)
    return result


def _likeliest_words(language_model: Filler, logits: Chances, top_k: int) -> list[tuple[Candidate, ...]]:
    """For each row of (gaps, vocabulary) logits, the likeliest tokens that are not special."""
    tokenizer = language_model.tokenizer
    # The softmax covers special tokens, so that the probabilities are the model's own; they are only not listed.
    probabilities = softmax(logits)
    probabilities[:, tokenizer.all_special_ids] = -1
    probabilities[:, len(tokenizer) :] = -1
    allowed = len(tokenizer) - len(tokenizer.all_special_ids)
    ids = np.argsort(-probabilities, -1, kind="stable")[:, : min(top_k, allowed)]
    values = np.take_along_axis(probabilities, ids, -1)
    return [
        tuple(map(Candidate, tokenizer.convert_ids_to_tokens(row_ids), row_values))
        for row_ids, row_values in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def _rows_of(
    model: Read, windows: Sequence[Window], texts: Sequence[TokenizedText]
) -> tuple[Ids, NDArray[np.bool_] | None]:
    """The windows as padded rows with [CLS] and [SEP].

    Returns: (windows, length) int64 token ids, and (windows, length) bool, True at real tokens; None if all are real.
    """
    tokenizer = model.tokenizer
    rows = [
        [tokenizer.cls_token_id, *texts[window.text].token_ids[window.start : window.end], tokenizer.sep_token_id]
        for window in windows
    ]
    ids = padded(rows, tokenizer.pad_token_id)
    is_real = np.arange(ids.shape[1]) < np.array([[len(row)] for row in rows])
    return ids, None if is_real.all() else is_real


def _all_windows(model: Read, texts: Sequence[TokenizedText]) -> list[Window]:
    room = model.longest_row - 2  # for [CLS] and [SEP]
    return [window for number, text in enumerate(texts) for window in windows_of(number, len(text.token_ids), room)]


def read_texts(
    texts: Sequence[str], input_path: Path | str | None = None, *, field: str = "text", keeps_json: bool = False
) -> Iterator[str]:
    """The texts given, or one text per line of a file or of standard input; blank lines are kept.

    Args:
        input_path: a file, which may be compressed. "-" is standard input, and so is None if no texts are given.
        field: of JSON lines (.jsonl, .ndjson) this one is read.
        keeps_json: yield JSON lines unchanged.
    Raises: DataError: texts and a file, or neither; an unreadable file; a line that is not UTF-8 or not such JSON; JSON
        where texts are read.
    """
    if texts and input_path is not None:
        raise DataError(f"{input_path}: texts are given as well; give them, or --input, not both")
    if texts:
        yield from map(without_surrogates, texts)
    elif input_path is None or str(input_path) == STANDARD_INPUT:
        if sys.stdin is None:
            raise DataError("standard input is closed; give texts, or a file by --input")
        if input_path is None and sys.stdin.isatty():
            raise DataError("no text; give it as an argument, as a file by --input, or through a pipe")
        yield from _not_json(_read_lines(sys.stdin.buffer, None), None)
    else:
        path = Path(input_path)
        if path.is_file():  # a pipe can be read only once
            with open_stream(path) as file:
                refuse_binary(path, file.read(PROBE_BYTES))
        is_json = uncompressed_suffix(path) in JSON_LINES
        with open_stream(path) as file:
            lines = _read_lines(file, path, field if is_json and not keeps_json else None)
            yield from lines if is_json else _not_json(lines, path)


def _not_json(lines: Iterator[str], path: Path | None) -> Iterator[str]:
    """The lines. Raises: DataError: the first ones with a text are all JSON, whose keys are no words to be read."""
    first = list(islice(lines, _LOOKED_AT_LINES))
    filled = [line for line in first if line.strip()][:3]
    if filled and all(map(_is_json_object, filled)):
        way_out = "give it as a .jsonl file by --input" if path is None else "rename it to .jsonl"
        raise DataError(f"{path or 'standard input'}: holds JSON objects, not texts; {way_out}")
    yield from chain(first, lines)


def _is_json_object(line: str) -> bool:
    """True for a JSON object with a key, or a list of objects."""
    if line.lstrip()[:1] not in ("{", "["):
        return False
    try:
        value = parse_json(line, "")
    except DataError:
        return False
    objects = value if isinstance(value, list) else [value]
    return any(objects) and all(isinstance(one, dict) for one in objects)


def _read_lines(file: IO[bytes], path: Path | None, field: str | None = None) -> Iterator[str]:
    """The lines, or a field of each where they are JSON objects."""
    name = "standard input" if path is None else str(path)
    lines = lines_of(file, name)
    first = next(lines, b"")
    # A file without a line feed is one line, or has the line ends of old Macs.
    lines = chain([first], lines) if b"\n" in first else iter(first.splitlines())
    for number, content in enumerate(lines, start=1):
        try:
            line = content.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            piped = f"pipe it through `iconv -f {likely_encoding(content) or 'ENCODING'} -t UTF-8`"
            hint = piped if path is None else conversion(path)
            raise DataError(f"{name}:{number}: not UTF-8 ({error.reason}); {hint}") from error
        if field is not None and line.strip():
            record = parse_object(line, f"{name}:{number}", field)
            text = record.get(field)
            if not isinstance(text, str | None) or field not in record:
                found = (
                    f'"{field}" holds {shown_value(text)}, not' if field in record else f'has no field "{field}" with'
                )
                hint = "fix or remove this line, or choose another field with --text-column"
                raise DataError(f"{name}:{number}: {found} a text; {hint}")
            line = text or ""
        yield line


def write_json_lines(records: Iterable[Answer | Mapping[str, object]], output: Path | None = None) -> None:
    """Writes each record as a line of JSON, as soon as it is made, to standard output or into a file.

    A file appears when it is complete; see `written_output`. Raises: DataError: it cannot be written.
    """
    with contextlib.nullcontext(sys.stdout) if output is None else written_output(output) as file:
        for record in records:
            file.write(to_json(record.to_dict() if isinstance(record, Answer) else record) + "\n")
            file.flush()
