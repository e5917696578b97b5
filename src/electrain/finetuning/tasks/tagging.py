"""Tagging: each word of a sentence gets a tag; tags of a scheme such as BIO mark names and other entities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from electrain.data.labelled.examples import TaggedExample
from electrain.data.labelled.tag_schemes import (
    OUTSIDE,
    PLAIN,
    SCHEMES,
    SchemeName,
    chunks_of_tags,
    scheme_of_labels,
)
from electrain.data.text.words import joined_words
from electrain.data.tokenizer.plain_text import cleaner_for, encode_plain
from electrain.data.tokenizer.windows import windows_of
from electrain.finetuning.tasks.metrics import tagging_scores
from electrain.finetuning.tasks.network import AskedModel
from electrain.finetuning.tasks.probabilities import softmax
from electrain.finetuning.tasks.task import (
    Answer,
    Collated,
    Row,
    Task,
    as_tensors,
    inference_batches,
    logits_and_targets,
    padded,
    tokens_of,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

# The target of tokens that the loss leaves out, which is PyTorch's default for it: all but the first of each word.
IGNORED = -100


@dataclass(frozen=True)
class Tagging(Task[TaggedExample]):
    """Tagging; the tag of a word is predicted at its first token (Devlin et al. 2018, section 5.3).

    Longer sentences are split into overlapping windows.
    """

    labels: tuple[str, ...] = ()  # the tags, in the order of the logits
    class_weights: tuple[float, ...] = ()  # of each tag in the loss; empty: all weigh 1
    tag_scheme: Literal["", SchemeName] = ""  # "": what the labels tell

    @property
    def scheme(self) -> SchemeName:
        """The scheme in which the tags mark entities; "none" where they mark none."""
        return self.tag_scheme or scheme_of_labels(self.labels)

    @property
    def main_score(self) -> str:
        return "accuracy" if self.scheme == PLAIN else "f1"

    @property
    def score_names(self) -> tuple[str, ...]:
        if self.scheme == PLAIN:
            return ("accuracy",)
        types = sorted({tag.partition("-")[2] for tag in self.labels} - {""})
        return ("accuracy", "precision", "recall", "f1", *(f"f1_{kind}" for kind in types))

    def rows(self, examples: Sequence[TaggedExample]) -> list[Row]:
        """One row for each window; `places` has for each token the word whose tag it predicts, or None."""
        clean = cleaner_for(self.tokenizer)
        words_of = [list(map(clean, example.words)) for example in examples]
        encoded = encode_plain(self.tokenizer, words_of, is_split_into_words=True, add_special_tokens=False)
        numbers = {label: number for number, label in enumerate(self.labels)}
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        rows = []
        for number, (example, ids) in enumerate(zip(examples, encoded["input_ids"], strict=True)):
            words = encoded.word_ids(number)
            firsts = [word if place == 0 or words[place - 1] != word else None for place, word in enumerate(words)]
            # Each word is answered for in one window only, that with the most context on both sides.
            for window in windows_of(number, len(ids), self.longest_tokens - 2):
                answered = [
                    first if window.answers_from <= place < window.answers_to else None
                    for place, first in enumerate(firsts)
                ]
                places = [None, *answered[window.start : window.end], None]
                targets = None
                if example.tags:
                    targets = [IGNORED if word is None else numbers[example.tags[word]] for word in places]
                tokens = [cls, *ids[window.start : window.end], sep]
                rows.append(Row(number, tokens, [0] * len(tokens), targets, places))
        return rows

    def collate(self, rows: Sequence[Row]) -> Collated:
        """`targets` is (rows, length) int64: the tag's number at the first token of a word, else -100."""
        tensors, scored = self.inputs(rows), 0
        if all(row.target is not None for row in rows):
            tensors |= as_tensors({"targets": padded([row.target for row in rows], IGNORED)})
            scored = int((tensors["targets"] != IGNORED).sum())
        return Collated(tensors, scored, tokens_of(rows))

    def loss(self, model: "PreTrainedModel", tensors: "Mapping[str, Tensor]") -> "Tensor":
        """() float32: summed cross-entropy of the words' tags, in nats."""
        from torch.nn import functional

        logits, targets = logits_and_targets(model, tensors)
        weights = logits.new_tensor(self.class_weights) if self.class_weights else None
        return functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), weights, ignore_index=IGNORED, reduction="sum"
        )

    def answer(self, model: AskedModel, examples: Sequence[TaggedExample]) -> list[Answer]:
        """{"words", "tags", "probabilities"}, and where tags mark entities, {"entities": [...]}, see `entities_of`.

        Each word has the probability of its tag. A word without any token (a control character, for instance) gets the
        tag O, or the first tag if there is no O, with the probability 1.
        """
        silent = OUTSIDE if OUTSIDE in self.labels else self.labels[0]
        tags = [[silent] * len(example.words) for example in examples]
        chances = [[1.0] * len(example.words) for example in examples]
        for batch in inference_batches(self.rows(examples), self.batch_tokens):
            found = softmax(self.logits(model, batch))
            for row, numbers, highest in zip(batch, found.argmax(-1).tolist(), found.max(-1).tolist(), strict=True):
                for word, number, chance in zip(row.places, numbers, highest, strict=False):
                    if word is not None:
                        tags[row.example][word], chances[row.example][word] = self.labels[number], chance
        answers: list[Answer] = [
            {"words": list(example.words), "tags": own, "probabilities": sure}
            for example, own, sure in zip(examples, tags, chances, strict=True)
        ]
        if self.scheme != PLAIN:
            answers = [one | {"entities": entities_of(one["words"], one["tags"], self.scheme)} for one in answers]
        return answers

    def score(self, examples: Sequence[TaggedExample], answers: Sequence[Answer]) -> dict[str, float]:
        truth, predicted = [example.tags for example in examples], [answer["tags"] for answer in answers]
        return tagging_scores(truth, predicted, scheme=self.scheme)

    def score_settings(self, examples: Sequence[TaggedExample]) -> dict[str, object]:
        """How entities are read from tags."""
        del examples
        if self.scheme == PLAIN:
            return {}
        is_strict = bool(SCHEMES[self.scheme].end)
        how = "seqeval's strict mode" if is_strict else "conlleval, as seqeval reads them by default"
        return {"tag_scheme": self.scheme, "entities": how}


def entities_of(words: Sequence[str], tags: Sequence[str], scheme: SchemeName = "bio") -> list[Answer]:
    """The entities that tags mark, as they are scored: {"type", "text", "first_word", "last_word"} each.

    See `chunks_of_tags`.
    """
    entities: list[Answer] = []
    for kind, first, last in chunks_of_tags(tags, scheme):
        text = joined_words(words[first : last + 1])
        entities.append({"type": kind, "text": text, "first_word": first, "last_word": last})
    return entities
