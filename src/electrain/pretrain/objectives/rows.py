"""The rows of a pretraining micro-batch, as tensors."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from electrain.pretrain.objectives.masking import MaskedBatch


class Rows(NamedTuple):
    """Packed rows, the positions selected in them, and the random numbers that decide what happens there.

    A field that is None applies to no row, and costs nothing.

    Attributes:
        token_ids: (batch, length) int64; the text.
        token_type_ids: (batch, length) int64.
        attention_mask: (batch, length) bool, True at real tokens; None where every token is real.
        is_special: (batch, length) bool; True at [CLS], [SEP] and [PAD], which are never corrupted.
        masked_ids: (batch, length) int64; what a masked language model reads.
        positions: (batch, selected) int64; ascending; 0 in the slots that a row does not use.
        is_selected: (batch, selected) bool; False in the slots that a row does not use.
        uniforms: (batch, selected) float32 in [0, 1); each decides one draw of the generator.
        temperature: () float32 that the generator's logits are divided by; None: 1.
        base_ids: (batch, length) int64; the text after noise that needs no generator; None: the text itself.
        is_missing: (batch, selected) bool; True where the discriminator sees [MASK] and no proposal.
        is_kept: (batch, selected) bool; True where it sees the original, although a word was proposed.
        is_written: (batch, length) bool; True at tokens that the generator writes before anything is masked.
        writing_uniforms: (batch, length) float32 in [0, 1); each decides one written token; None once they are written.
        reversal: () float32; factor, its sign apart, of the discriminator's gradient when it reaches the generator
            through relaxed words.
        generator_alone: True in a stage of the generator's own, which leaves the discriminator out.
    """

    token_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor | None
    is_special: Tensor
    masked_ids: Tensor
    positions: Tensor
    is_selected: Tensor
    uniforms: Tensor
    temperature: Tensor | None = None
    base_ids: Tensor | None = None
    is_missing: Tensor | None = None
    is_kept: Tensor | None = None
    is_written: Tensor | None = None
    writing_uniforms: Tensor | None = None
    reversal: Tensor | None = None
    generator_alone: bool = False

    def to(self, device: torch.device) -> "Rows":
        """The same rows on a device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        return self._replace(**moved)

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
        """(batch, selected) bool: the selected positions at which the discriminator is not shown [MASK]."""
        return self.is_selected if self.is_missing is None else self.is_selected & ~self.is_missing

    @property
    def is_played(self) -> Tensor:
        """(batch, selected) bool: where the generator's word is shown in real text, a move of the adversarial game."""
        return self.is_shown & self.is_selected_in_text

    @property
    def is_detected(self) -> Tensor | None:
        """(batch, length) bool: the real tokens that detection is asked about, which leaves [MASK] out; None: all."""
        if self.is_missing is None:
            return self.attention_mask
        is_shown = torch.ones_like(self.token_ids, dtype=torch.bool)
        # A slot that a row does not use points at position 0 and writes the True that already stands there.
        is_shown = is_shown.scatter(1, self.positions, ~(self.is_missing & self.is_selected))
        return is_shown if self.attention_mask is None else is_shown & self.attention_mask

    def tempered(self, logits: Tensor) -> Tensor:
        """(...) float: the logits of the distribution that words are drawn from."""
        return logits if self.temperature is None else logits.float() / self.temperature


def rows_of(masked: MaskedBatch, *, with_padding: bool) -> Rows:
    """A masked batch as tensors. Attention without a mask is faster, so rows that cannot be padded get none."""
    packed = masked.packed
    return Rows(
        token_ids=torch.from_numpy(packed.token_ids),
        token_type_ids=torch.from_numpy(packed.token_type_ids),
        attention_mask=torch.from_numpy(packed.is_real) if with_padding else None,
        is_special=torch.from_numpy(packed.is_special),
        masked_ids=torch.from_numpy(masked.masked_ids),
        positions=torch.from_numpy(masked.positions),
        is_selected=torch.from_numpy(masked.is_selected),
        uniforms=torch.from_numpy(masked.uniforms),
        base_ids=None if masked.base_ids is None else torch.from_numpy(masked.base_ids),
    )
