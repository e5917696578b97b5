"""The losses of the generator and of each head of the discriminator."""

import torch
from torch import Tensor
from torch.nn import functional


def word_loss(logits: Tensor, words: Tensor, is_selected: Tensor) -> Tensor:
    """() float32: the summed cross-entropy, in nats, of the original words at the selected positions.

    Args:
        logits: (batch, selected, vocabulary) float.
        words: (batch, selected) int64; the originals.
        is_selected: (batch, selected) bool.
    """
    losses = functional.cross_entropy(logits.float().flatten(0, 1), words.flatten(), reduction="none")
    return (losses * is_selected.flatten()).sum()


def replaced_token_loss(logits: Tensor, is_replaced: Tensor, is_scored: Tensor | None) -> Tensor:
    """() float32: the summed binary cross-entropy of "was this token replaced?", in nats.

    Args:
        logits: (batch, length) float; before the sigmoid, positive means replaced.
        is_replaced: (batch, length) bool; False where the generator drew the original token.
        is_scored: (batch, length) bool, True at tokens that count; None where all do.
    Source: Clark et al. 2020, section 2.
    """
    losses = functional.binary_cross_entropy_with_logits(logits.float(), is_replaced.float(), reduction="none")
    return losses.sum() if is_scored is None else (losses * is_scored).sum()


def copied_word_losses(word_logits: Tensor, replaced_logits: Tensor, seen: Tensor, originals: Tensor) -> Tensor:
    """(...) float32: cross-entropy, in nats, of the original word at tokens that may simply be copied.

    With the chance that detection gives a token of being original it is copied; otherwise the word comes from the
    correction head. Detection gets no gradient from here.

    Args:
        word_logits: (..., vocabulary) float; of the correction head.
        replaced_logits: (...) float; of the detection head.
        seen: (...) int64; the tokens shown.
        originals: (...) int64; the words that belong there.
    Source: Meng et al. 2021, COCO-LM, section 3.1, equation 2.
    """
    surprise = functional.cross_entropy(word_logits.float().flatten(0, -2), originals.flatten(), reduction="none")
    logits = replaced_logits.detach().float()
    from_head = functional.logsigmoid(logits) - surprise.view_as(originals)
    from_copy = torch.where(seen == originals, functional.logsigmoid(-logits), -torch.inf)
    return -torch.logaddexp(from_head, from_copy)


def electric_losses(energies: Tensor, log_noise: Tensor, is_noise: Tensor) -> Tensor:
    """(...) float32: cross-entropy, in nats, of telling text from as much noise (noise-contrastive estimation).

    Args:
        energies: (...) float; minus the unnormalised log-probability of each token.
        log_noise: (...) float32; log-probability, in nats, that the generator draws this token here.
        is_noise: (...) bool; True where the token was drawn, even where it happens to be the original.
    Source: Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models", section 2.2; here half of the
        selected positions keep their token, so that text and noise are as many, and no others are scored.
    """
    return functional.binary_cross_entropy_with_logits(energies.float() + log_noise, is_noise.float(), reduction="none")
