"""The probe of a run: what a linear classifier reads out of the frozen encoder, on texts that did not fit it.

A copy of the encoder reads the texts and no random number is drawn, so that a run with a probe trains as one without.
"""

import copy
import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from electrain.data.labelled.columns import Columns
from electrain.data.labelled.conll import COLUMN_FORMATS
from electrain.data.labelled.examples import TaggedExample
from electrain.data.labelled.reading import read_examples
from electrain.data.labelled.records import DELIMITED
from electrain.data.text.compression import uncompressed_suffix
from electrain.data.text.options import options_called
from electrain.data.tokenizer.plain_text import cleaner_for, encode_plain
from electrain.data.tokenizer.unknown import unknown_share
from electrain.foundation.configuration import require_at_least
from electrain.foundation.errors import ConfigurationError, DataError
from electrain.foundation.output_folder import text_hash
from electrain.foundation.progress import counted, say

if TYPE_CHECKING:
    from electrain.pretraining.configuration import PretrainConfig

PROBES_PER_RUN = 10
# Of the time of the steps between two probes, for the states; padding and the classifier make about 2% of it (see
# docs/experiments.md). A step computes forward and backward, three times what a probe does.
MOST_COST, PASSES_PER_STEP = 0.012, 3
# Fewer texts say nothing; more say no more that is worth their time.
FEWEST_TEXTS, MOST_TEXTS = 100, 2000
# Of either kind. The closed form then takes about as long as the states, for encoders of any width.
MOST_EXAMPLES = 4000
TEXTS_PER_PASS = 64
# Of the squared weights on standardised features; from 1 to 1,000 the accuracy differs by less than its error.
PENALTY = 300.0
# What `finetune` can be told about its examples and the probe cannot.
_LACKING = ("pair-column", "label-separator", "separator", "quoting", "skip-broken")


@dataclass(frozen=True)
class ProbeConfig:
    """The probe, which tells during the run how good its encoder is, and so which checkpoint to fine-tune.

    Attributes:
        labelled: Labelled examples that the probe learns from and is scored on, half and half: a file, or anything else
            that `finetune` reads. Empty: no probe.
        task: What the examples are. tagging has a tag for each word, classification one label for each text; auto goes
            by the file's name, of which .conll, .conllu, .txt, .bio and .iob are tagging.
        every_steps: Number of steps between probes, each of which also writes a checkpoint; 0 probes ten times in a
            run. The last step is always probed.
        text_column: Column of the texts or words: a name, or a number from 1 in files like .conll. Empty: found by
            usual names. Where it is given, texts are read without second texts.
        label_column: Column of the labels or tags, named like text_column. Empty: found by usual names; in files like
            .conll mostly the last.
    """

    labelled: str = ""
    task: Literal["auto", "tagging", "classification"] = "auto"
    every_steps: int = 0
    text_column: str = ""
    label_column: str = ""

    def __post_init__(self) -> None:
        require_at_least("every_steps", self.every_steps, 0)


@dataclass(frozen=True)
class ProbeText:
    """A text, and what is asked about it."""

    ids: NDArray[np.int64]  # (tokens,), with special tokens
    places: NDArray[np.int64]  # (examples, tokens of each): the tokens whose states, averaged, stand for an example
    labels: Sequence[str]  # of each example


@dataclass(frozen=True)
class ProbeScore:
    """What the classifier gets right."""

    accuracy: float  # per cent of the examples that did not fit it
    standard_error: float  # of the accuracy, in points; texts, not examples, count as independent


