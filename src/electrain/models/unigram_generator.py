"""A generator without a network, which draws words by their frequency."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class UnigramGenerator(nn.Module):
    """Draws words by their frequency in the corpus; with clusters, from the frequency class of the original word.

    The classes divide the words in order of frequency, so that each class has about the same number of occurrences.
    Source: Di Liello et al. 2022, arXiv 2210.13536 (random token substitution; clusters of alike tokens).
    """

    def __init__(self, counts: NDArray[np.int64], clusters: int, temperature: float, special_ids: list[int]) -> None:
        """Args: counts: (vocabulary,) occurrences, which are raised to the power 1 / temperature."""
        super().__init__()
        weights = counts.astype(np.float64)
        weights[special_ids] = 0.0
        weights = np.where(weights > 0, weights ** (1 / temperature), 0.0)
        share = weights / max(weights.sum(), 1.0)
        order = np.argsort(-share, kind="stable")
        cumulative = share[order].cumsum()
        # A word belongs to the class in which the middle of its own share lies.
        middle = cumulative - share[order] / 2
        class_of_rank = np.minimum((middle * clusters).astype(np.int64), clusters - 1)
        first = np.searchsorted(class_of_rank, class_of_rank, side="left")
        last = np.searchsorted(class_of_rank, class_of_rank, side="right") - 1
        rank = np.argsort(order, kind="stable")
        low = np.where(first > 0, cumulative[first - 1], 0.0)
        self.last_rank = int((share > 0).sum()) - 1
        # A class is an interval of the cumulative frequencies. One uniform number, scaled to the interval of the
        # original's class, then finds a word of that class by bisection.
        self.order = nn.Buffer(torch.from_numpy(order), persistent=False)
        self.cumulative = nn.Buffer(torch.from_numpy(cumulative), persistent=False)
        self.low = nn.Buffer(torch.from_numpy(low[rank]), persistent=False)
        self.high = nn.Buffer(torch.from_numpy(cumulative[last][rank]), persistent=False)
        self.share = nn.Buffer(torch.from_numpy(share), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "UnigramGenerator":
        """Moves the tables, but to a device without float64: frequencies in float32 would never draw a rare word."""
        try:
            fn(self.low)
        except TypeError:  # of Apple's GPUs, for which words are drawn on the CPU
            return self
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.no_grad()
    def draw(self, originals: Tensor, uniforms: Tensor) -> Tensor:
        """(...) int64: a word for each of the (...) original words, by (...) uniform numbers in [0, 1)."""
        device, originals = originals.device, originals.to(self.low.device)
        low, high = self.low[originals], self.high[originals]
        target = low + uniforms.to(self.low.device).double() * (high - low)
        ranks = torch.searchsorted(self.cumulative, target, right=True)
        return self.order[ranks.clamp(max=self.last_rank)].to(device)

    @torch.no_grad()
    def log_chance(self, originals: Tensor, words: Tensor) -> Tensor:
        """(...) float32: the log-probability, in nats, of drawing `words` in place of `originals`."""
        device = originals.device
        originals, words = originals.to(self.low.device), words.to(self.low.device)
        mass = self.high[originals] - self.low[originals]
        is_inside = (self.low[words] == self.low[originals]) & (self.share[words] > 0)
        return torch.where(is_inside, (self.share[words] / mass).log(), -torch.inf).float().to(device)
