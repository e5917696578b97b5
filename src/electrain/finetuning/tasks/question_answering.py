"""Question answering: finds the span of a text that answers a question; long texts are read in overlapping windows."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from electrain.data.labelled.examples import QuestionExample
from electrain.data.tokenizer.plain_text import encode_plain
from electrain.data.tokenizer.windows import chunks_of
from electrain.finetuning.tasks.metrics import answer_scores, looks_chinese
from electrain.finetuning.tasks.network import AskedModel
from electrain.finetuning.tasks.no_answer import DECIDING_SCORES, Spans, best_threshold, no_answer_scores, spans_of
from electrain.finetuning.tasks.task import Answer, Collated, Row, Task, as_tensors, padded, results_in_order, tokens_of
from electrain.foundation.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Source: google-research/electra, configure_finetuning.py: max_query_length.
LONGEST_QUESTION_TOKENS = 64
# Number of texts tokenized at once. The tokenizer returns offsets as Python lists, which take much memory until they
# become arrays.
TEXTS_PER_CALL = 256


@dataclass(frozen=True, eq=False)
class TokenizedContext:
    """A context, or a question, as tokens without special ones."""

    text: str  # the text as given
    token_ids: list[int]  # ids of the tokens
    starts: NDArray[np.int32]  # (tokens,) int32; index in `text` of each token's first character
    ends: NDArray[np.int32]  # (tokens,) int32; index in `text` of the character after each token


class ContextWindow(NamedTuple):
    """The part of a context that a row holds: the tokens from `start` to `end`, exclusive."""

    context: TokenizedContext  # the whole context, which all its windows share
    start: int
    end: int
    first: int  # place of the first of them in the row


class Span(NamedTuple):
    """An answer: its first and last token in the context, both inclusive, and its weight among all spans."""

    first: int
    last: int
    score: float  # start logit + end logit
    log_weight: float  # log of the sum of exp(score) over the windows that hold it
    log_weights: float  # the same of all spans

    @property
    def probability(self) -> float:
        """Its probability among all spans."""
        return float(np.exp(self.log_weight - self.log_weights))


@dataclass(frozen=True)
class QuestionAnswering(Task[QuestionExample]):
    """Answers that are a span of the context, as in SQuAD 1.1 and CMRC 2018; or none, as in SQuAD 2.0.

    A row is [CLS] question [SEP] window [SEP]. In training, [CLS] is a candidate too: it is the target in windows that
    do not hold the whole answer, and so in all windows of a question that the context does not answer.

    Raises: ConfigurationError: windows overlap so far that the next one would not advance.
    Source: Devlin et al. 2018, sections 4.2 and 4.3; google-research/electra, finetune/qa/qa_tasks.py.
    """

    main_score = "f1"
    longest_tokens: int = 384
    window_overlap_tokens: int = 128  # number of tokens that a window shares with the next one
    longest_answer_tokens: int = 30  # maximum length of a predicted answer; answers in training may be longer
    # A question is left without an answer where the score of [CLS], which is the least of its windows, is above that of
    # the best span by more than this. None: every question gets an answer.
    null_threshold: float | None = None

    def __post_init__(self) -> None:
        room = self.longest_tokens - self.longest_question_tokens - 3
        if not 0 <= self.window_overlap_tokens < room:
            raise ConfigurationError(
                f"window_overlap_tokens = {self.window_overlap_tokens}: rows of longest_tokens = {self.longest_tokens} "
                f"leave {room} tokens for the text; choose 0 to {room - 1}, or longer rows"
            )
        if self.null_threshold is not None and not math.isfinite(self.null_threshold):
            raise ConfigurationError(f"null_threshold = {self.null_threshold}: must be a finite number, or null")
        if self.longest_answer_tokens < 1:
            raise ConfigurationError(
                f"longest_answer_tokens = {self.longest_answer_tokens}: an answer has a token; choose at least 1"
            )

    @property
    def score_names(self) -> tuple[str, ...]:
        return ("exact_match", "f1") if self.null_threshold is None else DECIDING_SCORES

    @property
    def longest_question_tokens(self) -> int:
        """Maximum length of a question, in tokens: 64, and at most a quarter of a row."""
        return min(LONGEST_QUESTION_TOKENS, self.longest_tokens // 4)

    def rows(self, examples: Sequence[QuestionExample]) -> list[Row]:
        """`places` is a `ContextWindow`; `target` is the first and last place of the answer in the row.

        The target is (0, 0), the place of [CLS], if the window does not hold the whole answer. Without answers it is
        (0, 0) too, or None where every question has one, so that the answer must be unknown. Of several answers the
        first one that occurs in the context is taken; if it does not occur at the given character (some in CMRC 2018
        are off by one), its nearest occurrence is.

        Raises: DataError: no answer of an example occurs in its context, or the tokenizer drops all of it.
        """
        rows = []
        for row in self._rows_without_targets(examples):
            if examples[row.example].answers:
                window: ContextWindow = row.places
                first, last = _tokens_of_answer(window.context, examples[row.example])
                shift, is_inside = window.first - window.start, window.start <= first and last < window.end
                row = replace(row, target=(first + shift, last + shift) if is_inside else (0, 0))
            elif self.null_threshold is not None:
                row = replace(row, target=(0, 0))
            rows.append(row)
        return rows

    def _rows_without_targets(self, examples: Sequence[QuestionExample]) -> list[Row]:
        questions = tokenize_distinct(self.tokenizer, (example.question for example in examples))
        contexts = tokenize_distinct(self.tokenizer, (example.context for example in examples))
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        rows = []
        for number, example in enumerate(examples):
            asked = questions[example.question].token_ids
            is_cut = len(asked) > self.longest_question_tokens
            before = [cls, *asked[: self.longest_question_tokens], sep]
            context = contexts[example.context]
            room = self.longest_tokens - len(before) - 1
            for start, end in window_bounds(len(context.token_ids), room, self.window_overlap_tokens):
                ids = [*before, *context.token_ids[start:end], sep]
                types = [0] * len(before) + [1] * (len(ids) - len(before))
                window = ContextWindow(context, start, end, len(before))
                rows.append(Row(number, ids, types, None, window, is_cut=is_cut))
        return rows

    def collate(self, rows: Sequence[Row]) -> Collated:
        """Besides the model's inputs there are:

        `is_candidate`, (rows, length) bool: True at [CLS] and the context; and `first_token` and `last_token`,
        (rows,) int64: the places of the answer.
        """
        import torch

        tensors = self.inputs(rows)
        candidates = [
            [1] + [0] * (row.places.first - 1) + [1] * (row.places.end - row.places.start) + [0] for row in rows
        ]
        tensors["is_candidate"] = as_tensors({"is": padded(candidates, 0)})["is"].bool()
        if all(row.target is not None for row in rows):
            tensors["first_token"], tensors["last_token"] = torch.tensor([row.target for row in rows]).unbind(1)
        return Collated(tensors, len(rows), tokens_of(rows))

    def loss(self, model: "PreTrainedModel", tensors: "Mapping[str, Tensor]") -> "Tensor":
        """() float32: for each row the mean cross-entropy, in nats, of the answer's first and last token; summed."""
        import torch
        from torch.nn import functional

        output = _outputs(model, tensors)
        is_other = ~tensors["is_candidate"]
        losses = [
            functional.cross_entropy(logits.float().masked_fill(is_other, -torch.inf), tensors[target], reduction="sum")
            for logits, target in ((output.start_logits, "first_token"), (output.end_logits, "last_token"))
        ]
        return (losses[0] + losses[1]) / 2

    def answer(self, model: AskedModel, examples: Sequence[QuestionExample]) -> list[Answer]:
        """{"id", "answer", "score", "start", "end"} for each question.

        The answer is the context's text from character start to end, exclusive; the score is its probability among all
        spans of at most `longest_answer_tokens`. A context without tokens gives the answer "" and the score 0. Where
        there may be no answer, see `_decided`.
        """

        def candidate_logits(rows: list[Row]) -> Iterator[NDArray[np.float32]]:
            """For each row (2, 1 + tokens of its window) float32: start and end logits of [CLS] and of those tokens."""
            for row, logits in zip(rows, self.logits(model, rows).swapaxes(1, 2), strict=True):
                window = row.places
                own = logits[:, window.first : window.first + window.end - window.start]
                yield np.concatenate([logits[:, :1], own], 1)

        windows: list[list[ContextWindow]] = [[] for _ in examples]
        logits: list[list[NDArray[np.float32]]] = [[] for _ in examples]
        rows = self._rows_without_targets(examples)
        for row, both in results_in_order(rows, self.batch_tokens, candidate_logits):
            windows[row.example].append(row.places)
            logits[row.example].append(both)
        answers = []
        for example, own, parts in zip(examples, windows, logits, strict=True):
            span = best_span(own, [both[:, 1:] for both in parts], self.longest_answer_tokens)
            answer: Answer = {"id": example.identifier}
            if self.null_threshold is None:
                answer |= _answer_of(own[0].context, span)
            else:
                null_score = min(float(both[0, 0]) + float(both[1, 0]) for both in parts)
                answer |= _decided(_candidate(own[0].context, span, null_score), self.null_threshold)
            answers.append(answer)
        return answers

    def calibrated(self, examples: Sequence[QuestionExample], answers: Sequence[Answer]) -> list[Answer]:
        """The answers, decided by the threshold with the highest F1 on these questions."""
        if self.null_threshold is None:
            return list(answers)
        spans = self._spans(examples, answers)
        threshold, _ = best_threshold(spans, spans.f1)
        return [{"id": answer["id"]} | _decided(answer, threshold) for answer in answers]

    def score(self, examples: Sequence[QuestionExample], answers: Sequence[Answer]) -> dict[str, float]:
        """exact_match and f1, in per cent, see `answer_scores`; where there may be no answer, see `no_answer_scores`.

        Raises: DataError: a question's answer is unknown.
        """
        if self.null_threshold is not None:
            return no_answer_scores(self._spans(examples, answers), [one["answer"] is not None for one in answers])
        for example in examples:
            if not example.answers:
                raise DataError(
                    f"{example.source or example.identifier}: no accepted answer to score against; add one or remove "
                    "the question"
                )
        told = [answer["answer"] for answer in answers]
        return answer_scores(_truths(examples), told, by_characters=_are_chinese(examples))

    def _spans(self, examples: Sequence[QuestionExample], answers: Sequence[Answer]) -> Spans:
        spans = [one["best_span"] and one["best_span"]["answer"] for one in answers]
        differences = [one["null_score_difference"] for one in answers]
        return spans_of(_truths(examples), spans, differences, by_characters=_are_chinese(examples))

    def score_settings(self, examples: Sequence[QuestionExample]) -> dict[str, object]:
        """The published definition of the scores, and the threshold that they depend on."""
        overlap = "CMRC 2018" if _are_chinese(examples) else "SQuAD 1.1"
        if self.null_threshold is None:
            return {"definition": overlap}
        return {"definition": f"SQuAD 2.0, answers compared as in {overlap}", "null_threshold": self.null_threshold}


