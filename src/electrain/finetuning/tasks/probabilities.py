"""Probabilities from logits, in NumPy."""

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., classes) float32, which sum to 1."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    shares: NDArray[np.float32] = weights / weights.sum(-1, keepdims=True)
    return shares


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(...) float32 in [0, 1]."""
    # Neither side overflows: the exponent is never positive.
    small = np.exp(-np.abs(logits))
    chances: NDArray[np.float32] = np.where(logits >= 0, 1, small) / (1 + small)
    return chances.astype(np.float32, copy=False)
