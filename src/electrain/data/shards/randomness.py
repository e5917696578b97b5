"""Random numbers as a function of (seed, purpose, row): no generator state, so resuming needs none.

Rows are numbered through the whole run, so a row's number stands for the step and the place in the step. Every value is
a hash of its key and its own index, as in counter-based generators (Salmon et al. 2011, "Parallel random numbers: as
easy as 1, 2, 3"). A generator with a state would have to be saved, restored and split among processes, and one draw
more or less would change all later ones. Here any process can draw any part of any batch in any order.
See docs/decisions/0001-randomness-is-a-function-of-the-row.md.

The hash is written twice. Of NumPy's numbers (`row_hashes`) there are few, and they decide which rows are read. Those
of PyTorch fill whole rows, and are computed wherever the rows are. Both give the same bits.
"""

import torch
from torch import Tensor

from electrain.data.shards.row_hashes import FIRST, GOLDEN, SECOND, key_of


def _mix_in_place(values: Tensor) -> Tensor:
    # PyTorch has no arithmetic of unsigned numbers on every device. Products of int64 wrap to the same bits; a shift
    # must clear the copies of the sign that it moves in.
    values += _signed(GOLDEN)
    values ^= _shifted(values, 30)
    values *= _signed(FIRST)
    values ^= _shifted(values, 27)
    values *= _signed(SECOND)
    values ^= _shifted(values, 31)
    return values


def _shifted(values: Tensor, bits: int) -> Tensor:
    return (values >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def row_bits(seed: int, purpose: str, numbers: Tensor, count: int) -> Tensor:
    """(rows, count) int64: the bits of `row_hashes.random_bits`, on the device of the numbers.

    Args: numbers: (rows,) int64.
    """
    per_number = _mix_in_place(numbers ^ _signed(key_of(seed, purpose)))
    steps = torch.arange(1, count + 1, device=numbers.device) * _signed(GOLDEN)
    return _mix_in_place(per_number[:, None] + steps)


def row_uniforms(seed: int, purpose: str, numbers: Tensor, count: int) -> Tensor:
    """(rows, count) float64 in [0, 1): those of `row_hashes.random_uniforms`, on the device of the numbers."""
    return _shifted(row_bits(seed, purpose, numbers, count), 11).to(torch.float64).mul_(2.0**-53)


def below_one(uniforms: Tensor) -> Tensor:
    """The numbers in [0, 1) as float32.

    Rounding makes some of them 1, which a search in cumulated probabilities would answer with a word beyond the last
    one; those become the largest float32 below 1.
    """
    return uniforms.to(torch.float32).clamp_(max=1 - 2.0**-24)


def first_in_order(bits: Tensor, candidates: Tensor, count: int) -> Tensor:
    """(rows, count) int64: the places of the candidates with the smallest hashes, in order; then those of the others.

    Sorting random keys draws without replacement: any subset is as likely as any other. Of equal keys the first comes
    first, so that what shares a key stays together and in order.

    Args:
        bits: (rows, length) int64; from `row_bits`. Their upper 53 bits count, as those of `row_uniforms` do.
        candidates: (rows, length) bool.
    """
    length = bits.shape[1]
    if length > 1 << 10:
        keys = torch.where(candidates, _shifted(bits, 11), 1 << 53)
        return keys.sort(dim=1, stable=True).indices[:, :count]
    # A key of 53 bits and the place below it fill a number that is never drawn twice. Selecting the smallest of those
    # is many times faster than sorting all. The sign makes candidates negative: they come before all others.
    places = torch.arange(length, device=bits.device)
    keys = (bits >> 1).bitwise_or_(_signed(1 << 63)).bitwise_and_(-1 << 10).bitwise_or_(places)
    smallest = torch.where(candidates, keys, places).topk(count, dim=1, largest=False)
    return smallest.values.bitwise_and_((1 << 10) - 1)