def _truths(examples: Sequence[QuestionExample]) -> list[list[str]]:
    """The accepted answers of each question."""
    return [[text for text, _ in example.answers] for example in examples]


def _are_chinese(examples: Sequence[QuestionExample]) -> bool:
    return looks_chinese(list({example.context for example in examples}))


def _outputs(model: "PreTrainedModel", tensors: "Mapping[str, Tensor]") -> Any:
    """The model's output for the rows; `tensors` holds more than the model takes."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return model(**{name: tensors[name] for name in names if name in tensors})


def tokenize_distinct(tokenizer: "PreTrainedTokenizerFast", texts: Iterable[str]) -> dict[str, TokenizedContext]:
    """Each distinct text as tokens with their places in the text; contexts of several questions are tokenized once."""
    result = {}
    for part in chunks_of(dict.fromkeys(texts), TEXTS_PER_CALL):
        encoding = encode_plain(tokenizer, part, add_special_tokens=False, return_offsets_mapping=True)
        for text, ids, offsets in zip(part, encoding["input_ids"], encoding["offset_mapping"], strict=True):
            starts, ends = np.array(offsets, np.int32).reshape(-1, 2).T
            result[text] = TokenizedContext(text, ids, starts, ends)
    return result


def window_bounds(tokens: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Start and end of windows of at most `room` tokens that cover a context; one empty window for an empty context.

    Neighbours share `overlap` tokens. The last window may share more, because it is moved back until it is full. Every
    span of up to `overlap` + 1 tokens is wholly in some window.
    """
    starts = [*range(0, max(0, tokens - room), room - overlap), max(0, tokens - room)]
    return [(start, min(start + room, tokens)) for start in starts]