@dataclass(frozen=True)
class Probe:
    """Texts that fit a linear classifier, and texts that score it."""

    fitted: Sequence[ProbeText]
    scored: Sequence[ProbeText]
    padding_id: int

    @property
    def hash(self) -> str:
        """Of all that the texts say and ask."""
        told = [(text.ids.tolist(), text.places.tolist(), list(text.labels)) for text in (*self.fitted, *self.scored)]
        return text_hash(repr((len(self.fitted), told)))

    def score(self, encoder: PreTrainedModel, precision: AbstractContextManager[Any]) -> ProbeScore:
        """The accuracy of a ridge classifier of the standardised states of all layers side by side.

        Args:
            encoder: is left as it is.
            precision: of the states.
        """
        frozen = copy.deepcopy(encoder).eval()  # without what was compiled, for rows of another form
        with precision:
            fitted, scored = (_features(frozen, texts, self.padding_id) for texts in (self.fitted, self.scored))
        classifier = linear_classifier(PENALTY)
        classifier.fit(fitted, np.concatenate([text.labels for text in self.fitted]))
        is_right = classifier.predict(scored) == np.concatenate([text.labels for text in self.scored])
        counts = np.array([len(text.labels) for text in self.scored])
        right = np.add.reduceat(is_right, np.cumsum([0, *counts[:-1]]), dtype=np.float64)
        accuracy = right.sum() / counts.sum()
        # That of a ratio of two sums over texts: Cochran 1977, "Sampling Techniques", section 6.3.
        spread = np.square(right - accuracy * counts).sum() * len(counts) / max(1, len(counts) - 1)
        return ProbeScore(100 * float(accuracy), 100 * float(np.sqrt(spread) / counts.sum()))


def linear_classifier(penalty: float) -> Any:
    """A ridge classifier of standardised features, as scikit-learn has it. Args: penalty: of the squared weights."""
    from sklearn.linear_model import RidgeClassifier  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    return make_pipeline(StandardScaler(), RidgeClassifier(penalty))


def _features(encoder: PreTrainedModel, texts: Sequence[ProbeText], padding_id: int) -> NDArray[np.float32]:
    """(examples, layers x width) float32; numbers that are not finite, of a run gone wrong, are 0."""
    states = np.concatenate(states_of(encoder, texts, padding_id))
    return np.nan_to_num(states.reshape(len(states), -1), posinf=0.0, neginf=0.0)


@torch.no_grad()
def states_of(encoder: PreTrainedModel, texts: Sequence[ProbeText], padding_id: int) -> list[NDArray[np.float32]]:
    """For each text (examples, layers, width) float32: the states of its examples, embeddings first."""
    found: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(texts)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place].ids))  # so that little is padded
    for start in range(0, len(order), TEXTS_PER_PASS):
        some = order[start : start + TEXTS_PER_PASS]
        rows = [torch.from_numpy(texts[place].ids) for place in some]
        ids = pad_sequence(rows, batch_first=True, padding_value=padding_id).to(encoder.device)
        is_real = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(encoder.device)
        layers = encoder(input_ids=ids, attention_mask=is_real, output_hidden_states=True).hidden_states
        for row, place in enumerate(some):
            asked = torch.from_numpy(texts[place].places).to(encoder.device)
            found[place] = torch.stack([layer[row][asked].float().mean(1) for layer in layers], 1).cpu().numpy()
    return found


def places_of(words: Sequence[int | None], *, is_pooled: bool) -> NDArray[np.int64]:
    """The tokens of each example, as in `ProbeText`: the first of each word; pooled, all of them for the one example.

    Args: words: for each token the number of its word; None at special tokens.
    """
    inside = [place for place, word in enumerate(words) if word is not None]
    first = [place for place in inside if place == 0 or words[place - 1] != words[place]]
    return np.array([inside], np.int64) if is_pooled else np.array(first, np.int64)[:, None]


