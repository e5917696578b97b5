"""Tagging: each word of a sentence gets a tag; BIO tags mark names and other entities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from electrain.data.labelled.examples import TaggedExample
from electrain.data.text.cleaning import clean_text
from electrain.data.tokenizer.plain_text import encode_plain
from electrain.data.tokenizer.windows import windows_of
from electrain.finetune.tasks.metrics import are_entity_tags, tagging_scores
from electrain.finetune.tasks.task import (
    Answer,
    Collated,
    Row,
    Task,
    inference_batches,
    logits_and_targets,
    padded,
    tokens_of,
)

# The target of tokens that the loss leaves out, which is PyTorch's default for it: all but the first of each word.
IGNORED = -100
OUTSIDE = "O"


@dataclass(frozen=True)
class Tagging(Task[TaggedExample]):
    """Tagging; the tag of a word is predicted at its first token (Devlin et al. 2018, section 5.3).

    Longer sentences are split into overlapping windows.
    """

    labels: tuple[str, ...] = ()  # the tags, in the order of the logits
    class_weights: tuple[float, ...] = ()  # of each tag in the loss; empty: all weigh 1

    @property
    def has_entities(self) -> bool:
        """True where the tags are BIO or BIOES."""
        return are_entity_tags(self.labels)

    @property
    def main_score(self) -> str:
        return "f1" if self.has_entities else "accuracy"

    @property
    def score_names(self) -> tuple[str, ...]:
        if not self.has_entities:
            return ("accuracy",)
        types = sorted({tag.partition("-")[2] for tag in self.labels} - {""})
        return ("accuracy", "precision", "recall", "f1", *(f"f1_{kind}" for kind in types))

    def rows(self, examples: Sequence[TaggedExample]) -> list[Row]:
        """One row for each window; `places` has for each token the word whose tag it predicts, or None."""
        words_of = [list(map(clean_text, example.words)) for example in examples]
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
            tensors["targets"] = padded([row.target for row in rows], IGNORED)
            scored = int((tensors["targets"] != IGNORED).sum())
        return Collated(tensors, scored, tokens_of(rows))

    def loss(self, model: PreTrainedModel, tensors: Mapping[str, Tensor]) -> Tensor:
        """() float32: summed cross-entropy of the words' tags, in nats."""
        logits, targets = logits_and_targets(model, tensors)
        weights = logits.new_tensor(self.class_weights) if self.class_weights else None
        return functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), weights, ignore_index=IGNORED, reduction="sum"
        )

    @torch.inference_mode()
    def answer(self, model: PreTrainedModel, examples: Sequence[TaggedExample]) -> list[Answer]:
        """{"words", "tags"}, and {"entities": [{"type", "text", "first_word", "last_word"}]} where the tags are BIO.

        A word without any token (a control character, for instance) gets the tag O, or the first tag if there is no O.
        """
        silent = OUTSIDE if OUTSIDE in self.labels else self.labels[0]
        tags = [[silent] * len(example.words) for example in examples]
        for batch in inference_batches(self.rows(examples), self.batch_tokens):
            best = self.logits(model, batch).argmax(-1).tolist()
            for row, numbers in zip(batch, best, strict=True):
                for word, number in zip(row.places, numbers, strict=False):
                    if word is not None:
                        tags[row.example][word] = self.labels[number]
        pairs = zip(examples, tags, strict=True)
        answers: list[Answer] = [{"words": list(example.words), "tags": own} for example, own in pairs]
        if self.has_entities:
            answers = [one | {"entities": entities_of(one["words"], one["tags"])} for one in answers]
        return answers

    def score(self, examples: Sequence[TaggedExample], answers: Sequence[Answer]) -> dict[str, float]:
        truth, predicted = [example.tags for example in examples], [answer["tags"] for answer in answers]
        return tagging_scores(truth, predicted, has_entities=self.has_entities)

    def score_settings(self, examples: Sequence[TaggedExample]) -> dict[str, object]:
        """How entities are read from tags."""
        del examples
        return {"entities": "conlleval, as seqeval reads them by default"} if self.has_entities else {}


def entities_of(words: Sequence[str], tags: Sequence[str]) -> list[Answer]:
    """The entities that BIO or BIOES tags mark; as in conlleval, an entity may begin with I-."""
    entities: list[Answer] = []
    is_open = False
    for place, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        goes_on = is_open and prefix in ("I", "E") and entities[-1]["type"] == kind
        if kind and not goes_on:
            entities.append({"type": kind, "text": "", "first_word": place, "last_word": place})
        elif goes_on:
            entities[-1]["last_word"] = place
        is_open = bool(kind) and prefix not in ("E", "S")
    for entity in entities:
        inside = words[entity["first_word"] : entity["last_word"] + 1]
        # Single East Asian characters are joined as they are written, other words with a space.
        separator = "" if all(len(word) == 1 and ord(word) > 0x2E7F for word in inside) else " "
        entity["text"] = separator.join(inside)
    return entities