def _tokens_of_answer(context: TokenizedContext, example: QuestionExample) -> tuple[int, int]:
    """First and last token, inclusive, with a character of the answer. Raises: as `QuestionAnswering.rows`."""
    where = example.source or f"question {example.identifier}"
    placed = [(text, place) for text, given in example.answers for place in [_place_of(text, given, context.text)]]
    text, start = next((answer for answer in placed if answer[1] >= 0), ("", -1))
    if start < 0:
        raise DataError(
            f"{where}: the answer '{example.answers[0][0][:60]}' does not occur in its context; correct it or remove "
            "the question"
        )
    first = int(np.searchsorted(context.ends, start, side="right"))
    last = int(np.searchsorted(context.starts, start + len(text), side="left")) - 1
    if first > last:
        raise DataError(f"{where}: the tokenizer drops all of the answer '{text[:60]}'; remove the question")
    return first, last


def _place_of(answer: str, given: int, context: str) -> int:
    """Index of the answer's occurrence in the context that is nearest to `given`; -1 if it does not occur."""
    if answer and given >= 0 and context.startswith(answer, given):
        return given
    before, after = context.rfind(answer, 0, max(given, 0) + len(answer)), context.find(answer, max(given, 0))
    if not answer or -1 in (before, after):
        return max(before, after) if answer else -1
    return min(before, after, key=lambda place: abs(place - given))


