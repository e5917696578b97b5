"""A trained model that can be asked from Python: `electrain.load`. Nothing here imports torch before it is needed."""

import operator
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, overload

from electrain.data.labelled.columns import Columns
from electrain.foundation.errors import CheckpointError, ConfigurationError, DataError
from electrain.foundation.hub import require_name
from electrain.foundation.progress import counted
from electrain.inference.answers import (
    Answer,
    ClassifiedText,
    DetectedText,
    Embedding,
    FilledText,
    FoundAnswer,
    RegressedText,
    TaggedText,
    WrittenOutput,
    WrittenText,
)
from electrain.inference.asked import (
    COLUMNS,
    Input,
    inputs_of,
    is_listed,
    plain_options,
    require_no_table,
    require_options,
    shown,
)
from electrain.inference.export.folder import is_exported

A = TypeVar("A", bound=Answer)


class Asked(Protocol):
    """The networks behind a predictor, however they are run."""

    @property
    def source(self) -> str:
        """The folder or hub id that they were read from."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks of `predict` that they can do."""

    @property
    def reads_pairs(self) -> bool | None:
        """Whether a fine-tuned model reads two texts; None where its folder does not say."""

    def ask(
        self, task: str, inputs: Iterable[Input], columns: Columns = ..., options: Mapping[str, Any] | None = None
    ) -> Iterator[Answer]:
        """The answer to each input, in order."""

    def ask_examples(self, task: str, sources: Sequence[str], columns: Columns = ...) -> Iterator[Answer]:
        """The answer to each example of labelled files, in order."""


def open_networks(source: Path | str, device: str | None = None, batch_tokens: int | None = None) -> Asked:
    """What answers for a folder or a hub id; `load` and `electrain predict` ask it.

    Raises: CheckpointError: there is no such folder, or it holds no model. ConfigurationError: no such device.
    """
    require_name(source)
    batch_tokens = None if batch_tokens is None else _batch_tokens(batch_tokens)
    if is_exported(source):
        from electrain.inference.export.networks import ExportedNetworks

        if device not in (None, "cpu"):
            raise ConfigurationError(f"device {device}: an exported folder runs on the CPU; leave it out")
        return ExportedNetworks(source, batch_tokens)
    from electrain.inference.predict.networks import Networks

    return Networks(source, device, batch_tokens)


def _batch_tokens(given: object) -> int:
    try:
        tokens = operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        tokens = None
    if tokens is None or isinstance(given, bool):
        raise ConfigurationError(f"batch_tokens = {shown(given)}: must be a whole number")
    if tokens < 1:
        raise ConfigurationError(f"batch_tokens = {tokens}: must be at least 1")
    return tokens


def load(source: Path | str, *, device: str | None = None, batch_tokens: int | None = None) -> "Predictor":
    """A predictor for a run folder, a model folder, a model of the Hugging Face hub, or an exported folder.

    Its networks are opened when they are first asked, each once.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps", ... By default the first GPU that works, else the CPU.
        batch_tokens: maximum number of tokens in a forward pass, padding counted. By default 8,192.
    Raises: CheckpointError: there is no such folder, or it holds no model that can be asked.
    """
    predictor = Predictor(open_networks(source, device, batch_tokens))
    predictor._again = partial(load, source, device=device, batch_tokens=batch_tokens)
    return predictor


