"""Takes the inputs of concurrent requests through a model together.

Everything but the computing happens on the event loop, so nothing here needs a lock. One thread computes for each
model. There is no waiting for a batch to fill: what comes while the model computes is the next batch.
"""

import asyncio
import heapq
import itertools
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from electrain.foundation.errors import ElectrainError
from electrain.foundation.json_output import to_json
from electrain.foundation.progress import say
from electrain.inference.serve.metrics import Metrics
from electrain.inference.serve.settings import ServeSettings

Input = str | Mapping[str, object]
# The options of a task as sorted pairs, which can be compared.
Options = tuple[tuple[str, object], ...]

# Inputs are computed in the order of their arrival plus this time for each of their tokens, so that short ones overtake
# long ones and nothing waits for ever. It is about ten times what a small model computes for a token on two cores: an
# input may wait ten times as long as it takes.
WAIT_SECONDS_PER_TOKEN = 0.001
# UTF-8 bytes for each token: about 4.5 in English, 3 in Chinese, where most tokens are one character.
BYTES_PER_TOKEN = 4
# So many batches in a row that fail for no reason of their inputs mean that the model is broken.
FAILURES_OF_A_BROKEN_MODEL = 3
_NUMBER = re.compile(r"^(input|text) 1\b")  # how a refusal names an input that was alone


class Answered(Protocol):
    """An answer of a predictor."""

    def to_dict(self) -> Mapping[str, object]:
        """The JSON object that `electrain predict` prints."""


class Askable(Protocol):
    """What the service needs of a predictor; `electrain.load` gives one."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that it can do."""

    @property
    def reads_pairs(self) -> bool | None:
        """Whether it classifies pairs of texts; None if either."""

    def ask(self, task: str, inputs: Sequence[Input], **options: object) -> Sequence[Answered]:
        """One answer for each input."""


class QueueFullError(Exception):
    """More inputs would wait than may wait."""


class TooSlowError(Exception):
    """A request was not answered in time."""

    def __init__(self, *, is_begun: bool) -> None:
        super().__init__()
        self.is_begun = is_begun  # False: no part of it was computed


class ModelFailedError(Exception):
    """The model failed; the log says where."""


class RefusedError(Exception):
    """The model cannot take an input; the message is for the client."""


@dataclass(eq=False)
class Job:
    """A request that waits or is computed."""

    task: str
    inputs: Sequence[Input]
    options: Options
    is_whole: bool  # its inputs go through the model in a call of their own
    answered: asyncio.Future[None]
    answers: list[str] = field(default_factory=list)  # as JSON, in the order of the inputs
    left: int = 0  # inputs without an answer
    is_begun: bool = False


@dataclass(order=True)
class Piece:
    """Inputs of a job that go through the model together, in the order in which they are computed."""

    due: float  # see `WAIT_SECONDS_PER_TOKEN`
    number: int  # tells pieces apart that are due together
    job: Job = field(compare=False)
    places: range = field(compare=False)  # of its inputs in the job
    tokens: int = field(compare=False)

    @property
    def inputs(self) -> list[Input]:
        """What the model is asked."""
        return [self.job.inputs[place] for place in self.places]


def tokens_of(one: Input) -> int:
    """About how many tokens an input has; only the order and the size of batches depend on it."""
    texts = [one] if isinstance(one, str) else [str(value) for value in one.values()]
    return 2 + sum(len(text.encode("utf-8", "replace")) for text in texts) // BYTES_PER_TOKEN