def best_span(windows: Sequence[ContextWindow], logits: Sequence[NDArray[np.float32]], longest: int) -> Span | None:
    """The span with the highest start logit + end logit in any window; None where there is no token.

    Its probability is the softmax over the spans of all windows. Where windows overlap, the probabilities that they
    give to one span are added up, so that it does not compete with itself.

    Args:
        windows: the windows of one context, in order.
        logits: for each window (2, tokens) float; logits of a span that begins, and of one that ends, at each token.
    """
    tokens = windows[-1].end
    if not tokens:
        return None
    # By a span's first token and its length minus one: start logit + end logit, minus infinity beyond the window.
    best = np.full((tokens, longest), -np.inf)
    mass = best.copy()
    for window, both in zip(windows, logits, strict=True):
        start, end = both.astype(np.float64)
        filled = np.concatenate([end, np.full(longest - 1, -np.inf)])
        own, spans = slice(window.start, window.end), start[:, None] + sliding_window_view(filled, longest)
        # In log space, since the logits of different windows are not normalised together and may be far apart.
        np.maximum(best[own], spans, out=best[own])
        np.logaddexp(mass[own], spans, out=mass[own])
    place = int(best.argmax())
    first, further = divmod(place, longest)
    weights = float(mass.flat[place]), float(np.logaddexp.reduce(mass, axis=None))
    return Span(first, first + further, float(best.flat[place]), *weights)


def _answer_of(context: TokenizedContext, span: Span | None) -> Answer:
    if span is None:
        return {"answer": "", "score": 0.0, "start": 0, "end": 0}
    start, end = int(context.starts[span.first]), int(context.ends[span.last])
    text = context.text[start:end]
    start += len(text) - len(text.lstrip())  # some tokenizers count the space before a word as its own
    return {"answer": text.strip(), "score": span.probability, "start": start, "end": start + len(text.strip())}


def _candidate(context: TokenizedContext, span: Span | None, null_score: float) -> Answer:
    """What `_decided` reads: the best span, how far "no answer" is ahead of it, and how probable that is.

    Probabilities are among all spans and "no answer".
    """
    if span is None:
        return {"null_probability": 1.0, "null_score_difference": None, "best_span": None}
    total = np.logaddexp(span.log_weights, null_score)
    best = _answer_of(context, span) | {"score": float(np.exp(span.log_weight - total))}
    ahead = null_score - span.score
    return {"null_probability": float(np.exp(null_score - total)), "null_score_difference": ahead, "best_span": best}


def _decided(candidate: Answer, threshold: float) -> Answer:
    """{"answer", "score", "start", "end"} of the best span, or None, the probability of no answer, None and None.

    Further {"null_score_difference"}, that of the start logit + end logit of [CLS] and of the best span, by which this
    is decided; {"null_probability"}; and {"best_span"}, which also a question without an answer has. A context without
    tokens has neither a span nor a difference.
    """
    best, ahead, chance = (candidate[name] for name in ("best_span", "null_score_difference", "null_probability"))
    none = {"answer": None, "score": chance, "start": None, "end": None}
    given = none if best is None or ahead > threshold else best
    return {**given, "null_score_difference": ahead, "null_probability": chance, "best_span": best}
