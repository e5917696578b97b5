"""The adversarial game: how a generator is trained to mislead the discriminator, and what the game is worth.

The discriminator gives each token the chance D that it is original. Its cross-entropy at a token, -log D where the
token is original and -log(1 - D) where it was replaced, is what the generator is rewarded with.
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
        is_replaced: (...) bool.
    """
    return functional.binary_cross_entropy_with_logits(
        replaced_logits.detach().float(), is_replaced.float(), reduction="none"
    )


def policy_gradient_losses(word_logits: Tensor, words: Tensor, reward: Tensor, baseline: Tensor) -> Tensor:
    """(...) float32: a loss whose gradient is an unbiased estimate of minus that of the expected reward.

    Args:
        word_logits: (..., vocabulary) float; as the words were drawn from, divided by the temperature.
        words: (...) int64; drawn from softmax(word_logits).
        reward: (...) float32; of each word drawn.
        baseline: (...) float32; anything that does not depend on the word drawn.
    Source: Williams 1992 (REINFORCE); Clark et al. 2020, appendix F, rewards each word with its own token's loss.
    """
    surprise = functional.cross_entropy(word_logits.float().flatten(0, -2), words.flatten(), reduction="none")
    return (reward - baseline).detach() * surprise.view_as(words)


def gumbel_noise(uniforms: Tensor, vocabulary_size: int) -> Tensor:
    """(batch, selected, vocabulary) float32: Gumbel noise, a function of one uniform number per position.

    The bits of each number, its slot and the word are hashed (the finalizer of MurmurHash3), so that noise does not
    depend on the device, on the other rows of the batch, or on what was drawn before.

    Args:
        uniforms: (batch, selected) float32 in [0, 1).
    """
    slots = torch.arange(uniforms.shape[1], device=uniforms.device)
    key = (uniforms.view(torch.int32).to(torch.int64) + 0x9E3779B1 * (slots + 1)).unsqueeze(-1)
    mixed = (_mixed(key) + 0x85EBCA6B * torch.arange(vocabulary_size, device=uniforms.device)) & _WORD_BITS
    # 23 bits and a half: with one bit more, float32 rounds the largest to 1, whose noise is infinite.
    chance = ((_mixed(mixed) >> 9).float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(chance))


def _mixed(bits: Tensor) -> Tensor:
    bits = bits & _WORD_BITS
    bits = ((bits ^ (bits >> 16)) * 0x85EBCA6B) & _WORD_BITS
    bits = ((bits ^ (bits >> 13)) * 0xC2B2AE35) & _WORD_BITS
    return bits ^ (bits >> 16)


def relaxed_words(word_logits: Tensor, noise: Tensor, gumbel_temperature: float) -> tuple[Tensor, Tensor]:
    """A word for each position, and the distribution that stands for it in the backward pass.

    Args:
        word_logits: (..., vocabulary) float; divided by the sampling temperature.
        noise: (..., vocabulary) float32; from `gumbel_noise`.
        gumbel_temperature: towards 0 the distribution becomes the word drawn.
    Returns: (...) int64: drawn from softmax(word_logits); (..., vocabulary) float32, with gradient.
    Source: Jang et al. 2017, sections 2.1 and 2.2 (straight-through).
    """
    perturbed = word_logits.float() + noise
    return perturbed.detach().argmax(-1), torch.softmax(perturbed / gumbel_temperature, dim=-1)


def reversed_straight_through(relaxed: Tensor, table: Tensor, scale: Tensor) -> Tensor:
    """(..., embedding) float32: zeros, whose backward pass gives the relaxed words minus `scale` times the gradient.

    Added to the embeddings of the words drawn, it lets one backward pass minimise the discriminator's loss over the
    discriminator and maximise it over the generator; the table gets no gradient from it. `scale` is a () float32.
    """
    embedded = -scale * (relaxed @ table.detach().to(relaxed.dtype))
    return embedded - embedded.detach()


def mixed_logits(word_logits: list[Tensor], weight_logits: Tensor) -> Tensor:
    """(batch, selected, vocabulary) float32: log-probabilities of a mixture, with gradient for its weights only.

    Args:
        word_logits: for each depth (batch, selected, vocabulary) float.
        weight_logits: (batch, selected, depths) float; the weights are their softmax.
    Source: Meng et al. 2022, AMOS, section 3.2.
    """
    parts = torch.stack([torch.log_softmax(logits.detach().float(), -1) for logits in word_logits], -2)
    return torch.logsumexp(parts + torch.log_softmax(weight_logits.float(), -1).unsqueeze(-1), -2)
