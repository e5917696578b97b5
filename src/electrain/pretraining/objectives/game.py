"""The adversarial game, in which a generator is trained to mislead the discriminator.

The discriminator gives each token a probability D of being original. Its cross-entropy at a token is -log D if the
token is original and -log(1 - D) if it was replaced. That cross-entropy is the generator's reward.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from electrain.foundation.configuration import require_at_least

_WORD_BITS = 0xFFFFFFFF


@dataclass(frozen=True)
class GameConfig:
    """Adversarial training of the generator. Not read when generator.training is likelihood.

    Attributes:
        likelihood_weight: Weight of the loss for restoring the original words, at least 0; 0 trains the generator by
            the game alone.
        adversarial_weight: Weight of the mean reward per selected token for misleading the discriminator, at least 0.
        gumbel_temperature: Trainings gumbel and mixture: temperature of the relaxed samples, at least 0.01.
        mixture_depths: Training mixture: numbers of the generator's layers after which words are proposed, ascending
            from 1; empty uses the last three layers.
    """

    likelihood_weight: float = 1.0
    adversarial_weight: float = 1.0
    gumbel_temperature: float = 0.5
    mixture_depths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_at_least("likelihood_weight", self.likelihood_weight, 0.0)
        require_at_least("adversarial_weight", self.adversarial_weight, 0.0)
        require_at_least("gumbel_temperature", self.gumbel_temperature, 0.01)
        if list(self.mixture_depths) != sorted(set(self.mixture_depths)) or any(d < 1 for d in self.mixture_depths):
            raise ValueError(
                f"mixture_depths = {list(self.mixture_depths)}: must be layer numbers from 1 on, ascending"
            )


def rewards(replaced_logits: Tensor, is_replaced: Tensor) -> Tensor:
    """(...) float32: the discriminator's cross-entropy at each token, in nats, without gradient.

    Args:
        replaced_logits: (...) float; positive means replaced.
        is_replaced: (...) bool; the labels.
    """
    return functional.binary_cross_entropy_with_logits(
        replaced_logits.detach().float(), is_replaced.float(), reduction="none"
    )


def policy_gradient_losses(word_logits: Tensor, words: Tensor, reward: Tensor, baseline: Tensor) -> Tensor:
    """(...) float32: a loss whose gradient is an unbiased estimate of minus the gradient of the expected reward.

    Args:
        word_logits: (..., vocabulary) float; divided by the sampling temperature.
        words: (...) int64; drawn from softmax(word_logits).
        reward: (...) float32; the reward of each drawn word.
        baseline: (...) float32; a prediction of the reward that does not depend on the drawn word.
    Source: Williams 1992 (REINFORCE); Clark et al. 2020, appendix F, rewards each word with its own token's loss.
    """
    # The gradient of a log-probability has mean 0 under its own distribution. Subtracting a number that does not depend
    # on the drawn word thus keeps the estimate unbiased, and a good prediction of the reward reduces its variance.
    surprise = functional.cross_entropy(word_logits.float().flatten(0, -2), words.flatten(), reduction="none")
    return (reward - baseline).detach() * surprise.view_as(words)


def gumbel_noise(uniforms: Tensor, vocabulary_size: int) -> Tensor:
    """(batch, selected, vocabulary) float32: Gumbel noise, a function of one uniform number per position.

    Args:
        uniforms: (batch, selected) float32 in [0, 1).
    """
    # The bits of the number, the slot and the word are hashed (with the finalizer of MurmurHash3) instead of drawn. The
    # noise then depends neither on the device, nor on the other rows, nor on earlier draws, so that resuming is exact.
    slots = torch.arange(uniforms.shape[1], device=uniforms.device)
    key = (uniforms.view(torch.int32).to(torch.int64) + 0x9E3779B1 * (slots + 1)).unsqueeze(-1)
    mixed = (_mixed(key) + 0x85EBCA6B * torch.arange(vocabulary_size, device=uniforms.device)) & _WORD_BITS
    # A chance of 0 or 1 would make the noise infinite. Adding a half excludes 0. With more than 23 bits, float32 would
    # round the largest chance to 1.
    chance = ((_mixed(mixed) >> 9).float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(chance))


def _mixed(bits: Tensor) -> Tensor:
    bits = bits & _WORD_BITS
    bits = ((bits ^ (bits >> 16)) * 0x85EBCA6B) & _WORD_BITS
    bits = ((bits ^ (bits >> 13)) * 0xC2B2AE35) & _WORD_BITS
    return bits ^ (bits >> 16)


def relaxed_words(word_logits: Tensor, noise: Tensor, gumbel_temperature: float) -> tuple[Tensor, Tensor]:
    """A word for each position, and the distribution that stands in for it in the backward pass.

    Args:
        word_logits: (..., vocabulary) float; divided by the sampling temperature.
        noise: (..., vocabulary) float32; from `gumbel_noise`.
        gumbel_temperature: the lower it is, the closer the distribution is to the drawn word.
    Returns: (...) int64, drawn from softmax(word_logits); and (..., vocabulary) float32, with gradient.
    Source: Jang et al. 2017, sections 2.1 and 2.2 (straight-through).
    """
    perturbed = word_logits.float() + noise
    return perturbed.detach().argmax(-1), torch.softmax(perturbed / gumbel_temperature, dim=-1)


def reversed_straight_through(relaxed: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    """(..., embedding) float32: zeros whose backward pass gives the relaxed words -`scale` times the gradient.

    Args:
        relaxed: (..., vocabulary) float32; from `relaxed_words`.
        table: (vocabulary, embedding) float; the discriminator's word embeddings, which get no gradient from here.
        scale: () float32.
    """
    # x - x.detach() is 0 with the gradient of x. Added to the embeddings of the drawn words, it changes nothing in the
    # forward pass: the discriminator sees real words. In the backward pass the relaxed words get the gradient instead,
    # with its sign reversed, so that one pass minimises the loss over the discriminator and maximises it over the
    # generator.
    embedded = -scale * (relaxed @ table.detach().to(relaxed.dtype))
    return embedded - embedded.detach()


def mixed_logits(word_logits: list[Tensor], weight_logits: Tensor) -> Tensor:
    """(batch, selected, vocabulary) float32: log-probabilities of a mixture, with gradient for its weights only.

    Args:
        word_logits: (batch, selected, vocabulary) float, one for each depth.
        weight_logits: (batch, selected, depths) float; their softmax gives the weights.
    Source: Meng et al. 2022, AMOS, section 3.2.
    """
    # Each depth is trained to predict words. If the game changed it too, the mixture would lose its sensible proposals.
    parts = torch.stack([torch.log_softmax(logits.detach().float(), -1) for logits in word_logits], -2)
    return torch.logsumexp(parts + torch.log_softmax(weight_logits.float(), -1).unsqueeze(-1), -2)
