"""The rows of a pretraining micro-batch, as tensors."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from electrain.pretraining.objectives.masking import MaskedBatch


class Rows(NamedTuple):
    """Packed rows, the positions selected in them, and the random numbers for corrupting them.

    A field that is None applies to no row, and costs nothing.
    """

    token_ids: Tensor  # (batch, length) int64; the text
    token_type_ids: Tensor  # (batch, length) int64
    attention_mask: Tensor | None  # (batch, length) bool, True at real tokens; None if every token is real
    is_special: Tensor  # (batch, length) bool; True at [CLS], [SEP] and [PAD], which are never corrupted
    masked_ids: Tensor  # (batch, length) int64; the input of a masked language model
    positions: Tensor  # (batch, selected) int64; ascending; 0 in slots that a row does not use
    is_selected: Tensor  # (batch, selected) bool; False in slots that a row does not use
    uniforms: Tensor  # (batch, selected) float32 in [0, 1); each decides one draw of the generator
    temperature: Tensor | None = None  # () float32; divisor of the generator's logits; None means 1
    # (batch, length) int64; the text after noise that needs no generator; None for the text itself
    base_ids: Tensor | None = None
    # (batch, selected) bool; True where the discriminator sees [MASK] instead of a proposed word
    is_missing: Tensor | None = None
    # (batch, selected) bool; True where it sees the original word, although another was proposed
    is_kept: Tensor | None = None
    # (batch, length) bool; True at tokens that the generator writes before anything is masked
    is_written: Tensor | None = None
    # (batch, length) float32 in [0, 1); each decides one written token; None after writing
    writing_uniforms: Tensor | None = None
    # () float32; absolute factor of the discriminator's gradient that reaches the generator through relaxed words
    reversal: Tensor | None = None
    # (compared,) int64, ascending; the words that each original is compared with; None for the whole vocabulary
    compared: Tensor | None = None
    # (compared,) float32; the logarithm of the number of words that each of them stands for
    compared_weights: Tensor | None = None
    generator_alone: bool = False  # True in the generator's own stage, which leaves the discriminator out

    def to(self, device: torch.device) -> "Rows":
        """The same rows on a device."""
        return Rows._make(field.to(device, non_blocking=True) if isinstance(field, Tensor) else field for field in self)

    def pinned(self) -> "Rows":
        """The same rows in memory from which a CUDA device copies while the CPU goes on."""
        return Rows._make(field.pin_memory() if isinstance(field, Tensor) else field for field in self)

    @property
    def originals(self) -> Tensor:
        """(batch, selected) int64: the tokens of the text at the selected positions."""
        return self.token_ids.gather(1, self.positions)

    @property
    def is_selected_in_text(self) -> Tensor:
        """(batch, selected) bool: the selected positions that the generator did not write itself."""
        if self.is_written is None:
            return self.is_selected
        return self.is_selected & ~self.is_written.gather(1, self.positions)

    @property
    def is_shown(self) -> Tensor:
        """(batch, selected) bool: the selected positions at which the discriminator does not see [MASK]."""
        return self.is_selected if self.is_missing is None else self.is_selected & ~self.is_missing

    @property
    def is_played(self) -> Tensor:
        """(batch, selected) bool: where the discriminator sees a proposed word in real text: the adversary's moves."""
        return self.is_shown & self.is_selected_in_text

    @property
    def is_detected(self) -> Tensor | None:
        """(batch, length) bool: the tokens that detection scores, all real ones but [MASK]; None if all are scored."""
        if self.is_missing is None:
            return self.attention_mask
        is_shown = torch.ones_like(self.token_ids, dtype=torch.bool)
        # An unused slot points at position 0, and writes the True that is already there.
        is_shown = is_shown.scatter(1, self.positions, ~(self.is_missing & self.is_selected))
        return is_shown if self.attention_mask is None else is_shown & self.attention_mask

    @property
    def comparing_all(self) -> "Rows":
        """The same rows for a head that computes the logits of the whole vocabulary."""
        return self._replace(compared=None, compared_weights=None)

    @property
    def words(self) -> Tensor | None:
        """(compared + batch * selected,) int64: the words whose logits are needed; None for the whole vocabulary."""
        return None if self.compared is None else torch.cat([self.compared, self.originals.flatten()])

    @property
    def answers(self) -> Tensor:
        """(batch, selected) int64: where the logits of the originals stand among those that are computed."""
        return self.originals if self.compared is None else torch.zeros_like(self.positions)

    def answerable(self, logits: Tensor) -> Tensor:
        """(batch, selected, words) float: the logits with whose softmax the originals are predicted.

        Of sampled words, each counts for all that it stands for, and the original only once.
        """
        if self.compared_weights is None:
            return logits
        return self.distinct(logits.float() + functional.pad(self.compared_weights, (1, 0)))

    def distinct(self, logits: Tensor) -> Tensor:
        """(batch, selected, words) float: the logits, -inf where an original stands a second time.

        The two would differ by rounding.
        """
        if self.compared is None:
            return logits
        originals = self.originals.unsqueeze(-1)
        place = torch.searchsorted(self.compared, originals).clamp(max=len(self.compared) - 1)
        twin = torch.where(self.compared[place] == originals, -torch.inf, 0.0).to(logits.dtype)
        return logits.scatter_add(-1, 1 + place, twin)

    def proposable(self, logits: Tensor) -> Tensor:
        """(batch, selected, words) float32: the logits from whose softmax words are drawn, at the temperature.

        The original is among the sampled words only by chance.
        """
        if self.compared_weights is None:
            return self.tempered(logits)
        return self.tempered(logits[..., 1:].float()) + self.compared_weights

    def tempered(self, logits: Tensor) -> Tensor:
        """(...) float: the logits divided by the temperature, as words are drawn from."""
        return logits if self.temperature is None else logits.float() / self.temperature


def rows_of(masked: MaskedBatch, *, with_padding: bool) -> Rows:
    """A masked batch as rows. Rows that are never padded get no attention mask: attention is faster without one."""
    packed = masked.packed
    return Rows(
        token_ids=packed.token_ids,
        token_type_ids=packed.token_type_ids,
        attention_mask=packed.is_real if with_padding else None,
        is_special=packed.is_special,
        masked_ids=masked.masked_ids,
        positions=masked.positions,
        is_selected=masked.is_selected,
        uniforms=masked.uniforms,
        base_ids=masked.base_ids,
    )


def number_of(is_true: Tensor) -> int | Tensor:
    """How many are True: an integer on the CPU; elsewhere a () int64 tensor, for which the CPU does not wait."""
    counted = is_true.sum()
    return int(counted) if counted.device.type == "cpu" else counted
