"""The losses of the generator and of each head of the discriminator."""

from typing import Any

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
    rows, originals = logits.float().flatten(0, 1), words.flatten()
    if torch.compiler.is_compiling() and rows.device.type == "cpu":
        losses: Tensor = _Surprise.apply(rows, originals)  # type: ignore[no-untyped-call]
    else:
        losses = functional.cross_entropy(rows, originals, reduction="none")
    return (losses * is_selected.flatten()).sum()


class _Surprise(torch.autograd.Function):
    """`functional.cross_entropy` without its mean, with a gradient that takes half as long, compiled on a CPU.

    The other one compares the number of every word with the original's (docs/experiments.md). Not compiled, PyTorch's
    own kernels are faster; on a GPU it was not measured.
    """

    @staticmethod
    def forward(context: Any, logits: Tensor, words: Tensor) -> Tensor:
        """(rows,) float32, in nats, from (rows, vocabulary) float32 and (rows,) int64."""
        highest = logits.amax(-1, keepdim=True)
        normaliser = highest + (logits - highest).exp().sum(-1, keepdim=True).log()
        context.save_for_backward(logits, normaliser, words)
        return (normaliser - logits.gather(-1, words.unsqueeze(-1))).squeeze(-1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """(rows, vocabulary) float32: the gradient of the logits."""
        logits, normaliser, words = context.saved_tensors
        gradient = gradients[0].unsqueeze(-1)
        return ((logits - normaliser).exp() * gradient).scatter_add(-1, words.unsqueeze(-1), -gradient), None


@torch.no_grad()
def is_likeliest(logits: Tensor, words: Tensor) -> Tensor:
    """(...) bool: no word is likelier than this one.

    Args:
        logits: (..., vocabulary) float.
        words: (...) int64.
    """
    # `word_loss` looks for the largest logit too. Compiled on a CPU, both do so at once; `argmax`, or a comparison with
    # every logit, would go through all of them once more.
    return logits.gather(-1, words.unsqueeze(-1)).squeeze(-1) >= logits.amax(-1)


def replaced_token_loss(logits: Tensor, is_replaced: Tensor, is_scored: Tensor | None) -> Tensor:
    """() float32: the summed binary cross-entropy of "was this token replaced?", in nats.

    Args:
        logits: (batch, length) float; before the sigmoid, positive means replaced.
        is_replaced: (batch, length) bool; False where the generator drew the original token.
        is_scored: (batch, length) bool, True at tokens that count; None if all do.
    Source: Clark et al. 2020, section 2.
    """
    losses = functional.binary_cross_entropy_with_logits(logits.float(), is_replaced.float(), reduction="none")
    return losses.sum() if is_scored is None else (losses * is_scored).sum()


def copied_word_losses(word_logits: Tensor, replaced_logits: Tensor, seen: Tensor, originals: Tensor) -> Tensor:
    """(...) float32: cross-entropy, in nats, of the original word at tokens that may simply be copied.

    Args:
        word_logits: (..., vocabulary) float; of the correction head.
        replaced_logits: (...) float; of the detection head, which gets no gradient from here.
        seen: (...) int64; the tokens of the discriminator's input.
        originals: (...) int64; the words that belong there.
    Source: Meng et al. 2021, COCO-LM, section 3.1, equation 2.
    """
    # P(word) = P(original) [word is the one seen] + P(replaced) P(word | head). The copy spares the head from learning
    # the identity at the many tokens that were not replaced. The sum is taken in logarithms, where it cannot underflow.
    surprise = functional.cross_entropy(word_logits.float().flatten(0, -2), originals.flatten(), reduction="none")
    logits = replaced_logits.detach().float()
    from_head = functional.logsigmoid(logits) - surprise.view_as(originals)
    from_copy = torch.where(seen == originals, functional.logsigmoid(-logits), -torch.inf)
    return -torch.logaddexp(from_head, from_copy)


def electric_losses(energies: Tensor, log_noise: Tensor, is_noise: Tensor) -> Tensor:
    """(...) float32: cross-entropy, in nats, of telling text from an equal amount of noise.

    Args:
        energies: (...) float; minus the unnormalised log-probability of each token.
        log_noise: (...) float32; log-probability, in nats, that the generator draws this token here.
        is_noise: (...) bool; True if the token was drawn, even if it happens to be the original.
    Source: Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models", section 2.2. There all
        positions are scored; here only the selected ones, half of which keep their token.
    """
    # Noise-contrastive estimation: with as much text (p) as noise (q), the log odds that a token is noise are
    # log q - log p, which is the log-probability of the noise plus the energy. A drawn word that equals the original
    # still counts as noise, since q includes it.
    return functional.binary_cross_entropy_with_logits(energies.float() + log_noise, is_noise.float(), reduction="none")