class Batcher:
    """The queue of one model, and the thread that computes for it."""

    def __init__(self, name: str, predictor: Askable, settings: ServeSettings, metrics: Metrics) -> None:
        self.name, self.predictor = name, predictor
        self.is_computing = False  # what its thread says, also when nobody waits for it any more
        self._settings, self._metrics = settings, metrics
        self._waiting: dict[tuple[str, Options], list[Piece]] = {}  # heaps; only equal questions share a batch
        self._numbers = itertools.count()
        self._failures = 0  # batches in a row
        self._thread = ThreadPoolExecutor(1, f"electrain-{name}")
        self._worker: asyncio.Task[None] | None = None

    @property
    def has_failed(self) -> bool:
        """True once the model answers nothing any more."""
        return self._failures >= FAILURES_OF_A_BROKEN_MODEL

    @property
    def waiting_inputs(self) -> int:
        """The number of inputs that wait."""
        return sum(len(piece.places) for heap in self._waiting.values() for piece in heap)

    async def ask(self, task: str, inputs: Sequence[Input], options: Options, *, is_whole: bool) -> list[str]:
        """The answers to a request, as JSON.

        Args: is_whole: see `Job`.
        Raises: QueueFullError. TooSlowError. RefusedError. ModelFailedError.
        """
        if self.waiting_inputs + len(inputs) > self._settings.max_waiting_inputs:
            raise QueueFullError
        job = Job(task, inputs, options, is_whole, asyncio.get_running_loop().create_future())
        job.answers, job.left = [""] * len(inputs), len(inputs)
        heap = self._waiting.setdefault((task, options), [])
        for piece in self._pieces(job):
            heapq.heappush(heap, piece)
        self._show_queue()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._compute())
        try:
            async with asyncio.timeout(self._settings.max_seconds):
                await job.answered
        except TimeoutError:
            raise TooSlowError(is_begun=job.is_begun) from None
        finally:  # also where the client has gone
            self._withdraw(job)
        return job.answers

    def _pieces(self, job: Job) -> Iterator[Piece]:
        size, now = len(job.inputs) if job.is_whole else 1, time.monotonic()
        for start in range(0, len(job.inputs), size):
            places = range(start, min(start + size, len(job.inputs)))
            tokens = sum(tokens_of(job.inputs[place]) for place in places)
            yield Piece(now + tokens * WAIT_SECONDS_PER_TOKEN, next(self._numbers), job, places, tokens)

    def _withdraw(self, job: Job) -> None:
        key = (job.task, job.options)
        left = [piece for piece in self._waiting.get(key, ()) if piece.job is not job]
        heapq.heapify(left)
        self._waiting[key] = left
        if not left:
            del self._waiting[key]  # or the options of every request that there ever was would stay
        self._show_queue()

    def _show_queue(self) -> None:
        self._metrics.queue_inputs.labels(self.name).set(self.waiting_inputs)

    async def _compute(self) -> None:
        """Computes until nothing waits."""
        while batch := self._next_batch():
            started = time.perf_counter()
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._answers, batch)
            self._metrics.count_batch(self.name, batch[0].job.task, batch, time.perf_counter() - started)
            self._deliver(batch, results)

    def _answers(self, batch: Sequence[Piece]) -> list[list[str] | Exception]:
        """Runs on the model's thread."""
        self.is_computing = True
        try:
            return answers_of(self.predictor, batch)
        finally:
            self.is_computing = False

    def _next_batch(self) -> list[Piece]:
        """The pieces that are due first among those with the same task and options, up to the limit of tokens."""
        heaps = [heap for heap in self._waiting.values() if heap]
        if not heaps:
            return []
        batch: list[Piece] = []
        heap, tokens = min(heaps, key=lambda heap: heap[0]), 0
        while heap and (not batch or tokens + heap[0].tokens <= self._settings.batch_tokens):
            piece = heapq.heappop(heap)
            piece.job.is_begun = True
            tokens += piece.tokens
            batch.append(piece)
            if piece.job.is_whole:
                break
        self._show_queue()
        return batch

    def _deliver(self, batch: Sequence[Piece], results: Sequence[list[str] | Exception]) -> None:
        failed = [result for result in results if isinstance(result, Exception) and not _is_refusal(result)]
        self._failures = self._failures + 1 if len(failed) == len(results) else 0
        for error in failed[:1]:
            say(f"electrain serve: {self.name} failed: {place_of(error)}")
        for piece, result in zip(batch, results, strict=True):
            job = piece.job
            if job.answered.done():  # refused before, too late, or gone
                continue
            if isinstance(result, Exception):
                job.answered.set_exception(result if _is_refusal(result) else ModelFailedError())
                continue
            for place, answer in zip(piece.places, result, strict=True):
                job.answers[place] = answer
            job.left -= len(result)
            if not job.left:
                job.answered.set_result(None)


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, RefusedError)


def answers_of(predictor: Askable, batch: Sequence[Piece]) -> list[list[str] | Exception]:
    """For each piece its answers as JSON, or the error that it alone gets."""
    task, options = batch[0].job.task, dict(batch[0].job.options)
    places = [place for piece in batch for place in piece.places]
    try:
        answers = predictor.ask(task, [one for piece in batch for one in piece.inputs], **options)
        texts = iter([_json(answer, place) for answer, place in zip(answers, places, strict=True)])
        return [[next(texts) for _ in piece.places] for piece in batch]
    except Exception as error:
        if len(batch) > 1:  # whose fault it is shows when each is asked alone
            return [result for piece in batch for result in answers_of(predictor, [piece])]
        if isinstance(error, ElectrainError):
            return [RefusedError(_message(error, batch[0]))]
        return [error]


def _json(answer: Answered, place: int) -> str:
    """The answer as `electrain predict` prints it, which numbers questions in the order in which they were asked."""
    record = dict(answer.to_dict())
    if "id" in record:
        record["id"] = str(place + 1)
    return to_json(record)


def _message(error: ElectrainError, piece: Piece) -> str:
    """The refusal, with the number of the input in the request where the model was asked about that input alone."""
    line = " ".join(str(error).split())
    return _NUMBER.sub(f"inputs[{piece.places[0]}]", line) if len(piece.places) == 1 else line


def place_of(error: BaseException) -> str:
    """The kind of an error and the line that raised it. Its message may hold a text, which is no one's business."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}"


def share_cores(models: int) -> None:
    """Gives each model's thread its part of the cores: teams of threads that share cores wait for each other."""
    torch = sys.modules.get("torch")
    if torch is not None and models > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // models))
