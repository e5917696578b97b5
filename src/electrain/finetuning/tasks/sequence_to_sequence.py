"""Summarization and translation: an encoder reads the text, a decoder writes the output, token after token."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from electrain.data.labelled.examples import PairedExample
from electrain.data.tokenizer.plain_text import plain_ids
from electrain.data.tokenizer.targets import is_word_piece, writing_ids, written_text
from electrain.finetuning.tasks.detokenize import detokenize
from electrain.finetuning.tasks.metrics import looks_chinese, summary_scores, translation_scores, translation_signature
from electrain.finetuning.tasks.network import AskedModel, Writing, network_of
from electrain.finetuning.tasks.task import Answer, Collated, Row, Task, as_tensors, padded, results_in_order, tokens_of
from electrain.foundation.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_UNSCORED = -100  # what PyTorch's cross-entropy leaves out


@dataclass(frozen=True)
class SequenceToSequence(Task[PairedExample]):
    """A task whose answer is a text. Longer source texts are cut at the end.

    Attributes, besides those of `Task`:
        target_tokenizer: the tokenizer of the text that is written; may be the same.
        longest_target_tokens: maximum length of the target, end token counted; training targets are cut there, and
            writing stops there.
        label_smoothing: part of each target's probability that is spread over the vocabulary (Szegedy et al. 2016).
        beams, length_penalty, no_repeat_ngram_tokens: see `GenerationConfig`.
    """

    longest_tokens: int = 256
    _: KW_ONLY
    name: Literal["summarization", "translation"]
    target_tokenizer: "PreTrainedTokenizerFast"
    longest_target_tokens: int = 64
    label_smoothing: float = 0.1
    beams: int = 4
    length_penalty: float = 1.0
    no_repeat_ngram_tokens: int = 0

    @property
    def main_score(self) -> str:
        return "bleu" if self.name == "translation" else "rougeL"

    @property
    def score_names(self) -> tuple[str, ...]:
        return ("bleu", "chrf") if self.name == "translation" else ("rouge1", "rouge2", "rougeL")

    def rows(self, examples: Sequence[PairedExample]) -> list[Row]:
        """The source is [CLS] ... [SEP], the target ... and the end token; None if an example has none."""
        targets = plain_ids(self.target_tokenizer, [example.target for example in examples])
        end = writing_ids(self.target_tokenizer).end
        room = self.longest_target_tokens - 1
        return [
            replace(row, target=[*target[:room], end] if example.target else None, is_target_cut=len(target) > room)
            for row, example, target in zip(self._source_rows(examples), examples, targets, strict=True)
        ]

    def _source_rows(self, examples: Sequence[PairedExample]) -> list[Row]:
        room = self.longest_tokens - 2
        rows = []
        for number, ids in enumerate(plain_ids(self.tokenizer, [example.text for example in examples])):
            whole = [self.tokenizer.cls_token_id, *ids[:room], self.tokenizer.sep_token_id]
            rows.append(Row(number, whole, [0] * len(whole), is_cut=len(ids) > room))
        return rows

    def collate(self, rows: Sequence[Row]) -> Collated:
        """`labels` is (rows, longest target) int64, -100 at padding.

        The decoder's input is the target shifted by one place, with the start token in front: at each place it has seen
        the tokens before, and its label is the next token.
        """
        import torch

        tensors, tokens = self.inputs(rows), tokens_of(rows)
        if any(row.target is None for row in rows):
            return Collated(tensors, 0, tokens)
        ids = writing_ids(self.target_tokenizer)
        read = padded([[ids.start, *row.target[:-1]] for row in rows], ids.pad)
        tensors |= as_tensors({"decoder_input_ids": read, "labels": padded([row.target for row in rows], _UNSCORED)})
        is_real = tensors["labels"] != _UNSCORED
        if not is_real.all():
            tensors["decoder_attention_mask"] = is_real.to(torch.int64)
        scored = int(is_real.sum())
        return Collated(tensors, scored, tokens + scored)

    def loss(self, model: "PreTrainedModel", tensors: "Mapping[str, Tensor]") -> "Tensor":
        """() float32: label-smoothed cross-entropy in nats, summed over the target tokens, ends included."""
        from torch.nn import functional

        inputs = {name: value for name, value in tensors.items() if name != "labels"}
        logits = model(**inputs, use_cache=False).logits
        return functional.cross_entropy(
            logits.float().flatten(0, 1),
            tensors["labels"].flatten(),
            ignore_index=_UNSCORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def answer(self, model: AskedModel, examples: Sequence[PairedExample]) -> list[Answer]:
        """{"text", "output"} for each example: the source, and what the model writes."""
        source_tokens = max(1, self.batch_tokens // self.beams)  # the beams of a text go through the model together
        outputs = results_in_order(self._source_rows(examples), source_tokens, partial(self._write, model))
        return [{"text": example.text, "output": text} for example, (_, text) in zip(examples, outputs, strict=True)]

    def _write(self, model: AskedModel, rows: Sequence[Row]) -> list[str]:
        writing = Writing(self.beams, self.length_penalty, self.no_repeat_ngram_tokens, self.longest_target_tokens)
        written = network_of(model).write(self.arrays(rows), writing)
        texts = [written_text(self.target_tokenizer, ids) for ids in written]
        return [detokenize(text) for text in texts] if is_word_piece(self.target_tokenizer) else texts

    def score(self, examples: Sequence[PairedExample], answers: Sequence[Answer]) -> dict[str, float]:
        """`bleu` and `chrf` of translations; `rouge1`, `rouge2` and `rougeL` of summaries; all in per cent.

        Raises: DataError: an example has neither target nor references.
        """
        references = [references_of(example) for example in examples]
        outputs = [str(answer["output"]) for answer in answers]
        if self.name == "translation":
            return translation_scores(references, outputs, tokenize=bleu_tokenizer(references))
        return summary_scores(references, outputs, by_characters=are_chinese(references))

    def score_settings(self, examples: Sequence[PairedExample]) -> dict[str, object]:
        """sacreBLEU's signatures for translations; for summaries, whether ROUGE compares words or characters."""
        references = [references_of(example) for example in examples]
        if self.name == "summarization":
            units = "characters" if are_chinese(references) else "words, stemmed"
            return {"rouge": units, "of_several_references": "the best"}
        return {"signatures": translation_signature(references, tokenize=bleu_tokenizer(references))}


def are_chinese(references: Sequence[Sequence[str]]) -> bool:
    """True if the references, each text's first one, are Chinese."""
    return looks_chinese([texts[0] for texts in references])


def bleu_tokenizer(references: Sequence[Sequence[str]]) -> str:
    """sacreBLEU's tokenizer for these references."""
    return "zh" if are_chinese(references) else "13a"


def references_of(example: PairedExample) -> list[str]:
    """The target and the further references. Raises: DataError: there is none."""
    references = [text for text in (example.target, *example.references) if text]
    if not references:
        raise DataError(
            f"{example.source or 'an example'}: has no target to compare with; add one or remove the example"
        )
    return references


def copying_pairs(texts: Sequence[str], targets: Sequence[str]) -> list[dict[str, str]]:
    """Each text paired with its own beginning, as long as the median target: such pairs teach a decoder to copy."""
    length = round(statistics.median(len(target) for target in targets))
    return [{"text": text, "summary": first_words(text, length)} for text in texts]


def first_words(text: str, characters: int) -> str:
    """The beginning of a text, about `characters` long and up to the end of a word: the simplest summary."""
    if looks_chinese([text]):
        return text[:characters]
    end = text.find(" ", characters)
    return text if end < 0 else text[:end]