def _every(config: "PretrainConfig") -> int:
    return config.probe.every_steps or max(1, config.training.steps // PROBES_PER_RUN)


def is_probed(config: "PretrainConfig", step: int) -> bool:
    """True at the steps after which a run is probed."""
    return bool(config.probe.labelled) and (step % _every(config) == 0 or step == config.training.steps)


def how_to_resume(begun: ProbeConfig) -> str:
    """What a run needs to go on that began with this probe, in words."""
    if not begun.labelled:
        return "it began without one; leave --probe.labelled out"
    given = {name: value for name, value in vars(begun).items() if value != getattr(ProbeConfig(), name)}
    flags = " ".join(f"--probe.{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in given.items())
    return f"resume with {flags}, or name the place where the same texts lie now"


def probe_of(config: "PretrainConfig", tokenizer: PreTrainedTokenizerFast) -> Probe | None:
    """The probe of a run; None without one.

    Raises: DataError: the labelled examples cannot be read, or are too few. ConfigurationError: there are none, and
        another field says how to read them.
    """
    settings, training = config.probe, config.training
    if not settings.labelled:
        if settings != ProbeConfig():
            idle = ", ".join(name for name, value in vars(settings).items() if value != getattr(ProbeConfig(), name))
            raise ConfigurationError(f"[probe] {idle}: nothing is probed without texts; give --probe.labelled too")
        return None
    affordable = round(MOST_COST * PASSES_PER_STEP * min(_every(config), training.steps) * training.batch_rows)
    most = min(max(affordable, FEWEST_TEXTS), MOST_TEXTS)
    chosen = _labelled_texts(settings, tokenizer, config.data.sequence_length, most)
    half = len(chosen) // 2
    fitted, scored = _cut(chosen[:half]), _cut(chosen[half:])
    known = {label for text in fitted for label in text.labels}
    if len(scored) < 2 or len(known) < 2:
        raise DataError(
            f"[probe] labelled = {settings.labelled}: {counted(len(chosen), 'example')}, and the first half has "
            f"{counted(len(known), 'label')}; give at least four with two labels, better hundreds"
        )
    labels = [label for text in scored for label in text.labels]
    commonest = Counter(label for text in fitted for label in text.labels).most_common(1)[0][0]
    say(
        f"probe: {counted(len(fitted), 'text')} to fit and {len(scored):,} to score; the commonest label alone is "
        f"right for {100 * labels.count(commonest) / len(labels):.1f}%"
    )
    return Probe(fitted, scored, int(tokenizer.pad_token_id or 0))


def _cut(texts: Sequence[ProbeText]) -> Sequence[ProbeText]:
    """The first texts, up to about MOST_EXAMPLES."""
    counts = np.cumsum([len(text.labels) for text in texts])
    return texts[: int(np.searchsorted(counts, MOST_EXAMPLES)) + 1]


def _labelled_texts(
    settings: ProbeConfig, tokenizer: PreTrainedTokenizerFast, longest: int, most: int
) -> list[ProbeText]:
    """Up to `most` of the examples as the encoder reads them, cut to the longest row that it is trained on."""
    task, clean = settings.task, cleaner_for(tokenizer)
    if task == "auto":
        task = "tagging" if uncompressed_suffix(Path(settings.labelled)) in COLUMN_FORMATS else "classification"
    columns = Columns(settings.text_column, label=settings.label_column)
    try:
        with options_called("--probe.", lacking=_LACKING):
            read = read_examples(task, [settings.labelled], columns, clean=clean)
            read.say_rivals()
    except DataError as error:
        raise DataError(f"[probe] labelled: {error}{_further_advice(error, settings)}") from error
    examples = read.examples
    order = np.random.default_rng(0).permutation(len(examples))[:most]  # a file may be sorted by its labels
    examples = [examples[place] for place in order]
    cut = partial(encode_plain, tokenizer, truncation=True, max_length=longest)
    if task == "tagging":
        encoded = cut([list(map(clean, one.words)) for one in examples], is_split_into_words=True)
    else:
        pairs = any(one.second for one in examples)
        encoded = cut([one.first for one in examples], [one.second or "" for one in examples] if pairs else None)
    unknown = unknown_share(encoded["input_ids"], tokenizer)
    what, remedy = f"[probe] labelled = {settings.labelled}", "give texts in the language of the shards"
    unknown.require_few(what, remedy, way_out="")
    unknown.say(what, remedy)
    texts = []
    for row, example in enumerate(examples):
        words, is_tagged = encoded.word_ids(row), isinstance(example, TaggedExample)
        places = places_of(words, is_pooled=not is_tagged)
        if is_tagged:
            labels = [example.tags[words[place]] for place in places[:, 0]]
        elif len(example.labels) == 1:
            labels = list(example.labels)
        else:
            number = len(example.labels)
            raise DataError(f"[probe] labelled: {example.source}: {number} labels; give texts with one label each")
        if places.size:
            texts.append(ProbeText(np.array(encoded["input_ids"][row], np.int64), places, labels))
    return texts


def _further_advice(error: DataError, settings: ProbeConfig) -> str:
    """What helps a probe besides, where its labelled texts cannot be read."""
    if "no such file" in str(error):
        return ", or give --probe.labelled the place where it lies now"
    if settings.task == "auto" and uncompressed_suffix(Path(settings.labelled)) not in (*COLUMN_FORMATS, *DELIMITED):
        return "; if each word has a tag, set --probe.task tagging"
    return ""