class Predictor:
    """A trained model, asked by one method for each task that it can do; see `tasks`.

    A text gets an answer, several texts get a list of answers in the same order. Texts may have any length; how each
    task reads long ones is said in docs/guide.md. Any number of threads may ask: their calls are answered in turn.

    Raises, in every method: CheckpointError: the model cannot do the task. DataError: an input is not what it reads.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._lock = threading.Lock()
        self.source: str = asked.source
        self.tasks: tuple[str, ...] = asked.tasks
        self._again = partial(load, asked.source)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, in another process too, opens the same networks again."""
        return self._again, ()

    def __repr__(self) -> str:
        return f"Predictor({self.source!r}, tasks={self.tasks!r})"

    def ask(self, task: str, inputs: Iterable[object], **options: object) -> list[Answer]:
        """The answer to each input, in order; `electrain serve` calls it.

        Args:
            task: one of `tasks`.
            inputs: each a text, or a dict: {"text"}, {"text", "pair"}, {"question", "context"} or {"words"}.
            options: of the task, as the method of its name takes them.
        """
        self._require(task)
        options = plain_options(options)
        require_options(task, options)
        given = inputs_of(task, inputs, reads_pairs=self._asked.reads_pairs)
        with self._lock:
            return list(self._asked.ask(task, given, COLUMNS.get(task, Columns()), options))

    @property
    def reads_pairs(self) -> bool | None:
        """Whether a fine-tuned model reads two texts; None where its folder does not say."""
        return self._asked.reads_pairs

    # A str is itself an iterable of texts, which mypy points out in each pair of overloads.
    @overload
    def detect(self, texts: str) -> DetectedText: ...  # type: ignore[overload-overlap]
    @overload
    def detect(self, texts: Iterable[str]) -> list[DetectedText]: ...
    def detect(self, texts: str | Iterable[str]) -> DetectedText | list[DetectedText]:
        """The probability that each token of a text was replaced."""
        return self._one_or_many(DetectedText, "detect", texts)

    @overload
    def fill(self, texts: str, candidates: int = 5, by: str | None = None) -> FilledText: ...  # type: ignore[overload-overlap]
    @overload
    def fill(self, texts: Iterable[str], candidates: int = 5, by: str | None = None) -> list[FilledText]: ...
    def fill(
        self, texts: str | Iterable[str], candidates: int = 5, by: str | None = None
    ) -> FilledText | list[FilledText]:
        """The likeliest words at each [MASK] of a text.

        Args:
            candidates: number of words for each [MASK].
            by: "generator" or "correction". By default the generator if it is a masked one, else the correction head.
        """
        return self._one_or_many(FilledText, "fill", texts, candidates=candidates, by=by)

    @overload
    def embed(self, texts: str) -> Embedding: ...  # type: ignore[overload-overlap]
    @overload
    def embed(self, texts: Iterable[str]) -> list[Embedding]: ...
    def embed(self, texts: str | Iterable[str]) -> Embedding | list[Embedding]:
        """The vector of a text: the mean of the encoder's last hidden states over its tokens."""
        return self._one_or_many(Embedding, "embed", texts)

    @overload
    def generate(  # type: ignore[overload-overlap]
        self, texts: str, tokens: int = 40, temperature: float = 1.0, top_p: float = 0.95, seed: int = 0
    ) -> WrittenText: ...
    @overload
    def generate(
        self, texts: Iterable[str], tokens: int = 40, temperature: float = 1.0, top_p: float = 0.95, seed: int = 0
    ) -> list[WrittenText]: ...
    def generate(
        self,
        texts: str | Iterable[str],
        tokens: int = 40,
        temperature: float = 1.0,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> WrittenText | list[WrittenText]:
        """The continuation of a text by the causal generator.

        Args:
            tokens: number of tokens to write.
            temperature: of sampling, above 0. Lower values favour likely tokens.
            top_p: sample from the likeliest tokens whose probabilities sum to this value, above 0 and at most 1.
            seed: decides the words drawn, together with the number of the text.
        """
        options = {"tokens": tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
        return self._one_or_many(WrittenText, "generate", texts, **options)

    @overload
    def classify(self, texts: str, pairs: str | None = None) -> ClassifiedText: ...  # type: ignore[overload-overlap]
    @overload
    def classify(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> list[ClassifiedText]: ...
    def classify(
        self, texts: str | Iterable[str], pairs: str | Iterable[str] | None = None
    ) -> ClassifiedText | list[ClassifiedText]:
        """The label of a text, or of a text and its pair, with the probability of each label."""
        return self._one_or_many(ClassifiedText, "classify", _paired("classify", texts, pairs))

    @overload
    def regress(self, texts: str, pairs: str | None = None) -> RegressedText: ...  # type: ignore[overload-overlap]
    @overload
    def regress(self, texts: Iterable[str], pairs: Iterable[str] | None = None) -> list[RegressedText]: ...
    def regress(
        self, texts: str | Iterable[str], pairs: str | Iterable[str] | None = None
    ) -> RegressedText | list[RegressedText]:
        """The number of a text, or of a text and its pair."""
        return self._one_or_many(RegressedText, "regress", _paired("regress", texts, pairs))

    @overload
    def tag(self, texts: str) -> TaggedText: ...  # type: ignore[overload-overlap]
    @overload
    def tag(self, texts: Iterable[str | Sequence[str]]) -> list[TaggedText]: ...
    def tag(self, texts: str | Iterable[str | Sequence[str]]) -> TaggedText | list[TaggedText]:
        """The tag of each word of a text.

        Args:
            texts: a text, or several, each a str or a list of its words. So the words of one sentence are given as a
                list that holds one list.
        """
        is_one = isinstance(texts, str | Mapping)
        given = texts if is_one else [_sentence(one) for one in _listed("texts", texts)]
        return self._one_or_many(TaggedText, "tag", given)

    @overload
    def answer(self, questions: str, contexts: str) -> FoundAnswer: ...  # type: ignore[overload-overlap]
    @overload
    def answer(self, questions: Iterable[str], contexts: str | Iterable[str]) -> list[FoundAnswer]: ...
    def answer(self, questions: str | Iterable[str], contexts: str | Iterable[str]) -> FoundAnswer | list[FoundAnswer]:
        """The part of each context that answers its question. Several questions may share one context."""
        if isinstance(contexts, str) and not isinstance(questions, str):
            listed = _listed("questions", questions)
            return self._one_or_many(FoundAnswer, "answer", _paired("answer", listed, [contexts] * len(listed)))
        return self._one_or_many(FoundAnswer, "answer", _paired("answer", questions, contexts))

    @overload
    def summarize(self, texts: str) -> WrittenOutput: ...  # type: ignore[overload-overlap]
    @overload
    def summarize(self, texts: Iterable[str]) -> list[WrittenOutput]: ...
    def summarize(self, texts: str | Iterable[str]) -> WrittenOutput | list[WrittenOutput]:
        """The summary of a text."""
        return self._one_or_many(WrittenOutput, "summarize", texts)

    @overload
    def translate(self, texts: str) -> WrittenOutput: ...  # type: ignore[overload-overlap]
    @overload
    def translate(self, texts: Iterable[str]) -> list[WrittenOutput]: ...
    def translate(self, texts: str | Iterable[str]) -> WrittenOutput | list[WrittenOutput]:
        """The translation of a text."""
        return self._one_or_many(WrittenOutput, "translate", texts)

    def _require(self, task: str) -> None:
        if task not in self.tasks:
            raise CheckpointError(f"{self.source}: cannot {task}; it can {', '.join(self.tasks)}")

    def _one_or_many(self, kind: type[A], task: str, given: object, **options: object) -> A | list[A]:
        """The answer to one input, or the list of answers to several. `kind` is the type of the task's answers."""
        is_one = isinstance(given, str | Mapping)
        answers = cast(list[A], self.ask(task, [given] if is_one else _listed("texts", given), **options))
        return answers[0] if is_one else answers


def _listed(name: str, given: object) -> list[object]:
    require_no_table(name, given)
    if isinstance(given, Mapping):
        raise DataError(f"{name}: a dict is one input with all its texts; give it alone, or give a str or a list here")
    if not is_listed(given):
        raise DataError(f"{name}: {shown(given)} is no text; give a str, or a list of them")
    return list(cast(Iterable[object], given))


def _sentence(one: object) -> object:
    return {"words": one} if isinstance(one, Sequence) and not isinstance(one, str | bytes) else one


def _paired(task: str, texts: object, pairs: object) -> object:
    """The inputs of a task that may read two texts."""
    first, second = ("question", "context") if task == "answer" else ("text", "pair")
    if pairs is None:
        return texts
    if isinstance(texts, str) != isinstance(pairs, str):
        raise DataError(f"{second}s: give one {second} with one {first}, or a list with a list")
    if isinstance(texts, str):
        return {first: texts, second: pairs}
    listed, others = _listed(f"{first}s", texts), _listed(f"{second}s", pairs)
    if len(listed) != len(others):
        raise DataError(f"{second}s: {len(others):,} for {counted(len(listed), first)}; give one for each")
    return [{first: one, second: other} for one, other in zip(listed, others, strict=True)]
